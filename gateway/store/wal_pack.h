/* wal_pack.h - numbers as LEB128, one or many; and the steps of columns, which are such numbers.
 *
 * Pure, any thread; used by wal_encode.c only. Of the columns of the log nearly all numbers are one
 * byte long or two, and which of them is hard to foretell: so no branch may ask. CMake takes one
 * file of two: wal_pack_x86.c (vectors, where the machine has them) or wal_pack_plain.c; the bytes
 * are the same. */
#pragma once

#include "gateway/base/scan.h"

enum {
    TOGETHER = 4,    /* columns whose steps are taken together: their values share cache lines */
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

/* A difference in zig-zag form: the nearer to 0 it is, the smaller. */
static inline uint64_t wal_zigzag(uint64_t step)
{
    return step << 1 ^ (0 - (step >> 63));
}

/* The integers of readings[index] to [index + TOGETHER - 1] of each row, as differences from the
 * row before in zig-zag form, from the second row on: column c's to steps + c * count. The bits of
 * what is returned tell which columns have one beyond 32 bits; what is in `steps` of them is void.
 */
unsigned wal_steps(const struct reading *const *rows, size_t index, size_t count, uint32_t *steps);

/* Of that many numbers, for which there is room at VARINT_MAX each and PACK_BEYOND; returns where
 * they end. */
uint8_t *wal_pack(uint8_t *at, const uint32_t *numbers, size_t count);
