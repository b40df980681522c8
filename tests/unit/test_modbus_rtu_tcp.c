/* RTU frames over a TCP session, against a line behind a serial server that misbehaves in every
 * way. */
#include "drivers/modbus/session.h"
#include "gateway/base/clock.h"
#include "rtu_peer.h"

#include <errno.h>
#include <event2/event.h>
#include <string.h>
/* clang-format off */
#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>
/* clang-format on */

struct fixture {
    struct event_base *base;
    struct schedule *schedule;
    struct session_pool *pool;
    struct session *session;
    struct rtu_peer peer;
};

struct ask {
    struct session_request request; /* first */
    struct session_result result;
    uint8_t data[MBAP_FRAME_MAX];
    unsigned answers;
};

static struct fixture fixture;

static int set_up(void **state)
{
    struct fixture *f = &fixture;
    memset(f, 0, sizeof(*f));
    *state = f;
    rtu_peer_start_tcp(&f->peer);
    f->base = event_base_new();
    int r = schedule_create(f->base, &f->schedule);
    if (r == 0) {
        r = session_pool_create(f->base, f->schedule, SESSION_RTU, &f->pool);
    }
    if (r == 0) {
        r = session_get(f->pool, f->peer.path, (struct session_pauses){0}, &f->session);
    }
    return r;
}

static int tear_down(void **state)
{
    struct fixture *f = *state;
    session_put(f->session);
    session_pool_destroy(f->pool);
    schedule_destroy(f->schedule);
    event_base_free(f->base);
    rtu_peer_stop(&f->peer);
    return 0;
}

static void on_done(struct session_request *request, const struct session_result *result)
{
    struct ask *ask = (struct ask *)request;
    ask->result = *result;
    ask->answers++;
    if (result->data_len > 0) {
        memcpy(ask->data, result->data, result->data_len);
    }
}

static struct ask ask_for(unsigned unit, unsigned first, unsigned count)
{
    return (struct ask){.request = {.ask = {.function = MBAP_READ_HOLDING,
                                            .first = (uint16_t)first,
                                            .count = (uint16_t)count},
                                    .unit = (uint8_t)unit,
                                    .timeout_ms = 200,
                                    .done = on_done}};
}

static void run_until_answered(struct fixture *f, struct ask *ask)
{
    int64_t end_ms = clock_mono_ms() + 60000;
    while (ask->answers == 0 && clock_mono_ms() < end_ms) {
        const struct timeval most = {1, 0};
        event_base_loopexit(f->base, &most);
        event_base_loop(f->base, EVLOOP_ONCE);
    }
    assert_int_equal(ask->answers, 1);
}

static enum device_error read_one(struct fixture *f, struct ask *ask)
{
    ask->answers = 0;
    assert_int_equal(session_submit(f->session, &ask->request, false), 0);
    run_until_answered(f, ask);
    return ask->result.error;
}

static void assert_read(struct fixture *f, unsigned unit, unsigned first)
{
    struct ask ask = ask_for(unit, first, 2);
    assert_int_equal(read_one(f, &ask), DEVICE_ERROR_NONE);
    assert_int_equal(mbap_get16(ask.data), 100 * unit + first);
    assert_int_equal(mbap_get16(ask.data + 2), 100 * unit + first + 1);
}

static void test_many_units_behind_one_endpoint(void **state)
{
    struct fixture *f = *state;
    for (unsigned unit = 1; unit <= 20; unit++) {
        assert_read(f, unit, unit);
    }
    struct ask all = ask_for(3, 0, MBAP_READ_REGISTERS_MAX);
    assert_int_equal(read_one(f, &all), DEVICE_ERROR_NONE);
    assert_int_equal(all.result.data_len, 250);
    f->peer.mode = RTU_PEER_TORN;
    assert_read(f, 9, 1);
    f->peer.mode = RTU_PEER_EXCEPTION;
    struct ask refused = ask_for(1, 0, 1);
    assert_int_equal(read_one(f, &refused), DEVICE_ERROR_EXCEPTION);
    assert_int_equal(refused.result.detail, 2);
    assert_int_equal(f->peer.accepted, 1);
}

static void test_a_late_reply_is_not_taken_for_the_next(void **state)
{
    struct fixture *f = *state;
    struct ask late = ask_for(1, 50, 2), next = ask_for(1, 60, 2);
    late.request.timeout_ms = 2000;
    f->peer.mode = RTU_PEER_LATE;
    f->peer.delay_ms = 2150; /* into the silence of 500 ms that is waited for */
    f->peer.once = 1;
    assert_int_equal(session_submit(f->session, &late.request, false), 0);
    assert_int_equal(session_submit(f->session, &next.request, false), 0);
    run_until_answered(f, &late);
    assert_int_equal(late.result.error, DEVICE_ERROR_TIMEOUT);
    assert_int_equal(late.result.mismatches, 1);
    run_until_answered(f, &next);
    assert_int_equal(next.result.error, DEVICE_ERROR_NONE);
    assert_int_equal(mbap_get16(next.data), 160);
    assert_int_equal(f->peer.accepted, 1);
}

