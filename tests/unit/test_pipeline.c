/* The pipeline over a store that a test holds in its hands: what reaches the store, in which
 * order, and what the ledger says. The clocks stand still; each turn is taken by hand. */
#include "gateway/base/clock.h"
#include "gateway/pipeline/state.h"
#include "gateway/store/store.h"
#include "tests/unit/store_clock_fake.inc"
#include "tests/unit/store_ledger_fake.inc"
#include "tests/unit/store_salvage_fake.inc"

#include <errno.h>
#include <math.h>
#include <string.h>
/* clang-format off */
#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>
/* clang-format on */

enum { NAMES_MAX = 400, SCANS_MAX = 4000, DEVICES_MAX = 8, NOTES_MAX = 8 };

/* 2026-01-31T10:00:00Z */
#define TEN ((int64_t)1769853600000)

struct store {
    char *device_names[DEVICES_MAX];
    char *point_names[DEVICES_MAX][NAMES_MAX];
    struct scan *scans[SCANS_MAX];
    size_t scan_count, committed;
    uint64_t counts[DEVICES_MAX][LEDGER_COUNTS];
    struct {
        char name[80];
        int64_t value;
    } notes[NOTES_MAX];
    size_t commits, pending;
    int64_t hold_ms;
    int append_error, commit_error;
};

int store_device(struct store *s, const char *name, const char *tags_json, uint32_t *ret_id)
{
    (void)tags_json;
    for (uint32_t i = 1; i < DEVICES_MAX; i++) {
        if (s->device_names[i] == NULL) {
            s->device_names[i] = strdup(name);
        }
        if (strcmp(s->device_names[i], name) == 0) {
            *ret_id = i;
            return 0;
        }
    }
    return -ENOBUFS;
}

int store_point(struct store *s, uint32_t device, const char *name, const char *unit,
                uint16_t *ret_id)
{
    (void)unit;
    for (uint16_t i = 1; i < NAMES_MAX; i++) {
        if (s->point_names[device][i] == NULL) {
            s->point_names[device][i] = strdup(name);
        }
        if (strcmp(s->point_names[device][i], name) == 0) {
            *ret_id = i;
            return 0;
        }
    }
    return -ENOBUFS;
}

uint64_t store_last_seq(struct store *s, enum stream stream, uint32_t device)
{
    uint64_t seq = 0;
    for (size_t i = 0; i < s->scan_count; i++) {
        if (s->scans[i]->device == device && s->scans[i]->stream == stream) {
            seq = s->scans[i]->seq;
        }
    }
    return seq;
}

int store_append(struct store *s, const struct scan *scan)
{
    if (s->append_error < 0) {
        return s->append_error;
    }
    assert_true(s->scan_count < SCANS_MAX);
    assert_true(scan->seq > store_last_seq(s, scan->stream, scan->device));
    struct scan *copy = malloc(scan_size(scan));
    assert_non_null(copy);
    memcpy(copy, scan, scan_size(scan));
    s->scans[s->scan_count++] = copy;
    s->pending += scan_size(scan);
    s->counts[scan->device][scan->stream == STREAM_RAW ? LEDGER_STORED : LEDGER_DERIVED] +=
        scan->count;
    return 0;
}

void store_count(struct store *s, uint32_t device, enum ledger_count count, uint64_t readings)
{
    s->counts[device][count] += readings;
}

int store_commit(struct store *s)
{
    if (s->commit_error < 0) {
        return s->commit_error;
    }
    s->commits++;
    s->committed = s->scan_count;
    s->pending = 0;
    return 0;
}

size_t store_pending_bytes(const struct store *s)
{
    return s->pending;
}

void store_set_note(struct store *s, const char *name, int64_t value)
{
    for (size_t i = 0; i < NOTES_MAX; i++) {
        if (s->notes[i].name[0] == '\0' || strcmp(s->notes[i].name, name) == 0) {
            snprintf(s->notes[i].name, sizeof s->notes[i].name, "%s", name);
            s->notes[i].value = value;
            return;
        }
    }
    fail_msg("too many notes");
}

