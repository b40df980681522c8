/* One turbine's answers, its physics and its faults' words, without a network. */
#include "drivers/simulator/power_curve.h"
#include "drivers/simulator/sim_unit.h"

#include <errno.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
/* clang-format off: cmocka needs the ones above */
#include <cmocka.h>
/* clang-format on */

static const struct sim_site by_clock = {.step_ms = 1000};
static const struct sim_site by_poll = {.step_by_poll = true};

/* A read; returns the exception, or 0 and the values as registers. */
static unsigned read_values(struct sim_unit *unit, int64_t now_ms, uint8_t function, uint16_t first,
                            uint16_t count, struct sim_served *served)
{
    struct mbap_request request = {.function = function, .first = first, .count = count};
    uint8_t pdu[MBAP_PDU_MAX], reply[MBAP_PDU_MAX];
    int len = mbap_encode_request(&request, pdu);
    assert_true(len > 0);
    size_t reply_len = sim_unit_answer(unit, now_ms, pdu, (size_t)len, reply, served);
    struct mbap_reply parsed;
    assert_int_equal(mbap_parse_reply(&request, reply, reply_len, &parsed), 0);
    if (parsed.exception == 0 && function == MBAP_READ_HOLDING) {
        for (unsigned i = 0; i < count; i++) {
            assert_int_equal(mbap_get16(parsed.data + 2 * i), served->values[i]);
        }
    }
    sim_unit_count(unit, served);
    return parsed.exception;
}

static unsigned write_register(struct sim_unit *unit, uint16_t address, uint16_t value)
{
    uint8_t data[2], pdu[MBAP_PDU_MAX], reply[MBAP_PDU_MAX];
    struct sim_served served;
    mbap_put16(data, value);
    struct mbap_request request = {
        .function = MBAP_WRITE_REGISTER, .first = address, .count = 1, .data = data, .data_len = 2};
    int len = mbap_encode_request(&request, pdu);
    size_t reply_len = sim_unit_answer(unit, 0, pdu, (size_t)len, reply, &served);
    struct mbap_reply parsed;
    assert_int_equal(mbap_parse_reply(&request, reply, reply_len, &parsed), 0);
    return parsed.exception;
}

static void test_same_seed_same_values(void **state)
{
    (void)state;
    struct sim_signal a, b, other;
    sim_signal_init(&a, 7, 3);
    sim_signal_init(&b, 7, 3);
    sim_signal_init(&other, 8, 3);
    for (int i = 0; i < 1000; i++) {
        sim_signal_next(&a);
        sim_signal_next(&b);
        sim_signal_next(&other);
    }
    assert_memory_equal(&a, &b, sizeof a);
    assert_memory_not_equal(a.fillers, other.fillers, sizeof a.fillers);
    sim_signal_init(&b, 7, 4);
    assert_int_not_equal(a.registers[SIM_WIND], b.registers[SIM_WIND]);
}

/* A day of one turbine: in bounds, and everything that a demo wants to show happens. */
static void test_a_day(void **state)
{
    (void)state;
    struct sim_signal s;
    bool states[SIM_NO_GRID + 1] = {false};
    int north = 0, out = 0;
    sim_signal_init(&s, 1, 1);
    unsigned last = s.registers[SIM_NACELLE];
    for (int i = 0; i < 86400; i++) {
        sim_signal_next(&s);
        unsigned direction = s.registers[SIM_NACELLE];
        int32_t power = (int32_t)((uint32_t)s.registers[SIM_POWER] << 16 | s.registers[2]);
        assert_true(direction < 3600);
        assert_true(s.registers[SIM_WIND] <= 4000);
        assert_true(power >= -100 && power <= (int32_t)(10 * POWER_CURVE_RATED_KW));
        assert_true(s.state != SIM_AT_RATED || power == (int32_t)(10 * POWER_CURVE_RATED_KW));
        assert_true(s.grid_ok || power <= 0);
        north += (last > 3000 && direction < 600) || (last < 600 && direction > 3000) ? 1 : 0;
        out += s.grid_ok ? 0 : 1;
        states[s.state] = true;
        last = direction;
    }
    assert_true(north > 100);
    assert_true(out > 100 && out < 8000);
    assert_true(states[SIM_STOPPED] && states[SIM_STARTING] && states[SIM_RUNNING] &&
                states[SIM_AT_RATED] && states[SIM_NO_GRID]);
}

