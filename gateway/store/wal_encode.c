#include "gateway/base/crc32c.h"
#include "gateway/store/key.h"
#include "gateway/store/wal.h"
#include "gateway/store/wal_pack.h"

#include <errno.h>
#include <string.h>
#include <zstd.h>

struct wal_encoder {
    ZSTD_CCtx *zstd;
    struct buffer raw;
    struct wal_shape *shapes;
    const struct wal_row **examples; /* a row of each shape */
    uint32_t *table;                 /* open addressing over shapes: index + 1 */
    uint32_t *order;                 /* rows by shape */
    const struct reading **readings; /* the first one of each row, in that order */
    uint32_t *runs;                  /* the first row of each run, and where the last one ends */
    uint32_t *steps;                 /* for TOGETHER columns */
    uint32_t shape_count, table_size;
    size_t capacity; /* rows that the arrays hold */
};

int wal_encoder_create(struct wal_encoder **ret_encoder)
{
    struct wal_encoder *encoder = calloc(1, sizeof(*encoder));
    if (encoder == NULL) {
        return -ENOMEM;
    }
    encoder->raw.max = WAL_RAW_MAX;
    encoder->zstd = ZSTD_createCCtx();
    if (encoder->zstd == NULL) {
        wal_encoder_destroy(encoder);
        return -ENOMEM;
    }
    *ret_encoder = encoder;
    return 0;
}

void wal_encoder_destroy(struct wal_encoder *encoder)
{
    if (encoder == NULL) {
        return;
    }
    ZSTD_freeCCtx(encoder->zstd);
    buffer_finish(&encoder->raw);
    free(encoder->shapes);
    free(encoder->examples);
    free(encoder->table);
    free(encoder->order);
    free(encoder->readings);
    free(encoder->runs);
    free(encoder->steps);
    free(encoder);
}

struct ZSTD_CCtx_s *wal_encoder_zstd(struct wal_encoder *encoder)
{
    return encoder->zstd;
}

static int make_room(struct wal_encoder *encoder, size_t rows)
{
    if (rows <= encoder->capacity) {
        return 0;
    }
    uint32_t table_size = 64;
    while (table_size < rows * 2) {
        table_size *= 2;
    }
    rows = table_size / 2;
    free(encoder->shapes);
    free(encoder->examples);
    free(encoder->table);
    free(encoder->order);
    free(encoder->readings);
    free(encoder->runs);
    free(encoder->steps);
    encoder->capacity = 0;
    encoder->shapes = calloc(rows, sizeof(*encoder->shapes));
    encoder->examples = calloc(rows, sizeof(const struct wal_row *));
    encoder->table = calloc(table_size, sizeof(*encoder->table));
    encoder->order = calloc(rows, sizeof(*encoder->order));
    encoder->readings = calloc(rows, sizeof(const struct reading *));
    encoder->runs = calloc(rows + 1, sizeof(*encoder->runs));
    encoder->steps = calloc(rows * TOGETHER, sizeof(*encoder->steps));
    if (encoder->shapes == NULL || encoder->examples == NULL || encoder->table == NULL ||
        encoder->order == NULL || encoder->readings == NULL || encoder->runs == NULL ||
        encoder->steps == NULL) {
        return -ENOMEM;
    }
    encoder->table_size = table_size;
    encoder->capacity = rows;
    return 0;
}

/* What of a reading belongs to the shape. */
static inline uint64_t shape_word(const struct reading *reading)
{
    return (uint64_t)reading->point | (uint64_t)reading->kind << 16 |
           (uint64_t)reading->quality << 24 | (uint64_t)(uint8_t)reading->exponent << 32;
}

static uint64_t head_of(const struct reading *reading)
{
    uint64_t head;
    memcpy(&head, reading, sizeof(head));
    return head;
}

static bool same_shape(const struct scan *a, const struct scan *b)
{
    if (a->count != b->count) {
        return false;
    }
    uint64_t different = 0; /* mostly nothing is, not even in the bytes that do not matter */
    for (size_t i = 0; i < a->count; i++) {
        different |= head_of(&a->readings[i]) ^ head_of(&b->readings[i]);
    }
    if (different == 0) {
        return true;
    }
    for (size_t i = 0; i < a->count; i++) {
        if (shape_word(&a->readings[i]) != shape_word(&b->readings[i])) {
            return false;
        }
    }
    return true;
}