bool store_note(struct store *s, const char *name, int64_t *ret_value)
{
    for (size_t i = 0; i < NOTES_MAX; i++) {
        if (strcmp(s->notes[i].name, name) == 0) {
            *ret_value = s->notes[i].value;
            return true;
        }
    }
    return false;
}

void store_hold_since(struct store *s, int64_t time_ms)
{
    s->hold_ms = time_ms;
}

int store_history(struct store *s, enum stream stream, uint32_t device, int64_t from_ms,
                  int64_t to_ms, int (*fn)(void *user, const struct scan *scan), void *user)
{
    int r = 0;
    for (size_t i = 0; r == 0 && i < s->committed; i++) {
        const struct scan *scan = s->scans[i];
        bool wanted = scan->stream == stream && (device == 0 || scan->device == device) &&
                      scan->time_ms >= from_ms && scan->time_ms < to_ms;
        r = wanted ? fn(user, scan) : 0;
    }
    return r;
}

int store_ledger(struct store *s, int uplink, struct ledger_device **ret_devices, size_t *ret_count)
{
    assert_true(uplink < 0);
    struct ledger_device *devices = calloc(DEVICES_MAX, sizeof *devices);
    assert_non_null(devices);
    size_t count = 0;
    for (uint32_t i = 1; i < DEVICES_MAX && s->device_names[i] != NULL; i++) {
        devices[count++] = (struct ledger_device){.device = i, .name = s->device_names[i]};
    }
    *ret_devices = devices;
    *ret_count = count;
    return 0;
}

enum { POINT_SPEED, POINT_DIRECTION, POINT_STATE, POINT_POWER, POINT_COUNT };

struct site {
    struct config config;
    struct config_gateway gateway;
    struct config_device device;
    struct config_point points[POINT_COUNT];
    struct config_aggregate aggregate;
    struct store store;
    struct pipeline *pipeline;
    struct device *object;
};

static const char *const all_points[] = {"*"};

static struct config_point make_point(const char *name, const char *scale)
{
    struct config_point point = {.name = name, .unit = "", .min = -INFINITY, .max = INFINITY};
    assert_int_equal(decimal_parse(scale, &point.scale), 0);
    return point;
}

static void make_config(struct site *site)
{
    site->points[POINT_SPEED] = make_point("speed", "0.01");
    site->points[POINT_DIRECTION] = make_point("direction", "0.1");
    site->points[POINT_DIRECTION].circular = true;
    site->points[POINT_STATE] = make_point("state", "1");
    site->points[POINT_STATE].on_change = true;
    site->points[POINT_POWER] = make_point("power", "0.1");
    site->points[POINT_POWER].deadband = 5;
    site->points[POINT_POWER].max = 3000;
    site->gateway = (struct config_gateway){.name = "gw"};
    site->device = (struct config_device){
        .name = "t01", .points = {.list = site->points, .count = POINT_COUNT}, .timeout_ms = 500};
    site->aggregate = (struct config_aggregate){.name = "scada",
                                                .window_ms = 600000,
                                                .points = {.items = all_points, .count = 1},
                                                .functions = FUNCTION_MEAN | FUNCTION_MIN |
                                                             FUNCTION_MAX | FUNCTION_COUNT,
                                                .fingerprint = 1};
    site->config = (struct config){.gateway = &site->gateway,
                                   .devices = &site->device,
                                   .device_count = 1,
                                   .aggregates = &site->aggregate,
                                   .aggregate_count = 1};
}

static struct device *add_device(struct site *site, const struct config_device *config)
{
    struct device *device;
    uint32_t id = 0;
    uint64_t seq[STREAM_COUNT];
    assert_int_equal(store_device(&site->store, config->name, "", &id), 0);
    for (enum stream s = 0; s < STREAM_COUNT; s++) {
        seq[s] = store_last_seq(&site->store, s, id);
    }
    assert_int_equal(device_create(&site->config, config, id, seq, &device), 0);
    assert_int_equal(pipeline_add_device(site->pipeline, device), 0);
    return device;
}

