/* The sender's turns: what is made goes out before the next is made, so that an endpoint works
 * while we do; and what it tells of a backlog. A transport of the test's own counts. */
#include "gateway/base/log.h"
#include "store_fixture.h"
#include "uplink/sender_loop.h"

#include <poll.h>

enum { DEVICES = 6, SCANS = 100, PARALLEL = 4, LIMIT_MS = 20000 };

/* Written by the sender's thread, read once that is joined. */
static struct counts {
    bool slow; /* encoding takes longer than a turn */
    unsigned unsent, unsent_max, flying, flying_max, requests;
    uint64_t bytes;
    struct {
        void (*done)(void *user, const struct uplink_reply *reply);
        void *user;
    } ways[PARALLEL];
} counts;

static int fake_create(const void *settings, const char *gateway, size_t parallel, void **ret_state)
{
    (void)settings;
    (void)gateway;
    assert_int_equal(parallel, PARALLEL);
    *ret_state = &counts;
    return 0;
}

static void fake_destroy(void *state)
{
    (void)state;
}

static int fake_send(void *state, const struct uplink_request *request,
                     void (*done)(void *user, const struct uplink_reply *reply), void *user)
{
    struct counts *c = state;
    (void)request;
    if (c->flying == PARALLEL) {
        return -EBUSY;
    }
    c->ways[c->flying].done = done;
    c->ways[c->flying++].user = user;
    c->flying_max = c->flying > c->flying_max ? c->flying : c->flying_max;
    c->unsent_max = ++c->unsent > c->unsent_max ? c->unsent : c->unsent_max;
    c->requests++;
    return 0;
}

/* Answers, first come first, once nothing else is to be done. */
static int fake_run(void *state, int wake_fd, int64_t timeout_ms)
{
    struct counts *c = state;
    c->unsent = 0;
    if (timeout_ms == 0) {
        return 0;
    }
    if (c->flying == 0) {
        struct pollfd wake = {.fd = wake_fd, .events = POLLIN};
        poll(&wake, 1, timeout_ms < 0 || timeout_ms > 1000 ? 1000 : (int)timeout_ms);
        return 0;
    }
    const struct uplink_reply reply = {.status = 200, .body = "", .content_type = ""};
    void (*done)(void *, const struct uplink_reply *) = c->ways[0].done;
    void *user = c->ways[0].user;
    memmove(&c->ways[0], &c->ways[1], --c->flying * sizeof c->ways[0]);
    done(user, &reply);
    return 0;
}

static uint64_t fake_bytes_sent(const void *state)
{
    (void)state;
    return counts.bytes;
}

static int fake_encode(const void *settings, const struct batch *batch,
                       struct uplink_request *request)
{
    (void)settings;
    (void)batch;
    buffer_clear(&request->body);
    int64_t until_ns = clock_mono_ns() + (counts.slow ? 2 * SENDER_TURN_NS : 0);
    while (clock_mono_ns() < until_ns) {
    }
    return 0;
}

static void fake_judge(const void *settings, const struct batch *batch,
                       const struct uplink_reply *reply, struct uplink_verdict *ret_verdict)
{
    (void)settings;
    (void)batch;
    (void)reply;
    ret_verdict->outcome = UPLINK_DELIVERED;
}

static const struct transport fake_transport = {.name = "fake",
                                                .create = fake_create,
                                                .destroy = fake_destroy,
                                                .send = fake_send,
                                                .run = fake_run,
                                                .bytes_sent = fake_bytes_sent};
static const struct uplink fake_uplink = {.name = "fake",
                                          .max_records = 1000,
                                          .max_bytes = 1 << 20,
                                          .encode = fake_encode,
                                          .judge = fake_judge,
                                          .transport = &fake_transport};

struct site {
    char *dir;
    struct store *store;
    unsigned uplink;
    const struct config *config;
};

static void load_config(struct site *s, const char *replay)
{
    char path[200];
    snprintf(path, sizeof path, "%s/windrow.ini", s->dir);
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    fprintf(f,
            "[gateway]\nname = test\n[uplink cloud]\ntype = http\nurl = http://127.0.0.1:9/\n"
            "parallel = %d\nbatch_records = 10\nbatch_interval = 20 ms\nreplay = %s\n",
            PARALLEL, replay);
    fclose(f);
    struct config_errors *errors = config_errors_create();
    assert_int_equal(config_load(path, errors, &s->config), 0);
    config_errors_destroy(errors);
}