static uint32_t find_shape(struct wal_encoder *encoder, const struct wal_row *row)
{
    uint64_t hash = row->scan->count;
    for (size_t i = 0; i < row->scan->count; i++) {
        hash = (hash ^ shape_word(&row->scan->readings[i])) * 0x9E3779B97F4A7C15ull;
        hash ^= hash >> 29;
    }
    uint32_t mask = encoder->table_size - 1;
    for (uint32_t slot = (uint32_t)(hash >> 32) & mask;; slot = (slot + 1) & mask) {
        uint32_t index = encoder->table[slot];
        if (index == 0) {
            encoder->table[slot] = ++encoder->shape_count;
            encoder->examples[encoder->shape_count - 1] = row;
            encoder->shapes[encoder->shape_count - 1] = (struct wal_shape){
                .count = row->scan->count};
            return encoder->shape_count - 1;
        }
        if (same_shape(encoder->examples[index - 1]->scan, row->scan)) {
            return index - 1;
        }
    }
}

static void find_shapes(struct wal_encoder *encoder, struct wal_row *rows, size_t count)
{
    encoder->shape_count = 0;
    memset(encoder->table, 0, encoder->table_size * sizeof(*encoder->table));
    for (size_t i = 0; i < count; i++) {
        bool alike = i > 0 && rows[i].alike != 0 && rows[i].alike == rows[i - 1].alike;
        if (alike || (i > 0 && same_shape(rows[i - 1].scan, rows[i].scan))) {
            rows[i].shape = rows[i - 1].shape;
        } else {
            rows[i].shape = find_shape(encoder, &rows[i]);
        }
        encoder->shapes[rows[i].shape].rows++;
    }
    uint32_t at = 0;
    for (uint32_t s = 0; s < encoder->shape_count; s++) {
        encoder->shapes[s].first = at;
        at += encoder->shapes[s].rows;
        encoder->shapes[s].rows = 0;
    }
    for (size_t i = 0; i < count; i++) {
        struct wal_shape *shape = &encoder->shapes[rows[i].shape];
        encoder->readings[shape->first + shape->rows] = rows[i].scan->readings;
        encoder->order[shape->first + shape->rows++] = (uint32_t)i;
    }
}

static bool same_run(const struct wal_row *a, const struct wal_row *b)
{
    return a->device == b->device && a->stream == b->stream;
}

static size_t list_runs(uint32_t *runs, const struct wal_row *rows, size_t count)
{
    size_t listed = 0;
    for (size_t i = 0; i < count; i++) {
        if (i == 0 || !same_run(&rows[i - 1], &rows[i])) {
            runs[listed++] = (uint32_t)i;
        }
    }
    runs[listed] = (uint32_t)count;
    return listed;
}

static void add_runs(struct wal_encoder *encoder, const struct wal_row *rows, size_t count)
{
    enum { COLUMNS = 4 };
    const uint32_t *runs = encoder->runs;
    size_t listed = list_runs(encoder->runs, rows, count);
    uint8_t *to = buffer_reserve(&encoder->raw, (listed * COLUMNS + 2) * VARINT_MAX + 1);
    if (to == NULL) {
        return;
    }
    uint8_t *at = wal_put(wal_put(to, count), listed);
    for (size_t i = 0; i < listed; i++) {
        *at++ = (uint8_t)rows[runs[i]].stream;
    }
    uint64_t last = 0;
    for (size_t i = 0; i < listed; i++) {
        at = wal_put(at, wal_zigzag(rows[runs[i]].device - last));
        last = rows[runs[i]].device;
    }
    for (size_t i = 0; i < listed; i++) {
        at = wal_put(at, runs[i + 1] - runs[i]);
    }
    last = 0;
    for (size_t i = 0; i < listed; i++) {
        at = wal_put(at, wal_zigzag(rows[runs[i]].prev_seq - last));
        last = rows[runs[i]].prev_seq;
    }
    encoder->raw.len += (size_t)(at - to);
}