static void start(struct site *site)
{
    assert_int_equal(pipeline_create(&site->store, &site->config, &site->pipeline), 0);
    pipeline_restore(site->pipeline);
    site->object = add_device(site, &site->device);
    pipeline_turn(site->pipeline);
}

/* As a crash does: what was not committed is gone. */
static void crash(struct site *site)
{
    device_unref(site->object);
    pipeline_destroy(site->pipeline);
    while (site->store.scan_count > site->store.committed) {
        free(site->store.scans[--site->store.scan_count]);
    }
}

static int setup(void **state)
{
    struct site *site = calloc(1, sizeof *site);
    clock_hold(TEN, 1000000000);
    make_config(site);
    start(site);
    *state = site;
    return 0;
}

static int teardown(void **state)
{
    struct site *site = *state;
    device_unref(site->object);
    pipeline_destroy(site->pipeline);
    for (size_t i = 0; i < site->store.scan_count; i++) {
        free(site->store.scans[i]);
    }
    for (size_t d = 0; d < DEVICES_MAX; d++) {
        free(site->store.device_names[d]);
        for (size_t i = 0; i < NAMES_MAX; i++) {
            free(site->store.point_names[d][i]);
        }
    }
    free(site);
    clock_release();
    return 0;
}

/* Registers as a driver hands them over: all four points, unscaled. */
static int submit(struct site *site, int64_t time_ms, const int64_t raw[POINT_COUNT])
{
    struct {
        struct scan scan;
        struct reading readings[POINT_COUNT];
    } s = {.scan = {.time_ms = time_ms, .count = POINT_COUNT}};
    for (uint16_t i = 0; i < POINT_COUNT; i++) {
        s.scan.readings[i] = (struct reading){.point = i, .kind = VALUE_DECIMAL, .integer = raw[i]};
    }
    return scan_submit(site->object, &s.scan);
}

static void next_second(struct site *site)
{
    clock_advance_ms(1000);
    pipeline_turn(site->pipeline);
}

static const struct scan *last_scan(const struct site *site, enum stream stream)
{
    for (size_t i = site->store.scan_count; i-- > 0;) {
        if (site->store.scans[i]->stream == stream) {
            return site->store.scans[i];
        }
    }
    return NULL;
}

static size_t scans_of(const struct site *site, enum stream stream)
{
    size_t count = 0;
    for (size_t i = 0; i < site->store.scan_count; i++) {
        count += site->store.scans[i]->stream == stream ? 1 : 0;
    }
    return count;
}

/* The reading of that name, NULL when the scan has none. */
static const struct reading *find(const struct site *site, const struct scan *scan,
                                  const char *name)
{
    for (size_t i = 0; i < scan->count; i++) {
        if (strcmp(site->store.point_names[scan->device][scan->readings[i].point], name) == 0) {
            return &scan->readings[i];
        }
    }
    return NULL;
}

static void expect_json(const struct site *site, const struct scan *scan, const char *name,
                        const char *json)
{
    const struct reading *reading = find(site, scan, name);
    assert_non_null(reading);
    auto_buffer struct buffer text = {0};
    reading_write_json(&text, scan, reading);
    assert_string_equal(buffer_text(&text), json);
}

static void expect_ledger_adds_up(const struct site *site)
{
    const uint64_t *c = site->store.counts[1];
    assert_int_equal(c[LEDGER_READ], c[LEDGER_STORED] + c[LEDGER_SUPPRESSED] +
                                         c[LEDGER_DROPPED_OVERRUN] + c[LEDGER_DROPPED_DISK]);
}

