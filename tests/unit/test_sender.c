/* The sender on a real store against a peer that answers what the test says: every reading arrives,
 * whatever the peer does, and the ledger knows it. */
#include "cloud_peer.h"
#include "gateway/base/log.h"
#include "store_fixture.h"
#include "uplink/sender.h"

#include <jansson.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>

enum { DEVICES = 4, SEQS_MAX = 3000, LIMIT_MS = 60000 };

/* What arrived, and the script of the peer. Guarded by lock. */
struct site {
    pthread_mutex_t lock;
    char *dir;
    struct store *store;
    struct cloud *peer;
    int port;
    unsigned uplink;
    uint32_t devices[DEVICES];
    uint64_t seqs[DEVICES][STREAM_COUNT];
    const struct config *config;
    const char *keys; /* of [uplink cloud] */
    struct sender *sender;
    char url[64];

    unsigned got[DEVICES][STREAM_COUNT][SEQS_MAX + 1];
    unsigned scans, repeats, disorder, requests, largest;
    uint64_t last[DEVICES][STREAM_COUNT];
    char failed_key[200];
    uint64_t failed_hash;
    unsigned same_again;
    int64_t failed_at_ms, again_at_ms;

    int status; /* of the first `times` requests */
    unsigned times;
    const char *extra, *body;
    unsigned records_max; /* more than that: 413 */
    uint64_t poison;      /* seq: 400 when the request holds it */
    bool list_poison;     /* ... or taken but for it, by a list */
    bool always_refuse;
};

static uint64_t hash_of(const char *text, size_t len)
{
    uint64_t h = 0xcbf29ce484222325u;
    for (size_t i = 0; i < len; i++) {
        h = (h ^ (uint8_t)text[i]) * 0x100000001b3u;
    }
    return h;
}

static void remember_failure(struct site *s, const struct cloud_request *request)
{
    const char *key = strstr(request->head, "Idempotency-Key: ");
    snprintf(s->failed_key, sizeof s->failed_key, "%.60s", key != NULL ? key : "");
    s->failed_hash = hash_of(request->body, request->len);
    s->failed_at_ms = clock_mono_ms();
    s->again_at_ms = 0;
}

static void compare_again(struct site *s, const struct cloud_request *request)
{
    if (s->failed_key[0] != '\0' && strstr(request->head, s->failed_key) != NULL) {
        s->same_again += hash_of(request->body, request->len) == s->failed_hash;
        s->again_at_ms = s->again_at_ms == 0 ? clock_mono_ms() : s->again_at_ms;
    }
}

static unsigned stream_of(const json_t *root)
{
    const char *name = json_string_value(json_object_get(root, "stream"));
    for (unsigned i = 0; i < STREAM_COUNT; i++) {
        if (name != NULL && strcmp(name, stream_name((enum stream)i)) == 0) {
            return i;
        }
    }
    return STREAM_RAW;
}

/* Whether that seq of that device (NULL: of any) is among them. */
static bool holds(const json_t *records, uint64_t seq, const char *device)
{
    size_t i;
    json_t *record;
    json_array_foreach(records, i, record)
    {
        const char *name = json_string_value(json_object_get(record, "device"));
        if ((uint64_t)json_integer_value(json_object_get(record, "seq")) == seq &&
            (device == NULL || strcmp(name, device) == 0)) {
            return true;
        }
    }
    return false;
}

static void keep(struct site *s, unsigned stream, const json_t *record)
{
    uint64_t seq = (uint64_t)json_integer_value(json_object_get(record, "seq"));
    const char *name = json_string_value(json_object_get(record, "device"));
    unsigned d = (unsigned)(name[1] - '0');
    if (s->list_poison && seq == s->poison && d == 0) {
        return;
    }
    s->repeats += s->got[d][stream][seq]++ > 0;
    s->disorder += seq < s->last[d][stream];
    s->last[d][stream] = seq;
    s->scans++;
}

