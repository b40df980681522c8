/* One connection against good and bad peers: what does not match its request never counts as an
 * answer, and nothing that a peer does holds the loop. */
#include "drivers/modbus/session.h"
#include "modbus_peer.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/resource.h>
/* clang-format off */
#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>
/* clang-format on */

struct asked {
    struct session_request request; /* first */
    struct session_result result;
    uint8_t data[256];
    unsigned done;
};

struct fixture {
    struct event_base *base;
    struct schedule *schedule;
    struct session_pool *pool;
    struct session *session;
    struct peer peer;
};

static void on_done(struct session_request *request, const struct session_result *result)
{
    struct asked *asked = (struct asked *)request;
    asked->result = *result;
    if (result->data != NULL) {
        memcpy(asked->data, result->data, result->data_len);
    }
    asked->done++;
}

static int set_up(void **state)
{
    static struct fixture f;
    f = (struct fixture){.base = event_base_new()};
    *state = &f;
    if (schedule_create(f.base, &f.schedule) != 0 ||
        session_pool_create(f.base, f.schedule, SESSION_MBAP, &f.pool) != 0) {
        return -1;
    }
    peer_start(&f.peer, f.base);
    return session_get(f.pool, f.peer.address, (struct session_pauses){0}, &f.session);
}

static int tear_down(void **state)
{
    struct fixture *f = *state;
    session_put(f->session);
    peer_stop(&f->peer);
    session_pool_destroy(f->pool);
    schedule_destroy(f->schedule);
    event_base_free(f->base);
    return 0;
}

static void ask(struct fixture *f, struct asked *asked, uint16_t first)
{
    *asked = (struct asked){
        .request = {.ask = {.function = MBAP_READ_HOLDING, .first = first, .count = 2},
                    .unit = 1,
                    .timeout_ms = 200,
                    .done = on_done},
    };
    assert_int_equal(session_submit(f->session, &asked->request, false), 0);
    assert_int_equal(asked->done, 0);
}

static void ask_and_wait(struct fixture *f, struct asked *asked, uint16_t first)
{
    ask(f, asked, first);
    run_until(f->base, 2000, asked->done > 0);
    assert_int_equal(asked->done, 1);
}

static void assert_good(const struct asked *asked, unsigned first)
{
    assert_int_equal(asked->result.error, DEVICE_ERROR_NONE);
    assert_int_equal(asked->result.data_len, 4);
    assert_int_equal(mbap_get16(asked->data), 1000 + first);
}

static void test_good_peer_over_one_connection(void **state)
{
    struct fixture *f = *state;
    struct asked asked[8];
    for (uint16_t i = 0; i < 8; i++) {
        ask(f, &asked[i], i);
    }
    run_until(f->base, 2000, asked[7].done > 0);
    for (unsigned i = 0; i < 8; i++) {
        assert_int_equal(asked[i].done, 1);
        assert_good(&asked[i], i);
    }
    assert_int_equal(f->peer.accepted, 1);
}

static void test_replies_that_do_not_match_are_dropped(void **state)
{
    struct fixture *f = *state;
    const enum peer_mode modes[] = {PEER_WRONG_TRANSACTION, PEER_WRONG_UNIT};
    for (size_t i = 0; i < ARRAY_SIZE(modes); i++) {
        struct asked asked;
        f->peer.mode = modes[i];
        ask_and_wait(f, &asked, 5);
        assert_int_equal(asked.result.error, DEVICE_ERROR_TIMEOUT);
        assert_int_equal(asked.result.mismatches, 1);
        f->peer.mode = PEER_GOOD;
        ask_and_wait(f, &asked, 7);
        assert_good(&asked, 7);
    }
    assert_int_equal(f->peer.accepted, 1);
}

static void test_framing_errors_close_the_connection(void **state)
{
    struct fixture *f = *state;
    const enum peer_mode modes[] = {PEER_WRONG_FUNCTION, PEER_WRONG_COUNT, PEER_WRONG_PROTOCOL,
                                    PEER_GARBAGE, PEER_FLOOD};
    for (unsigned i = 0; i < ARRAY_SIZE(modes); i++) {
        struct asked asked;
        f->peer.mode = modes[i];
        ask_and_wait(f, &asked, 5);
        assert_int_equal(asked.result.error, DEVICE_ERROR_FRAMING);
        run_until(f->base, 1000, f->peer.open == 0);
        f->peer.mode = PEER_GOOD;
        ask_and_wait(f, &asked, 7);
        assert_good(&asked, 7);
        assert_int_equal(f->peer.accepted, i + 2);
    }
}

/* libmodbus takes the late answer for address 5 as the answer for address 7, and stays one behind.
 */
static void test_late_reply_is_not_the_next_one(void **state)
{
    struct fixture *f = *state;
    struct asked asked;
    f->peer.mode = PEER_LATE;
    ask_and_wait(f, &asked, 5);
    assert_int_equal(asked.result.error, DEVICE_ERROR_TIMEOUT);
    ask_and_wait(f, &asked, 7); /* brings the answer for 5 */
    assert_int_equal(asked.result.error, DEVICE_ERROR_TIMEOUT);
    assert_int_equal(asked.result.mismatches, 1);
    f->peer.mode = PEER_GOOD;
    ask_and_wait(f, &asked, 9);
    assert_good(&asked, 9);
}