/* The differences of a column from its second row on, in zig-zag form; `all`: their bits together.
 * Hardly ever is one wider than 32 bits: then they are taken from the rows once more. */
#define LIST_STEPS(steps, all, count, field)                                                       \
    do {                                                                                           \
        size_t i = 0;                                                                              \
        uint64_t before_ = (uint64_t)(field);                                                      \
        for (i = 1; i < (count); i++) {                                                            \
            uint64_t now_ = (uint64_t)(field), step_ = wal_zigzag(now_ - before_);                 \
            (steps)[i - 1] = (uint32_t)step_;                                                      \
            (all) |= step_;                                                                        \
            before_ = now_;                                                                        \
        }                                                                                          \
    } while (0)

/* Those differences behind the first row's, which is from 0; wide: some are beyond 32 bits. `field`
 * is an lvalue in row i. */
#define PUT_STEPS(at, steps, wide, count, field)                                                   \
    do {                                                                                           \
        uint64_t before_ = 0;                                                                      \
        size_t one_by_one_ = (wide) ? (count) : 1;                                                 \
        for (size_t i = 0; i < one_by_one_; i++) {                                                 \
            uint64_t now_ = (uint64_t)(field);                                                     \
            (at) = wal_put((at), wal_zigzag(now_ - before_));                                      \
            before_ = now_;                                                                        \
        }                                                                                          \
        (at) = wal_pack((at), (steps), (count)-one_by_one_);                                       \
    } while (0)

#define PUT_COLUMN(at, steps, count, field)                                                        \
    do {                                                                                           \
        uint64_t all_ = 0;                                                                         \
        LIST_STEPS(steps, all_, count, field);                                                     \
        PUT_STEPS(at, steps, all_ >> 32 != 0, count, field);                                       \
    } while (0)

static void add_rows(struct wal_encoder *encoder, const struct wal_row *rows, size_t count)
{
    enum { COLUMNS = 6 };
    uint32_t *steps = encoder->steps;
    uint8_t *to = buffer_reserve(&encoder->raw, count * COLUMNS * VARINT_MAX + PACK_BEYOND);
    if (to == NULL) {
        return;
    }
    uint8_t *at = to;
    for (size_t i = 0; i < count; i++) {
        at = wal_put(at, rows[i].seq - rows[i].prev_seq - 1);
    }
    PUT_COLUMN(at, steps, count, rows[i].shape);
    PUT_COLUMN(at, steps, count, rows[i].time_ms);
    PUT_COLUMN(at, steps, count, (uint64_t)rows[i].time_ms - (uint64_t)rows[i].boot_ms);
    PUT_COLUMN(at, steps, count, rows[i].window_s);
    PUT_COLUMN(at, steps, count, rows[i].text_len);
    encoder->raw.len += (size_t)(at - to);
}

static void add_shapes(struct wal_encoder *encoder)
{
    struct buffer *raw = &encoder->raw;
    buffer_add_varint(raw, encoder->shape_count);
    for (uint32_t s = 0; s < encoder->shape_count; s++) {
        const struct scan *scan = encoder->examples[s]->scan;
        buffer_add_varint(raw, scan->count);
        int64_t last = -1;
        for (size_t i = 0; i < scan->count; i++) {
            buffer_add_zigzag(raw, scan->readings[i].point - last - 1);
            last = scan->readings[i].point;
        }
        for (size_t i = 0; i < scan->count; i++) {
            buffer_add_byte(raw, scan->readings[i].kind);
            buffer_add_byte(raw, scan->readings[i].quality);
            buffer_add_byte(raw, (uint8_t)scan->readings[i].exponent);
        }
    }
}

/* The rows of one shape, for its columns. */
struct column {
    const struct wal_row *rows;
    const uint32_t *order;
    const struct reading *const *readings;
    uint32_t count;
    size_t index;
};

static const struct reading *column_at(const struct column *column, uint32_t i)
{
    return &column->readings[i][column->index];
}

/* TOGETHER neighbouring integer columns: their values share lines of the cache. */
static bool is_integer(const struct column *column, size_t index)
{
    uint8_t kind = column->readings[0][index].kind;
    return kind == VALUE_DECIMAL || kind == VALUE_BOOL;
}

