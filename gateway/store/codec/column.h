/* column.h - one column of integers: predicted, then written as Rice groups.
 *
 * Pure, any thread; exact for every int64. Channels of a machine move together (rotor and
 * generator, three phases, neighbouring temperatures), so a column may be coded as its difference
 * to one of the columns before it. All arithmetic wraps in 64 bits, which makes it exact whatever
 * the values. */
#pragma once

#include "gateway/store/codec/bits.h"

enum { COLUMN_REFERENCES = 2, COLUMN_ROWS_MAX = 65536 };

/* The columns before this one that have a value in every row, the nearest first; NULL: none. */
struct column_references {
    const int64_t *values[COLUMN_REFERENCES];
};

/* How a column is coded: one byte in the block's head. */
uint8_t column_choose(const int64_t *values, size_t count, const struct column_references *refs);

/* Writes count >= 1 values coded so; scratch has room for twice as many. */
void column_write(struct bit_writer *w, uint8_t how, const int64_t *values, size_t count,
                  const struct column_references *refs, int64_t *scratch);

/* The inverse; false when the bits ran out or `how` is none. */
must_check bool column_read(struct bit_reader *r, uint8_t how, int64_t *ret_values, size_t count,
                            const struct column_references *refs);