static void test_scales_and_stores(void **state)
{
    struct site *site = *state;
    assert_int_equal(submit(site, TEN + 100, (int64_t[]){842, 2700, 3, 13125}), 0);
    assert_int_equal(scans_of(site, STREAM_RAW), 0);
    next_second(site);
    const struct scan *scan = last_scan(site, STREAM_RAW);
    assert_int_equal(scan->seq, 1);
    assert_int_equal(scan->time_ms, TEN + 100);
    expect_json(site, scan, "speed", "8.42");
    expect_json(site, scan, "direction", "270");
    expect_json(site, scan, "power", "1312.5");
    assert_int_equal(site->store.committed, 1);
    struct reading latest[POINT_COUNT];
    int64_t times[POINT_COUNT];
    assert_int_equal(pipeline_latest(site->pipeline, site->object, latest, times), POINT_COUNT);
    assert_int_equal(latest[POINT_SPEED].integer, 842);
    assert_int_equal(latest[POINT_SPEED].exponent, -2);
    assert_int_equal(times[0], TEN + 100);
    expect_ledger_adds_up(site);
}

static void test_thins_what_is_stored_not_what_is_aggregated(void **state)
{
    struct site *site = *state;
    submit(site, TEN, (int64_t[]){100, 0, 3, 10000});
    submit(site, TEN + 1000, (int64_t[]){100, 0, 3, 10050}); /* 5.0 more: within the deadband */
    submit(site, TEN + 2000, (int64_t[]){100, 0, 4, 10051}); /* 5.1 more than what was stored */
    submit(site, TEN + 3000, (int64_t[]){100, 0, 4, 40000}); /* out of range: a changed quality */
    next_second(site);
    size_t counts[] = {4, 2, 4, 3};
    for (size_t i = 0; i < 4; i++) {
        assert_int_equal(site->store.scans[i]->seq, i + 1);
        assert_int_equal(site->store.scans[i]->count, counts[i]);
    }
    const struct reading *power = find(site, site->store.scans[3], "power");
    assert_int_equal(power->quality, QUALITY_BAD_RANGE);
    assert_int_equal(power->kind, VALUE_NULL);
    assert_int_equal(site->store.counts[1][LEDGER_SUPPRESSED], 3);
    expect_ledger_adds_up(site);
    clock_advance_ms(602000);
    pipeline_turn(site->pipeline);
    const struct scan *result = last_scan(site, STREAM_AGGREGATE);
    expect_json(site, result, "power_count", "3");
    expect_json(site, result, "power_max", "1005.1");
    expect_json(site, result, "state_count", "4");
}

static void test_window_closes_by_a_later_reading(void **state)
{
    struct site *site = *state;
    submit(site, TEN + 1000, (int64_t[]){100, 3500, 0, 0});
    submit(site, TEN + 2000, (int64_t[]){200, 100, 0, 0});
    submit(site, TEN + 600000, (int64_t[]){900, 900, 0, 0});
    clock_advance_ms(600000);
    pipeline_turn(site->pipeline);
    const struct scan *result = last_scan(site, STREAM_AGGREGATE);
    assert_non_null(result);
    assert_int_equal(result->time_ms, TEN);
    assert_int_equal(result->window_s, 600);
    assert_int_equal(result->seq, 1);
    expect_json(site, result, "speed_mean", "1.5");
    expect_json(site, result, "speed_min", "1");
    expect_json(site, result, "speed_max", "2");
    expect_json(site, result, "speed_count", "2");
    expect_json(site, result, "direction_mean", "0");
    assert_null(find(site, result, "direction_min"));
    /* Older than the open window: stored, counted, in no window. */
    submit(site, TEN + 3000, (int64_t[]){500, 0, 0, 0});
    next_second(site);
    assert_int_equal(last_scan(site, STREAM_RAW)->time_ms, TEN + 3000);
    struct pipeline_stats stats;
    pipeline_stats(site->pipeline, &stats);
    assert_int_equal(stats.late, POINT_COUNT);
    assert_int_equal(stats.windows_closed, 1);
    int64_t closed_ms = 0;
    assert_true(store_note(&site->store, "closed_until.scada", &closed_ms));
    assert_int_equal(closed_ms, TEN + 600000);
    assert_int_equal(site->store.hold_ms, TEN + 600000);
}

