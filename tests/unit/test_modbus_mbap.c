/* The bytes of Modbus TCP, held against frames of the specification and against themselves. */
#include "drivers/modbus/mbap.h"

#include <errno.h>
#include <string.h>
/* clang-format off */
#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>
/* clang-format on */

static void test_frame_is_taken_only_when_whole(void **state)
{
    (void)state;
    const uint8_t bytes[] = {0x12, 0x34, 0, 0, 0, 5, 7, 3, 2, 0xab, 0xcd, 0x99};
    struct mbap_frame frame = {0};
    for (size_t len = 0; len < 11; len++) {
        assert_int_equal(mbap_parse_frame(bytes, len, &frame), 0);
    }
    assert_int_equal(mbap_parse_frame(bytes, sizeof(bytes), &frame), 11);
    assert_int_equal(frame.transaction, 0x1234);
    assert_int_equal(frame.unit, 7);
    assert_ptr_equal(frame.pdu, bytes + 7);
    assert_int_equal(frame.pdu_len, 4);
}

static void test_what_is_not_mbap_is_refused_early(void **state)
{
    (void)state;
    struct mbap_frame frame;
    assert_int_equal(mbap_parse_frame((const uint8_t *)"HTTP/1.1", 3, &frame), -EPROTO);
    assert_int_equal(mbap_parse_frame((uint8_t[]){0, 1, 0, 1}, 4, &frame), -EPROTO);
    assert_int_equal(mbap_parse_frame((uint8_t[]){0, 1, 0, 0, 1}, 5, &frame), -EPROTO);
    assert_int_equal(mbap_parse_frame((uint8_t[]){0, 1, 0, 0, 0, 1}, 6, &frame), -EPROTO);
    assert_int_equal(mbap_parse_frame((uint8_t[]){0, 1, 0, 0, 0, 255}, 6, &frame), -EPROTO);
    assert_int_equal(mbap_parse_frame((uint8_t[]){0, 1, 0, 0, 0, 254}, 6, &frame), 0);
}

static void test_requests_keep_the_limits(void **state)
{
    (void)state;
    uint8_t pdu[MBAP_PDU_MAX];
    struct mbap_request request = {.function = MBAP_READ_HOLDING, .first = 0x006b, .count = 3};
    const uint8_t expected[] = {3, 0, 0x6b, 0, 3}; /* the specification's own example, 6.3 */
    assert_int_equal(mbap_encode_request(&request, pdu), 5);
    assert_memory_equal(pdu, expected, 5);
    const struct {
        uint8_t function;
        unsigned max;
    } limits[] = {{1, 2000}, {2, 2000}, {3, 125}, {4, 125}};
    for (size_t i = 0; i < ARRAY_SIZE(limits); i++) {
        request = (struct mbap_request){.function = limits[i].function};
        assert_int_equal(mbap_encode_request(&request, pdu), -EINVAL);
        request.count = (uint16_t)limits[i].max;
        assert_int_equal(mbap_encode_request(&request, pdu), 5);
        request.count++;
        assert_int_equal(mbap_encode_request(&request, pdu), -EINVAL);
    }
    request = (struct mbap_request){.function = MBAP_READ_INPUT, .first = 65535, .count = 2};
    assert_int_equal(mbap_encode_request(&request, pdu), -EINVAL);
    request = (struct mbap_request){.function = 0x2b, .count = 1};
    assert_int_equal(mbap_encode_request(&request, pdu), -EINVAL);
}