static int accept_batch(struct site *s, const struct cloud_request *request, char *text,
                        size_t size)
{
    json_t *root = json_loadb(request->body, request->len, 0, NULL);
    const json_t *records = json_object_get(root, "records");
    size_t count = json_array_size(records), i;
    char body[200];
    int n;
    snprintf(body, sizeof body, "{\"accepted\":%zu}", count);
    if (s->always_refuse ||
        (s->poison != 0 && !s->list_poison && holds(records, s->poison, NULL))) {
        n = cloud_reply(text, size, 400, "", "{\"error\":\"bad record\"}");
    } else if (s->records_max != 0 && count > s->records_max) {
        n = cloud_reply(text, size, 413, "", "");
    } else {
        json_t *record;
        json_array_foreach(records, i, record)
        {
            keep(s, stream_of(root), record);
        }
        if (s->list_poison && holds(records, s->poison, "t0")) {
            snprintf(body, sizeof body,
                     "{\"accepted\":%zu,\"rejected\":[{\"seq\":%llu,\"device\":\"t0\","
                     "\"reason\":\"too old\"}]}",
                     count - 1, (unsigned long long)s->poison);
        }
        s->largest = count > s->largest ? (unsigned)count : s->largest;
        n = cloud_reply(text, size, 200, "", body);
    }
    json_decref(root);
    return n;
}

static int answer(void *user, const struct cloud_request *request, char *text, size_t size)
{
    struct site *s = user;
    pthread_mutex_lock(&s->lock);
    compare_again(s, request);
    int n;
    if (s->requests++ < s->times) {
        remember_failure(s, request);
        n = s->status < 0 ? -1 : cloud_reply(text, size, s->status, s->extra, s->body);
    } else {
        n = accept_batch(s, request, text, size);
    }
    pthread_mutex_unlock(&s->lock);
    return n;
}

static void start_peer(struct site *s)
{
    s->peer = cloud_start(&(struct cloud_options){.answer = answer, .user = s, .port = s->port});
    s->port = cloud_port(s->peer);
    snprintf(s->url, sizeof s->url, "http://127.0.0.1:%d/v1/readings", s->port);
}

static int setup(void **state)
{
    signal(SIGPIPE, SIG_IGN);
    log_set_level(LOG_LEVEL_ERROR);
    struct site *s = calloc(1, sizeof *s);
    pthread_mutex_init(&s->lock, NULL);
    s->dir = fixture_dir();
    s->store = fixture_open(s->dir, &fixture_settings);
    s->extra = s->body = "";
    s->keys = "send = raw aggregates";
    assert_int_equal(store_add_uplink(s->store, "cloud", 3, 0, &s->uplink), 0);
    for (unsigned d = 0; d < DEVICES; d++) {
        char name[8];
        snprintf(name, sizeof name, "t%u", d);
        s->devices[d] = fixture_device(s->store, name, FIXTURE_POINTS);
    }
    assert_int_equal(store_commit(s->store), 0);
    *state = s;
    return 0;
}

static int teardown(void **state)
{
    struct site *s = *state;
    sender_destroy(s->sender);
    if (s->peer != NULL) {
        cloud_stop(s->peer);
    }
    config_unref(s->config);
    store_close(s->store);
    fixture_remove(s->dir);
    pthread_mutex_destroy(&s->lock);
    free(s);
    return 0;
}

static void append(struct site *s, enum stream stream, unsigned scans)
{
    for (unsigned i = 0; i < scans; i++) {
        for (unsigned d = 0; d < DEVICES; d++) {
            assert_int_equal(fixture_append(s->store, stream, s->devices[d], ++s->seqs[d][stream]),
                             0);
        }
    }
    assert_int_equal(store_commit(s->store), 0);
}

static void load_config(struct site *s)
{
    char path[200];
    snprintf(path, sizeof path, "%s/windrow.ini", s->dir);
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    fprintf(f,
            "[gateway]\nname = test\n[uplink cloud]\ntype = http\nurl = %s\nparallel = 3\n"
            "batch_records = 50\nbatch_interval = 20 ms\ntimeout = 5 s\n%s\n",
            s->url, s->keys);
    fclose(f);
    struct config_errors *errors = config_errors_create();
    if (config_load(path, errors, &s->config) < 0) {
        fail_msg("%s", config_errors_at(errors, 0)->why);
    }
    config_errors_destroy(errors);
}

static void start(struct site *s)
{
    if (s->peer == NULL && s->port == 0) {
        start_peer(s);
    }
    if (s->sender == NULL) {
        load_config(s);
        assert_int_equal(
            sender_create(s->store, s->uplink, &s->config->uplinks[0], s->config, &s->sender), 0);
    }
    assert_int_equal(sender_start(s->sender), 0);
}

