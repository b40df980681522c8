/* How often a silent device is asked, and what that costs its neighbours. */
#include "drivers/modbus/breaker.h"

#include <stddef.h>
/* clang-format off */
#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>
/* clang-format on */

static void test_opens_after_some_failures_and_pauses_grow(void **state)
{
    (void)state;
    struct breaker breaker = {0};
    struct breaker_line line = {0};
    int64_t now = 1000;
    for (int i = 1; i <= BREAKER_FAILURES; i++) {
        assert_true(breaker_allows(&breaker, &line, now));
        assert_int_equal(breaker_bad(&breaker, &line, now, 500, false), i == BREAKER_FAILURES);
        now += 1000;
    }
    int64_t last = 0;
    for (int i = 0; i < 10; i++) {
        int64_t from = now;
        while (!breaker_allows(&breaker, &line, now)) {
            now += 10;
        }
        assert_true(now - from >= last - 1000 && now - from <= BREAKER_PAUSE_MAX_MS);
        last = now - from;
        breaker_bad(&breaker, &line, now, 500, false);
    }
    assert_true(last >= BREAKER_PAUSE_MAX_MS - 10);
    breaker_good(&breaker);
    assert_true(breaker_allows(&breaker, &line, now));
    assert_false(breaker_is_open(&breaker));
}

/* Some of 30 units on one line are dead, time-outs cost 500 ms: waiting for them takes less than
 * 5 % of the time once they are known, however many they are. */
static void waiting_share(size_t dead, int64_t timeout_ms)
{
    struct breaker breakers[30] = {{0}};
    struct breaker_line line = {0};
    int64_t waited = 0, from = 0, now = 0;
    for (int64_t slot = 0; slot < 600000; slot += 1000) {
        now = now > slot ? now : slot;
        if (slot == 100000) {
            waited = 0;
            from = now;
        }
        for (size_t i = 0; i < dead; i++) {
            if (breaker_allows(&breakers[i], &line, now)) {
                now += timeout_ms;
                waited += timeout_ms;
                breaker_bad(&breakers[i], &line, now, timeout_ms, true);
            }
        }
    }
    assert_true(waited > 0);
    assert_true((double)waited < 0.05 * (double)(now - from));
}

static void test_neighbours_lose_less_than_five_percent(void **state)
{
    (void)state;
    waiting_share(1, 500);
    waiting_share(10, 500);
    waiting_share(29, 500);
    waiting_share(1, 3000);
}

/* A burst of probes must not pile up when the line becomes free: it is one at a time. */
static void test_one_probe_at_a_time(void **state)
{
    (void)state;
    struct breaker breakers[5] = {{0}};
    struct breaker_line line = {0};
    for (size_t i = 0; i < 5; i++) {
        for (int n = 0; n < BREAKER_FAILURES_SHARED; n++) {
            breaker_bad(&breakers[i], &line, 0, 100, true);
        }
    }
    int64_t now = 10000000;
    unsigned probes = 0;
    for (size_t i = 0; i < 5; i++) {
        if (breaker_allows(&breakers[i], &line, now)) {
            probes++;
            breaker_bad(&breakers[i], &line, now, 100, true);
        }
    }
    assert_int_equal(probes, 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_opens_after_some_failures_and_pauses_grow),
        cmocka_unit_test(test_neighbours_lose_less_than_five_percent),
        cmocka_unit_test(test_one_probe_at_a_time),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
