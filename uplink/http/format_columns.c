#include "uplink/http/http.h"

#include <errno.h>

/* A block: consecutive scans of one device and window as rows, its points as columns. */
struct block {
    const struct batch_record *rows;
    size_t row_count;
    uint16_t *points; /* of each column, in order of appearance */
    size_t column_count;
    const struct reading **cells; /* [row * column_count + column]; NULL: not in that scan */
};

enum { NO_COLUMN = UINT16_MAX, POINT_IDS = UINT16_MAX + 1 };

static bool continues(const struct batch_record *last, const struct batch_record *next)
{
    return next->names == last->names && next->scan->device == last->scan->device &&
           next->scan->seq == last->scan->seq + 1 && next->scan->window_s == last->scan->window_s;
}

static size_t run_length(const struct batch_record *records, size_t count)
{
    size_t n = 1;
    while (n < count && continues(&records[n - 1], &records[n])) {
        n++;
    }
    return n;
}

/* Gives every point of the block a column; column_of has POINT_IDS entries, all NO_COLUMN. */
static int find_columns(struct block *b, uint16_t *column_of)
{
    size_t capacity = 0;
    for (size_t row = 0; row < b->row_count; row++) {
        for (size_t i = 0, n = record_count(&b->rows[row]); i < n; i++) {
            uint16_t point = record_reading(&b->rows[row], i)->point;
            if (column_of[point] != NO_COLUMN) {
                continue;
            }
            if (b->column_count == capacity) {
                capacity = capacity == 0 ? 32 : capacity * 2;
                uint16_t *points = realloc(b->points, capacity * sizeof *points);
                if (points == NULL) {
                    return -ENOMEM;
                }
                b->points = points;
            }
            column_of[point] = (uint16_t)b->column_count;
            b->points[b->column_count++] = point;
        }
    }
    return 0;
}

static int fill_cells(struct block *b, const uint16_t *column_of)
{
    b->cells = calloc(b->row_count * b->column_count, sizeof *b->cells);
    if (b->cells == NULL) {
        return -ENOMEM;
    }
    for (size_t row = 0; row < b->row_count; row++) {
        for (size_t i = 0, n = record_count(&b->rows[row]); i < n; i++) {
            const struct reading *r = record_reading(&b->rows[row], i);
            b->cells[row * b->column_count + column_of[r->point]] = r;
        }
    }
    return 0;
}

/* Whether the column is all decimals of one exponent, with differences that 64 bits hold. */
static bool is_exact(const struct block *b, size_t column)
{
    const struct reading *last = NULL;
    for (size_t row = 0; row < b->row_count; row++) {
        const struct reading *r = b->cells[row * b->column_count + column];
        int64_t delta;
        if (r == NULL || r->kind != VALUE_DECIMAL || r->exponent < DECIMAL_EXPONENT_MIN ||
            r->exponent > DECIMAL_EXPONENT_MAX ||
            (last != NULL && (r->exponent != last->exponent ||
                              __builtin_sub_overflow(r->integer, last->integer, &delta)))) {
            return false;
        }
        last = r;
    }
    return true;
}

static void write_deltas(struct buffer *out, const struct block *b, size_t column)
{
    out_literal(out, "{\"scale\":");
    decimal_write(out, (struct decimal){1, b->cells[column]->exponent});
    out_literal(out, ",\"deltas\":[");
    const struct reading *const *cell = &b->cells[column];
    int64_t last = 0;
    for (size_t row = 0; row < b->row_count; row++, cell += b->column_count) {
        char *at = out_room(out, OUT_NUMBER_MAX);
        if (at == NULL) {
            return;
        }
        int64_t delta = (*cell)->integer - last;
        last = (*cell)->integer;
        *at = ',';
        at += row > 0;
        if (delta >= 0 && delta <= 9) { /* most are */
            *at = (char)('0' + delta);
            out_advance(out, at + 1);
        } else {
            out_advance(out, out_int(at, delta));
        }
    }
    out_literal(out, "]}");
}

static void write_plain(struct buffer *out, const struct block *b, size_t column)
{
    for (size_t row = 0; row < b->row_count; row++) {
        const struct reading *r = b->cells[row * b->column_count + column];
        out_bytes(out, row > 0 ? "," : "[", 1);
        if (r == NULL) {
            out_literal(out, "null");
        } else {
            reading_write_json(out, b->rows[row].scan, r);
        }
    }
    out_literal(out, "]");
}

