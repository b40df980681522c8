/* Whatever a serial line brings: the frames found lie within the bytes and hold their CRC, and an
 * answer is of the length that was asked for. With an odd fourth byte the CRC of the first frame is
 * put right, so that what stands behind a CRC is reached too. */
#include "drivers/modbus/rtu.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void must(bool good)
{
    if (!good) {
        abort();
    }
}

/* The first three bytes are the request. */
static struct mbap_request request_of(const uint8_t *data)
{
    static const uint8_t functions[] = {MBAP_READ_COILS,  MBAP_READ_DISCRETES, MBAP_READ_HOLDING,
                                        MBAP_READ_INPUT,  MBAP_WRITE_COIL,     MBAP_WRITE_REGISTER,
                                        MBAP_WRITE_COILS, MBAP_WRITE_REGISTERS};
    static const uint8_t values[2];
    return (struct mbap_request){.function = functions[data[0] % ARRAY_SIZE(functions)],
                                 .first = data[1],
                                 .count = (uint16_t)(1 + data[2] % MBAP_READ_REGISTERS_MAX),
                                 .data = values,
                                 .data_len = sizeof(values)};
}

static void put_right(uint8_t *data, size_t size)
{
    struct rtu_frame frame;
    size_t len = 4;
    while (len <= size && rtu_parse_reply(data, len, &frame) == 0) {
        len++;
    }
    if (len <= size && rtu_parse_reply(data, len, &frame) == -EBADMSG) {
        uint16_t crc = rtu_crc(data, len - 2);
        data[len - 2] = (uint8_t)crc;
        data[len - 1] = (uint8_t)(crc >> 8);
        must(rtu_parse_reply(data, size, &frame) == (int)len);
    }
}

static void read_all(const struct mbap_request *request, const uint8_t *data, size_t size)
{
    struct rtu_frame frame;
    struct mbap_reply reply;
    int used;
    while ((used = rtu_parse_reply(data, size, &frame)) > 0) {
        must((size_t)used <= size && used <= RTU_FRAME_MAX);
        must(frame.pdu == data + 1 && frame.pdu_len + 3 == (size_t)used);
        must(rtu_crc(data, (size_t)used) == 0);
        if (mbap_parse_reply(request, frame.pdu, frame.pdu_len, &reply) == 0 &&
            reply.exception == 0 && request->function <= MBAP_READ_INPUT) {
            must(reply.data_len == mbap_read_bytes(request->function, request->count));
            must((size_t)used == rtu_reply_size(request));
        }
        data += used;
        size -= (size_t)used;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 4) {
        return 0;
    }
    const struct mbap_request request = request_of(data);
    bool good_crc = (data[3] & 1) != 0;
    uint8_t *exact = malloc(size - 4 + 1); /* so that the sanitizer sees its end */
    must(exact != NULL);
    memcpy(exact, data + 4, size - 4);
    if (good_crc) {
        put_right(exact, size - 4);
    }
    read_all(&request, exact, size - 4);
    free(exact);
    return 0;
}
