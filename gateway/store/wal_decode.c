#include "gateway/base/crc32c.h"
#include "gateway/store/key.h"
#include "gateway/store/wal.h"

#include <errno.h>
#include <string.h>
#include <zstd.h>

/* What of a reading belongs to the shape. */
struct shape_entry {
    uint16_t point;
    uint8_t kind, quality;
    int8_t exponent;
};

struct wal_decoder {
    ZSTD_DCtx *zstd;
    struct buffer raw;
    struct cursor values; /* where the values begin in raw */
    struct wal_header header;
    struct wal_row *rows;
    uint32_t *order; /* rows by shape */
    size_t row_count, row_capacity;
    struct wal_shape *shapes;
    size_t shape_count, shape_capacity;
    struct shape_entry *entries;
    size_t entry_count, entry_capacity;
};

int wal_decoder_create(struct wal_decoder **ret_decoder)
{
    struct wal_decoder *decoder = calloc(1, sizeof(*decoder));
    if (decoder == NULL) {
        return -ENOMEM;
    }
    decoder->raw.max = WAL_RAW_MAX;
    decoder->zstd = ZSTD_createDCtx();
    if (decoder->zstd == NULL) {
        wal_decoder_destroy(decoder);
        return -ENOMEM;
    }
    *ret_decoder = decoder;
    return 0;
}

void wal_decoder_destroy(struct wal_decoder *decoder)
{
    if (decoder == NULL) {
        return;
    }
    ZSTD_freeDCtx(decoder->zstd);
    buffer_finish(&decoder->raw);
    free(decoder->rows);
    free(decoder->order);
    free(decoder->shapes);
    free(decoder->entries);
    free(decoder);
}

int wal_read_header(const void *block, size_t len, struct wal_header *ret_header)
{
    const uint8_t *at = block;
    if (len < WAL_HEADER_SIZE || at[0] != WAL_VERSION || at[1] > 1) {
        return -EBADMSG;
    }
    struct wal_header header = {
        .raw_size = field_get32(at + 8),
        .memory = field_get32(at + 12),
        .scans = field_get32(at + 16),
        .readings = field_get32(at + 20),
        .written_ms = (int64_t)field_get64(at + 24),
        .time_min_ms = (int64_t)field_get64(at + 32),
        .time_max_ms = (int64_t)field_get64(at + 40),
    };
    if (header.raw_size > WAL_RAW_MAX || header.memory > WAL_MEMORY_MAX ||
        header.scans > WAL_MEMORY_MAX / sizeof(struct scan) || header.scans == 0) {
        return -EBADMSG;
    }
    *ret_header = header;
    return 0;
}

/* The body into decoder->raw. */
static int unpack(struct wal_decoder *decoder, const uint8_t *block, size_t len)
{
    uint32_t crc = crc32c(0, block, 4);
    if (crc32c(crc, block + 8, len - 8) != field_get32(block + 4)) {
        return -EBADMSG;
    }
    buffer_clear(&decoder->raw);
    uint8_t *to = buffer_reserve(&decoder->raw, (size_t)decoder->header.raw_size + 1);
    if (to == NULL) {
        return -ENOMEM;
    }
    const uint8_t *body = block + WAL_HEADER_SIZE;
    size_t body_len = len - WAL_HEADER_SIZE;
    if (block[1] == 0) {
        if (body_len != decoder->header.raw_size) {
            return -EBADMSG;
        }
        memcpy(to, body, body_len);
    } else {
        size_t n = ZSTD_decompressDCtx(decoder->zstd, to, decoder->header.raw_size, body, body_len);
        if (ZSTD_isError(n) != 0 || n != decoder->header.raw_size) {
            return -EBADMSG;
        }
    }
    decoder->raw.len = decoder->header.raw_size;
    return 0;
}

/* array: the address of the pointer to it, whatever its type. */
static int grow(void *array, size_t *capacity, size_t need, size_t size)
{
    if (need <= *capacity) {
        return 0;
    }
    size_t more = *capacity * 2 > need ? *capacity * 2 : need;
    void *old;
    memcpy(&old, array, sizeof(old));
    void *bigger = reallocarray(old, more, size);
    if (bigger == NULL) {
        return -ENOMEM;
    }
    memcpy(array, &bigger, sizeof(bigger));
    *capacity = more;
    return 0;
}