/* Until `done` says so; the store's thread commits what the sender marks meanwhile. */
static void wait_until(struct site *s, bool (*done)(struct site *s), const char *what)
{
    int64_t until_ms = clock_mono_ms() + LIMIT_MS;
    while (!done(s)) {
        if (clock_mono_ms() > until_ms) {
            struct sender_status status;
            sender_status(s->sender, &status);
            fail_msg("no %s: %s, %llu waiting, '%s', %u scans, %u requests", what,
                     sender_state_name(status.state), (unsigned long long)status.waiting,
                     status.last_error, s->scans, s->requests);
        }
        poll(NULL, 0, 2);
        assert_int_equal(store_commit(s->store), 0);
    }
}

static bool nothing_waits(struct site *s)
{
    struct ledger_device total;
    assert_int_equal(store_commit(s->store), 0);
    assert_int_equal(store_ledger_total(s->store, (int)s->uplink, &total), 0);
    return total.waiting == 0;
}

/* offered = fates + waiting, for every device. */
static void adds_up(struct site *s)
{
    struct ledger_device *devices;
    size_t count;
    assert_int_equal(store_ledger(s->store, (int)s->uplink, &devices, &count), 0);
    for (size_t i = 0; i < count; i++) {
        uint64_t sum = devices[i].waiting;
        for (unsigned f = 0; f < FATE_COUNTS; f++) {
            sum += devices[i].fates[f];
        }
        assert_int_equal(devices[i].offered, sum);
    }
    free(devices);
}

static struct ledger_device total(struct site *s)
{
    struct ledger_device total;
    assert_int_equal(store_ledger_total(s->store, (int)s->uplink, &total), 0);
    adds_up(s);
    return total;
}

static void all_arrived(struct site *s, enum stream stream, uint64_t but)
{
    for (unsigned d = 0; d < DEVICES; d++) {
        for (uint64_t seq = 1; seq <= s->seqs[d][stream]; seq++) {
            if (seq != but && s->got[d][stream][seq] == 0) {
                fail_msg("device %u seq %llu did not arrive", d, (unsigned long long)seq);
            }
        }
    }
}

static void test_all_arrives_once_and_in_order(void **state)
{
    struct site *s = *state;
    append(s, STREAM_RAW, 500);
    start(s);
    for (int i = 0; i < 20; i++) {
        append(s, STREAM_RAW, 20);
        append(s, STREAM_AGGREGATE, 1);
    }
    wait_until(s, nothing_waits, "end");
    all_arrived(s, STREAM_RAW, 0);
    all_arrived(s, STREAM_AGGREGATE, 0);
    assert_int_equal(s->repeats, 0);
    assert_in_range(s->largest, 1, 50);
    assert_int_equal(total(s).fates[FATE_DELIVERED], (900 + 20) * DEVICES * FIXTURE_POINTS);
    struct sender_status status;
    sender_status(s->sender, &status);
    assert_int_equal(status.delivered, (900 + 20) * DEVICES * FIXTURE_POINTS);
    assert_int_equal(status.failures, 0);
    assert_string_equal(status.last_error, "");
    assert_true(status.requests == s->requests && status.bytes_sent > 0);
}

static void test_oldest_first_keeps_the_order(void **state)
{
    struct site *s = *state;
    s->keys = "replay = oldest-first";
    append(s, STREAM_RAW, 300);
    start(s);
    append(s, STREAM_RAW, 300);
    wait_until(s, nothing_waits, "end");
    all_arrived(s, STREAM_RAW, 0);
    assert_int_equal(s->repeats + s->disorder, 0);
}

static bool fails(struct site *s)
{
    struct sender_status status;
    sender_status(s->sender, &status);
    return status.state == SENDER_BACKING_OFF || status.state == SENDER_HELD;
}

static void test_an_outage_is_caught_up(void **state)
{
    struct site *s = *state;
    start(s);
    append(s, STREAM_RAW, 10);
    wait_until(s, nothing_waits, "first delivery");
    cloud_stop(s->peer);
    s->peer = NULL;
    append(s, STREAM_RAW, 100);
    wait_until(s, fails, "open circuit");
    append(s, STREAM_RAW, 500);
    struct sender_status status;
    sender_status(s->sender, &status);
    assert_non_null(strstr(status.last_error, "refuses the connection"));
    start_peer(s);
    append(s, STREAM_RAW, 10);
    wait_until(s, nothing_waits, "end of the backlog");
    all_arrived(s, STREAM_RAW, 0);
    assert_int_equal(s->repeats, 0);
    (void)total(s);
}