static uint64_t waiting(const struct site *s)
{
    struct ledger_device total;
    assert_int_equal(store_commit(s->store), 0);
    assert_int_equal(store_ledger_total(s->store, (int)s->uplink, &total), 0);
    return total.waiting;
}

static void drain(struct site *s)
{
    struct sender *sender = NULL;
    assert_int_equal(sender_create(s->store, s->uplink, &s->config->uplinks[0], s->config, &sender),
                     0);
    sender->type = &fake_uplink;
    assert_int_equal(sender_start(sender), 0);
    int64_t until_ms = clock_mono_ms() + LIMIT_MS;
    while (waiting(s) > 0 && clock_mono_ms() < until_ms) {
        poll(NULL, 0, 2);
    }
    assert_int_equal(waiting(s), 0);
    sender_stop(sender, 1000);
    sender_destroy(sender);
}

static struct site begin(const char *replay)
{
    struct site s = {.dir = fixture_dir()};
    s.store = fixture_open(s.dir, &fixture_settings);
    assert_int_equal(store_add_uplink(s.store, "cloud", 1, 0, &s.uplink), 0);
    load_config(&s, replay);
    return s;
}

static void end(struct site *s)
{
    config_unref(s->config);
    store_close(s->store);
    fixture_remove(s->dir);
}

static void run(const char *replay, bool slow)
{
    struct site s = begin(replay);
    counts = (struct counts){.slow = slow};
    for (unsigned d = 0; d < DEVICES; d++) {
        char name[8];
        snprintf(name, sizeof name, "t%u", d);
        uint32_t device = fixture_device(s.store, name, FIXTURE_POINTS);
        for (uint64_t seq = 1; seq <= SCANS; seq++) {
            assert_int_equal(fixture_append(s.store, STREAM_RAW, device, seq), 0);
        }
    }
    drain(&s);
    assert_true(counts.requests >= DEVICES * SCANS / 10);
    assert_in_range(counts.flying_max, 2, PARALLEL); /* they are on their way together */
    if (slow) {
        assert_int_equal(counts.unsent_max, 1);
    }
    end(&s);
}

static void test_each_request_goes_out_before_the_next_is_made(void **state)
{
    (void)state;
    run("oldest-first", true);
    run("live-and-backfill", true);
}

static void test_quick_ones_go_out_too(void **state)
{
    (void)state;
    run("oldest-first", false);
    run("live-and-backfill", false);
}

static struct sender_status publish(struct sender *s, uint64_t waiting, int64_t now_ms)
{
    struct sender_status status;
    s->backlog.readings[STORE_LANE_BACKFILL] = waiting;
    sender_publish(s, now_ms);
    sender_status(s, &status);
    return status;
}

static void test_when_the_backlog_is_gone(void **state)
{
    (void)state;
    struct site site = begin("oldest-first");
    struct sender *s = NULL;
    assert_int_equal(
        sender_create(site.store, site.uplink, &site.config->uplinks[0], site.config, &s), 0);
    s->type = &fake_uplink;
    counts = (struct counts){0};
    assert_int_equal(publish(s, 100000, 1000).backlog_eta_s, -1); /* not known yet */
    s->status.delivered += 50000;
    counts.bytes += 80000;
    assert_int_equal(publish(s, 60000, 2000).backlog_eta_s, -1);
    struct sender_status status = publish(s, 60000, 5000); /* 2,500 a second had come */
    assert_int_equal(status.backlog_eta_s, 7);
    assert_int_equal(status.delivered_per_s, 12500);
    assert_int_equal(status.bytes_per_s, 20000);
    status = publish(s, 60000, 30000); /* not a word so far: nothing new is known */
    assert_int_equal(status.backlog_eta_s, 7);
    assert_int_equal(status.delivered_per_s, 12500);
    s->status.delivered += 250;
    status = publish(s, 90000, 30000); /* more comes than goes */
    assert_int_equal(status.backlog_eta_s, -1);
    assert_int_equal(status.delivered_per_s, 10);
    status = publish(s, 90000, 91000); /* silent for a minute */
    assert_int_equal(status.delivered_per_s, 0);
    status = publish(s, 0, 92000);
    assert_int_equal(status.backlog_eta_s, 0);
    sender_destroy(s);
    end(&site);
}

int main(void)
{
    log_set_level(LOG_LEVEL_ERROR);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_each_request_goes_out_before_the_next_is_made),
        cmocka_unit_test(test_quick_ones_go_out_too),
        cmocka_unit_test(test_when_the_backlog_is_gone),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