static void test_map(void **state)
{
    (void)state;
    struct sim_unit unit;
    struct sim_served served;
    sim_unit_init(&unit, &by_clock, 1, 1, SIM_SOUND);
    assert_int_equal(read_values(&unit, 0, MBAP_READ_HOLDING, 0, 32, &served), 0);
    assert_int_equal(read_values(&unit, 0, MBAP_READ_INPUT, 0, 21, &served), 0);
    assert_int_equal(read_values(&unit, 0, MBAP_READ_HOLDING, 100, 100, &served), 0);
    assert_int_equal(read_values(&unit, 0, MBAP_READ_DISCRETES, 0, 1, &served), 0);
    assert_int_equal(served.values[0], 1);
    assert_int_equal(read_values(&unit, 0, MBAP_READ_COILS, 0, 16, &served), 0);
    assert_int_equal(read_values(&unit, 0, MBAP_READ_HOLDING, 31, 2, &served), 2);
    assert_int_equal(read_values(&unit, 0, MBAP_READ_HOLDING, 99, 2, &served), 2);
    assert_int_equal(read_values(&unit, 0, MBAP_READ_HOLDING, 199, 2, &served), 2);
    assert_int_equal(read_values(&unit, 0, MBAP_READ_COILS, 0, 17, &served), 2);
    assert_int_equal(unit.counts.exceptions, 4);
    /* 7 points of demo-turbine in holding 0 to 20, twice; 100 fillers; grid_ok twice. */
    assert_int_equal(unit.counts.registers, 32 + 21 + 100);
    assert_int_equal(unit.counts.points, 7 + 7 + 100 + 2);
}

static void test_pitch(void **state)
{
    (void)state;
    struct sim_unit unit;
    struct sim_served served;
    sim_unit_init(&unit, &by_clock, 1, 1, SIM_SOUND);
    assert_int_equal(write_register(&unit, SIM_PITCH, 4500), 0);
    assert_int_equal(read_values(&unit, 0, MBAP_READ_HOLDING, SIM_PITCH, 1, &served), 0);
    assert_int_equal(served.values[0], 4500);
    assert_int_equal(write_register(&unit, SIM_PITCH, SIM_PITCH_MAX + 1), 3);
    assert_int_equal(write_register(&unit, SIM_PITCH, (uint16_t)-1), 3);
    assert_int_equal(write_register(&unit, SIM_WIND, 1), 2);
    assert_int_equal(unit.signal.pitch_setpoint, 4500);
    assert_int_equal(unit.counts.writes, 1);
    assert_int_equal(write_register(&unit, SIM_PITCH, SIM_PITCH_MAX), 0);
    for (int i = 0; i < 60; i++) {
        sim_signal_next(&unit.signal);
    }
    assert_true(unit.signal.power <= 0.0); /* blades along the wind */
}

static void test_steps_with_the_clock(void **state)
{
    (void)state;
    struct sim_unit unit;
    struct sim_served served;
    sim_unit_init(&unit, &by_clock, 1, 1, SIM_SOUND);
    assert_int_equal(read_values(&unit, 999, MBAP_READ_HOLDING, 0, 1, &served), 0);
    assert_int_equal(served.step, 0);
    assert_int_equal(read_values(&unit, 5000, MBAP_READ_HOLDING, 0, 1, &served), 0);
    assert_int_equal(served.step, 5);
    struct sim_signal expected;
    sim_signal_init(&expected, 1, 1);
    for (int i = 0; i < 5; i++) {
        sim_signal_next(&expected);
    }
    assert_memory_equal(&unit.signal, &expected, sizeof expected);
}