static int make_rows(struct wal_decoder *decoder, size_t count)
{
    size_t capacity = decoder->row_capacity;
    int rc = grow(&decoder->order, &capacity, count, sizeof(*decoder->order));
    if (rc == 0) {
        rc = grow(&decoder->rows, &decoder->row_capacity, count, sizeof(*decoder->rows));
    }
    if (rc == 0) {
        memset(decoder->rows, 0, count * sizeof(*decoder->rows));
        decoder->row_count = count;
    }
    return rc;
}

/* The column of runs after the streams; a run's stream, device and seq go to all of its rows. */
static int take_runs(struct wal_decoder *decoder, struct cursor *c)
{
    uint64_t count = cursor_take_varint(c);
    uint64_t runs = cursor_take_varint(c);
    if (c->failed || count != decoder->header.scans || runs == 0 || runs > count) {
        return -EBADMSG;
    }
    int rc = make_rows(decoder, count);
    const uint8_t *streams = rc < 0 ? NULL : cursor_take(c, runs);
    if (streams == NULL) {
        return rc < 0 ? rc : -EBADMSG;
    }
    /* The lengths of runs lie behind the devices: two cursors walk side by side. */
    struct cursor devices = *c;
    for (uint64_t i = 0; i < runs; i++) {
        (void)cursor_take_varint(c);
    }
    struct cursor lengths = *c;
    for (uint64_t i = 0; i < runs; i++) {
        (void)cursor_take_varint(c);
    }
    uint64_t device = 0, seq = 0, at = 0;
    for (uint64_t i = 0; i < runs; i++) {
        device += (uint64_t)cursor_take_zigzag(&devices);
        uint64_t length = cursor_take_varint(&lengths);
        seq += (uint64_t)cursor_take_zigzag(c);
        if (c->failed || streams[i] >= STREAM_COUNT || device == 0 || device > UINT32_MAX ||
            length == 0 || length > count - at) {
            return -EBADMSG;
        }
        for (uint64_t end = at + length; at < end; at++) {
            decoder->rows[at].stream = streams[i];
            decoder->rows[at].device = (uint32_t)device;
            decoder->rows[at].prev_seq = seq;
        }
    }
    return at == count ? 0 : -EBADMSG;
}

static bool same_run(const struct wal_row *a, const struct wal_row *b)
{
    return a->device == b->device && a->stream == b->stream;
}

static int take_seqs(struct wal_decoder *decoder, struct cursor *c)
{
    for (size_t i = 0; i < decoder->row_count; i++) {
        struct wal_row *row = &decoder->rows[i];
        if (i > 0 && same_run(row - 1, row)) {
            row->prev_seq = row[-1].seq;
        }
        uint64_t gap = cursor_take_varint(c);
        row->seq = row->prev_seq + gap + 1;
        if (c->failed || row->seq <= row->prev_seq) {
            return -EBADMSG;
        }
    }
    return 0;
}

static int take_columns(struct wal_decoder *decoder, struct cursor *c)
{
    struct wal_row *rows = decoder->rows;
    size_t count = decoder->row_count;
    uint64_t value = 0;
    for (size_t i = 0; i < count; i++) {
        value += (uint64_t)cursor_take_zigzag(c);
        rows[i].shape = value > UINT32_MAX ? UINT32_MAX : (uint32_t)value;
    }
    value = 0;
    for (size_t i = 0; i < count; i++) {
        value += (uint64_t)cursor_take_zigzag(c);
        rows[i].time_ms = (int64_t)value;
    }
    value = 0;
    for (size_t i = 0; i < count; i++) {
        value += (uint64_t)cursor_take_zigzag(c);
        rows[i].boot_ms = (int64_t)((uint64_t)rows[i].time_ms - value);
    }
    value = 0;
    for (size_t i = 0; i < count; i++) {
        value += (uint64_t)cursor_take_zigzag(c);
        rows[i].window_s = (uint32_t)value;
    }
    value = 0;
    for (size_t i = 0; i < count; i++) {
        value += (uint64_t)cursor_take_zigzag(c);
        if (value > SCAN_TEXT_MAX) {
            return -EBADMSG;
        }
        rows[i].text_len = (uint32_t)value;
    }
    return c->failed ? -EBADMSG : 0;
}

