/* gather.h - scans turned into columns, and columns turned back into scans.
 *
 * Pure, one owner; used by block.c only. A column holds its values in row order without the rows
 * that have none; its states say, in runs, which rows those are. */
#pragma once

#include "gateway/base/scan.h"

/* One value of (kind, quality, exponent) over a run of rows; kind VALUE_KINDS: no reading at all.
 */
struct gather_run {
    uint8_t kind, quality;
    int8_t exponent;
    uint32_t rows;
};

struct gather_text {
    const char *text; /* in the scans (or the block) it came from */
    uint32_t len;
};

struct gather_column {
    uint16_t point;
    uint32_t rows; /* rows covered by the runs so far */
    struct gather_run *runs;
    uint32_t run_count, run_capacity;
    int64_t *values; /* integers, bit patterns, or indexes of texts */
    uint32_t value_count, value_capacity;
    struct gather_text *texts;
    uint32_t text_count, text_capacity;
};

/* Of reading i of the last row, which is of column i: all but its value, and where in the column
 * the values of further such rows go. */
struct gather_alike {
    uint64_t head;
    int64_t *values;
};

struct gather {
    struct gather_column *columns;
    size_t column_count, column_capacity;
    uint32_t *column_of; /* by point id: index + 1, 0 none */
    uint32_t column_of_capacity;
    /* Nearly all rows look like the one before them: they only add their values, and the columns
     * are told of such rows together. */
    struct gather_alike *alike;
    uint32_t alike_count, alike_capacity; /* readings a row; 0: the last row was not of that kind */
    uint32_t alike_rows;                  /* of which the columns do not know */
};

void gather_finish(struct gather *gather);

/* Adds the readings of row number `row` (rows come in order from 0). -EINVAL: a point twice, or a
 * kind or quality that does not exist; -ENOMEM. */
must_check int gather_add(struct gather *gather, const struct scan *scan, uint32_t row);
/* Ends every column at that many rows. */
must_check int gather_close(struct gather *gather, uint32_t rows);

must_check int gather_column_add(struct gather *gather, uint16_t point,
                                 struct gather_column **ret_column);
must_check int gather_run_add(struct gather_column *column, struct gather_run run);
must_check int gather_text_add(struct gather_column *column, const char *text, uint32_t len);
/* Room for `more` values behind those that are there. */
must_check int gather_values_reserve(struct gather_column *column, size_t more);
