#include "drivers/simulator/sim_replay.h"

#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <stdbool.h>
#include <string.h>

/* While loading, all columns are kept; those that prove not to be numeric are dropped at the end.
 */
struct loading {
    FILE *file;
    char *line;
    size_t line_size, line_number;
    char *names[SIM_REPLAY_COLUMNS_MAX];
    bool text[SIM_REPLAY_COLUMNS_MAX]; /* holds something that is no number */
    size_t columns, rows, capacity;
    int32_t *cells;
};

void sim_replay_finish(struct sim_replay *replay)
{
    free(replay->header);
    free(replay->names);
    free(replay->cells);
    *replay = (struct sim_replay){.rows = 0};
}

/* The next line without its end; -ENODATA behind the last. */
static int next_line(struct loading *l)
{
    ssize_t len = getline(&l->line, &l->line_size, l->file);
    if (len < 0) {
        return ferror(l->file) ? -EIO : -ENODATA;
    }
    l->line_number++;
    if (len > SIM_REPLAY_LINE_MAX) {
        return -EINVAL;
    }
    l->line[strcspn(l->line, "\r\n")] = '\0';
    return 0;
}

static int read_header(struct loading *l, char **ret_header)
{
    int r = next_line(l);
    if (r < 0) {
        return r == -ENODATA ? -EINVAL : r;
    }
    char *header = strdup(l->line);
    if (header == NULL) {
        return -ENOMEM;
    }
    *ret_header = header;
    for (char *name; (name = strsep(&header, ",")) != NULL;) {
        if (l->columns == SIM_REPLAY_COLUMNS_MAX) {
            return -EINVAL;
        }
        l->names[l->columns++] = name;
    }
    return 0;
}

static int32_t *row_room(struct loading *l)
{
    if (l->rows == l->capacity) {
        size_t capacity = l->capacity == 0 ? 1024 : l->capacity * 2;
        int32_t *cells = realloc(l->cells, capacity * l->columns * sizeof *cells);
        if (cells == NULL) {
            return NULL;
        }
        l->cells = cells;
        l->capacity = capacity;
    }
    return &l->cells[l->rows * l->columns];
}

/* One cell; text marks its column, a number beyond int32 is -EINVAL. */
static int read_cell(struct loading *l, size_t column, const char *text, int32_t *ret_cell)
{
    *ret_cell = SIM_REPLAY_SENTINEL;
    if (*text == '\0' || l->text[column]) {
        return 0;
    }
    char *end;
    double value = strtod(text, &end);
    if (*end != '\0' || !isfinite(value)) {
        l->text[column] = true;
        return 0;
    }
    double scaled = rint(value * 100.0);
    if (fabs(scaled) > INT32_MAX) {
        return -EINVAL;
    }
    *ret_cell = (int32_t)scaled;
    return 0;
}

static int read_row(struct loading *l)
{
    int32_t *row = row_room(l);
    if (row == NULL || l->rows >= SIM_REPLAY_ROWS_MAX) {
        return row == NULL ? -ENOMEM : -EINVAL;
    }
    size_t column = 0;
    char *rest = l->line;
    for (char *cell; (cell = strsep(&rest, ",")) != NULL; column++) {
        if (column == l->columns || read_cell(l, column, cell, &row[column]) < 0) {
            return -EINVAL;
        }
    }
    if (column != l->columns) {
        return -EINVAL;
    }
    l->rows++;
    return 0;
}

static int read_all(struct loading *l, char **ret_header)
{
    int r = read_header(l, ret_header);
    while (r == 0 && (r = next_line(l)) == 0) {
        if (l->line[0] != '\0') {
            r = read_row(l);
        }
    }
    if (r == -ENODATA) {
        r = l->rows > 0 ? 0 : -EINVAL;
    }
    return r;
}

/* Moves the numeric columns together, in place. */
static int keep_numeric(struct loading *l, struct sim_replay *replay)
{
    char **names = calloc(l->columns, sizeof *names);
    if (names == NULL) {
        return -ENOMEM;
    }
    replay->names = names;
    size_t *from = calloc(l->columns, sizeof *from);
    if (from == NULL) {
        return -ENOMEM;
    }
    size_t count = 0;
    for (size_t i = 0; i < l->columns; i++) {
        if (!l->text[i]) {
            names[count] = l->names[i];
            from[count++] = i;
        }
    }
    for (size_t row = 0; row < l->rows; row++) {
        for (size_t i = 0; i < count; i++) {
            l->cells[row * count + i] = l->cells[row * l->columns + from[i]];
        }
    }
    free(from);
    replay->columns = count;
    replay->rows = l->rows;
    replay->cells = take_ptr(l->cells);
    return count > 0 ? 0 : -EINVAL;
}

int sim_replay_load(const char *path, struct sim_replay *ret_replay, size_t *ret_line)
{
    *ret_line = 0;
    struct loading *l = calloc(1, sizeof *l);
    struct sim_replay replay = {.rows = 0};
    if (l == NULL) {
        return -ENOMEM;
    }
    l->file = fopen(path, "re");
    if (l->file == NULL) {
        int error = errno;
        free(l);
        return -error;
    }
    int r = read_all(l, &replay.header);
    if (r == 0) {
        r = keep_numeric(l, &replay);
    }
    *ret_line = l->line_number;
    fclose(l->file);
    free(l->line);
    free(l->cells);
    free(l);
    if (r < 0) {
        sim_replay_finish(&replay);
        return r;
    }
    *ret_replay = replay;
    return 0;
}

uint16_t sim_replay_register(const struct sim_replay *replay, size_t row, unsigned address)
{
    uint32_t cell = (uint32_t)replay->cells[row * replay->columns + address / 2];
    return (uint16_t)(address % 2 == 0 ? cell >> 16 : cell);
}

void sim_replay_print_profile(const struct sim_replay *replay, FILE *out)
{
    fputs("[profile replay]\naddress_base = 0\nbyte_order = ABCD\nmax_gap = 16\n", out);
    for (size_t i = 0; i < replay->columns; i++) {
        fprintf(out, "point.%s = holding %zu int32, scale 0.01, invalid 0x80000000\n",
                replay->names[i], 2 * i);
    }
}
