#include "store_drain.h"

static void test_append_take_settle(void **unused)
{
    (void)unused;
    char *dir = fixture_dir();
    struct store *store = fixture_open(dir, &fixture_settings);
    assert_int_equal(strlen(store_id(store)), 12);
    assert_null(store_quarantined(store));
    char id[13];
    memcpy(id, store_id(store), sizeof(id));
    unsigned uplink;
    assert_int_equal(store_add_uplink(store, "cloud", 1u << STREAM_RAW, 0, &uplink), 0);
    uint32_t devices[5];
    for (unsigned d = 0; d < 5; d++) {
        char name[8];
        snprintf(name, sizeof(name), "t%u", d);
        devices[d] = fixture_device(store, name, FIXTURE_POINTS);
    }
    struct store_reader *reader;
    assert_int_equal(store_reader_create(store, uplink, true, &reader), 0);
    for (uint64_t seq = 1; seq <= 30; seq++) {
        for (unsigned d = 0; d < 5; d++) {
            assert_int_equal(fixture_append(store, STREAM_RAW, devices[d], seq), 0);
        }
        if (seq % 3 == 0) {
            assert_int_equal(store_commit(store), 0);
        }
    }
    assert_int_equal(fixture_drain(reader, STORE_LANE_BACKFILL, STREAM_RAW), 0);
    assert_int_equal(fixture_drain(reader, STORE_LANE_LIVE, STREAM_RAW), 150);
    assert_true(store_has_pending(store));
    assert_int_equal(store_commit(store), 0);
    assert_false(store_has_pending(store));
    fixture_adds_up(store, (int)uplink);
    struct ledger_device total;
    assert_int_equal(store_ledger_total(store, (int)uplink, &total), 0);
    assert_int_equal(total.counts[LEDGER_STORED], 150 * FIXTURE_POINTS);
    assert_int_equal(total.fates[FATE_DELIVERED], 150 * FIXTURE_POINTS);
    assert_int_equal(total.waiting, 0);
    struct store_stat stat;
    store_stat(store, &stat);
    assert_int_equal(stat.blocks, 0);
    assert_int_equal(stat.waiting, 0);
    store_reader_destroy(reader);
    store_close(store);

    store = fixture_open(dir, &fixture_settings);
    assert_string_equal(store_id(store), id);
    assert_int_equal(store_last_seq(store, STREAM_RAW, devices[4]), 30);
    assert_string_equal(store_names(store, devices[1])->device, "t1");
    assert_string_equal(store_names(store, devices[1])->points[19].name, "p19");
    assert_string_equal(store_uplink_name(store, uplink), "cloud");
    assert_int_equal(store_uplinks(store), uplink + 1);
    store_close(store);
    fixture_remove(dir);
}

static void test_what_is_no_scan_is_refused(void **unused)
{
    (void)unused;
    char *dir = fixture_dir();
    struct store *store = fixture_open(dir, &fixture_settings);
    uint32_t device = fixture_device(store, "t", 3);
    auto_free struct scan *scan = fixture_scan(STREAM_RAW, device, 5, 3);
    assert_int_equal(store_append(store, scan), 0);
    assert_int_equal(store_append(store, scan), -EINVAL); /* the same seq again */
    scan->seq = 6;
    scan->device = device + 1;
    assert_int_equal(store_append(store, scan), -EINVAL);
    scan->device = device;
    scan->stream = STREAM_COUNT;
    assert_int_equal(store_append(store, scan), -EINVAL);
    scan->stream = STREAM_RAW;
    scan->readings[1].kind = VALUE_TEXT;
    scan->readings[1].text.offset = 1;
    scan->readings[1].text.len = UINT32_MAX;
    assert_int_equal(store_append(store, scan), -EINVAL);
    scan->readings[1].kind = VALUE_KINDS;
    assert_int_equal(store_append(store, scan), -EINVAL);
    uint32_t id;
    uint16_t point;
    assert_int_equal(store_device(store, "", "", &id), -EINVAL);
    assert_int_equal(store_point(store, device + 7, "p", "", &point), -EINVAL);
    store_close(store);
    fixture_remove(dir);
}

enum { NEARLY_SEQS = 60, NEARLY_DEVICES = 3 };