static void test_writes_go_out_and_their_echo_is_checked(void **state)
{
    (void)state;
    uint8_t pdu[MBAP_PDU_MAX], values[246] = {0, 10, 1, 2};
    struct mbap_request request = {MBAP_WRITE_REGISTERS, 1, 2, values, 4};
    const uint8_t expected[] = {16, 0, 1, 0, 2, 4, 0, 10, 1, 2};
    assert_int_equal(mbap_encode_request(&request, pdu), 10);
    assert_memory_equal(pdu, expected, 10);
    struct mbap_reply reply;
    assert_int_equal(mbap_parse_reply(&request, (uint8_t[]){16, 0, 1, 0, 2}, 5, &reply), 0);
    assert_int_equal(mbap_parse_reply(&request, (uint8_t[]){16, 0, 1, 0, 3}, 5, &reply), -EPROTO);
    assert_int_equal(mbap_parse_reply(&request, (uint8_t[]){16, 0, 2, 0, 2}, 5, &reply), -EPROTO);
    request = (struct mbap_request){MBAP_WRITE_REGISTERS, 0, 123, values, 246};
    assert_int_equal(mbap_encode_request(&request, pdu), 252);
    request = (struct mbap_request){MBAP_WRITE_REGISTERS, 0, 124, values, 248};
    assert_int_equal(mbap_encode_request(&request, pdu), -EINVAL);
    request = (struct mbap_request){MBAP_WRITE_COIL, 172, 1, (uint8_t[]){0xff, 0}, 2};
    assert_int_equal(mbap_encode_request(&request, pdu), 5);
    assert_int_equal(mbap_parse_reply(&request, pdu, 5, &reply), 0);
    pdu[3] = 0;
    assert_int_equal(mbap_parse_reply(&request, pdu, 5, &reply), -EPROTO);
}

static void test_a_reply_must_fit_its_request(void **state)
{
    (void)state;
    struct mbap_request request = {.function = MBAP_READ_HOLDING, .first = 0, .count = 2};
    struct mbap_reply reply = {0};
    assert_int_equal(mbap_parse_reply(&request, (uint8_t[]){3, 4, 1, 2, 3, 4}, 6, &reply), 0);
    assert_int_equal(reply.data_len, 4);
    assert_int_equal(reply.data[3], 4);
    /* fewer bytes than said, fewer than asked, another function, too long, too short */
    assert_int_equal(mbap_parse_reply(&request, (uint8_t[]){3, 4, 1, 2, 3}, 5, &reply), -EPROTO);
    assert_int_equal(mbap_parse_reply(&request, (uint8_t[]){3, 2, 1, 2}, 4, &reply), -EPROTO);
    assert_int_equal(mbap_parse_reply(&request, (uint8_t[]){4, 4, 1, 2, 3, 4}, 6, &reply), -EPROTO);
    assert_int_equal(mbap_parse_reply(&request, (uint8_t[]){3, 4, 1, 2, 3, 4, 5}, 7, &reply),
                     -EPROTO);
    assert_int_equal(mbap_parse_reply(&request, (uint8_t[]){3}, 1, &reply), -EPROTO);
    request = (struct mbap_request){.function = MBAP_READ_COILS, .first = 0, .count = 9};
    assert_int_equal(mbap_parse_reply(&request, (uint8_t[]){1, 2, 0xff, 1}, 4, &reply), 0);
    assert_int_equal(mbap_parse_reply(&request, (uint8_t[]){1, 1, 0xff}, 3, &reply), -EPROTO);
}

static void test_exceptions_are_answers(void **state)
{
    (void)state;
    struct mbap_request request = {.function = MBAP_READ_INPUT, .first = 0, .count = 2};
    struct mbap_reply reply = {0};
    assert_int_equal(mbap_parse_reply(&request, (uint8_t[]){0x84, 11}, 2, &reply), 0);
    assert_int_equal(reply.exception, MBAP_GATEWAY_TARGET);
    assert_int_equal(mbap_parse_reply(&request, (uint8_t[]){0x83, 11}, 2, &reply), -EPROTO);
    assert_int_equal(mbap_parse_reply(&request, (uint8_t[]){0x84, 0}, 2, &reply), -EPROTO);
    assert_int_equal(mbap_parse_reply(&request, (uint8_t[]){0x84, 2, 2}, 3, &reply), -EPROTO);
    assert_string_equal(mbap_exception_name(2), "illegal address");
    assert_string_equal(mbap_exception_name(7), "exception");
    assert_string_equal(mbap_exception_name(200), "exception");
}