static int take_shape(struct wal_decoder *decoder, struct cursor *c, struct wal_shape *shape)
{
    uint64_t count = cursor_take_varint(c);
    if (c->failed || count > SCAN_READINGS_MAX || count * 4 > (uint64_t)(c->end - c->at)) {
        return -EBADMSG;
    }
    int rc = grow(&decoder->entries, &decoder->entry_capacity, decoder->entry_count + count,
                  sizeof(*decoder->entries));
    if (rc < 0) {
        return rc;
    }
    *shape = (struct wal_shape){.first = (uint32_t)decoder->entry_count, .count = (uint16_t)count};
    struct shape_entry *entries = decoder->entries + decoder->entry_count;
    int64_t point = -1;
    for (uint64_t i = 0; i < count; i++) {
        int64_t step = cursor_take_zigzag(c);
        if (step < -UINT16_MAX || step > UINT16_MAX) {
            return -EBADMSG;
        }
        point += step + 1;
        if (point < 0 || point > UINT16_MAX) {
            return -EBADMSG;
        }
        entries[i].point = (uint16_t)point;
    }
    for (uint64_t i = 0; i < count; i++) {
        entries[i].kind = cursor_take_byte(c);
        entries[i].quality = cursor_take_byte(c);
        entries[i].exponent = (int8_t)cursor_take_byte(c);
        if (entries[i].kind >= VALUE_KINDS) {
            return -EBADMSG;
        }
    }
    decoder->entry_count += count;
    return c->failed ? -EBADMSG : 0;
}

static int take_shapes(struct wal_decoder *decoder, struct cursor *c)
{
    uint64_t count = cursor_take_varint(c);
    if (c->failed || count == 0 || count > decoder->row_count) {
        return -EBADMSG;
    }
    int rc = grow(&decoder->shapes, &decoder->shape_capacity, count, sizeof(*decoder->shapes));
    decoder->entry_count = 0;
    for (uint64_t i = 0; i < count && rc == 0; i++) {
        rc = take_shape(decoder, c, &decoder->shapes[i]);
    }
    decoder->shape_count = count;
    return rc;
}

/* Sizes, places and the order by shape; everything must add up to what the header says. */
static int place_rows(struct wal_decoder *decoder)
{
    size_t memory = 0, readings = 0;
    for (size_t i = 0; i < decoder->row_count; i++) {
        struct wal_row *row = &decoder->rows[i];
        if (row->shape >= decoder->shape_count) {
            return -EBADMSG;
        }
        struct wal_shape *shape = &decoder->shapes[row->shape];
        shape->rows++;
        row->count = shape->count;
        row->offset = (uint32_t)memory;
        memory += scan_size_for(row->count, row->text_len);
        readings += row->count;
        if (memory > decoder->header.memory) {
            return -EBADMSG;
        }
    }
    if (memory != decoder->header.memory || readings != decoder->header.readings) {
        return -EBADMSG;
    }
    uint32_t at = 0;
    for (size_t s = 0; s < decoder->shape_count; s++) {
        uint32_t rows = decoder->shapes[s].rows;
        decoder->shapes[s].rows = at;
        at += rows;
    }
    for (size_t i = 0; i < decoder->row_count; i++) {
        decoder->order[decoder->shapes[decoder->rows[i].shape].rows++] = (uint32_t)i;
    }
    return 0;
}

int wal_open(struct wal_decoder *decoder, const void *block, size_t len,
             struct wal_header *ret_header, const struct wal_row **ret_rows)
{
    int rc = wal_read_header(block, len, &decoder->header);
    if (rc == 0) {
        rc = unpack(decoder, block, len);
    }
    struct cursor c = {decoder->raw.data, decoder->raw.data + decoder->raw.len, false};
    if (rc == 0) {
        rc = take_runs(decoder, &c);
    }
    if (rc == 0) {
        rc = take_seqs(decoder, &c);
    }
    if (rc == 0) {
        rc = take_columns(decoder, &c);
    }
    if (rc == 0) {
        rc = take_shapes(decoder, &c);
    }
    if (rc == 0) {
        rc = place_rows(decoder);
    }
    if (rc < 0) {
        decoder->row_count = 0;
        return rc;
    }
    decoder->values = c;
    *ret_header = decoder->header;
    *ret_rows = decoder->rows;
    return 0;
}

struct column {
    const struct wal_row *rows;
    const uint32_t *order;
    uint8_t *arena;
    size_t count, index;
};

static inline struct scan *column_scan(const struct column *column, size_t i)
{
    return (struct scan *)(void *)(column->arena + column->rows[column->order[i]].offset);
}

static void take_integers(struct cursor *c, const struct column *column)
{
    uint64_t value = 0;
    for (size_t i = 0; i < column->count; i++) {
        uint64_t step;
        if (c->at < c->end && *c->at < 0x80) {
            step = *c->at++;
        } else {
            step = cursor_take_varint(c);
        }
        value += step >> 1 ^ (0 - (step & 1));
        column_scan(column, i)->readings[column->index].integer = (int64_t)value;
    }
}

