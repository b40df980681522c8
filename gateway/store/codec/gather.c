#include "gateway/store/codec/gather.h"

#include <assert.h>
#include <errno.h>
#include <stddef.h>
#include <string.h>

/* How far back an equal text is looked for; an older one is kept twice, which costs bytes only. */
enum { TEXT_MEMORY = 64 };

/* Rows alike that are taken before the columns are told. */
enum { ALIKE_ROWS = 256 };

static_assert(offsetof(struct reading, integer) == sizeof(uint64_t), "one word before the value");

void gather_finish(struct gather *gather)
{
    for (size_t i = 0; i < gather->column_count; i++) {
        free(gather->columns[i].runs);
        free(gather->columns[i].values);
        free(gather->columns[i].texts);
    }
    free(gather->columns);
    free(gather->column_of);
    free(gather->alike);
    *gather = (struct gather){0};
}

/* Grows an array of elements of that size to hold `need`; doubles. */
static int grow(void **array, uint32_t *capacity, size_t need, size_t size)
{
    if (need <= *capacity) {
        return 0;
    }
    size_t to = *capacity < 8 ? 8 : *capacity;
    while (to < need) {
        to *= 2;
    }
    void *more = realloc(*array, to * size);
    if (more == NULL) {
        return -ENOMEM;
    }
    *array = more;
    *capacity = (uint32_t)to;
    return 0;
}

int gather_column_add(struct gather *gather, uint16_t point, struct gather_column **ret_column)
{
    uint32_t capacity = (uint32_t)gather->column_capacity;
    int r = grow((void **)&gather->columns, &capacity, gather->column_count + 1,
                 sizeof *gather->columns);
    if (r < 0) {
        return r;
    }
    gather->column_capacity = capacity;
    *ret_column = &gather->columns[gather->column_count++];
    **ret_column = (struct gather_column){.point = point};
    return 0;
}

int gather_run_add(struct gather_column *column, struct gather_run run)
{
    column->rows += run.rows;
    if (column->run_count > 0) {
        struct gather_run *last = &column->runs[column->run_count - 1];
        /* NOLINTNEXTLINE(clang-analyzer-core.NullDereference): runs is set where run_count is */
        if (last->kind == run.kind && last->quality == run.quality &&
            last->exponent == run.exponent) {
            last->rows += run.rows;
            return 0;
        }
    }
    int r = grow((void **)&column->runs, &column->run_capacity, (size_t)column->run_count + 1,
                 sizeof *column->runs);
    if (r == 0) {
        column->runs[column->run_count++] = run;
    }
    return r;
}

int gather_values_reserve(struct gather_column *column, size_t more)
{
    return grow((void **)&column->values, &column->value_capacity, column->value_count + more,
                sizeof *column->values);
}

int gather_text_add(struct gather_column *column, const char *text, uint32_t len)
{
    int r = grow((void **)&column->texts, &column->text_capacity, (size_t)column->text_count + 1,
                 sizeof *column->texts);
    if (r == 0) {
        column->texts[column->text_count++] = (struct gather_text){text, len};
    }
    return r;
}

static int text_index(struct gather_column *column, const char *text, uint32_t len)
{
    uint32_t oldest = column->text_count > TEXT_MEMORY ? column->text_count - TEXT_MEMORY : 0;
    for (uint32_t i = column->text_count; i-- > oldest;) {
        if (column->texts[i].len == len && memcmp(column->texts[i].text, text, len) == 0) {
            return (int)i;
        }
    }
    int r = gather_text_add(column, text, len);
    return r < 0 ? r : (int)column->text_count - 1;
}

static int find_column(struct gather *gather, uint16_t point, struct gather_column **ret_column)
{
    uint32_t known = gather->column_of_capacity;
    int r = grow((void **)&gather->column_of, &gather->column_of_capacity, (size_t)point + 1,
                 sizeof *gather->column_of);
    if (r < 0) {
        return r;
    }
    memset(gather->column_of + known, 0,
           (gather->column_of_capacity - known) * sizeof *gather->column_of);
    uint32_t *at = &gather->column_of[point];
    if (*at == 0) {
        r = gather_column_add(gather, point, ret_column);
        *at = r < 0 ? 0 : (uint32_t)gather->column_count;
        return r;
    }
    *ret_column = &gather->columns[*at - 1];
    return 0;
}

/* Rows without a reading since the last one. */
static int fill_absent(struct gather_column *column, uint32_t row)
{
    if (column->rows == row) {
        return 0;
    }
    return gather_run_add(column,
                          (struct gather_run){.kind = VALUE_KINDS, .rows = row - column->rows});
}