static void write_qualities(struct buffer *out, const struct block *b)
{
    bool any = false;
    for (size_t i = 0; i < b->row_count * b->column_count; i++) {
        const struct reading *r = b->cells[i];
        if (r == NULL || r->quality == QUALITY_GOOD) {
            continue;
        }
        buffer_add_text(out, any ? ",[" : ",\"quality\":[[");
        out_number(out, (int64_t)(i / b->column_count));
        out_literal(out, ",");
        out_number(out, (int64_t)(i % b->column_count));
        out_literal(out, ",\"");
        buffer_add_text(out, quality_name((enum quality)r->quality));
        out_literal(out, "\"]");
        any = true;
    }
    if (any) {
        out_literal(out, "]");
    }
}

static void write_head(struct buffer *out, const struct block *b, const struct out_names *names)
{
    const struct batch_record *first = &b->rows[0];
    out_literal(out, "{\"device\":");
    json_write_string(out, first->names->device, strlen(first->names->device));
    out_literal(out, ",\"first_seq\":");
    out_number(out, (int64_t)first->scan->seq);
    if (first->names->tags_json[0] != '\0' && strcmp(first->names->tags_json, "{}") != 0) {
        out_literal(out, ",\"tags\":");
        buffer_add_text(out, first->names->tags_json);
    }
    if (first->scan->window_s != 0) {
        out_literal(out, ",\"window_s\":");
        out_number(out, first->scan->window_s);
    }
    out_literal(out, ",\"points\":[");
    for (size_t i = 0; i < b->column_count; i++) {
        out_key(out, names, b->points[i], i > 0);
        out->len -= out->len > 0; /* without the colon */
    }
    out_literal(out, "],\"time_ms\":{\"first\":");
    out_number(out, first->scan->time_ms);
    out_literal(out, ",\"deltas\":[");
    for (size_t row = 1; row < b->row_count; row++) {
        if (row > 1) {
            out_literal(out, ",");
        }
        out_number(out, b->rows[row].scan->time_ms - b->rows[row - 1].scan->time_ms);
    }
    out_literal(out, "]},\"values\":[");
}

static int write_block(struct buffer *out, struct block *b, struct out_names *names,
                       uint16_t *column_of)
{
    int r = out_names_use(names, b->rows[0].names);
    if (r == 0) {
        r = find_columns(b, column_of);
    }
    if (r == 0) {
        r = fill_cells(b, column_of);
    }
    for (size_t i = 0; i < b->column_count; i++) {
        column_of[b->points[i]] = NO_COLUMN;
    }
    if (r < 0) {
        return r;
    }
    write_head(out, b, names);
    for (size_t column = 0; column < b->column_count; column++) {
        if (column > 0) {
            out_literal(out, ",");
        }
        if (is_exact(b, column)) {
            write_deltas(out, b, column);
        } else {
            write_plain(out, b, column);
        }
    }
    out_literal(out, "]");
    write_qualities(out, b);
    out_literal(out, "}");
    return 0;
}

static int write_blocks(const struct batch *batch, struct buffer *out, struct out_names *names)
{
    auto_free uint16_t *column_of = malloc(POINT_IDS * sizeof *column_of);
    if (column_of == NULL) {
        return -ENOMEM;
    }
    memset(column_of, 0xff, POINT_IDS * sizeof *column_of);
    for (size_t i = 0; i < batch->count;) {
        struct block block = {.rows = &batch->records[i],
                              .row_count = run_length(&batch->records[i], batch->count - i)};
        if (i > 0) {
            out_literal(out, ",");
        }
        int r = write_block(out, &block, names, column_of);
        free(block.points);
        free(block.cells);
        if (r < 0) {
            return r;
        }
        i += block.row_count;
    }
    return 0;
}

int http_encode_columns(const struct batch *batch, struct buffer *out)
{
    out_literal(out, "{\"gateway\":");
    json_write_string(out, batch->gateway, strlen(batch->gateway));
    out_literal(out, ",\"store\":");
    json_write_string(out, batch->store_id, strlen(batch->store_id));
    out_literal(out, ",\"stream\":\"");
    buffer_add_text(out, stream_name(batch->stream));
    out_literal(out, "\",\"blocks\":[");
    struct out_names names = {0};
    int r = write_blocks(batch, out, &names);
    out_names_finish(&names);
    out_literal(out, "]}");
    return r;
}
