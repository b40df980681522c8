/* streams.h - the value streams of a block: integers and doubles, counts known to both sides.
 *
 * Pure, any thread; used by block.c only. What is read first (choices, exponents) goes to `head`,
 * the rest to the shared bits. `work` has room for 2 * count integers. */
#pragma once

#include "gateway/store/codec/column.h"

void stream_write_integers(struct buffer *head, struct bit_writer *bits, const int64_t *values,
                           size_t count, const struct column_references *refs, int64_t *work);
must_check bool stream_read_integers(struct cursor *head, struct bit_reader *bits,
                                     int64_t *ret_values, size_t count,
                                     const struct column_references *refs);

/* Doubles given and returned as their bit patterns (exact, NaN payloads and -0 included): as
 * integers of one decimal exponent where all of them are that exactly, else XOR with the pattern
 * before. With single, the values are float32 widened to double, and are coded as float32. */
void stream_write_doubles(struct buffer *head, struct bit_writer *bits, const int64_t *patterns,
                          size_t count, bool single, int64_t *work);
must_check bool stream_read_doubles(struct cursor *head, struct bit_reader *bits,
                                    int64_t *ret_patterns, size_t count, bool single);