static int add_value(struct gather_column *column, const struct scan *scan,
                     const struct reading *reading)
{
    int r = gather_values_reserve(column, 1);
    if (r < 0) {
        return r;
    }
    int64_t value = reading->integer; /* of a double: its bit pattern */
    if (reading->kind == VALUE_TEXT) {
        if ((uint64_t)reading->text.offset + reading->text.len > scan->text_len) {
            return -EINVAL;
        }
        r = text_index(column, scan_text(scan, reading), reading->text.len);
        if (r < 0) {
            return r;
        }
        value = r;
    }
    column->values[column->value_count++] = value;
    return 0;
}

static int add_reading(struct gather_column *column, const struct scan *scan,
                       const struct reading *reading, uint32_t row)
{
    if (reading->kind >= VALUE_KINDS || reading->quality >= QUALITY_COUNT || column->rows > row) {
        return -EINVAL;
    }
    int8_t exponent = reading->kind == VALUE_DECIMAL ? reading->exponent : 0;
    struct gather_run *last = column->run_count > 0 ? &column->runs[column->run_count - 1] : NULL;
    if (last != NULL && column->rows == row && last->kind == reading->kind &&
        last->quality == reading->quality && last->exponent == exponent &&
        column->value_count < column->value_capacity && reading->kind < VALUE_TEXT) {
        last->rows++;
        column->rows++;
        column->values[column->value_count] = reading->integer;
        column->value_count += reading->kind != VALUE_NULL ? 1 : 0;
        return 0;
    }
    struct gather_run run = {
        .kind = reading->kind, .quality = reading->quality, .exponent = exponent, .rows = 1};
    int r = fill_absent(column, row);
    r = r < 0 ? r : gather_run_add(column, run);
    if (r == 0 && run.kind != VALUE_NULL) {
        r = add_value(column, scan, reading);
    }
    return r;
}

static int add_readings(struct gather *gather, const struct scan *scan, uint32_t row)
{
    for (size_t i = 0; i < scan->count; i++) {
        const struct reading *reading = &scan->readings[i];
        struct gather_column *column;
        /* Scans of one device nearly always have the same points in the same order. */
        if (i < gather->column_count && gather->columns[i].point == reading->point) {
            column = &gather->columns[i];
        } else {
            int r = find_column(gather, reading->point, &column);
            if (r < 0) {
                return r;
            }
        }
        int r = add_reading(column, scan, reading, row);
        if (r < 0) {
            return r;
        }
    }
    return 0;
}

static uint64_t head_of(const struct reading *reading)
{
    uint64_t head;
    memcpy(&head, reading, sizeof head);
    return head;
}

/* Makes ready for rows that look like this one, which was added. */
static int expect_alike(struct gather *gather, const struct scan *scan)
{
    for (size_t i = 0; i < scan->count; i++) {
        const struct reading *reading = &scan->readings[i];
        if (i >= gather->column_count || gather->columns[i].point != reading->point ||
            reading->kind == VALUE_NULL || reading->kind >= VALUE_TEXT) {
            return 0;
        }
    }
    int r = grow((void **)&gather->alike, &gather->alike_capacity, scan->count,
                 sizeof *gather->alike);
    for (size_t i = 0; r == 0 && i < scan->count; i++) {
        struct gather_column *column = &gather->columns[i];
        r = gather_values_reserve(column, ALIKE_ROWS);
        gather->alike[i].head = head_of(&scan->readings[i]);
        gather->alike[i].values = column->values + column->value_count;
    }
    gather->alike_count = r < 0 ? 0 : scan->count;
    return r;
}

/* False: it looks different, and nothing is changed: what lies behind a column's values is
 * nobody's.
 */
static bool add_alike(struct gather *gather, const struct scan *scan)
{
    uint64_t different = 0;
    for (size_t i = 0; i < scan->count; i++) {
        different |= head_of(&scan->readings[i]) ^ gather->alike[i].head;
        gather->alike[i].values[gather->alike_rows] = scan->readings[i].integer;
    }
    gather->alike_rows += different == 0 ? 1 : 0;
    return different == 0;
}

static void settle_alike(struct gather *gather)
{
    for (uint32_t i = 0; i < gather->alike_count; i++) {
        struct gather_column *column = &gather->columns[i];
        column->rows += gather->alike_rows;
        column->value_count += gather->alike_rows;
        column->runs[column->run_count - 1].rows += gather->alike_rows;
    }
    gather->alike_rows = 0;
    gather->alike_count = 0;
}

int gather_add(struct gather *gather, const struct scan *scan, uint32_t row)
{
    if (gather->alike_count == scan->count && gather->alike_rows < ALIKE_ROWS &&
        add_alike(gather, scan)) {
        return 0;
    }
    settle_alike(gather);
    int r = add_readings(gather, scan, row);
    return r < 0 ? r : expect_alike(gather, scan);
}

int gather_close(struct gather *gather, uint32_t rows)
{
    settle_alike(gather);
    int r = 0;
    for (size_t i = 0; r == 0 && i < gather->column_count; i++) {
        r = fill_absent(&gather->columns[i], rows);
    }
    return r;
}