static void test_the_ledger_is_an_event_once_a_day(void **state)
{
    struct site *site = *state;
    size_t before = site->store.scan_count;
    for (unsigned hour = 0; hour < 48; hour++) {
        clock_advance_ms(3600000);
        pipeline_turn(site->pipeline);
    }
    size_t events = 0;
    for (size_t i = before; i < site->store.scan_count; i++) {
        const struct scan *scan = site->store.scans[i];
        if (scan->stream == STREAM_EVENT) {
            events++;
            assert_memory_equal(scan_text(scan, &scan->readings[0]), "ledger", 6);
            assert_memory_equal(scan_text(scan, &scan->readings[1]), "read 4711", 9);
        }
    }
    assert_int_equal(events, 2);
}

static void test_window_closes_by_the_clock_and_says_zero(void **state)
{
    struct site *site = *state;
    clock_advance_ms(600000 + WINDOW_GRACE_MS - 1);
    pipeline_turn(site->pipeline);
    assert_null(last_scan(site, STREAM_AGGREGATE));
    next_second(site);
    const struct scan *result = last_scan(site, STREAM_AGGREGATE);
    assert_non_null(result);
    assert_int_equal(result->time_ms, TEN);
    expect_json(site, result, "speed_count", "0");
    assert_null(find(site, result, "speed_mean"));
}

static void test_clock_set_back_closes_short(void **state)
{
    struct site *site = *state;
    submit(site, TEN + 1000, (int64_t[]){100, 0, 0, 0});
    next_second(site);
    clock_hold(TEN - 1800000, clock_mono_ns() + 1000000000); /* half an hour back */
    submit(site, TEN - 1800000, (int64_t[]){700, 0, 0, 0});
    next_second(site);
    const struct scan *result = last_scan(site, STREAM_AGGREGATE);
    assert_int_equal(result->time_ms, TEN);
    expect_json(site, result, "speed_count", "1");
    const struct scan *event = last_scan(site, STREAM_EVENT);
    expect_json(site, event, "event", "\"clock-step\"");
    assert_string_equal(site->store.device_names[event->device], "gw");
    clock_advance_ms(602000);
    pipeline_turn(site->pipeline);
    result = last_scan(site, STREAM_AGGREGATE);
    assert_int_equal(result->time_ms, TEN - 1800000);
    expect_json(site, result, "speed_max", "7");
}

static void test_full_queue_shows_as_a_gap_and_in_the_ledger(void **state)
{
    struct site *site = *state;
    uint64_t refused = 0, sent = 0;
    while (refused < 3) {
        int r = submit(site, TEN + 1000, (int64_t[]){1, 1, 1, 1});
        assert_true(r == 0 || r == -ENOBUFS);
        refused += r < 0 ? 1 : 0;
        sent++;
    }
    assert_int_equal(sent, PIPELINE_QUEUE_READINGS / POINT_COUNT + 3);
    assert_false(scan_has_room(site->object, 1));
    /* Too many for the store of this test: let it refuse them, the counts are what matters. */
    site->store.append_error = -ENOSPC;
    next_second(site);
    site->store.append_error = 0;
    submit(site, TEN + 2000, (int64_t[]){1, 1, 1, 1});
    next_second(site);
    assert_int_equal(last_scan(site, STREAM_RAW)->seq, sent + 1);
    const uint64_t *c = site->store.counts[1];
    assert_int_equal(c[LEDGER_READ], (sent + 1) * POINT_COUNT);
    assert_int_equal(c[LEDGER_DROPPED_OVERRUN], 3 * POINT_COUNT);
    expect_ledger_adds_up(site);
    struct pipeline_stats stats;
    pipeline_stats(site->pipeline, &stats);
    assert_int_equal(stats.overruns, 3 * POINT_COUNT);
    assert_int_equal(stats.queue_peak, PIPELINE_QUEUE_READINGS);
    assert_int_equal(stats.queue_readings, 0);
}

static void note_error(void *user, int error)
{
    *(int *)user = error;
}

