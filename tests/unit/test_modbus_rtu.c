/* RTU frames and the time they take. */
#include "drivers/modbus/rtu.h"

#include <errno.h>
#include <string.h>
/* clang-format off */
#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>
/* clang-format on */

/* Read holding registers 0x006B..0x006D of unit 17, a much printed example. */
static void test_crc(void **state)
{
    (void)state;
    const uint8_t frame[] = {0x11, 0x03, 0x00, 0x6b, 0x00, 0x03, 0x76, 0x87};
    uint8_t written[RTU_FRAME_MAX];
    assert_int_equal(rtu_crc(frame, 6), 0x8776);
    assert_int_equal(rtu_crc(frame, 8), 0);
    assert_int_equal(rtu_write_frame(written, 0x11, frame + 1, 5), 8);
    assert_memory_equal(written, frame, 8);
}

static size_t reply_of(uint8_t frame[RTU_FRAME_MAX], uint8_t unit, const char *pdu, size_t len)
{
    return rtu_write_frame(frame, unit, (const uint8_t *)pdu, len);
}

static void test_replies_whole_and_in_parts(void **state)
{
    (void)state;
    static const struct {
        const char *pdu;
        size_t len;
    } replies[] = {
        {"\x03\x02\x12\x34", 4}, {"\x01\x01\x05", 3},         {"\x83\x02", 2},
        {"\x90\x01", 2},         {"\x06\x00\x01\x00\x02", 5}, {"\x10\x00\x01\x00\x02", 5}};
    for (size_t i = 0; i < ARRAY_SIZE(replies); i++) {
        uint8_t frame[RTU_FRAME_MAX];
        struct rtu_frame parsed = {0};
        size_t size = reply_of(frame, 9, replies[i].pdu, replies[i].len);
        for (size_t len = 0; len < size; len++) {
            assert_int_equal(rtu_parse_reply(frame, len, &parsed), 0);
        }
        assert_int_equal(rtu_parse_reply(frame, size, &parsed), size);
        assert_int_equal(rtu_parse_reply(frame, size + 1, &parsed), size);
        assert_int_equal(parsed.unit, 9);
        assert_int_equal(parsed.pdu_len, replies[i].len);
        assert_memory_equal(parsed.pdu, replies[i].pdu, replies[i].len);
        frame[size - 1] ^= 0x10;
        assert_int_equal(rtu_parse_reply(frame, size, &parsed), -EBADMSG);
    }
}

static void test_the_largest_reply(void **state)
{
    (void)state;
    uint8_t frame[RTU_FRAME_MAX + 1], pdu[MBAP_PDU_MAX];
    struct rtu_frame parsed;
    uint16_t values[MBAP_READ_REGISTERS_MAX] = {7};
    size_t len = mbap_reply_registers(pdu, MBAP_READ_HOLDING, values, MBAP_READ_REGISTERS_MAX);
    size_t size = rtu_write_frame(frame, 1, pdu, len);
    assert_int_equal(size, 255);
    assert_int_equal(rtu_parse_reply(frame, size, &parsed), 255);
    const uint8_t too_long[] = {1, 3, 252, 0}, empty[] = {1, 3, 0, 0};
    assert_int_equal(rtu_parse_reply(too_long, 4, &parsed), -EPROTO);
    assert_int_equal(rtu_parse_reply(empty, 4, &parsed), -EPROTO);
    const uint8_t unknown[] = {1, 0x2b};
    assert_int_equal(rtu_parse_reply(unknown, 2, &parsed), -EPROTO);
}

/* 60 registers: about 139 ms at 9600 8N1 and 76 ms at 19200 8E1, silences apart. */
static void test_time_on_the_line(void **state)
{
    (void)state;
    const struct mbap_request sixty = {.function = MBAP_READ_HOLDING, .count = 60};
    const struct rtu_line slow = {9600, 10}, fast = {19200, 11}, usb = {115200, 11};
    assert_int_equal(rtu_reply_size(&sixty), 125);
    int64_t slow_us = rtu_exchange_us(slow, &sixty) - 2 * rtu_gap_us(slow);
    int64_t fast_us = rtu_exchange_us(fast, &sixty) - 2 * rtu_gap_us(fast);
    assert_in_range(slow_us, 138000, 139000);
    assert_in_range(fast_us, 76000, 77000);
    assert_in_range(rtu_gap_us(slow), 3600, 3700);
    assert_in_range(rtu_gap_us(fast), 1990, 2010);
    assert_int_equal(rtu_gap_us(usb), 1750);
    assert_int_equal(rtu_quiet_ms(20), RTU_QUIET_MIN_MS);
    assert_int_equal(rtu_quiet_ms(1000), 250);
    assert_int_equal(rtu_quiet_ms(60000), RTU_QUIET_MAX_MS);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_crc),
        cmocka_unit_test(test_replies_whole_and_in_parts),
        cmocka_unit_test(test_the_largest_reply),
        cmocka_unit_test(test_time_on_the_line),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
