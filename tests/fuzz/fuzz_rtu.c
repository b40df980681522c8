/* Whatever a serial line brings: the frames found lie within the bytes and hold their CRC, and an
 * answer is of the length that was asked for. */
#include "drivers/modbus/rtu.h"

#include <stdlib.h>

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

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 3) {
        return 0;
    }
    const struct mbap_request request = request_of(data);
    data += 3;
    size -= 3;
    struct rtu_frame frame;
    struct mbap_reply reply;
    int used;
    while ((used = rtu_parse_reply(data, size, &frame)) > 0) {
        must((size_t)used <= size && used <= RTU_FRAME_MAX);
        must(frame.pdu == data + 1 && frame.pdu_len + 3 == (size_t)used);
        must(rtu_crc(data, (size_t)used) == 0);
        if (mbap_parse_reply(&request, frame.pdu, frame.pdu_len, &reply) == 0 &&
            reply.exception == 0 && request.function <= MBAP_READ_INPUT) {
            must(reply.data_len == mbap_read_bytes(request.function, request.count));
            must((size_t)used == rtu_reply_size(&request));
        }
        data += used;
        size -= (size_t)used;
    }
    return 0;
}