static int push(struct site *site, int *result)
{
    struct {
        struct scan scan;
        struct reading reading;
    } s = {.scan = {.count = 1}, .reading = {.kind = VALUE_DECIMAL, .integer = 5}};
    *result = 1;
    return scan_submit_pushed(site->object, &s.scan, note_error, result);
}

static void test_push_is_told_after_the_commit(void **state)
{
    struct site *site = *state;
    next_second(site);
    int first, second;
    assert_int_equal(push(site, &first), 0);
    assert_int_equal(push(site, &second), 0);
    pipeline_turn(site->pipeline); /* stored, but the commit is not due */
    assert_int_equal(first, 1);
    size_t commits = site->store.commits;
    next_second(site);
    assert_int_equal(site->store.commits, commits + 1);
    assert_int_equal(first, 0);
    assert_int_equal(second, 0);
    site->store.append_error = -ENOSPC;
    assert_int_equal(push(site, &first), 0);
    pipeline_turn(site->pipeline);
    assert_int_equal(first, -ENOSPC);
    site->store.append_error = 0;
    site->store.commit_error = -EIO;
    assert_int_equal(push(site, &second), 0);
    next_second(site);
    assert_int_equal(second, -EIO);
    assert_int_equal(pipeline_error(site->pipeline), -EIO);
    /* For good: the disk answering again changes nothing. */
    site->store.commit_error = 0;
    assert_int_equal(push(site, &second), 0);
    next_second(site);
    assert_int_equal(second, -EIO);
}

static void test_texts_move_with_what_is_left(void **state)
{
    struct site *site = *state;
    struct {
        struct scan scan;
        struct reading readings[2];
        char text[8];
    } s = {.scan = {.count = 2, .text_len = 5}, .text = "hello"};
    for (int i = 0; i < 2; i++) {
        s.scan.time_ms = 0;
        s.scan.readings[0] = (struct reading){.point = POINT_STATE, .kind = VALUE_DECIMAL};
        s.scan.readings[1] = (struct reading){
            .point = POINT_SPEED, .kind = VALUE_TEXT, .text = {.offset = 1, .len = 4}};
        assert_int_equal(scan_submit(site->object, &s.scan), 0);
    }
    next_second(site);
    const struct scan *scan = last_scan(site, STREAM_RAW);
    assert_int_equal(scan->count, 1);
    expect_json(site, scan, "speed", "\"ello\"");
    expect_ledger_adds_up(site);
}

static void test_bad_scans_are_refused(void **state)
{
    struct site *site = *state;
    struct {
        struct scan scan;
        struct reading reading;
    } s = {.scan = {.count = 1}, .reading = {.point = POINT_COUNT, .kind = VALUE_DECIMAL}};
    assert_int_equal(scan_submit(site->object, &s.scan), -EINVAL);
    s.reading = (struct reading){.kind = VALUE_TEXT, .text = {.offset = 4, .len = 8}};
    s.scan.text_len = 8;
    assert_int_equal(scan_submit(site->object, &s.scan), -EINVAL);
    assert_int_equal(site->object->seq[STREAM_RAW], 0);
}

static void test_windows_survive_a_crash_and_results_come_once(void **state)
{
    struct site *site = *state;
    submit(site, TEN + 1000, (int64_t[]){100, 0, 0, 0});
    next_second(site);
    submit(site, TEN + 2000, (int64_t[]){300, 0, 0, 0});
    next_second(site);
    crash(site);
    start(site);
    submit(site, TEN + 4000, (int64_t[]){800, 0, 0, 0});
    clock_advance_ms(602000);
    pipeline_turn(site->pipeline);
    const struct scan *result = last_scan(site, STREAM_AGGREGATE);
    assert_int_equal(scans_of(site, STREAM_AGGREGATE), 1);
    assert_int_equal(result->time_ms, TEN);
    expect_json(site, result, "speed_count", "3");
    expect_json(site, result, "speed_mean", "4");
    /* As if only the result, not the note of it, had reached the disk. */
    site->store.notes[0].value = TEN;
    crash(site);
    start(site);
    clock_advance_ms(600000);
    pipeline_turn(site->pipeline);
    assert_int_equal(scans_of(site, STREAM_AGGREGATE), 2);
    result = last_scan(site, STREAM_AGGREGATE);
    assert_int_equal(result->time_ms, TEN + 600000);
    assert_int_equal(result->seq, 2);
    expect_json(site, result, "speed_count", "0");
}