static void failing_first(struct site *s, unsigned times, int status, const char *extra,
                          const char *body)
{
    s->times = times;
    s->status = status;
    s->extra = extra;
    s->body = body;
    append(s, STREAM_RAW, 100);
    start(s);
    wait_until(s, nothing_waits, "end");
    all_arrived(s, STREAM_RAW, 0);
    assert_int_equal(s->repeats, 0);
    assert_true(s->same_again > 0);
    assert_int_equal(total(s).fates[FATE_DELIVERED], 100 * DEVICES * FIXTURE_POINTS);
}

static void test_a_captive_portal_is_no_delivery(void **state)
{
    failing_first(*state, 4, 200, "Content-Type: text/html\r\n", "<html>Welcome</html>");
}

static void test_a_wrong_count_is_no_delivery(void **state)
{
    failing_first(*state, 2, 200, "", "{\"accepted\":7}");
}

static void test_trouble_is_retried_the_same(void **state)
{
    failing_first(*state, 5, 500, "", "oops");
}

static void test_cut_connections_are_retried(void **state)
{
    failing_first(*state, 5, -1, "", "");
}

static void test_retry_after_is_honoured(void **state)
{
    struct site *s = *state;
    failing_first(s, 1, 503, "Retry-After: 1\r\n", "");
    assert_true(s->again_at_ms - s->failed_at_ms >= 1000);
}

static bool held(struct site *s)
{
    struct sender_status status;
    sender_status(s->sender, &status);
    return status.state == SENDER_HELD && status.retry_in_ms > 0;
}

static void test_wrong_credentials_keep_everything(void **state)
{
    struct site *s = *state;
    s->times = UINT32_MAX;
    s->status = 401;
    append(s, STREAM_RAW, 100);
    start(s);
    wait_until(s, held, "hold");
    struct sender_status status;
    sender_status(s->sender, &status);
    assert_non_null(strstr(status.last_error, "credentials"));
    assert_int_equal(total(s).waiting, 100 * DEVICES * FIXTURE_POINTS);
    pthread_mutex_lock(&s->lock);
    s->times = 0;
    pthread_mutex_unlock(&s->lock);
    sender_stop(s->sender, 1000);
    start(s);
    wait_until(s, nothing_waits, "end");
    all_arrived(s, STREAM_RAW, 0);
}

static void test_too_large_is_halved(void **state)
{
    struct site *s = *state;
    s->records_max = 7;
    append(s, STREAM_RAW, 200);
    start(s);
    wait_until(s, nothing_waits, "end");
    all_arrived(s, STREAM_RAW, 0);
    assert_int_equal(s->repeats, 0);
    assert_in_range(s->largest, 4, 7);
    /* The size is learned: halving is not gone through for every batch. */
    assert_true(s->requests < 200 * DEVICES / 6 * 2);
}

static void test_one_bad_record_is_found(void **state)
{
    struct site *s = *state;
    s->poison = 37;
    append(s, STREAM_RAW, 200);
    start(s);
    wait_until(s, nothing_waits, "end");
    all_arrived(s, STREAM_RAW, 37);
    assert_int_equal(s->repeats, 0);
    struct ledger_device sum = total(s);
    assert_int_equal(sum.fates[FATE_DEAD], DEVICES * FIXTURE_POINTS);
    assert_int_equal(sum.fates[FATE_DELIVERED], 199 * DEVICES * FIXTURE_POINTS);
    struct sender_status status;
    sender_status(s->sender, &status);
    assert_int_equal(status.rejected, DEVICES * FIXTURE_POINTS);
}

static void test_a_list_of_rejected_records(void **state)
{
    struct site *s = *state;
    s->poison = 37;
    s->list_poison = true;
    append(s, STREAM_RAW, 40);
    start(s);
    wait_until(s, nothing_waits, "end");
    assert_int_equal(total(s).fates[FATE_DEAD], FIXTURE_POINTS);
    assert_int_equal(s->got[0][STREAM_RAW][37], 0);
    assert_int_equal(s->got[1][STREAM_RAW][37], 1);
    assert_int_equal(s->scans, 40 * DEVICES - 1);
}

static bool many_requests(struct site *s)
{
    struct sender_status status;
    sender_status(s->sender, &status);
    return status.state == SENDER_HELD;
}

