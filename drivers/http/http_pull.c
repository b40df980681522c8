#include "drivers/http/http_pull.h"

#include "drivers/http/json_pointer.h"
#include "gateway/base/clock.h"
#include "gateway/base/log.h"

#include <errno.h>
#include <string.h>

/* The last value of a point, its text within `texts`. */
struct value {
    struct reading reading;
    uint32_t text_at;
};

struct http_pull {
    struct schedule_entry entry;
    struct device *device;
    struct http_fetch *fetch;
    struct json_pointer_set pointers; /* of the points, and of `time` behind them */
    struct value *values;             /* of the last answer */
    struct buffer texts;
    struct scan *scan;
    bool running, known; /* known: `values` are those of an answer */
    char etag[HTTP_FETCH_TAG_MAX], last_modified[HTTP_FETCH_TAG_MAX];
    int64_t time_ms; /* as the document says, 0: not */
    int64_t submitted_time_ms;
    int64_t not_before_ms; /* monotonic */
    uint64_t poll;         /* number of the poll, from 0 */
    unsigned failures;     /* in a row */
};

static size_t point_count(const struct http_pull *pull)
{
    return pull->device->config->points.count;
}

static void forget_values(struct http_pull *pull)
{
    for (size_t i = 0; i < point_count(pull); i++) {
        pull->values[i].reading = (struct reading){.kind = VALUE_NULL,
                                                   .quality = QUALITY_BAD_INVALID};
    }
    buffer_clear(&pull->texts);
    pull->time_ms = 0;
    pull->known = false;
}

static void on_value(void *user, size_t index, const struct reading *reading,
                     struct json_in_text text)
{
    struct http_pull *pull = user;
    if (index == point_count(pull)) {
        if (json_reading_time(reading, text, &pull->time_ms) < 0) {
            pull->time_ms = -1;
        }
        return;
    }
    struct value *value = &pull->values[index];
    value->reading = *reading;
    if (reading->kind != VALUE_TEXT) {
        return;
    }
    value->text_at = (uint32_t)pull->texts.len;
    buffer_add(&pull->texts, text.at, text.len);
    if (buffer_failed(&pull->texts)) {
        pull->texts.failed = false;
        value->reading = (struct reading){.kind = VALUE_NULL, .quality = QUALITY_BAD_TYPE};
    }
}

static bool is_due(const struct http_pull *pull, size_t i)
{
    uint32_t every = pull->device->config->points.list[i].every;
    return every <= 1 || pull->poll % every == 0;
}

static void submit(struct http_pull *pull)
{
    struct scan *scan = pull->scan;
    scan->time_ms = pull->time_ms;
    scan->count = 0;
    for (size_t i = 0; i < point_count(pull); i++) {
        if (is_due(pull, i)) {
            struct reading *reading = &scan->readings[scan->count++];
            *reading = pull->values[i].reading;
            reading->point = (uint16_t)i;
            if (reading->kind == VALUE_TEXT) {
                reading->text.offset = pull->values[i].text_at;
            }
        }
    }
    scan->text_len = (uint32_t)pull->texts.len;
    if (pull->texts.len > 0) {
        memcpy(&scan->readings[scan->count], pull->texts.data, pull->texts.len);
    }
    if (scan->count > 0 && scan_submit(pull->device, scan) != 0) {
        device_report_error(pull->device, DEVICE_ERROR_OVERRUN, 0, false);
    }
    pull->submitted_time_ms = pull->time_ms;
}

/* All points bad: where the gap begins. */
static void submit_gap(struct http_pull *pull, enum quality quality)
{
    struct scan *scan = pull->scan;
    scan->time_ms = 0;
    scan->count = (uint16_t)point_count(pull);
    scan->text_len = 0;
    for (size_t i = 0; i < point_count(pull); i++) {
        scan->readings[i] = (struct reading){
            .point = (uint16_t)i, .kind = VALUE_NULL, .quality = (uint8_t)quality};
    }
    if (scan_submit(pull->device, scan) != 0) {
        device_report_error(pull->device, DEVICE_ERROR_OVERRUN, 0, false);
    }
    pull->submitted_time_ms = 0; /* the same values again would end the gap */
}