static void test_window_over_at_the_start_is_closed_with_what_was_stored(void **state)
{
    struct site *site = *state;
    submit(site, TEN + 1000, (int64_t[]){100, 0, 0, 0});
    next_second(site);
    crash(site);
    clock_advance_ms(7200000); /* down for two hours */
    start(site);
    next_second(site);
    assert_int_equal(scans_of(site, STREAM_AGGREGATE), 1);
    assert_int_equal(last_scan(site, STREAM_AGGREGATE)->time_ms, TEN);
    expect_json(site, last_scan(site, STREAM_AGGREGATE), "speed_count", "1");
}

static void replace_device(struct site *site, const struct config_device *config)
{
    assert_int_equal(pipeline_retire_device(site->pipeline, site->object), 0);
    device_unref(site->object);
    site->object = add_device(site, config);
    pipeline_turn(site->pipeline);
}

static void test_reload_of_the_same_points_goes_on(void **state)
{
    struct site *site = *state;
    submit(site, TEN + 1000, (int64_t[]){100, 0, 0, 0});
    next_second(site);
    struct config_device changed = site->device;
    changed.poll_ms = 5000;
    replace_device(site, &changed);
    submit(site, TEN + 2000, (int64_t[]){300, 0, 0, 0});
    next_second(site);
    assert_int_equal(last_scan(site, STREAM_RAW)->seq, 2);
    assert_int_equal(scans_of(site, STREAM_AGGREGATE), 0);
    clock_advance_ms(602000);
    pipeline_turn(site->pipeline);
    expect_json(site, last_scan(site, STREAM_AGGREGATE), "speed_count", "2");
}

static void test_reload_of_other_points_closes_short(void **state)
{
    struct site *site = *state;
    submit(site, TEN + 1000, (int64_t[]){100, 0, 0, 0});
    clock_advance_ms(120000);
    pipeline_turn(site->pipeline);
    struct config_point points[POINT_COUNT];
    memcpy(points, site->points, sizeof points);
    points[POINT_SPEED].scale = (struct decimal){.mantissa = 1, .exponent = -1};
    struct config_device changed = site->device;
    changed.points.list = points;
    replace_device(site, &changed);
    const struct scan *result = last_scan(site, STREAM_AGGREGATE);
    assert_int_equal(result->time_ms, TEN);
    assert_int_equal(result->window_s, 120);
    expect_json(site, result, "speed_max", "1");
    clock_advance_ms(482000);
    pipeline_turn(site->pipeline);
    result = last_scan(site, STREAM_AGGREGATE);
    assert_int_equal(result->time_ms, TEN + 120000);
    assert_int_equal(result->window_s, 480);
    assert_int_equal(result->seq, 2);
    site->device = changed;
    memcpy(site->points, points, sizeof points);
    site->device.points.list = site->points;
    replace_device(site, &site->device);
}

