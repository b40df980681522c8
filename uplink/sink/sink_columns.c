/* The body of `format = columns`: a device's identity once, then a list a point.
 *
 * {"device":"t01","first_seq":18231,"points":["wind_speed","power"],
 *  "time_ms":{"first":1769855400000,"deltas":[1000,...]},
 *  "values":[{"scale":0.01,"deltas":[842,-2,...]},[1.25,...]],
 *  "quality":[[row,col,"bad:timeout"],...]}
 *
 * A block has one row more than time deltas, and its seqs follow each other. A null in a column
 * leaves the running sum alone; it is a bad value when the quality names it, and otherwise says
 * that the record of that row has no such point. */
#include "uplink/sink/sink_records.h"

#include <string.h>

struct columns {
    struct json_in_text device;
    int64_t first_seq, first_time_ms;
    size_t rows, points;
    struct json_in_text *names;
    int64_t *times;
    struct sink_value *cells;       /* by column, rows each */
    struct json_in_text *qualities; /* NULL: all good; an entry without text is good */
    size_t names_capacity, times_capacity, cells_capacity, cells_count;
};

static void finish_columns(struct columns *c)
{
    free(c->names);
    free(c->times);
    free(c->cells);
    free(c->qualities);
}

/* Room for element `index` of an array that grows; max bounds it. */
static void *grow(struct json_in *json, void *array, size_t *capacity, size_t index, size_t size,
                  size_t max)
{
    if (index >= max) {
        json_in_fail(json, "a block is too large");
        return NULL;
    }
    if (index < *capacity) {
        return array;
    }
    size_t more = *capacity == 0 ? 64 : *capacity * 2;
    void *moved = realloc(array, more * size);
    if (moved == NULL) {
        json_in_fail(json, "out of memory");
        return NULL;
    }
    *capacity = more;
    return moved;
}

static bool take_points(struct json_in *json, struct columns *c)
{
    if (!json_in_enter(json, JSON_IN_ARRAY)) {
        return false;
    }
    while (json_in_element(json)) {
        void *names = grow(json, c->names, &c->names_capacity, c->points, sizeof *c->names,
                           SINK_READINGS_MAX);
        if (names == NULL) {
            return false;
        }
        c->names = names;
        struct json_in_text *name = &c->names[c->points];
        if (!json_in_string(json, name)) {
            return false;
        }
        if (name->len == 0 || name->len > SINK_NAME_MAX) {
            return json_in_fail(json, "a point's name is empty or too long");
        }
        c->points++;
    }
    return !json_in_failed(json);
}

static bool add_time(struct json_in *json, struct columns *c, int64_t time_ms)
{
    void *times = grow(json, c->times, &c->times_capacity, c->rows, sizeof *c->times,
                       SINK_ROWS_MAX);
    if (times == NULL) {
        return false;
    }
    c->times = times;
    c->times[c->rows++] = time_ms;
    return true;
}

static bool take_time_deltas(struct json_in *json, struct columns *c)
{
    int64_t delta, time_ms = c->first_time_ms;
    if (!json_in_enter(json, JSON_IN_ARRAY) || !add_time(json, c, time_ms)) {
        return false;
    }
    while (json_in_element(json) && json_in_integer(json, &delta)) {
        if (__builtin_add_overflow(time_ms, delta, &time_ms)) {
            return json_in_fail(json, "a time beyond 64 bits");
        }
        if (!add_time(json, c, time_ms)) {
            return false;
        }
    }
    return !json_in_failed(json);
}

/* {"first":..,"deltas":[..]} in this or the other order. */
static bool take_times(struct json_in *json, struct columns *c)
{
    struct json_in_text key;
    const char *deltas = NULL;
    bool first = false;
    if (!json_in_enter(json, JSON_IN_OBJECT)) {
        return false;
    }
    while (json_in_member(json, &key)) {
        if (json_in_text_is(key, "first")) {
            first = true;
            if (!json_in_integer(json, &c->first_time_ms)) {
                return false;
            }
            continue;
        }
        if (json_in_text_is(key, "deltas")) {
            json_in_peek(json);
            deltas = json->at;
        }
        if (!json_in_skip(json)) {
            return false;
        }
    }
    if (json_in_failed(json) || !first || deltas == NULL) {
        return json_in_fail(json, "time_ms needs first and deltas");
    }
    const char *back = json->at;
    json->at = deltas;
    bool fine = take_time_deltas(json, c);
    json->at = back;
    return fine;
}