/* Of column->index and those behind it; false: they are not all integers. */
static bool add_together(struct buffer *raw, const struct column *column, uint32_t *steps)
{
    for (size_t c = 0; c < TOGETHER; c++) {
        if (!is_integer(column, column->index + c)) {
            return false;
        }
    }
    const uint32_t count = column->count;
    uint8_t *to = buffer_reserve(raw, (size_t)count * TOGETHER * VARINT_MAX + PACK_BEYOND);
    if (to == NULL) {
        return true;
    }
    unsigned wide = wal_steps(column->readings, column->index, count, steps);
    uint8_t *at = to;
    for (size_t c = 0; c < TOGETHER; c++) {
        PUT_STEPS(at, steps + c * count, (wide >> c & 1) != 0, count,
                  column->readings[i][column->index + c].integer);
    }
    raw->len += (size_t)(at - to);
    return true;
}

static void add_integers(struct buffer *raw, const struct column *column, uint32_t *steps)
{
    uint8_t *to = buffer_reserve(raw, (size_t)column->count * VARINT_MAX + PACK_BEYOND);
    if (to == NULL) {
        return;
    }
    uint8_t *at = to;
    PUT_COLUMN(at, steps, column->count, column_at(column, (uint32_t)i)->integer);
    raw->len += (size_t)(at - to);
}

static uint64_t real_bits(double real)
{
    uint64_t bits;
    memcpy(&bits, &real, sizeof(bits));
    return bits;
}

/* Whether the float gives the same double again, bit for bit (a signalling NaN does not). */
static bool float_is_exact(double real)
{
    volatile float narrow = (float)real;
    return real_bits((double)narrow) == real_bits(real);
}

static void add_reals(struct buffer *raw, const struct column *column, bool narrow)
{
    uint64_t before = 0;
    for (uint32_t i = 0; i < column->count; i++) {
        uint8_t bytes[8];
        double real = column_at(column, i)->real;
        uint64_t bits = real_bits(real);
        if (narrow) {
            float single = (float)real;
            uint32_t half;
            memcpy(&half, &single, sizeof(half));
            bits = half;
        }
        field_put64(bytes, bits ^ before);
        before = bits;
        buffer_add(raw, bytes, narrow ? 4 : 8);
    }
}

static void add_floats(struct buffer *raw, const struct column *column)
{
    bool narrow = true;
    for (uint32_t i = 0; i < column->count && narrow; i++) {
        narrow = float_is_exact(column_at(column, i)->real);
    }
    buffer_add_byte(raw, narrow);
    add_reals(raw, column, narrow);
}

static void add_texts(struct buffer *raw, const struct column *column)
{
    for (uint32_t i = 0; i < column->count; i++) {
        buffer_add_varint(raw, column_at(column, i)->text.len);
    }
    for (uint32_t i = 0; i < column->count; i++) {
        const struct reading *reading = column_at(column, i);
        const struct scan *scan = column->rows[column->order[i]].scan;
        buffer_add(raw, scan_text(scan, reading), reading->text.len);
    }
}

static void add_values(struct wal_encoder *encoder, const struct wal_row *rows)
{
    for (uint32_t s = 0; s < encoder->shape_count; s++) {
        const struct wal_shape *shape = &encoder->shapes[s];
        struct column column = {.rows = rows,
                                .order = encoder->order + shape->first,
                                .readings = encoder->readings + shape->first,
                                .count = shape->rows};
        for (; column.index < shape->count; column.index++) {
            if (column.index + TOGETHER <= shape->count &&
                add_together(&encoder->raw, &column, encoder->steps)) {
                column.index += TOGETHER - 1;
                continue;
            }
            switch ((enum value_kind)column_at(&column, 0)->kind) {
            case VALUE_DECIMAL:
            case VALUE_BOOL:
                add_integers(&encoder->raw, &column, encoder->steps);
                break;
            case VALUE_REAL:
                add_reals(&encoder->raw, &column, false);
                break;
            case VALUE_FLOAT:
                add_floats(&encoder->raw, &column);
                break;
            case VALUE_TEXT:
                add_texts(&encoder->raw, &column);
                break;
            default:
                break;
            }
        }
    }
}