static void test_new_aggregates_cut_only_what_changed(void **state)
{
    struct site *site = *state;
    struct config_aggregate aggregates[2] = {site->aggregate, site->aggregate};
    aggregates[1].name = "minute";
    aggregates[1].window_ms = 60000;
    struct config config = site->config;
    config.aggregates = aggregates;
    config.aggregate_count = 2;
    submit(site, TEN + 1000, (int64_t[]){100, 0, 0, 0});
    clock_advance_ms(10000);
    assert_int_equal(pipeline_set_config(site->pipeline, &config), 0);
    pipeline_turn(site->pipeline);
    assert_int_equal(scans_of(site, STREAM_AGGREGATE), 0);
    clock_advance_ms(52000);
    pipeline_turn(site->pipeline);
    assert_int_equal(scans_of(site, STREAM_AGGREGATE), 1);
    assert_int_equal(last_scan(site, STREAM_AGGREGATE)->window_s, 60);
    struct config changed = site->config;
    struct config_aggregate aggregate = site->aggregate;
    aggregate.fingerprint = 2;
    aggregate.functions = FUNCTION_COUNT;
    changed.aggregates = &aggregate;
    assert_int_equal(pipeline_set_config(site->pipeline, &changed), 0);
    pipeline_turn(site->pipeline);
    assert_int_equal(scans_of(site, STREAM_AGGREGATE), 3); /* both closed short */
    clock_advance_ms(540000);
    pipeline_turn(site->pipeline);
    const struct scan *result = last_scan(site, STREAM_AGGREGATE);
    assert_int_equal(result->time_ms, TEN + 62000);
    assert_int_equal(result->count, POINT_COUNT);
    assert_int_equal(pipeline_set_config(site->pipeline, &site->config), 0);
    pipeline_turn(site->pipeline);
}

static void test_retired_device_leaves_when_its_windows_are_closed(void **state)
{
    struct site *site = *state;
    submit(site, TEN + 1000, (int64_t[]){100, 0, 0, 0});
    assert_int_equal(pipeline_retire_device(site->pipeline, site->object), 0);
    next_second(site);
    assert_int_equal(site->pipeline->track_count, 1);
    assert_int_equal(scans_of(site, STREAM_RAW), 1);
    assert_int_equal(site->object->references, 1);
    clock_advance_ms(602000);
    pipeline_turn(site->pipeline);
    assert_int_equal(scans_of(site, STREAM_AGGREGATE), 1);
    assert_int_equal(site->pipeline->track_count, 0);
}

static int add_one(void *user)
{
    return ++*(int *)user;
}

static void test_thread_calls_pushes_and_stops_clean(void **state)
{
    struct site *site = *state;
    clock_release();
    assert_int_equal(pipeline_start(site->pipeline), 0);
    int number = 41, pushed = 1;
    assert_int_equal(pipeline_call(site->pipeline, add_one, &number), 42);
    uint64_t turns = pipeline_heartbeat(site->pipeline);
    for (size_t i = 0; i < 5000 && pipeline_heartbeat(site->pipeline) == turns; i++) {
        usleep(1000);
    }
    assert_true(pipeline_heartbeat(site->pipeline) > turns);
    assert_int_equal(push(site, &pushed), 0);
    pipeline_event(site->pipeline, site->object, "test", "words");
    pipeline_stop(site->pipeline);
    assert_int_equal(pushed, 0);
    assert_int_equal(site->store.committed, site->store.scan_count);
    expect_json(site, last_scan(site, STREAM_EVENT), "text", "\"words\"");
    assert_int_equal(last_scan(site, STREAM_EVENT)->device, site->object->id);
    number = 1;
    assert_int_equal(pipeline_call(site->pipeline, add_one, &number), 2);
}

#define with_site(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        with_site(test_scales_and_stores),
        with_site(test_thins_what_is_stored_not_what_is_aggregated),
        with_site(test_window_closes_by_a_later_reading),
        with_site(test_the_ledger_is_an_event_once_a_day),
        with_site(test_window_closes_by_the_clock_and_says_zero),
        with_site(test_clock_set_back_closes_short),
        with_site(test_full_queue_shows_as_a_gap_and_in_the_ledger),
        with_site(test_push_is_told_after_the_commit),
        with_site(test_texts_move_with_what_is_left),
        with_site(test_bad_scans_are_refused),
        with_site(test_windows_survive_a_crash_and_results_come_once),
        with_site(test_window_over_at_the_start_is_closed_with_what_was_stored),
        with_site(test_reload_of_the_same_points_goes_on),
        with_site(test_reload_of_other_points_closes_short),
        with_site(test_new_aggregates_cut_only_what_changed),
        with_site(test_retired_device_leaves_when_its_windows_are_closed),
        with_site(test_thread_calls_pushes_and_stops_clean),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