static void test_an_endpoint_that_refuses_everything_is_held(void **state)
{
    struct site *s = *state;
    s->always_refuse = true;
    append(s, STREAM_RAW, 200);
    start(s);
    wait_until(s, many_requests, "hold");
    struct sender_status status;
    sender_status(s->sender, &status);
    assert_non_null(strstr(status.last_error, "refuses every record"));
    assert_in_range(status.rejected / FIXTURE_POINTS, 1, 32);
}

static void test_only_selected_points_leave(void **state)
{
    struct site *s = *state;
    s->keys = "points = t[01].p3 t1.p4";
    append(s, STREAM_RAW, 100);
    start(s);
    wait_until(s, nothing_waits, "end");
    struct ledger_device sum = total(s);
    assert_int_equal(sum.fates[FATE_DELIVERED], 100 * 3);
    assert_int_equal(sum.fates[FATE_NOT_SELECTED], 100 * (DEVICES * FIXTURE_POINTS - 3));
    assert_int_equal(s->scans, 200);
}

static int answer_flat(void *user, const struct cloud_request *request, char *text, size_t size)
{
    struct site *s = user;
    pthread_mutex_lock(&s->lock);
    s->scans += strstr(request->body, "{\"location\":\"t") == request->body;
    pthread_mutex_unlock(&s->lock);
    return cloud_reply(text, size, 200, "", "{\"message\":\"ok\"}");
}

static void test_flat_is_one_request_a_scan(void **state)
{
    struct site *s = *state;
    s->keys = "format = flat\nack = status";
    s->peer = cloud_start(&(struct cloud_options){.answer = answer_flat, .user = s});
    s->port = cloud_port(s->peer);
    snprintf(s->url, sizeof s->url, "http://127.0.0.1:%d/sensor", s->port);
    append(s, STREAM_RAW, 60);
    start(s);
    wait_until(s, nothing_waits, "end");
    assert_int_equal(s->scans, 60 * DEVICES);
    assert_int_equal(cloud_requests(s->peer), 60 * DEVICES);
}

static bool some_arrived(struct site *s)
{
    pthread_mutex_lock(&s->lock);
    unsigned scans = s->scans;
    pthread_mutex_unlock(&s->lock);
    return scans > 200;
}

static void test_stopped_at_any_time_it_goes_on_later(void **state)
{
    struct site *s = *state;
    append(s, STREAM_RAW, 1000);
    for (int i = 0; i < 10; i++) {
        start(s);
        if (i == 0) {
            wait_until(s, some_arrived, "start");
        }
        sender_stop(s->sender, i % 2 == 0 ? 1000 : 0);
    }
    start(s);
    wait_until(s, nothing_waits, "end");
    all_arrived(s, STREAM_RAW, 0);
    assert_int_equal(total(s).fates[FATE_DELIVERED], 1000 * DEVICES * FIXTURE_POINTS);
}

static void test_the_backlog_keeps_to_its_rate(void **state)
{
    struct site *s = *state;
    append(s, STREAM_RAW, 200);
    s->keys = "backfill_rate = 100000 B/s"; /* of about 330 kB */
    start(s);
    int64_t began_ms = clock_mono_ms();
    wait_until(s, nothing_waits, "end");
    struct sender_status status;
    sender_status(s->sender, &status);
    int64_t took_ms = clock_mono_ms() - began_ms;
    int64_t least_ms = (int64_t)(status.bytes_sent / 100) - 3000;
    assert_true(took_ms > least_ms && took_ms > 500);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
        T(test_all_arrives_once_and_in_order),
        T(test_oldest_first_keeps_the_order),
        T(test_an_outage_is_caught_up),
        T(test_a_captive_portal_is_no_delivery),
        T(test_a_wrong_count_is_no_delivery),
        T(test_trouble_is_retried_the_same),
        T(test_cut_connections_are_retried),
        T(test_retry_after_is_honoured),
        T(test_wrong_credentials_keep_everything),
        T(test_too_large_is_halved),
        T(test_one_bad_record_is_found),
        T(test_a_list_of_rejected_records),
        T(test_an_endpoint_that_refuses_everything_is_held),
        T(test_only_selected_points_leave),
        T(test_flat_is_one_request_a_scan),
        T(test_stopped_at_any_time_it_goes_on_later),
        T(test_the_backlog_keeps_to_its_rate),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
