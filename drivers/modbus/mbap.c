#include "drivers/modbus/mbap.h"

#include <errno.h>
#include <string.h>

enum { EXCEPTION_BIT = 0x80, COIL_ON = 0xff00, ADDRESSES = 65536 };

const char *mbap_exception_name(unsigned code)
{
    static const char *const names[] = {
        [MBAP_ILLEGAL_FUNCTION] = "illegal function",
        [MBAP_ILLEGAL_ADDRESS] = "illegal address",
        [MBAP_ILLEGAL_VALUE] = "illegal value",
        [MBAP_DEVICE_FAILURE] = "device failure",
        [MBAP_ACKNOWLEDGE] = "acknowledged, not done yet",
        [MBAP_BUSY] = "device busy",
        [MBAP_PARITY_ERROR] = "memory parity error",
        [MBAP_GATEWAY_PATH] = "gateway path unavailable",
        [MBAP_GATEWAY_TARGET] = "device behind the gateway does not answer",
    };
    return code < ARRAY_SIZE(names) && names[code] != NULL ? names[code] : "exception";
}

int mbap_parse_frame(const uint8_t *data, size_t len, struct mbap_frame *ret_frame)
{
    /* Refused at the first byte that is wrong: a peer of another protocol is known at once. */
    if ((len > 2 && data[2] != 0) || (len > 3 && data[3] != 0) || (len > 4 && data[4] > 0)) {
        return -EPROTO;
    }
    if (len < 6) {
        return 0;
    }
    /* The length counts the unit and the PDU; a PDU has at least a function code. */
    size_t length = mbap_get16(data + 4);
    if (length < 2 || length > 1 + MBAP_PDU_MAX) {
        return -EPROTO;
    }
    if (len < 6 + length) {
        return 0;
    }
    *ret_frame = (struct mbap_frame){
        .transaction = mbap_get16(data),
        .unit = data[6],
        .pdu = data + MBAP_HEADER_SIZE,
        .pdu_len = length - 1,
    };
    return (int)(6 + length);
}

void mbap_write_header(uint8_t header[MBAP_HEADER_SIZE], uint16_t transaction, uint8_t unit,
                       size_t pdu_len)
{
    mbap_put16(header, transaction);
    mbap_put16(header + 2, 0);
    mbap_put16(header + 4, (unsigned)(pdu_len + 1));
    header[6] = unit;
}

static bool reads_bits(uint8_t function)
{
    return function == MBAP_READ_COILS || function == MBAP_READ_DISCRETES;
}

static bool reads_registers(uint8_t function)
{
    return function == MBAP_READ_HOLDING || function == MBAP_READ_INPUT;
}

size_t mbap_read_bytes(uint8_t function, unsigned count)
{
    return reads_bits(function) ? (count + 7U) / 8U : 2U * (size_t)count;
}

/* The most that one request of this function may name; 0: a function that is not spoken here. */
static unsigned count_max(uint8_t function)
{
    switch (function) {
    case MBAP_READ_COILS:
    case MBAP_READ_DISCRETES:
        return MBAP_READ_BITS_MAX;
    case MBAP_READ_HOLDING:
    case MBAP_READ_INPUT:
        return MBAP_READ_REGISTERS_MAX;
    case MBAP_WRITE_COIL:
    case MBAP_WRITE_REGISTER:
        return 1;
    case MBAP_WRITE_COILS:
        return MBAP_WRITE_BITS_MAX;
    case MBAP_WRITE_REGISTERS:
        return MBAP_WRITE_REGISTERS_MAX;
    default:
        return 0;
    }
}

/* The bytes of values that a write of count carries. */
static size_t write_bytes(uint8_t function, unsigned count)
{
    return function == MBAP_WRITE_COILS ? (count + 7U) / 8U : 2U * (size_t)count;
}

static bool writes_one(uint8_t function)
{
    return function == MBAP_WRITE_COIL || function == MBAP_WRITE_REGISTER;
}

int mbap_encode_request(const struct mbap_request *request, uint8_t pdu[MBAP_PDU_MAX])
{
    uint8_t function = request->function;
    bool reads = reads_bits(function) || reads_registers(function);
    if (request->count < 1 || request->count > count_max(function) ||
        request->first + request->count > ADDRESSES ||
        (!reads && request->data_len != write_bytes(function, request->count))) {
        return -EINVAL;
    }
    pdu[0] = function;
    mbap_put16(pdu + 1, request->first);
    if (writes_one(function)) {
        memcpy(pdu + 3, request->data, 2);
        return 5;
    }
    mbap_put16(pdu + 3, request->count);
    if (reads) {
        return 5;
    }
    pdu[5] = (uint8_t)request->data_len;
    memcpy(pdu + 6, request->data, request->data_len);
    return (int)(6 + request->data_len);
}

static int parse_write_echo(const struct mbap_request *request, const uint8_t *pdu, size_t pdu_len)
{
    if (pdu_len != 5 || mbap_get16(pdu + 1) != request->first) {
        return -EPROTO;
    }
    if (writes_one(request->function)) {
        return memcmp(pdu + 3, request->data, 2) == 0 ? 0 : -EPROTO;
    }
    return mbap_get16(pdu + 3) == request->count ? 0 : -EPROTO;
}