static int64_t pause_ms(const struct http_pull *pull, int64_t retry_after_ms)
{
    int64_t pause = pull->device->config->poll_ms;
    int64_t limit = pause > HTTP_PULL_PAUSE_MAX_MS ? pause : HTTP_PULL_PAUSE_MAX_MS;
    for (unsigned i = 1; i < pull->failures && pause < limit; i++) {
        pause *= 2;
    }
    pause = pause < limit ? pause : limit;
    /* A failure alone costs no poll; only repeated ones do. */
    pause = pull->failures <= 1 ? 0 : pause - SCHEDULE_TICK_MS;
    return retry_after_ms > pause ? retry_after_ms : pause;
}

static enum quality quality_of(enum device_error error)
{
    switch (error) {
    case DEVICE_ERROR_TIMEOUT:
        return QUALITY_BAD_TIMEOUT;
    case DEVICE_ERROR_EXCEPTION:
        return QUALITY_BAD_REFUSED;
    case DEVICE_ERROR_PAYLOAD:
        return QUALITY_BAD_TYPE;
    default:
        return QUALITY_BAD_CONNECTION;
    }
}

static void finish_bad(struct http_pull *pull, enum device_error error, int detail, const char *why,
                       int64_t retry_after_ms)
{
    struct device *device = pull->device;
    int before = atomic_load_explicit(&device->health.state, memory_order_relaxed);
    pull->failures++;
    pull->not_before_ms = clock_mono_ms() + pause_ms(pull, retry_after_ms);
    if (before == DEVICE_GOOD) {
        submit_gap(pull, quality_of(error));
    }
    device_report_error(device, error, detail, pull->failures >= HTTP_PULL_DEAD_AFTER);
    if (before == DEVICE_GOOD || before == DEVICE_STARTING) {
        log_warning("%s: no readings: %s", device->config->name, why);
    } else if (pull->failures == HTTP_PULL_DEAD_AFTER) {
        log_warning("%s: does not answer, asked now and then from here on: %s",
                    device->config->name, why);
    }
}

static void finish_good(struct http_pull *pull, int64_t rtt_us)
{
    struct device *device = pull->device;
    int before = atomic_load_explicit(&device->health.state, memory_order_relaxed);
    pull->failures = 0;
    pull->not_before_ms = 0;
    if (pull->time_ms == 0 || pull->time_ms != pull->submitted_time_ms) {
        submit(pull);
    }
    device_report_good(device, rtt_us);
    if (before == DEVICE_FAILING || before == DEVICE_DEAD) {
        log_info("%s: answers again", device->config->name);
    }
}

/* A validator belongs to the values it came with; an answer that cannot be used must be sent whole
 * the next time. */
static void forget_validators(struct http_pull *pull)
{
    pull->etag[0] = pull->last_modified[0] = '\0';
}

static void take_document(struct http_pull *pull, const struct http_answer *answer)
{
    const char *why = "";
    char words[128];
    forget_values(pull);
    forget_validators(pull);
    int r = json_pointer_walk(&pull->pointers, answer->body, answer->len, on_value, pull, &why);
    if (r == 0 && pull->pointers.count > point_count(pull) && pull->time_ms <= 0) {
        why = "where `time` points there is no time";
        r = -EBADMSG;
    }
    if (r < 0) {
        snprintf(words, sizeof words, "the answer does not read: %s", why);
        finish_bad(pull, DEVICE_ERROR_PAYLOAD, 0, words, answer->retry_after_ms);
        return;
    }
    pull->known = true;
    snprintf(pull->etag, sizeof pull->etag, "%s", answer->etag);
    snprintf(pull->last_modified, sizeof pull->last_modified, "%s", answer->last_modified);
    finish_good(pull, answer->rtt_us);
}

