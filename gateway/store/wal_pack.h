/* wal_pack.h - numbers as LEB128, one or many.
 *
 * Pure, any thread; used by wal_encode.c only. Of the columns of the log nearly all numbers are one
 * byte long or two, and which of them is hard to foretell: so no branch may ask. CMake takes one
 * file of two for wal_pack(): wal_pack_x86.c (vectors, where the machine has them) or
 * wal_pack_plain.c; the bytes are the same. */
#pragma once

#include <stddef.h>
#include <stdint.h>

enum {
    VARINT_MAX = 10, /* bytes of a number */
    PACK_BEYOND = 8, /* bytes that wal_pack() may write behind the last number */
};

static inline uint8_t *wal_put(uint8_t *at, uint64_t value)
{
    while (value >> 14 != 0) {
        *at++ = (uint8_t)(value | 0x80);
        value >>= 7;
    }
    uint8_t more = value >= 0x80;
    at[0] = (uint8_t)((value & 0x7f) | (uint8_t)(more << 7));
    at[1] = (uint8_t)(value >> 7);
    return at + 1 + more;
}

/* Of that many numbers, for which there is room at VARINT_MAX each and PACK_BEYOND; returns where
 * they end. */
uint8_t *wal_pack(uint8_t *at, const uint32_t *numbers, size_t count);