int mbap_parse_reply(const struct mbap_request *request, const uint8_t *pdu, size_t pdu_len,
                     struct mbap_reply *ret_reply)
{
    if (pdu_len < 2) {
        return -EPROTO;
    }
    if (pdu[0] == (request->function | EXCEPTION_BIT)) {
        if (pdu_len != 2 || pdu[1] == 0) {
            return -EPROTO;
        }
        *ret_reply = (struct mbap_reply){.exception = pdu[1]};
        return 0;
    }
    if (pdu[0] != request->function) {
        return -EPROTO;
    }
    if (!reads_bits(request->function) && !reads_registers(request->function)) {
        int r = parse_write_echo(request, pdu, pdu_len);
        if (r == 0) {
            *ret_reply = (struct mbap_reply){0};
        }
        return r;
    }
    size_t expected = mbap_read_bytes(request->function, request->count);
    if (pdu[1] != expected || pdu_len != 2 + expected) {
        return -EPROTO;
    }
    *ret_reply = (struct mbap_reply){.data = pdu + 2, .data_len = expected};
    return 0;
}

/* The count and the values of a write of many, checked against each other. */
static unsigned parse_write_many(const uint8_t *pdu, size_t pdu_len, struct mbap_request *request)
{
    if (pdu_len < 6) {
        return MBAP_ILLEGAL_VALUE;
    }
    request->count = mbap_get16(pdu + 3);
    request->data = pdu + 6;
    request->data_len = pdu[5];
    if (request->count < 1 || request->count > count_max(request->function) ||
        request->data_len != write_bytes(request->function, request->count) ||
        pdu_len != 6 + request->data_len) {
        return MBAP_ILLEGAL_VALUE;
    }
    return 0;
}

static unsigned parse_write_one(const uint8_t *pdu, struct mbap_request *request)
{
    request->count = 1;
    request->data = pdu + 3;
    request->data_len = 2;
    unsigned value = mbap_get16(pdu + 3);
    bool bad_coil = request->function == MBAP_WRITE_COIL && value != COIL_ON && value != 0;
    return bad_coil ? MBAP_ILLEGAL_VALUE : 0;
}

unsigned mbap_parse_request(const uint8_t *pdu, size_t pdu_len, struct mbap_request *ret_request)
{
    *ret_request = (struct mbap_request){.function = pdu_len > 0 ? pdu[0] : 0};
    uint8_t function = ret_request->function;
    if (count_max(function) == 0) {
        return MBAP_ILLEGAL_FUNCTION;
    }
    if (pdu_len < 5) {
        return MBAP_ILLEGAL_VALUE;
    }
    ret_request->first = mbap_get16(pdu + 1);
    unsigned exception = 0;
    if (function == MBAP_WRITE_COILS || function == MBAP_WRITE_REGISTERS) {
        exception = parse_write_many(pdu, pdu_len, ret_request);
    } else if (pdu_len != 5) {
        exception = MBAP_ILLEGAL_VALUE;
    } else if (writes_one(function)) {
        exception = parse_write_one(pdu, ret_request);
    } else {
        ret_request->count = mbap_get16(pdu + 3);
        if (ret_request->count < 1 || ret_request->count > count_max(function)) {
            exception = MBAP_ILLEGAL_VALUE;
        }
    }
    if (exception == 0 && ret_request->first + ret_request->count > ADDRESSES) {
        exception = MBAP_ILLEGAL_ADDRESS;
    }
    return exception;
}

size_t mbap_reply_registers(uint8_t pdu[MBAP_PDU_MAX], uint8_t function, const uint16_t *values,
                            unsigned count)
{
    pdu[0] = function;
    pdu[1] = (uint8_t)(2 * count);
    for (unsigned i = 0; i < count; i++) {
        mbap_put16(pdu + 2 + 2 * (size_t)i, values[i]);
    }
    return 2 + 2 * (size_t)count;
}

size_t mbap_reply_bits(uint8_t pdu[MBAP_PDU_MAX], uint8_t function, const uint8_t *bits,
                       unsigned count)
{
    size_t bytes = mbap_read_bytes(function, count);
    pdu[0] = function;
    pdu[1] = (uint8_t)bytes;
    memset(pdu + 2, 0, bytes);
    for (unsigned i = 0; i < count; i++) {
        if (bits[i] != 0) {
            pdu[2 + i / 8] = (uint8_t)(pdu[2 + i / 8] | 1U << (i % 8));
        }
    }
    return 2 + bytes;
}

size_t mbap_reply_write(uint8_t pdu[MBAP_PDU_MAX], const struct mbap_request *request)
{
    pdu[0] = request->function;
    mbap_put16(pdu + 1, request->first);
    if (writes_one(request->function)) {
        memcpy(pdu + 3, request->data, 2);
    } else {
        mbap_put16(pdu + 3, request->count);
    }
    return 5;
}

size_t mbap_reply_exception(uint8_t pdu[MBAP_PDU_MAX], uint8_t function, unsigned exception)
{
    pdu[0] = (uint8_t)(function | EXCEPTION_BIT);
    pdu[1] = (uint8_t)exception;
    return 2;
}