/* The texts that readings point to; a scan may carry more bytes than that. */
static uint32_t used_text(const struct scan *scan)
{
    uint32_t len = 0;
    for (size_t i = 0; scan->text_len > 0 && i < scan->count; i++) {
        len += scan->readings[i].kind == VALUE_TEXT ? scan->readings[i].text.len : 0;
    }
    return len;
}

static int prepare(struct wal_row *rows, size_t count, struct wal_header *header)
{
    size_t memory = 0;
    header->time_min_ms = INT64_MAX;
    header->time_max_ms = INT64_MIN;
    for (size_t i = 0; i < count; i++) {
        const struct scan *scan = rows[i].scan;
        rows[i].seq = scan->seq;
        rows[i].time_ms = scan->time_ms;
        rows[i].boot_ms = scan->boot_ms;
        rows[i].window_s = scan->window_s;
        rows[i].device = scan->device;
        rows[i].stream = scan->stream;
        rows[i].text_len = used_text(scan);
        memory += scan_size_for(scan->count, rows[i].text_len);
        header->readings += scan->count;
        header->time_min_ms = scan->time_ms < header->time_min_ms ? scan->time_ms
                                                                  : header->time_min_ms;
        header->time_max_ms = scan->time_ms > header->time_max_ms ? scan->time_ms
                                                                  : header->time_max_ms;
    }
    header->scans = (uint32_t)count;
    header->memory = (uint32_t)memory;
    return memory > WAL_MEMORY_MAX ? -E2BIG : 0;
}

static void put_header(uint8_t *to, const struct wal_header *header, bool compressed)
{
    to[0] = WAL_VERSION;
    to[1] = compressed;
    to[2] = to[3] = 0;
    field_put32(to + 8, header->raw_size);
    field_put32(to + 12, header->memory);
    field_put32(to + 16, header->scans);
    field_put32(to + 20, header->readings);
    field_put64(to + 24, (uint64_t)header->written_ms);
    field_put64(to + 32, (uint64_t)header->time_min_ms);
    field_put64(to + 40, (uint64_t)header->time_max_ms);
}

/* Header, body and checksum; the body as it is where compression does not help. */
static int finish_block(struct wal_encoder *encoder, const struct wal_header *header,
                        struct buffer *block)
{
    size_t bound = ZSTD_compressBound(encoder->raw.len);
    uint8_t *to = buffer_reserve(block, WAL_HEADER_SIZE + bound);
    if (to == NULL) {
        return -ENOMEM;
    }
    size_t body = ZSTD_compressCCtx(encoder->zstd, to + WAL_HEADER_SIZE, bound, encoder->raw.data,
                                    encoder->raw.len, 1);
    bool compressed = ZSTD_isError(body) == 0 && body < encoder->raw.len;
    if (!compressed) {
        body = encoder->raw.len;
        memcpy(to + WAL_HEADER_SIZE, encoder->raw.data, body);
    }
    put_header(to, header, compressed);
    uint32_t crc = crc32c(0, to, 4);
    field_put32(to + 4, crc32c(crc, to + 8, WAL_HEADER_SIZE - 8 + body));
    block->len += WAL_HEADER_SIZE + body;
    return 0;
}

int wal_encode(struct wal_encoder *encoder, struct wal_row *rows, size_t count, int64_t written_ms,
               struct buffer *ret_block)
{
    struct wal_header header = {.written_ms = written_ms};
    int rc = count == 0 ? -EINVAL : prepare(rows, count, &header);
    if (rc == 0) {
        rc = make_room(encoder, count);
    }
    if (rc < 0) {
        return rc;
    }
    buffer_clear(&encoder->raw);
    find_shapes(encoder, rows, count);
    add_runs(encoder, rows, count);
    add_rows(encoder, rows, count);
    add_shapes(encoder);
    add_values(encoder, rows);
    if (buffer_failed(&encoder->raw)) {
        return -ENOMEM;
    }
    header.raw_size = (uint32_t)encoder->raw.len;
    return finish_block(encoder, &header, ret_block);
}
