/* Any bytes at all as a write-ahead block, a state record or a dictionary record. The checksum is
 * mended first, so that the decoders behind it are reached. */
#include "gateway/base/crc32c.h"
#include "gateway/store/dictionary.h"
#include "gateway/store/key.h"
#include "gateway/store/state.h"
#include "gateway/store/wal.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void mend(uint8_t *bytes, size_t size)
{
    if (size >= 8) {
        uint32_t crc = crc32c(0, bytes, 4);
        field_put32(bytes + 4, crc32c(crc, bytes + 8, size - 8));
    }
}

static void try_block(const uint8_t *bytes, size_t size)
{
    struct wal_decoder *decoder = NULL;
    struct wal_header header;
    const struct wal_row *rows;
    if (wal_decoder_create(&decoder) == 0 && wal_open(decoder, bytes, size, &header, &rows) == 0) {
        auto_free uint8_t *arena = malloc((size_t)header.memory + 1);
        if (arena != NULL && wal_scans(decoder, arena) == 0) {
            for (size_t i = 0; i < header.scans; i++) {
                const struct scan *scan = (const void *)(arena + rows[i].offset);
                if (scan_size(scan) > header.memory - rows[i].offset) {
                    abort();
                }
            }
        }
    }
    wal_decoder_destroy(decoder);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 2) {
        return 0;
    }
    auto_free uint8_t *bytes = malloc(size);
    if (bytes == NULL) {
        return 0;
    }
    memcpy(bytes, data + 1, --size);
    if (data[0] % 4 == 0) {
        (void)!dictionary_check(bytes, size);
    }
    mend(bytes, size);
    if (data[0] % 4 == 1) {
        struct state state = {0};
        if (state_decode(bytes, size, &state) == 0) {
            state_finish(&state);
        }
    } else {
        try_block(bytes, size);
    }
    return 0;
}
