/* Whatever a peer sends, as a stream of frames: nothing outside the bytes is read, and what counts
 * as an answer fits the request it answers. The first four bytes choose the request. */
#include "drivers/modbus/mbap.h"

#include <assert.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void as_reply(const struct mbap_request *request, const struct mbap_frame *frame)
{
    struct mbap_reply reply;
    if (mbap_parse_reply(request, frame->pdu, frame->pdu_len, &reply) == 0 &&
        reply.exception == 0 && request->function <= MBAP_READ_INPUT) {
        assert(reply.data_len == mbap_read_bytes(request->function, request->count));
        assert(reply.data + reply.data_len == frame->pdu + frame->pdu_len);
    }
}

static void as_request(const struct mbap_frame *frame)
{
    struct mbap_request request;
    uint8_t pdu[MBAP_PDU_MAX];
    if (mbap_parse_request(frame->pdu, frame->pdu_len, &request) == 0) {
        int len = mbap_encode_request(&request, pdu);
        assert(len == (int)frame->pdu_len && memcmp(pdu, frame->pdu, (size_t)len) == 0);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const uint8_t coil_on[2] = {0xff, 0};
    if (size < 4) {
        return 0;
    }
    struct mbap_request request = {
        .function = (uint8_t)(data[0] % 6 + 1),
        .first = mbap_get16(data + 1),
        .count = (uint16_t)(data[3] % MBAP_READ_REGISTERS_MAX + 1),
        .data = coil_on,
        .data_len = sizeof(coil_on),
    };
    data += 4;
    size -= 4;
    struct mbap_frame frame;
    int taken;
    while ((taken = mbap_parse_frame(data, size, &frame)) > 0) {
        assert((size_t)taken <= size && frame.pdu_len <= MBAP_PDU_MAX);
        as_reply(&request, &frame);
        as_request(&frame);
        data += taken;
        size -= (size_t)taken;
    }
    return 0;
}