static void test_slave_refuses_as_the_specification_says(void **state)
{
    (void)state;
    struct mbap_request request;
    const struct {
        uint8_t pdu[12];
        size_t len;
        unsigned exception;
    } cases[] = {
        {{3, 0, 0, 0, 125}, 5, 0},
        {{3, 0, 0, 0, 126}, 5, MBAP_ILLEGAL_VALUE},
        {{3, 0, 0, 0, 0}, 5, MBAP_ILLEGAL_VALUE},
        {{1, 0, 0, 7, 0xd0}, 5, 0},
        {{1, 0, 0, 7, 0xd1}, 5, MBAP_ILLEGAL_VALUE},
        {{4, 0xff, 0xff, 0, 1}, 5, 0},
        {{4, 0xff, 0xff, 0, 2}, 5, MBAP_ILLEGAL_ADDRESS},
        {{3, 0, 0, 0}, 4, MBAP_ILLEGAL_VALUE},
        {{3, 0, 0, 0, 1, 9}, 6, MBAP_ILLEGAL_VALUE},
        {{0x2b, 14, 1, 0, 0}, 5, MBAP_ILLEGAL_FUNCTION},
        {{0}, 0, MBAP_ILLEGAL_FUNCTION},
        {{5, 0, 0, 0xff, 0}, 5, 0},
        {{5, 0, 0, 0x12, 0}, 5, MBAP_ILLEGAL_VALUE},
        {{6, 0, 1, 0, 3}, 5, 0},
        {{16, 0, 1, 0, 1, 2, 0, 9}, 8, 0},
        {{16, 0, 1, 0, 1, 4, 0, 9}, 8, MBAP_ILLEGAL_VALUE},
        {{16, 0, 1, 0, 2, 4, 0, 9}, 8, MBAP_ILLEGAL_VALUE},
        {{15, 0, 0, 0, 9, 2, 0xff, 1}, 8, 0},
        {{16, 0, 1, 0, 1}, 5, MBAP_ILLEGAL_VALUE},
    };
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        assert_int_equal(mbap_parse_request(cases[i].pdu, cases[i].len, &request),
                         cases[i].exception);
    }
}

static void test_master_understands_slave(void **state)
{
    (void)state;
    uint8_t pdu[MBAP_PDU_MAX], bits[2000] = {0};
    uint16_t values[125];
    for (unsigned i = 0; i < 125; i++) {
        values[i] = (uint16_t)(i * 521);
    }
    struct mbap_request request = {.function = MBAP_READ_HOLDING, .first = 9, .count = 125};
    struct mbap_request seen;
    struct mbap_reply reply;
    int len = mbap_encode_request(&request, pdu);
    assert_int_equal(mbap_parse_request(pdu, (size_t)len, &seen), 0);
    assert_int_equal(seen.first, 9);
    assert_int_equal(seen.count, 125);
    size_t n = mbap_reply_registers(pdu, seen.function, values, seen.count);
    assert_int_equal(mbap_parse_reply(&request, pdu, n, &reply), 0);
    assert_int_equal(mbap_get16(reply.data + 248), values[124]);
    bits[1999] = 1;
    request = (struct mbap_request){.function = MBAP_READ_DISCRETES, .first = 0, .count = 2000};
    n = mbap_reply_bits(pdu, MBAP_READ_DISCRETES, bits, 2000);
    assert_int_equal(mbap_parse_reply(&request, pdu, n, &reply), 0);
    assert_int_equal(reply.data[249], 0x80);
    n = mbap_reply_exception(pdu, MBAP_READ_DISCRETES, MBAP_BUSY);
    assert_int_equal(mbap_parse_reply(&request, pdu, n, &reply), 0);
    assert_int_equal(reply.exception, MBAP_BUSY);
    request = (struct mbap_request){MBAP_WRITE_REGISTER, 4, 1, (uint8_t[]){1, 2}, 2};
    n = mbap_reply_write(pdu, &request);
    assert_int_equal(mbap_parse_reply(&request, pdu, n, &reply), 0);
    uint8_t frame[MBAP_FRAME_MAX];
    mbap_write_header(frame, 0xfffe, 247, n);
    memcpy(frame + MBAP_HEADER_SIZE, pdu, n);
    struct mbap_frame seen_frame;
    assert_int_equal(mbap_parse_frame(frame, sizeof(frame), &seen_frame), 7 + n);
    assert_int_equal(seen_frame.transaction, 0xfffe);
    assert_int_equal(seen_frame.unit, 247);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_frame_is_taken_only_when_whole),
        cmocka_unit_test(test_what_is_not_mbap_is_refused_early),
        cmocka_unit_test(test_requests_keep_the_limits),
        cmocka_unit_test(test_writes_go_out_and_their_echo_is_checked),
        cmocka_unit_test(test_a_reply_must_fit_its_request),
        cmocka_unit_test(test_exceptions_are_answers),
        cmocka_unit_test(test_slave_refuses_as_the_specification_says),
        cmocka_unit_test(test_master_understands_slave),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