/* Like its neighbours, or different in one thing. */
static struct scan *nearly_alike(uint32_t device, uint64_t seq)
{
    struct scan *scan = calloc(1, scan_size_for(FIXTURE_POINTS, 4));
    auto_free struct scan *plain = fixture_scan(STREAM_RAW, device, seq, FIXTURE_POINTS);
    memcpy(scan, plain, scan_size(plain));
    switch ((seq * 7 + device) % 8) {
    case 3:
        scan->readings[4].quality = QUALITY_UNCERTAIN;
        break;
    case 4:
        scan->readings[FIXTURE_POINTS - 1].exponent = -1;
        break;
    case 5:
        scan->count--;
        break;
    case 6:
        scan->readings[2].kind = VALUE_TEXT;
        scan->readings[2].text.offset = 1;
        scan->readings[2].text.len = 3;
        scan->text_len = 4;
        memcpy((char *)&scan->readings[scan->count], "-abc", 4);
        break;
    default:
        break;
    }
    return scan;
}

static void assert_same_scan(const struct scan *a, const struct scan *b)
{
    assert_int_equal(a->seq, b->seq);
    assert_int_equal(a->time_ms, b->time_ms);
    assert_int_equal(a->count, b->count);
    for (unsigned i = 0; i < a->count; i++) {
        const struct reading *x = &a->readings[i], *y = &b->readings[i];
        assert_memory_equal(x, y, offsetof(struct reading, reserved));
        if (x->kind == VALUE_TEXT) {
            assert_int_equal(x->text.len, y->text.len);
            assert_memory_equal(scan_text(a, x), scan_text(b, y), x->text.len);
        } else {
            assert_int_equal(x->integer, y->integer);
        }
    }
}

/* One by one, each followed by what would be the same but for a thing that may not be. */
static void append_nearly_alike(struct store *store, uint32_t device, uint64_t seq)
{
    auto_free struct scan *scan = nearly_alike(device, seq);
    assert_int_equal(store_append(store, scan), 0);
    scan->seq += NEARLY_SEQS;
    uint16_t point = scan->readings[7].point;
    scan->readings[7].point = scan->readings[6].point;
    assert_int_equal(store_append(store, scan), -EINVAL);
    scan->readings[7].point = point;
    scan->readings[7].kind = VALUE_KINDS;
    assert_int_equal(store_append(store, scan), -EINVAL);
    scan->readings[7].kind = VALUE_DECIMAL;
    if (scan->text_len > 0) {
        scan->readings[2].text.len++;
        assert_int_equal(store_append(store, scan), -EINVAL);
    }
}

static void test_scans_that_nearly_look_alike_are_told_apart(void **unused)
{
    (void)unused;
    char *dir = fixture_dir();
    struct store *store = fixture_open(dir, &fixture_settings);
    unsigned uplink;
    assert_int_equal(store_add_uplink(store, "cloud", 1u << STREAM_RAW, 0, &uplink), 0);
    struct store_reader *reader;
    assert_int_equal(store_reader_create(store, uplink, true, &reader), 0);
    uint32_t devices[NEARLY_DEVICES];
    for (unsigned d = 0; d < NEARLY_DEVICES; d++) {
        char name[8];
        snprintf(name, sizeof(name), "t%u", NEARLY_DEVICES - d);
        devices[d] = fixture_device(store, name, FIXTURE_POINTS);
    }
    for (uint64_t seq = 1; seq <= NEARLY_SEQS; seq++) {
        for (unsigned d = 0; d < NEARLY_DEVICES; d++) {
            append_nearly_alike(store, devices[(d + seq) % NEARLY_DEVICES], seq);
        }
        assert_int_equal(seq % 9 == 0 || seq == NEARLY_SEQS ? store_commit(store) : 0, 0);
    }
    auto_buffer struct buffer arena = {0};
    const struct scan **scans = NULL;
    size_t count = 0;
    assert_int_equal(store_reader_take(reader, STORE_LANE_LIVE, STREAM_RAW, 1000, 1 << 20, &arena,
                                       &scans, &count),
                     0);
    assert_int_equal(count, NEARLY_SEQS * NEARLY_DEVICES);
    for (size_t i = 0; i < count; i++) {
        auto_free struct scan *expected = nearly_alike(scans[i]->device, scans[i]->seq);
        expected->time_ms = scans[i]->time_ms;
        assert_same_scan(scans[i], expected);
    }
    store_reader_destroy(reader);
    store_close(store);
    fixture_remove(dir);
}

