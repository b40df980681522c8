#include "drivers/modbus/rtu.h"

#include <errno.h>
#include <string.h>

enum { CRC_SIZE = 2, EXCEPTION_BIT = 0x80, EXCEPTION_SIZE = 5, WRITE_SIZE = 8, READ_HEAD = 3 };

uint16_t rtu_crc(const uint8_t *data, size_t len)
{
    unsigned crc = 0xffff;
    for (size_t i = 0; i < len; i++) {
        crc ^= data[i];
        for (unsigned bit = 0; bit < 8; bit++) {
            crc = (crc & 1) != 0 ? crc >> 1 ^ 0xa001 : crc >> 1;
        }
    }
    return (uint16_t)crc;
}

size_t rtu_write_frame(uint8_t frame[RTU_FRAME_MAX], uint8_t unit, const uint8_t *pdu,
                       size_t pdu_len)
{
    memmove(frame + 1, pdu, pdu_len);
    frame[0] = unit;
    uint16_t crc = rtu_crc(frame, 1 + pdu_len);
    frame[1 + pdu_len] = (uint8_t)crc;
    frame[2 + pdu_len] = (uint8_t)(crc >> 8);
    return 1 + pdu_len + CRC_SIZE;
}

/* The size of the reply that begins so; 0: too little to tell, -EPROTO: none begins so. */
static int size_of(const uint8_t *data, size_t len)
{
    if (len < 2) {
        return 0;
    }
    switch (data[1] & ~EXCEPTION_BIT) {
    case MBAP_READ_COILS:
    case MBAP_READ_DISCRETES:
    case MBAP_READ_HOLDING:
    case MBAP_READ_INPUT:
        if ((data[1] & EXCEPTION_BIT) != 0) {
            return EXCEPTION_SIZE;
        }
        if (len < READ_HEAD) {
            return 0;
        }
        return data[2] < 1 || data[2] > MBAP_PDU_MAX - 2 ? -EPROTO : READ_HEAD + data[2] + CRC_SIZE;
    case MBAP_WRITE_COIL:
    case MBAP_WRITE_REGISTER:
    case MBAP_WRITE_COILS:
    case MBAP_WRITE_REGISTERS:
        return (data[1] & EXCEPTION_BIT) != 0 ? EXCEPTION_SIZE : WRITE_SIZE;
    default:
        return -EPROTO;
    }
}

int rtu_parse_reply(const uint8_t *data, size_t len, struct rtu_frame *ret_frame)
{
    int size = size_of(data, len);
    if (size <= 0) {
        return size;
    }
    if (len < (size_t)size) {
        return 0;
    }
    size_t body = (size_t)size - CRC_SIZE;
    if (rtu_crc(data, body) != (data[body] | data[body + 1] << 8)) {
        return -EBADMSG;
    }
    *ret_frame = (struct rtu_frame){data[0], data + 1, body - 1};
    return size;
}

size_t rtu_reply_size(const struct mbap_request *request)
{
    bool reads = request->function <= MBAP_READ_INPUT;
    return reads ? READ_HEAD + mbap_read_bytes(request->function, request->count) + CRC_SIZE
                 : (size_t)WRITE_SIZE;
}

int64_t rtu_gap_us(struct rtu_line line)
{
    return line.baud > 19200 ? 1750 : 7 * rtu_bytes_us(line, 1) / 2;
}

int64_t rtu_exchange_us(struct rtu_line line, const struct mbap_request *request)
{
    bool many = request->function == MBAP_WRITE_COILS || request->function == MBAP_WRITE_REGISTERS;
    size_t asked = WRITE_SIZE + (many ? 1 + request->data_len : 0);
    return rtu_bytes_us(line, asked + rtu_reply_size(request)) + 2 * rtu_gap_us(line);
}