static void test_duplicates_are_dropped(void **state)
{
    struct fixture *f = *state;
    struct asked asked;
    f->peer.mode = PEER_DUPLICATE;
    unsigned mismatches = 0;
    for (uint16_t i = 0; i < 30; i++) {
        ask_and_wait(f, &asked, i);
        assert_good(&asked, i);
        mismatches += asked.result.mismatches;
    }
    assert_in_range(mismatches, 28, 29);
    assert_int_equal(f->peer.accepted, 1);
}

static void test_torn_reply_is_put_together(void **state)
{
    struct fixture *f = *state;
    struct asked asked;
    f->peer.mode = PEER_TORN;
    ask_and_wait(f, &asked, 11);
    assert_good(&asked, 11);
}

/* 13 bytes at 40 ms each would take 520 ms; the deadline does not move with every byte. */
static void test_dripping_peer_meets_the_deadline(void **state)
{
    struct fixture *f = *state;
    struct asked asked;
    f->peer.mode = PEER_DRIP;
    int64_t from = clock_mono_ms();
    ask_and_wait(f, &asked, 11);
    assert_int_equal(asked.result.error, DEVICE_ERROR_TIMEOUT);
    assert_in_range(clock_mono_ms() - from, 195, 320);
    f->peer.mode = PEER_GOOD;
    ask_and_wait(f, &asked, 3);
    assert_good(&asked, 3);
    assert_int_equal(f->peer.accepted, 2);
}

static void test_silence_leads_to_a_new_connection(void **state)
{
    struct fixture *f = *state;
    struct asked asked;
    f->peer.mode = PEER_SILENT;
    for (unsigned i = 0; i < SESSION_TIMEOUTS_MAX; i++) {
        ask_and_wait(f, &asked, 1);
        assert_int_equal(asked.result.error, DEVICE_ERROR_TIMEOUT);
    }
    f->peer.mode = PEER_GOOD;
    ask_and_wait(f, &asked, 1);
    assert_good(&asked, 1);
    assert_int_equal(f->peer.accepted, 2);
}

static void test_peer_that_closes(void **state)
{
    struct fixture *f = *state;
    struct asked asked;
    f->peer.mode = PEER_CLOSE;
    ask_and_wait(f, &asked, 1);
    assert_int_equal(asked.result.error, DEVICE_ERROR_CLOSED);
    assert_int_equal(f->peer.requests, 1);
    /* One that closes after every answer is simply connected to again. */
    f->peer.mode = PEER_CLOSE_AFTER;
    for (uint16_t i = 0; i < 5; i++) {
        ask_and_wait(f, &asked, i);
        assert_good(&asked, i);
    }
}

static void test_request_on_a_stale_connection_is_asked_again_once(void **state)
{
    struct fixture *f = *state;
    struct asked asked;
    ask_and_wait(f, &asked, 1);
    f->peer.mode = PEER_CLOSE;
    ask_and_wait(f, &asked, 2);
    assert_int_equal(asked.result.error, DEVICE_ERROR_CLOSED);
    assert_int_equal(f->peer.requests, 3);
}

static void test_nobody_listens(void **state)
{
    struct fixture *f = *state;
    struct asked asked[3];
    peer_leave(&f->peer);
    for (unsigned i = 0; i < 3; i++) {
        ask(f, &asked[i], 1);
    }
    run_until(f->base, 1000, asked[2].done > 0);
    for (unsigned i = 0; i < 3; i++) {
        assert_int_equal(asked[i].result.error, DEVICE_ERROR_CONNECT);
        assert_int_equal(asked[i].result.detail, ECONNREFUSED);
    }
    peer_listen(&f->peer);
    ask_and_wait(f, &asked[0], 4);
    assert_good(&asked[0], 4);
}

static void test_names_are_resolved(void **state)
{
    struct fixture *f = *state;
    struct session *own = f->session, *named, *unknown;
    char address[64];
    struct asked asked;
    snprintf(address, sizeof(address), "localhost%s", strchr(f->peer.address, ':'));
    assert_int_equal(session_get(f->pool, address, (struct session_pauses){0}, &named), 0);
    f->session = named;
    ask_and_wait(f, &asked, 4);
    assert_good(&asked, 4);
    assert_int_equal(
        session_get(f->pool, "no-such-host.invalid:502", (struct session_pauses){0}, &unknown), 0);
    f->session = unknown;
    ask_and_wait(f, &asked, 4);
    assert_int_equal(asked.result.error, DEVICE_ERROR_RESOLVE);
    session_put(named);
    session_put(unknown);
    f->session = own;
}