static void take_reals(struct cursor *c, const struct column *column)
{
    const uint8_t *from = cursor_take(c, column->count * 8);
    uint64_t bits = 0;
    for (size_t i = 0; from != NULL && i < column->count; i++) {
        bits ^= field_get64(from + i * 8);
        memcpy(&column_scan(column, i)->readings[column->index].real, &bits, sizeof(bits));
    }
}

static void take_floats(struct cursor *c, const struct column *column)
{
    if (cursor_take_byte(c) == 0) {
        take_reals(c, column);
        return;
    }
    const uint8_t *from = cursor_take(c, column->count * 4);
    uint32_t bits = 0;
    for (size_t i = 0; from != NULL && i < column->count; i++) {
        bits ^= field_get32(from + i * 4);
        float single;
        memcpy(&single, &bits, sizeof(single));
        column_scan(column, i)->readings[column->index].real = (double)single;
    }
}

/* Texts lie behind the readings in the order of the columns; text_len counts them while filling. */
static void take_texts(struct cursor *c, const struct column *column)
{
    struct cursor lengths = *c;
    for (size_t i = 0; i < column->count; i++) {
        (void)cursor_take_varint(c);
    }
    for (size_t i = 0; i < column->count; i++) {
        uint64_t len = cursor_take_varint(&lengths);
        struct scan *scan = column_scan(column, i);
        uint32_t room = column->rows[column->order[i]].text_len - scan->text_len;
        const uint8_t *from = len > room ? NULL : cursor_take(c, len);
        if (from == NULL) {
            c->failed = true;
            return;
        }
        struct reading *reading = &scan->readings[column->index];
        reading->text.offset = scan->text_len;
        reading->text.len = (uint32_t)len;
        memcpy((char *)&scan->readings[scan->count] + scan->text_len, from, len);
        scan->text_len += (uint32_t)len;
    }
}

static void take_column(struct cursor *c, const struct column *column, enum value_kind kind)
{
    switch (kind) {
    case VALUE_DECIMAL:
    case VALUE_BOOL:
        take_integers(c, column);
        break;
    case VALUE_REAL:
        take_reals(c, column);
        break;
    case VALUE_FLOAT:
        take_floats(c, column);
        break;
    case VALUE_TEXT:
        take_texts(c, column);
        break;
    default:
        break;
    }
}

static void start_scan(const struct wal_decoder *decoder, const struct wal_row *row,
                       struct scan *scan)
{
    *scan = (struct scan){.seq = row->seq,
                          .time_ms = row->time_ms,
                          .boot_ms = row->boot_ms,
                          .device = row->device,
                          .window_s = row->window_s,
                          .stream = row->stream,
                          .count = row->count};
    const struct shape_entry *entries = decoder->entries + decoder->shapes[row->shape].first;
    for (size_t i = 0; i < row->count; i++) {
        scan->readings[i] = (struct reading){.point = entries[i].point,
                                             .kind = entries[i].kind,
                                             .quality = entries[i].quality,
                                             .exponent = entries[i].exponent};
    }
}

int wal_scans(struct wal_decoder *decoder, void *arena)
{
    memset(arena, 0, decoder->header.memory);
    struct column column = {decoder->rows, NULL, arena, 0, 0};
    for (size_t i = 0; i < decoder->row_count; i++) {
        start_scan(decoder, &decoder->rows[i],
                   (struct scan *)(void *)(column.arena + decoder->rows[i].offset));
    }
    struct cursor c = decoder->values;
    size_t from = 0;
    for (size_t s = 0; s < decoder->shape_count && !c.failed; s++) {
        const struct wal_shape *shape = &decoder->shapes[s];
        column.order = decoder->order + from;
        column.count = shape->rows - from;
        from = shape->rows;
        for (column.index = 0; column.index < shape->count && column.count > 0; column.index++) {
            take_column(&c, &column,
                        (enum value_kind)decoder->entries[shape->first + column.index].kind);
        }
    }
    if (c.failed || c.at != c.end) {
        return -EBADMSG;
    }
    for (size_t i = 0; i < decoder->row_count; i++) {
        const struct scan *scan = (const struct scan *)(const void *)(column.arena +
                                                                      decoder->rows[i].offset);
        if (scan->text_len != decoder->rows[i].text_len) {
            return -EBADMSG;
        }
    }
    return 0;
}
