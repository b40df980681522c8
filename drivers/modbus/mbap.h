/* mbap.h - the bytes of Modbus TCP: framing (MBAP header) and PDUs, for master and slave.
 *
 * Pure and without memory of its own; any thread. Addresses are those of the wire (from 0), counts
 * are registers or bits. Figures are those of "MODBUS Application Protocol Specification V1.1b3"
 * and "MODBUS Messaging on TCP/IP Implementation Guide V1.0b". */
#pragma once

#include "gateway/base/cleanup.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    MBAP_PORT = 502,
    MBAP_HEADER_SIZE = 7, /* transaction, protocol, length, unit */
    MBAP_PDU_MAX = 253,
    MBAP_FRAME_MAX = MBAP_HEADER_SIZE + MBAP_PDU_MAX,
    MBAP_READ_REGISTERS_MAX = 125,
    MBAP_READ_BITS_MAX = 2000,
    MBAP_WRITE_REGISTERS_MAX = 123,
    MBAP_WRITE_BITS_MAX = 1968
};

enum mbap_function {
    MBAP_READ_COILS = 1,
    MBAP_READ_DISCRETES = 2,
    MBAP_READ_HOLDING = 3,
    MBAP_READ_INPUT = 4,
    MBAP_WRITE_COIL = 5,
    MBAP_WRITE_REGISTER = 6,
    MBAP_WRITE_COILS = 15,
    MBAP_WRITE_REGISTERS = 16
};

enum mbap_exception {
    MBAP_ILLEGAL_FUNCTION = 1,
    MBAP_ILLEGAL_ADDRESS = 2,
    MBAP_ILLEGAL_VALUE = 3,
    MBAP_DEVICE_FAILURE = 4,
    MBAP_ACKNOWLEDGE = 5,
    MBAP_BUSY = 6,
    MBAP_PARITY_ERROR = 8,
    MBAP_GATEWAY_PATH = 10,
    MBAP_GATEWAY_TARGET = 11 /* the device behind a gateway does not answer */
};

/* "illegal address" and so on; "exception" for a code that the specification does not know. */
const char *mbap_exception_name(unsigned code);

/* One frame in a stream of bytes; pdu points into those bytes. */
struct mbap_frame {
    uint16_t transaction;
    uint8_t unit;
    const uint8_t *pdu;
    size_t pdu_len; /* 1..MBAP_PDU_MAX */
};

/* Looks for a frame at the start of data. Returns its size in bytes, 0 when more bytes are needed,
 * or -EPROTO as soon as the bytes cannot be Modbus TCP (then the stream is lost for good). */
must_check int mbap_parse_frame(const uint8_t *data, size_t len, struct mbap_frame *ret_frame);

/* Writes the header in front of a PDU of pdu_len bytes that lies, or will lie, behind it. */
void mbap_write_header(uint8_t header[MBAP_HEADER_SIZE], uint16_t transaction, uint8_t unit,
                       size_t pdu_len);

/* What is asked: reads use function, first and count; writes have their values in wire order in
 * data (registers big-endian; bits packed, least significant first, 0xFF00 or 0 for one coil). */
struct mbap_request {
    uint8_t function;
    uint16_t first, count; /* count is 1 for MBAP_WRITE_COIL and MBAP_WRITE_REGISTER */
    const uint8_t *data;
    size_t data_len;
};

/* The bytes of values that a read of count brings. */
size_t mbap_read_bytes(uint8_t function, unsigned count);

/* Master: returns the length of the PDU, or -EINVAL when the request breaks a limit. */
must_check int mbap_encode_request(const struct mbap_request *request, uint8_t pdu[MBAP_PDU_MAX]);

struct mbap_reply {
    unsigned exception;  /* 0: none */
    const uint8_t *data; /* of a read: the values in wire order, mbap_read_bytes() of them */
    size_t data_len;
};

/* Whether pdu answers request, to the byte: function, byte count, echoed address and count.
 * 0 (also for an exception), or -EPROTO when it answers something else or nothing. */
must_check int mbap_parse_reply(const struct mbap_request *request, const uint8_t *pdu,
                                size_t pdu_len, struct mbap_reply *ret_reply);

/* Slave: 0, or the exception (enum mbap_exception) to answer with; ret_request->function is set
 * either way, its data points into pdu. */
must_check unsigned mbap_parse_request(const uint8_t *pdu, size_t pdu_len,
                                       struct mbap_request *ret_request);

/* Each writes a reply PDU and returns its length. Counts are those that mbap_parse_request() let
 * pass. Bits are one a byte, 0 or not. */
size_t mbap_reply_registers(uint8_t pdu[MBAP_PDU_MAX], uint8_t function, const uint16_t *values,
                            unsigned count);
size_t mbap_reply_bits(uint8_t pdu[MBAP_PDU_MAX], uint8_t function, const uint8_t *bits,
                       unsigned count);
size_t mbap_reply_write(uint8_t pdu[MBAP_PDU_MAX], const struct mbap_request *request);
size_t mbap_reply_exception(uint8_t pdu[MBAP_PDU_MAX], uint8_t function, unsigned exception);

static inline uint16_t mbap_get16(const uint8_t *at)
{
    return (uint16_t)(at[0] << 8 | at[1]);
}

static inline void mbap_put16(uint8_t *at, unsigned value)
{
    at[0] = (uint8_t)(value >> 8);
    at[1] = (uint8_t)value;
}