static void test_cancelled_requests_are_forgotten(void **state)
{
    struct fixture *f = *state;
    struct asked asked[3];
    for (uint16_t i = 0; i < 3; i++) {
        ask(f, &asked[i], i);
    }
    session_cancel(f->session, &asked[1].request);
    session_cancel(f->session, &asked[0].request);
    run_until(f->base, 1000, asked[2].done > 0);
    assert_good(&asked[2], 2);
    assert_int_equal(asked[0].done + asked[1].done, 0);
    ask_and_wait(f, &asked[0], 8);
    ask(f, &asked[1], 9);
    session_cancel(f->session, &asked[1].request); /* sent already: its answer is a stray */
    ask_and_wait(f, &asked[2], 10);
    assert_good(&asked[2], 10);
}

static void test_pauses_are_kept(void **state)
{
    struct fixture *f = *state;
    struct session *again;
    const struct session_pauses pauses = {.connect_ms = 60, .request_ms = 40};
    assert_int_equal(session_get(f->pool, f->peer.address, pauses, &again), 0);
    assert_ptr_equal(again, f->session);
    assert_int_equal(session_wire(again)->users, 2);
    struct asked asked[3];
    int64_t from = clock_mono_ms();
    for (uint16_t i = 0; i < 3; i++) {
        ask(f, &asked[i], i);
    }
    run_until(f->base, 1000, asked[2].done > 0);
    assert_in_range(clock_mono_ms() - from, 138, 400);
    session_put(again);
}

/* libmodbus aborts the process here: it selects. */
static void test_descriptors_beyond_1024(void **state)
{
    struct fixture *f = *state;
    enum { FILLERS = 1100 };
    static int fillers[FILLERS];
    struct rlimit before, raised;
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &before), 0);
    raised = before;
    raised.rlim_cur = before.rlim_max < 4096 ? before.rlim_max : 4096;
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &raised), 0);
    for (size_t i = 0; i < FILLERS; i++) {
        fillers[i] = open("/dev/null", O_RDONLY | O_CLOEXEC);
        assert_true(fillers[i] >= 0);
    }
    struct asked asked;
    ask_and_wait(f, &asked, 6);
    assert_good(&asked, 6);
    for (size_t i = 0; i < FILLERS; i++) {
        close(fillers[i]);
    }
    peer_stop(&f->peer);
    session_close_idle(f->session);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &before), 0);
}

static void test_queue_has_a_bound(void **state)
{
    struct fixture *f = *state;
    static struct asked asked[SESSION_QUEUE_MAX + 1], more;
    f->peer.mode = PEER_SILENT;
    for (unsigned i = 0; i <= SESSION_QUEUE_MAX; i++) {
        ask(f, &asked[i], 1);
    }
    more.request = asked[0].request;
    more.request.next = more.request.previous = NULL;
    assert_int_equal(session_submit(f->session, &more.request, false), -ENOBUFS);
    for (unsigned i = 0; i <= SESSION_QUEUE_MAX; i++) {
        session_cancel(f->session, &asked[i].request);
    }
    more.request.ask.count = 126;
    assert_int_equal(session_submit(f->session, &more.request, false), -EINVAL);
}

static void test_addresses(void **state)
{
    (void)state;
    char host[256];
    uint16_t port;
    const struct {
        const char *text, *host;
        uint16_t port; /* 0: refused */
    } cases[] = {
        {"10.0.0.1", "10.0.0.1", 502},
        {"10.0.0.1:5020", "10.0.0.1", 5020},
        {"[::1]:5020", "::1", 5020},
        {"[fe80::1%eth0]", "fe80::1%eth0", 502},
        {"fe80::1", "fe80::1", 502},
        {"plc-7.local:1", "plc-7.local", 1},
        {"", "", 0},
        {":502", "", 0},
        {"host:", "", 0},
        {"host:0", "", 0},
        {"host:65536", "", 0},
        {"host:5x", "", 0},
        {"[::1", "", 0},
        {"[::1]x", "", 0},
    };
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        int r = session_split_address(cases[i].text, host, &port);
        assert_int_equal(r, cases[i].port == 0 ? -EINVAL : 0);
        if (r == 0) {
            assert_string_equal(host, cases[i].host);
            assert_int_equal(port, cases[i].port);
        }
    }
}

#define session_test(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        session_test(test_good_peer_over_one_connection),
        session_test(test_replies_that_do_not_match_are_dropped),
        session_test(test_framing_errors_close_the_connection),
        session_test(test_late_reply_is_not_the_next_one),
        session_test(test_duplicates_are_dropped),
        session_test(test_torn_reply_is_put_together),
        session_test(test_dripping_peer_meets_the_deadline),
        session_test(test_silence_leads_to_a_new_connection),
        session_test(test_peer_that_closes),
        session_test(test_request_on_a_stale_connection_is_asked_again_once),
        session_test(test_nobody_listens),
        session_test(test_names_are_resolved),
        session_test(test_cancelled_requests_are_forgotten),
        session_test(test_pauses_are_kept),
        session_test(test_descriptors_beyond_1024),
        session_test(test_queue_has_a_bound),
        cmocka_unit_test(test_addresses),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
