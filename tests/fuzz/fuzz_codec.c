/* Any bytes as a block: the checksum is mended first, so that the decoder behind it is reached.
 * What decodes must encode again and decode to the same. */
#include "gateway/base/crc32c.h"
#include "gateway/store/codec/block.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static size_t list_scans(const struct buffer *scans, const struct scan **ret_list, size_t max)
{
    size_t count = 0;
    for (size_t at = 0; at < scans->len && count < max;) {
        ret_list[count] = (const struct scan *)(scans->data + at);
        at += scan_size(ret_list[count++]);
    }
    return count;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    enum { PREFIX = 5, MAX = 1 << 22 };
    auto_buffer struct buffer block = {0};
    auto_buffer struct buffer scans = {.max = MAX};
    auto_buffer struct buffer again = {0};
    buffer_add_byte(&block, CODEC_VERSION);
    uint32_t crc = crc32c(0, data, size);
    buffer_add(&block, &crc, sizeof crc);
    buffer_add(&block, data, size);
    struct codec_head head;
    if (codec_decode(block.data, block.len, &scans, &head) < 0) {
        return 0;
    }
    static const struct scan *list[CODEC_SCANS_MAX];
    size_t count = list_scans(&scans, list, CODEC_SCANS_MAX);
    /* Rows that an encoder would not have made (seq not rising, a point twice) may be refused. */
    if (codec_encode(list, count, &again) == 0) {
        auto_buffer struct buffer back = {0};
        if (codec_decode(again.data, again.len, &back, &head) < 0 || back.len != scans.len) {
            __builtin_trap();
        }
    }
    return 0;
}