/* A round is what begins with the first request again: its other requests see the same step. */
static void test_steps_with_rounds(void **state)
{
    (void)state;
    int32_t cells[] = {100, SIM_REPLAY_SENTINEL, -250, 70000};
    struct sim_replay replay = {.columns = 2, .rows = 2, .cells = cells};
    const struct sim_site site = {.replay = &replay, .step_by_poll = true};
    struct sim_unit unit;
    struct sim_served served;
    sim_unit_init(&unit, &site, 1, 1, SIM_SOUND);
    assert_int_equal(read_values(&unit, 0, MBAP_READ_HOLDING, 0, 2, &served), 0);
    assert_true(served.new_round);
    assert_int_equal(served.values[1], 100);
    assert_int_equal(read_values(&unit, 0, MBAP_READ_HOLDING, 2, 2, &served), 0);
    assert_false(served.new_round);
    assert_int_equal(served.values[0], 0x8000);
    assert_int_equal(served.values[1], 0);
    assert_int_equal(read_values(&unit, 0, MBAP_READ_HOLDING, 0, 4, &served), 0);
    assert_int_equal(served.step, 1);
    assert_int_equal((int16_t)served.values[1], -250);
    assert_int_equal(served.values[0], 0xffff);
    assert_int_equal(served.values[2] * 65536 + served.values[3], 70000);
    assert_false(unit.replay_done);
    assert_int_equal(read_values(&unit, 0, MBAP_READ_HOLDING, 0, 2, &served), 0);
    assert_true(unit.replay_done);
    assert_int_equal(served.step, 1);
    assert_int_equal(read_values(&unit, 0, MBAP_READ_HOLDING, 0, 5, &served), 2);
    assert_int_equal(unit.counts.rounds, 3);
    assert_int_equal(unit.counts.points, 1 + 1 + 2 + 1);
}

static void test_faulty_answers(void **state)
{
    (void)state;
    struct sim_unit unit;
    struct sim_served served;
    sim_unit_init(&unit, &by_poll, 1, 1, SIM_ILLEGAL);
    assert_int_equal(read_values(&unit, 0, MBAP_READ_HOLDING, 0, 7, &served), 2);
    assert_int_equal(read_values(&unit, 0, MBAP_READ_HOLDING, 0, 5, &served), 0);
    assert_int_equal(read_values(&unit, 0, MBAP_READ_HOLDING, 5, 1, &served), 2);
    assert_int_equal(read_values(&unit, 0, MBAP_READ_HOLDING, 6, 1, &served), 0);
    sim_unit_init(&unit, &by_poll, 1, 1, SIM_BUSY);
    assert_int_equal(read_values(&unit, 0, MBAP_READ_HOLDING, 0, 1, &served), 6);
    assert_int_equal(read_values(&unit, 0, MBAP_READ_HOLDING, 0, 1, &served), 0);
}

static void test_fault_words(void **state)
{
    (void)state;
    uint8_t faults[9] = {0};
    char why[SIM_FAULT_WHY_SIZE];
    assert_int_equal(sim_fault_parse("dead:3,slow:5-7,illegal:9,dead:6", faults, 9, why), 0);
    static const uint8_t expected[9] = {SIM_SOUND, SIM_SOUND, SIM_DEAD,  SIM_SOUND,  SIM_SLOW,
                                        SIM_DEAD,  SIM_SLOW,  SIM_SOUND, SIM_ILLEGAL};
    assert_memory_equal(faults, expected, sizeof faults);
    static const char *const bad[] = {
        "dead",     "dead:", "dead:0",         "dead:10", "dead:x",  "dead:5-3", "ill:1",
        "dead:1;2", ":1",    "dead:1,,slow:2", "dead:1-", "dead:-1", "dead:1-99"};
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
        if (sim_fault_parse(bad[i], faults, 9, why) != -EINVAL) {
            fail_msg("taken: %s", bad[i]);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_same_seed_same_values),
        cmocka_unit_test(test_a_day),
        cmocka_unit_test(test_map),
        cmocka_unit_test(test_pitch),
        cmocka_unit_test(test_steps_with_the_clock),
        cmocka_unit_test(test_steps_with_rounds),
        cmocka_unit_test(test_faulty_answers),
        cmocka_unit_test(test_fault_words),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