static void on_answer(void *user, const struct http_answer *answer)
{
    struct http_pull *pull = user;
    char words[128];
    pull->running = false;
    if (answer->status == 0) {
        finish_bad(pull, answer->error, answer->detail, answer->why, answer->retry_after_ms);
    } else if (answer->status == 304 && pull->known) {
        finish_good(pull, answer->rtt_us);
    } else if (answer->status >= 200 && answer->status < 300) {
        take_document(pull, answer);
    } else {
        bool redirected = answer->status >= 300 && answer->status < 400;
        snprintf(words, sizeof words, "the server answered %d%s", answer->status,
                 redirected ? "; redirects are not followed: is `url` right?" : "");
        finish_bad(pull, DEVICE_ERROR_EXCEPTION, answer->status, words, answer->retry_after_ms);
    }
    pull->poll++;
}

static void note_overruns(struct device *device, unsigned count)
{
    if (count > 0) {
        device_report_error(device, DEVICE_ERROR_OVERRUN, 0, false);
        atomic_fetch_add_explicit(&device->health.errors[DEVICE_ERROR_OVERRUN], count - 1U,
                                  memory_order_relaxed);
    }
}

static void on_due(struct schedule_entry *entry, unsigned skipped, int64_t late_us)
{
    struct http_pull *pull = (struct http_pull *)((char *)entry -
                                                  offsetof(struct http_pull, entry));
    struct device *device = pull->device;
    if (late_us > atomic_load_explicit(&device->health.late_us_max, memory_order_relaxed)) {
        atomic_store_explicit(&device->health.late_us_max, late_us, memory_order_relaxed);
    }
    note_overruns(device, skipped);
    if (pull->running || !scan_has_room(device, point_count(pull))) {
        note_overruns(device, 1);
        return;
    }
    if (clock_mono_ms() < pull->not_before_ms) {
        return;
    }
    atomic_fetch_add_explicit(&device->health.polls, 1, memory_order_relaxed);
    int r = http_fetch_start(pull->fetch, pull->known ? pull->etag : "",
                             pull->known ? pull->last_modified : "");
    if (r < 0) {
        finish_bad(pull, DEVICE_ERROR_CONNECT, -r, strerror(-r), -1);
        return;
    }
    pull->running = true;
}

static int list_pointers(struct http_pull *pull, const struct http_device_settings *settings)
{
    size_t count = point_count(pull);
    auto_free const char **pointers = calloc(count + 1, sizeof *pointers);
    if (pointers == NULL) {
        return -ENOMEM;
    }
    for (size_t i = 0; i < count; i++) {
        pointers[i] = http_pointer(pull->device->config, i);
    }
    if (settings->time != NULL) {
        pointers[count++] = settings->time;
    }
    return json_pointer_set_init(&pull->pointers, pointers, count);
}

int http_pull_create(struct schedule *schedule, struct http_fetcher *fetcher, struct device *device,
                     struct http_pull **ret_pull)
{
    const struct http_device_settings *settings = device->config->settings;
    struct http_pull *pull = calloc(1, sizeof *pull);
    if (pull == NULL) {
        return -ENOMEM;
    }
    pull->device = device;
    pull->texts.max = SCAN_TEXT_MAX;
    pull->values = calloc(point_count(pull) + 1, sizeof *pull->values);
    pull->scan = calloc(1, scan_size_for(point_count(pull), SCAN_TEXT_MAX));
    int r = pull->values == NULL || pull->scan == NULL ? -ENOMEM : list_pointers(pull, settings);
    if (r == 0) {
        r = http_fetch_create(fetcher, settings, device->config->timeout_ms, on_answer, pull,
                              &pull->fetch);
    }
    if (r < 0) {
        http_pull_destroy(pull);
        return r;
    }
    forget_values(pull);
    pull->entry.due = on_due;
    schedule_add(schedule, &pull->entry, device->config->poll_ms);
    *ret_pull = pull;
    return 0;
}

void http_pull_destroy(struct http_pull *pull)
{
    if (pull == NULL) {
        return;
    }
    schedule_remove(&pull->entry);
    http_fetch_destroy(pull->fetch);
    json_pointer_set_finish(&pull->pointers);
    buffer_finish(&pull->texts);
    free(pull->values);
    free(pull->scan);
    free(pull);
}
