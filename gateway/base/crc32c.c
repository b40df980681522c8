#include "gateway/base/crc32c.h"

#include "gateway/base/crc32c_native.h"

#include <endian.h>
#include <pthread.h>
#include <string.h>

/* Eight tables, so that eight bytes are taken in one step. */
static uint32_t tables[8][256];
static pthread_once_t tables_once = PTHREAD_ONCE_INIT;

static void make_tables(void)
{
    for (uint32_t i = 0; i < 256; i++) {
        uint32_t crc = i;
        for (int bit = 0; bit < 8; bit++) {
            crc = (crc & 1) != 0 ? (crc >> 1) ^ 0x82f63b78u : crc >> 1;
        }
        tables[0][i] = crc;
    }
    for (uint32_t i = 0; i < 256; i++) {
        for (int t = 1; t < 8; t++) {
            uint32_t before = tables[t - 1][i];
            tables[t][i] = tables[0][before & 0xff] ^ (before >> 8);
        }
    }
}

uint32_t crc32c_by_tables(uint32_t crc, const void *bytes, size_t len)
{
    pthread_once(&tables_once, make_tables);
    const uint8_t *at = bytes;
    crc = ~crc;
    for (; len >= 8; len -= 8, at += 8) {
        uint64_t word;
        memcpy(&word, at, 8);
        word = le64toh(word) ^ crc;
        crc = tables[7][word & 0xff] ^ tables[6][word >> 8 & 0xff] ^ tables[5][word >> 16 & 0xff] ^
              tables[4][word >> 24 & 0xff] ^ tables[3][word >> 32 & 0xff] ^
              tables[2][word >> 40 & 0xff] ^ tables[1][word >> 48 & 0xff] ^ tables[0][word >> 56];
    }
    for (; len > 0; len--, at++) {
        crc = tables[0][(crc ^ *at) & 0xff] ^ (crc >> 8);
    }
    return ~crc;
}

uint32_t crc32c(uint32_t crc, const void *bytes, size_t len)
{
    return crc32c_is_native() ? ~crc32c_native(~crc, bytes, len)
                              : crc32c_by_tables(crc, bytes, len);
}
