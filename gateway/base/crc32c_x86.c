#include "gateway/base/crc32c_native.h"

#include <nmmintrin.h>
#include <string.h>

bool crc32c_is_native(void)
{
    return __builtin_cpu_supports("sse4.2") != 0;
}

__attribute__((target("sse4.2"))) uint32_t crc32c_native(uint32_t crc, const uint8_t *at,
                                                         size_t len)
{
    uint64_t wide = crc;
    for (; len >= 8; len -= 8, at += 8) {
        uint64_t word;
        memcpy(&word, at, 8);
        wide = _mm_crc32_u64(wide, word);
    }
    crc = (uint32_t)wide;
    for (; len > 0; len--, at++) {
        crc = _mm_crc32_u8(crc, *at);
    }
    return crc;
}
