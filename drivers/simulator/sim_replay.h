/* sim_replay.h - a CSV file as registers: row by row, two holding registers a column.
 *
 * Loaded once, then read by many; one thread. A column is numeric when all its cells that are not
 * empty are numbers. Cell values are rounded to 0.01 and served as int32 (ABCD); an empty cell is
 * the sentinel 0x80000000. Numeric column k lies in registers 2k and 2k+1. */
#pragma once

#include "gateway/base/cleanup.h"

#include <stddef.h>
#include <stdint.h>

enum {
    SIM_REPLAY_COLUMNS_MAX = 1024,
    SIM_REPLAY_ROWS_MAX = 1 << 20,
    SIM_REPLAY_LINE_MAX = 1 << 16, /* bytes */
    SIM_REPLAY_SENTINEL = INT32_MIN
};

struct sim_replay {
    char *header;   /* cut into names */
    char **names;   /* of the numeric columns */
    size_t columns; /* numeric ones */
    size_t rows;
    int32_t *cells; /* [row * columns + column] */
};

/* -errno; -EINVAL with the line at fault (a cell beyond int32, a row of another length, no row). */
must_check int sim_replay_load(const char *path, struct sim_replay *ret_replay, size_t *ret_line);
void sim_replay_finish(struct sim_replay *replay);

/* Register `address` of a row, which is below rows; columns * 2 of them exist. */
uint16_t sim_replay_register(const struct sim_replay *replay, size_t row, unsigned address);

/* The INI section [profile replay] with a point for each column. */
void sim_replay_print_profile(const struct sim_replay *replay, FILE *out);