static struct sink_value *add_cell(struct json_in *json, struct columns *c)
{
    size_t expected = c->rows * c->points;
    void *cells = grow(json, c->cells, &c->cells_capacity, c->cells_count, sizeof *c->cells,
                       expected < SINK_CELLS_MAX ? expected : SINK_CELLS_MAX);
    if (cells == NULL) {
        return NULL;
    }
    c->cells = cells;
    c->cells[c->cells_count] = (struct sink_value){.kind = SINK_VALUE_NULL};
    return &c->cells[c->cells_count++];
}

static bool take_plain(struct json_in *json, struct columns *c)
{
    if (!json_in_enter(json, JSON_IN_ARRAY)) {
        return false;
    }
    while (json_in_element(json)) {
        struct sink_value *cell = add_cell(json, c);
        if (cell == NULL || !sink_value_take(json, cell)) {
            return false;
        }
        if (cell->kind == SINK_VALUE_TEXT && cell->text.len > SINK_TEXT_MAX) {
            return json_in_fail(json, "a text value is too long");
        }
    }
    return !json_in_failed(json);
}

static bool take_scaled_cells(struct json_in *json, struct columns *c, struct decimal scale)
{
    int64_t sum = 0, delta;
    if (!json_in_enter(json, JSON_IN_ARRAY)) {
        return false;
    }
    while (json_in_element(json)) {
        struct sink_value *cell = add_cell(json, c);
        if (cell == NULL) {
            return false;
        }
        if (json_in_peek(json) == JSON_IN_NULL) {
            if (!json_in_skip(json)) {
                return false;
            }
            continue;
        }
        struct decimal value = {.exponent = scale.exponent};
        if (!json_in_integer(json, &delta)) {
            return false;
        }
        if (__builtin_add_overflow(sum, delta, &sum) ||
            __builtin_mul_overflow(sum, scale.mantissa, &value.mantissa)) {
            return json_in_fail(json, "a value beyond 64 bits");
        }
        *cell = sink_value_decimal(value);
    }
    return !json_in_failed(json);
}

/* {"scale":0.01,"deltas":[...]}; the scale may stand behind. */
static bool take_scaled(struct json_in *json, struct columns *c)
{
    struct json_in_text key;
    struct decimal scale = {.mantissa = 1};
    const char *deltas = NULL;
    double real;
    bool exact = true;
    if (!json_in_enter(json, JSON_IN_OBJECT)) {
        return false;
    }
    while (json_in_member(json, &key)) {
        if (json_in_text_is(key, "scale")) {
            if (!json_in_number(json, &scale, &real, &exact)) {
                return false;
            }
            continue;
        }
        if (json_in_text_is(key, "deltas")) {
            json_in_peek(json);
            deltas = json->at;
        }
        if (!json_in_skip(json)) {
            return false;
        }
    }
    if (json_in_failed(json) || deltas == NULL || !exact) {
        return json_in_fail(json, "a column needs an exact scale and deltas");
    }
    const char *back = json->at;
    json->at = deltas;
    bool fine = take_scaled_cells(json, c, scale);
    json->at = back;
    return fine;
}

static bool take_values(struct json_in *json, struct columns *c)
{
    size_t column = 0;
    if (!json_in_enter(json, JSON_IN_ARRAY)) {
        return false;
    }
    while (json_in_element(json)) {
        bool fine = json_in_peek(json) == JSON_IN_OBJECT ? take_scaled(json, c)
                                                         : take_plain(json, c);
        if (!fine) {
            return false;
        }
        if (c->cells_count != ++column * c->rows) {
            return json_in_fail(json, "a column has not one value a row");
        }
    }
    if (!json_in_failed(json) && column != c->points) {
        return json_in_fail(json, "not one column a point");
    }
    return !json_in_failed(json);
}

/* One [row,col,"bad:timeout"]. */
static bool take_quality(struct json_in *json, struct columns *c)
{
    int64_t row, column;
    struct json_in_text quality, more;
    if (!json_in_enter(json, JSON_IN_ARRAY) || !json_in_element(json) ||
        !json_in_integer(json, &row) || !json_in_element(json) || !json_in_integer(json, &column) ||
        !json_in_element(json) || !json_in_string(json, &quality)) {
        return json_in_fail(json, "a quality is [row,column,word]");
    }
    if (json_in_element(json)) {
        return json_in_string(json, &more) && json_in_fail(json, "a quality has three parts");
    }
    if (row < 0 || (size_t)row >= c->rows || column < 0 || (size_t)column >= c->points ||
        quality.len == 0 || quality.len > SINK_NAME_MAX) {
        return json_in_fail(json, "a quality outside its block");
    }
    c->qualities[(size_t)column * c->rows + (size_t)row] = quality;
    return !json_in_failed(json);
}

