/* bits.h - bits in and out, and the Rice groups that integer columns are made of.
 *
 * Pure, any thread. Bits are packed from the least significant end of little-endian 64-bit words,
 * so that both word sizes read the same bytes. Readers never touch a byte behind the end they were
 * given; after an overrun they yield zeros and say so. */
#pragma once

#include "gateway/base/buffer.h"

struct bit_writer {
    struct buffer *to;
    uint64_t word; /* bits not yet in the buffer, the lowest first */
    unsigned used; /* 0..63 */
};

struct bit_reader {
    const uint8_t *at, *end;
    uint64_t word;
    unsigned have; /* bits in word */
    bool failed;
};

void bit_writer_init(struct bit_writer *w, struct buffer *to);
/* The low `count` bits of value, 0..64. */
void bit_write(struct bit_writer *w, uint64_t value, unsigned count);
/* Pads to a whole byte and hands the rest to the buffer. */
void bit_writer_finish(struct bit_writer *w);

void bit_reader_init(struct bit_reader *r, const uint8_t *from, size_t len);
uint64_t bit_read(struct bit_reader *r, unsigned count);

/* Residuals are coded in groups of at most RICE_GROUP: six bits that say how, then the values in
 * zig-zag form. The cheapest of these is taken for each group: all zero; Rice with parameter k
 * (quotients of RICE_ESCAPE and more are sent raw); plain bits of one width. */
enum { RICE_GROUP = 64, RICE_ESCAPE = 24 };
void rice_write_group(struct bit_writer *w, const int64_t *values, size_t count);
/* False when the bits ran out or are no group. */
must_check bool rice_read_group(struct bit_reader *r, int64_t *ret_values, size_t count);