/* A device was removed while it was being asked: the same holds for its reply. */
static void test_the_reply_of_a_cancelled_request(void **state)
{
    struct fixture *f = *state;
    struct ask gone = ask_for(1, 50, 2);
    assert_read(f, 2, 0);
    f->peer.mode = RTU_PEER_LATE;
    f->peer.delay_ms = 100;
    f->peer.once = 1;
    assert_int_equal(session_submit(f->session, &gone.request, false), 0);
    session_cancel(f->session, &gone.request);
    assert_read(f, 1, 60);
    assert_int_equal(gone.answers, 0);
}

/* After a damaged reply the line is in step again: at once, or on a busy machine, where the peer's
 * bytes come late, after another error; but never with a wrong value. */
static void assert_recovers(struct fixture *f, unsigned unit, unsigned first)
{
    struct ask ask = ask_for(unit, first, 2);
    unsigned tries = 1;
    while (read_one(f, &ask) != DEVICE_ERROR_NONE && tries < 5) {
        tries++;
    }
    assert_int_equal(ask.result.error, DEVICE_ERROR_NONE);
    assert_int_equal(mbap_get16(ask.data), 100 * unit + first);
}

static void test_damaged_replies(void **state)
{
    struct fixture *f = *state;
    static const enum rtu_peer_mode modes[] = {RTU_PEER_BAD_CRC, RTU_PEER_CUT,
                                               RTU_PEER_WRONG_FUNCTION, RTU_PEER_WRONG_COUNT,
                                               RTU_PEER_GARBAGE};
    for (size_t i = 0; i < ARRAY_SIZE(modes); i++) {
        f->peer.mode = (int)modes[i];
        f->peer.once = 1;
        struct ask bad = ask_for(1, 50, 2);
        assert_int_equal(read_one(f, &bad), DEVICE_ERROR_FRAMING);
        assert_recovers(f, 1, 60);
    }
    assert_int_equal(f->peer.accepted, 1);
}

static void test_foreign_frames_and_noise(void **state)
{
    struct fixture *f = *state;
    f->peer.mode = RTU_PEER_FOREIGN;
    struct ask ask = ask_for(1, 50, 2);
    assert_int_equal(read_one(f, &ask), DEVICE_ERROR_NONE);
    assert_int_equal(ask.result.mismatches, 1);
    assert_int_equal(mbap_get16(ask.data), 150);
    /* Noise may come with the reply, or alone a moment later: then it costs a reply, not a wrong
     * value. */
    f->peer.mode = RTU_PEER_NOISE;
    unsigned good = 0;
    for (unsigned i = 0; i < 20; i++) {
        ask = ask_for(1, i, 1);
        if (read_one(f, &ask) == DEVICE_ERROR_NONE) {
            good++;
            assert_int_equal(mbap_get16(ask.data), 100 + i);
        }
    }
    assert_true(good > 0);
}

static void test_silence_and_a_new_connection(void **state)
{
    struct fixture *f = *state;
    assert_read(f, 1, 0);
    f->peer.silent_units = 2;
    for (unsigned i = 0; i < SESSION_TIMEOUTS_MAX; i++) {
        struct ask ask = ask_for(1, 0, 1);
        assert_int_equal(read_one(f, &ask), DEVICE_ERROR_TIMEOUT);
    }
    assert_read(f, 2, 0);
    assert_int_equal(f->peer.accepted, 2);
}

static void test_broadcast(void **state)
{
    struct fixture *f = *state;
    const uint8_t value[] = {0, 1};
    struct ask ask = ask_for(RTU_BROADCAST, 10, 1);
    assert_int_equal(session_submit(f->session, &ask.request, false), -EINVAL);
    ask.request.ask.function = MBAP_WRITE_REGISTER;
    ask.request.ask.data = value;
    ask.request.ask.data_len = 2;
    ask.request.timeout_ms = 50;
    assert_int_equal(read_one(f, &ask), DEVICE_ERROR_NONE);
    assert_int_equal(f->peer.writes, 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_many_units_behind_one_endpoint, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_a_late_reply_is_not_taken_for_the_next, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(test_the_reply_of_a_cancelled_request, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_damaged_replies, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_foreign_frames_and_noise, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_silence_and_a_new_connection, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_broadcast, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