static bool take_qualities(struct json_in *json, struct columns *c)
{
    c->qualities = calloc(c->cells_count + 1, sizeof *c->qualities);
    if (c->qualities == NULL) {
        return json_in_fail(json, "out of memory");
    }
    if (!json_in_enter(json, JSON_IN_ARRAY)) {
        return false;
    }
    while (json_in_element(json) && take_quality(json, c)) {
    }
    return !json_in_failed(json);
}

static bool hand_on_row(struct sink_parser *p, const struct columns *c, size_t row)
{
    struct sink_record record = p->head;
    record.device = c->device;
    record.seq = c->first_seq + (int64_t)row;
    record.time_ms = c->times[row];
    for (size_t column = 0; column < c->points; column++) {
        size_t at = column * c->rows + row;
        bool named = c->qualities != NULL && c->qualities[at].at != NULL;
        if (c->cells[at].kind == SINK_VALUE_NULL && !named) {
            continue;
        }
        struct sink_reading *reading = sink_parser_reading(p, record.count);
        if (reading == NULL) {
            return false;
        }
        reading->point = c->names[column];
        reading->value = c->cells[at];
        if (named) {
            reading->quality = c->qualities[at];
        }
        record.count++;
    }
    record.refusal = record.count == 0 ? "it has no values" : NULL;
    record.readings = p->readings;
    return sink_parser_take(p, &record);
}

enum part { PART_POINTS, PART_TIMES, PART_VALUES, PART_QUALITY, PARTS };

/* Finds where the parts stand, whatever their order. */
static bool find_parts(struct json_in *json, struct columns *c, const char *parts[PARTS])
{
    static const char *const names[PARTS] = {"points", "time_ms", "values", "quality"};
    struct json_in_text key;
    if (!json_in_enter(json, JSON_IN_OBJECT)) {
        return false;
    }
    while (json_in_member(json, &key)) {
        bool fine;
        if (json_in_text_is(key, "device")) {
            fine = json_in_string(json, &c->device);
        } else if (json_in_text_is(key, "first_seq")) {
            fine = json_in_integer(json, &c->first_seq);
        } else {
            for (int i = 0; i < PARTS; i++) {
                if (json_in_text_is(key, names[i])) {
                    json_in_peek(json);
                    parts[i] = json->at;
                }
            }
            fine = json_in_skip(json);
        }
        if (!fine) {
            return false;
        }
    }
    if (c->device.len == 0 || c->device.len > SINK_NAME_MAX || c->first_seq < 1 ||
        c->first_seq > INT64_MAX - SINK_ROWS_MAX || parts[PART_POINTS] == NULL ||
        parts[PART_TIMES] == NULL || parts[PART_VALUES] == NULL) {
        return json_in_fail(json, "a block needs device, first_seq, points, time_ms and values");
    }
    return !json_in_failed(json);
}

static bool take_parts(struct sink_parser *p, struct columns *c)
{
    static bool (*const takers[PARTS])(struct json_in *, struct columns *) = {
        take_points, take_times, take_values, take_qualities};
    struct json_in *json = &p->json;
    const char *parts[PARTS] = {NULL};
    if (!find_parts(json, c, parts)) {
        return false;
    }
    const char *back = json->at;
    for (int i = 0; i < PARTS; i++) {
        if (parts[i] != NULL) {
            json->at = parts[i];
            if (!takers[i](json, c)) {
                return false;
            }
        }
    }
    json->at = back;
    for (size_t row = 0; row < c->rows; row++) {
        if (!hand_on_row(p, c, row)) {
            return false;
        }
    }
    return true;
}

static bool take_block(struct sink_parser *p)
{
    struct columns c = {.rows = 0};
    bool fine = take_parts(p, &c);
    finish_columns(&c);
    return fine;
}

bool sink_columns_parse(struct sink_parser *p)
{
    if (!json_in_enter(&p->json, JSON_IN_ARRAY)) {
        return false;
    }
    while (json_in_element(&p->json) && take_block(p)) {
    }
    return !json_in_failed(&p->json);
}