static void test_names_have_versions_and_notes_last(void **unused)
{
    (void)unused;
    char *dir = fixture_dir();
    struct store *store = fixture_open(dir, &fixture_settings);
    uint32_t device = fixture_device(store, "t", 3), again;
    const struct store_names *before = store_names(store, device);
    uint16_t point;
    assert_int_equal(store_point(store, device, "p1", "kW", &point), 0);
    assert_int_equal(point, 1);
    assert_int_equal(store_device(store, "t", "{}", &again), 0);
    assert_int_equal(again, device);
    assert_string_equal(before->points[1].unit, "m/s"); /* what was handed out stays */
    assert_string_equal(before->tags_json, "{\"type\":\"V90\"}");
    store_set_note(store, "closed.scada", 1769855400000);
    store_set_note(store, "closed.scada", 1769856000000);
    assert_int_equal(store_commit(store), 0);
    store_close(store);

    store = fixture_open(dir, &fixture_settings);
    const struct store_names *names = store_names(store, device);
    assert_int_equal(names->point_count, 3);
    assert_string_equal(names->points[1].unit, "kW");
    assert_string_equal(names->points[2].unit, "m/s");
    assert_string_equal(names->tags_json, "{}");
    assert_null(store_names(store, device + 1));
    int64_t value = 0;
    assert_true(store_note(store, "closed.scada", &value));
    assert_int_equal(value, 1769856000000);
    assert_false(store_note(store, "closed.other", &value));
    store_close(store);
    fixture_remove(dir);
}

struct expected {
    int64_t from_ms, to_ms;
    unsigned scans;
    uint64_t last[4];
};

static int expect_scan(void *user, const struct scan *scan)
{
    struct expected *e = user;
    fixture_check(scan);
    assert_true(scan->time_ms >= e->from_ms && scan->time_ms < e->to_ms);
    assert_true(scan->seq > e->last[scan->device]);
    e->last[scan->device] = scan->seq;
    e->scans++;
    return 0;
}

static int stop_at_once(void *user, const struct scan *scan)
{
    (void)user;
    (void)scan;
    return 7;
}

static void test_history_finds_its_time(void **unused)
{
    (void)unused;
    const int64_t start_ms = 1769855400000, step_ms = 1800000;
    clock_hold(start_ms, 1000000000);
    char *dir = fixture_dir();
    struct store_settings settings = fixture_settings;
    settings.keep_ms = 365 * 86400000ll;
    struct store *store = fixture_open(dir, &settings);
    uint32_t devices[2] = {fixture_device(store, "a", FIXTURE_POINTS),
                           fixture_device(store, "b", FIXTURE_POINTS)};
    for (uint64_t seq = 1; seq <= 500; seq++) { /* ten days, one commit each half hour */
        for (unsigned d = 0; d < 2; d++) {
            assert_int_equal(fixture_append(store, STREAM_RAW, devices[d], seq), 0);
        }
        assert_int_equal(store_commit(store), 0);
        clock_advance_ms(step_ms);
    }
    for (unsigned i = 0; i < 60; i++) {
        int64_t from = start_ms + i * 14400000ll - 5, to = from + 36000000;
        struct expected e = {.from_ms = from, .to_ms = to};
        assert_int_equal(store_history(store, STREAM_RAW, 0, from, to, expect_scan, &e), 0);
        int64_t first = (from - start_ms + step_ms - 1) / step_ms;
        int64_t end = (to - start_ms + step_ms - 1) / step_ms;
        assert_int_equal(e.scans, 2 * ((end > 500 ? 500 : end) - (first < 0 ? 0 : first)));
    }
    struct expected one = {.from_ms = INT64_MIN, .to_ms = INT64_MAX};
    assert_int_equal(
        store_history(store, STREAM_RAW, devices[1], INT64_MIN, INT64_MAX, expect_scan, &one), 0);
    assert_int_equal(one.scans, 500);
    assert_int_equal(store_history(store, STREAM_RAW, 0, INT64_MIN, INT64_MAX, stop_at_once, NULL),
                     7);
    assert_int_equal(store_history(store, STREAM_EVENT, 0, INT64_MIN, INT64_MAX, expect_scan, &one),
                     0);
    assert_int_equal(one.scans, 500);
    store_close(store);
    fixture_remove(dir);
    clock_release();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_append_take_settle),
        cmocka_unit_test(test_what_is_no_scan_is_refused),
        cmocka_unit_test(test_scans_that_nearly_look_alike_are_told_apart),
        cmocka_unit_test(test_names_have_versions_and_notes_last),
        cmocka_unit_test(test_history_finds_its_time),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
