/* rtu.h - the bytes of Modbus RTU: frames with their CRC, and how long they take on a line.
 *
 * Pure and without memory of its own; any thread. Figures are those of "MODBUS over Serial Line
 * Specification and Implementation Guide V1.02". PDUs are those of mbap.h. */
#pragma once

#include "drivers/modbus/mbap.h"

enum {
    RTU_FRAME_MAX = 256, /* unit, PDU, CRC */
    RTU_UNIT_MAX = 247,
    RTU_BROADCAST = 0,
    RTU_QUIET_MIN_MS = 50, /* after a time-out; a quarter of the time-out within these bounds */
    RTU_QUIET_MAX_MS = 500
};

/* CRC-16 of section 6.2.2; on the wire the low byte comes first. */
uint16_t rtu_crc(const uint8_t *data, size_t len);

/* Writes unit, PDU and CRC; returns the length of the frame. pdu may lie at frame + 1. */
size_t rtu_write_frame(uint8_t frame[RTU_FRAME_MAX], uint8_t unit, const uint8_t *pdu,
                       size_t pdu_len);

struct rtu_frame {
    uint8_t unit;
    const uint8_t *pdu; /* in the bytes given */
    size_t pdu_len;
};

/* Looks for a reply at the start of data: RTU has no length field, so the function says how long it
 * is. Returns its size in bytes, 0 when more bytes are needed, -EPROTO when no reply begins so, or
 * -EBADMSG when its CRC is wrong: after either only silence on the line tells where the next
 * begins.
 */
must_check int rtu_parse_reply(const uint8_t *data, size_t len, struct rtu_frame *ret_frame);

/* The bytes of the whole reply, when it is no exception. */
size_t rtu_reply_size(const struct mbap_request *request);

/* How a line is set: start, data, parity and stop bits of a character. */
struct rtu_line {
    unsigned baud;
    unsigned bits; /* a character: 1 + data bits + (parity ? 1 : 0) + stop bits */
};

/* What `bytes` take on the line. */
static inline int64_t rtu_bytes_us(struct rtu_line line, size_t bytes)
{
    return (int64_t)bytes * line.bits * 1000000 / line.baud;
}

/* t3.5, the silence between frames: 3.5 characters, above 19200 baud always 1.75 ms (section
 * 2.5.1.1). */
int64_t rtu_gap_us(struct rtu_line line);

/* What request and reply take, with the silence behind each. */
int64_t rtu_exchange_us(struct rtu_line line, const struct mbap_request *request);

/* How long the line must be silent after a time-out, before it is used again. */
static inline int64_t rtu_quiet_ms(int64_t timeout_ms)
{
    int64_t quiet_ms = timeout_ms / 4;
    return quiet_ms < RTU_QUIET_MIN_MS   ? RTU_QUIET_MIN_MS
           : quiet_ms > RTU_QUIET_MAX_MS ? RTU_QUIET_MAX_MS
                                         : quiet_ms;
}
