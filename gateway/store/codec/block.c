#include "gateway/store/codec/block.h"

#include "gateway/base/crc32c.h"
#include "gateway/store/codec/gather.h"
#include "gateway/store/codec/streams.h"

#include <endian.h>
#include <errno.h>
#include <string.h>

enum { PREFIX = 5, SCAN_COLUMNS = 5 }; /* version and checksum; seq, grid, jitter, boot, window */

static const struct column_references no_references;

/* What both directions work with. */
struct job {
    struct gather gather;
    int64_t *scan_columns[SCAN_COLUMNS]; /* rows each, one allocation */
    int64_t *work;                       /* 2 * rows */
    struct column_references refs;       /* the last columns that have a value in every row */
    uint32_t rows;
    int64_t step_ms;
};

static void job_finish(struct job *job)
{
    gather_finish(&job->gather);
    free(job->scan_columns[0]);
}
#define auto_job __attribute__((cleanup(job_finish)))

static int job_init(struct job *job, uint32_t rows)
{
    *job = (struct job){.rows = rows};
    int64_t *all = malloc((SCAN_COLUMNS + 2) * sizeof *all * rows);
    if (all == NULL) {
        return -ENOMEM;
    }
    for (size_t i = 0; i < SCAN_COLUMNS; i++) {
        job->scan_columns[i] = all + i * rows;
    }
    job->work = all + (size_t)SCAN_COLUMNS * rows;
    return 0;
}

static void remember_reference(struct job *job, const struct gather_column *column)
{
    if (column->run_count == 1 && column->runs[0].kind == VALUE_DECIMAL) {
        job->refs.values[1] = job->refs.values[0];
        job->refs.values[0] = column->values;
    }
}

/* The distance between scans that leaves the least jitter: their mean, or a round number near it.
 */
static int64_t grid_step(const struct scan *const *scans, size_t count)
{
    if (count < 2) {
        return 1;
    }
    int64_t span = (int64_t)((uint64_t)scans[count - 1]->time_ms - (uint64_t)scans[0]->time_ms);
    int64_t mean = span / (int64_t)(count - 1);
    if (mean < 1 || mean > INT32_MAX) {
        return 1;
    }
    static const int64_t rounds[] = {60000, 10000, 1000, 100, 10};
    for (size_t i = 0; i < ARRAY_SIZE(rounds); i++) {
        int64_t near = (mean + rounds[i] / 2) / rounds[i] * rounds[i];
        int64_t off = near > mean ? near - mean : mean - near;
        if (near > 0 && off <= mean / 50) {
            return near;
        }
    }
    return mean;
}

static int scan_columns_from(struct job *job, const struct scan *const *scans)
{
    job->step_ms = grid_step(scans, job->rows);
    const struct scan *first = scans[0];
    for (uint32_t i = 0; i < job->rows; i++) {
        const struct scan *s = scans[i];
        if (s->stream != first->stream || s->device != first->device ||
            (i > 0 && s->seq <= scans[i - 1]->seq)) {
            return -EINVAL;
        }
        int64_t since = (int64_t)((uint64_t)s->time_ms - (uint64_t)first->time_ms);
        int64_t slot = since / job->step_ms;
        int64_t rest = since - slot * job->step_ms;
        if (rest > job->step_ms / 2) {
            slot++;
            rest -= job->step_ms;
        }
        job->scan_columns[0][i] = (int64_t)(s->seq - first->seq) - i;
        job->scan_columns[1][i] = slot - i;
        job->scan_columns[2][i] = rest;
        job->scan_columns[3][i] = (int64_t)((uint64_t)s->boot_ms - (uint64_t)s->time_ms);
        job->scan_columns[4][i] = s->window_s;
    }
    return 0;
}

static void write_runs(const struct gather_column *column, struct buffer *head)
{
    buffer_add_varint(head, column->point);
    buffer_add_varint(head, column->run_count);
    for (uint32_t i = 0; i < column->run_count; i++) {
        const struct gather_run *run = &column->runs[i];
        buffer_add_byte(head, (uint8_t)(run->kind | run->quality << 3));
        if (run->kind == VALUE_DECIMAL) {
            buffer_add_byte(head, (uint8_t)run->exponent);
        }
        buffer_add_varint(head, run->rows);
    }
}

/* The column's values of one kind, in row order: in place where there is one kind only. */
static size_t values_of_kind(const struct gather_column *column, enum value_kind kind,
                             int64_t *ret_values)
{
    size_t count = 0, at = 0;
    for (uint32_t i = 0; i < column->run_count; i++) {
        const struct gather_run *run = &column->runs[i];
        if (run->kind == kind) {
            memcpy(ret_values + count, column->values + at, run->rows * sizeof *ret_values);
            count += run->rows;
        }
        at += run->kind == VALUE_NULL || run->kind == VALUE_KINDS ? 0 : run->rows;
    }
    return count;
}

static void write_texts(const struct gather_column *column, struct buffer *head)
{
    buffer_add_varint(head, column->text_count);
    for (uint32_t i = 0; i < column->text_count; i++) {
        buffer_add_varint(head, column->texts[i].len);
        buffer_add(head, column->texts[i].text, column->texts[i].len);
    }
}

static void write_values(struct job *job, const struct gather_column *column, struct buffer *head,
                         struct bit_writer *bits)
{
    bool whole = column->run_count == 1;
    for (int kind = VALUE_DECIMAL; kind < VALUE_KINDS; kind++) {
        auto_free int64_t *own = NULL;
        const int64_t *values = column->values;
        size_t count = column->value_count;
        if (whole ? column->runs[0].kind != kind : count == 0) {
            continue;
        }
        if (!whole) {
            own = malloc(count * sizeof *own);
            if (own == NULL) {
                head->failed = true;
                return;
            }
            count = values_of_kind(column, (enum value_kind)kind, own);
            values = own;
        }
        if (count == 0) {
            continue;
        }
        if (kind == VALUE_REAL || kind == VALUE_FLOAT) {
            stream_write_doubles(head, bits, values, count, kind == VALUE_FLOAT, job->work);
        } else {
            if (kind == VALUE_TEXT) {
                write_texts(column, head);
            }
            bool all = whole && kind == VALUE_DECIMAL;
            stream_write_integers(head, bits, values, count, all ? &job->refs : &no_references,
                                  job->work);
        }
    }
    remember_reference(job, column);
}

static void write_head(const struct job *job, const struct scan *const *scans, struct buffer *head)
{
    const struct scan *first = scans[0], *last = scans[job->rows - 1];
    buffer_add_byte(head, (uint8_t)first->stream);
    buffer_add_varint(head, first->device);
    buffer_add_varint(head, job->rows);
    buffer_add_varint(head, first->seq);
    buffer_add_varint(head, last->seq - first->seq);
    buffer_add_zigzag(head, first->time_ms);
    buffer_add_zigzag(head, (int64_t)((uint64_t)last->time_ms - (uint64_t)first->time_ms));
    buffer_add_varint(head, (uint64_t)job->step_ms);
}

static int write_block(struct job *job, const struct scan *const *scans, struct buffer *to)
{
    auto_buffer struct buffer head = {0};
    auto_buffer struct buffer bits_to = {0};
    struct bit_writer bits;
    bit_writer_init(&bits, &bits_to);
    write_head(job, scans, &head);
    for (size_t i = 0; i < SCAN_COLUMNS; i++) {
        stream_write_integers(&head, &bits, job->scan_columns[i], job->rows, &no_references,
                              job->work);
    }
    buffer_add_varint(&head, job->gather.column_count);
    for (size_t i = 0; i < job->gather.column_count; i++) {
        write_runs(&job->gather.columns[i], &head);
        write_values(job, &job->gather.columns[i], &head, &bits);
    }
    bit_writer_finish(&bits);
    size_t start = to->len;
    buffer_add_byte(to, CODEC_VERSION);
    buffer_add(to, (const uint8_t[4]){0}, 4);
    buffer_add_varint(to, head.len);
    buffer_add(to, head.data, head.len);
    buffer_add(to, bits_to.data, bits_to.len);
    if (buffer_failed(to) || buffer_failed(&head) || buffer_failed(&bits_to)) {
        to->len = start;
        return -ENOMEM;
    }
    uint32_t crc = htole32(crc32c(0, to->data + start + PREFIX, to->len - start - PREFIX));
    memcpy(to->data + start + 1, &crc, sizeof crc);
    return 0;
}

int codec_encode(const struct scan *const *scans, size_t count, struct buffer *to)
{
    if (count == 0 || count > CODEC_SCANS_MAX) {
        return -EINVAL;
    }
    auto_job struct job job;
    int r = job_init(&job, (uint32_t)count);
    r = r < 0 ? r : scan_columns_from(&job, scans);
    for (uint32_t i = 0; r == 0 && i < count; i++) {
        r = gather_add(&job.gather, scans[i], i);
    }
    r = r < 0 ? r : gather_close(&job.gather, (uint32_t)count);
    return r < 0 ? r : write_block(&job, scans, to);
}

/* On success c stands behind the head's own fields and ends where the bits begin. */
static int read_head(const uint8_t *bytes, size_t len, struct cursor *c, struct codec_head *head,
                     int64_t *ret_step_ms)
{
    if (len < PREFIX) {
        return -EBADMSG;
    }
    if (bytes[0] != CODEC_VERSION) {
        return -ENOTSUP;
    }
    uint32_t crc;
    memcpy(&crc, bytes + 1, sizeof crc);
    if (le32toh(crc) != crc32c(0, bytes + PREFIX, len - PREFIX)) {
        return -EBADMSG;
    }
    *c = (struct cursor){.at = bytes + PREFIX, .end = bytes + len};
    uint64_t head_len = cursor_take_varint(c);
    if (c->failed || head_len > (uint64_t)(c->end - c->at)) {
        return -EBADMSG;
    }
    c->end = c->at + head_len;
    unsigned stream = cursor_take_byte(c);
    uint64_t device = cursor_take_varint(c), count = cursor_take_varint(c);
    head->first_seq = cursor_take_varint(c);
    head->last_seq = head->first_seq + cursor_take_varint(c);
    head->first_ms = cursor_take_zigzag(c);
    head->last_ms = (int64_t)((uint64_t)head->first_ms + (uint64_t)cursor_take_zigzag(c));
    uint64_t step = cursor_take_varint(c);
    if (c->failed || stream >= STREAM_COUNT || device > UINT32_MAX || count == 0 ||
        count > CODEC_SCANS_MAX || step == 0 || step > INT32_MAX) {
        return -EBADMSG;
    }
    head->stream = (enum stream)stream;
    head->device = (uint32_t)device;
    head->count = (uint32_t)count;
    *ret_step_ms = (int64_t)step;
    return 0;
}

int codec_peek(const uint8_t *bytes, size_t len, struct codec_head *ret_head)
{
    struct cursor c;
    struct codec_head head = {0};
    int64_t step_ms;
    int r = read_head(bytes, len, &c, &head, &step_ms);
    if (r == 0) {
        *ret_head = head;
    }
    return r;
}

/* The runs of a column: they must cover the rows exactly. Counts the values of each kind. */
static int read_runs(struct cursor *c, struct gather_column *column, uint32_t rows,
                     uint32_t ret_counts[VALUE_KINDS + 1])
{
    uint64_t runs = cursor_take_varint(c);
    for (uint64_t i = 0; i < runs; i++) {
        struct gather_run run = {0};
        uint8_t state = cursor_take_byte(c);
        run.kind = state & 7;
        run.quality = state >> 3;
        if (run.kind == VALUE_DECIMAL) {
            run.exponent = (int8_t)cursor_take_byte(c);
        }
        uint64_t length = cursor_take_varint(c);
        if (c->failed || run.kind > VALUE_KINDS || run.quality >= QUALITY_COUNT || length == 0 ||
            length > rows - column->rows) {
            return -EBADMSG;
        }
        run.rows = (uint32_t)length;
        ret_counts[run.kind] += run.rows;
        int r = gather_run_add(column, run);
        if (r < 0) {
            return r;
        }
    }
    return c->failed || column->rows != rows ? -EBADMSG : 0;
}

static int read_texts(struct cursor *c, struct gather_column *column)
{
    uint64_t count = cursor_take_varint(c);
    for (uint64_t i = 0; i < count && !c->failed; i++) {
        uint64_t len = cursor_take_varint(c);
        const uint8_t *text = len > SCAN_TEXT_MAX ? NULL : cursor_take(c, (size_t)len);
        if (text == NULL) {
            return -EBADMSG;
        }
        int r = gather_text_add(column, (const char *)text, (uint32_t)len);
        if (r < 0) {
            return r;
        }
    }
    return c->failed ? -EBADMSG : 0;
}

/* One stream of a column's values behind those read already. */
static int read_stream(struct job *job, struct cursor *c, struct bit_reader *bits,
                       struct gather_column *column, int kind, uint32_t count)
{
    int64_t *to = column->values + column->value_count;
    bool good;
    if (kind == VALUE_REAL || kind == VALUE_FLOAT) {
        good = stream_read_doubles(c, bits, to, count, kind == VALUE_FLOAT);
    } else {
        int r = kind == VALUE_TEXT ? read_texts(c, column) : 0;
        if (r < 0) {
            return r;
        }
        bool all = kind == VALUE_DECIMAL && column->run_count == 1;
        good = stream_read_integers(c, bits, to, count, all ? &job->refs : &no_references);
    }
    for (uint32_t i = 0; good && kind == VALUE_TEXT && i < count; i++) {
        good = to[i] >= 0 && to[i] < column->text_count;
    }
    column->value_count += count;
    return good ? 0 : -EBADMSG;
}

static int read_column(struct job *job, struct cursor *c, struct bit_reader *bits)
{
    uint64_t point = cursor_take_varint(c);
    struct gather_column *column;
    int r = c->failed || point > UINT16_MAX
                ? -EBADMSG
                : gather_column_add(&job->gather, (uint16_t)point, &column);
    uint32_t counts[VALUE_KINDS + 1] = {0};
    r = r < 0 ? r : read_runs(c, column, job->rows, counts);
    r = r < 0 ? r : gather_values_reserve(column, job->rows);
    for (int kind = VALUE_DECIMAL; r == 0 && kind < VALUE_KINDS; kind++) {
        if (counts[kind] > 0) {
            r = read_stream(job, c, bits, column, kind, counts[kind]);
        }
    }
    if (r == 0) {
        remember_reference(job, column);
    }
    return r;
}

/* Where a column stands while rows are put together: one position a kind, since a column's values
 * lie by kind. */
struct place {
    uint32_t run, left;
    const int64_t *next[VALUE_KINDS];
};

static void place_init(struct place *place, const struct gather_column *column)
{
    *place = (struct place){.left = column->runs[0].rows};
    const int64_t *at = column->values;
    for (int kind = VALUE_DECIMAL; kind < VALUE_KINDS; kind++) {
        place->next[kind] = at;
        for (uint32_t i = 0; i < column->run_count; i++) {
            at += column->runs[i].kind == kind ? column->runs[i].rows : 0;
        }
    }
}

static inline const struct gather_run *place_step(struct place *place,
                                                  const struct gather_column *column)
{
    if (place->left == 0) {
        place->run++;
        place->left = column->runs[place->run].rows;
    }
    place->left--;
    return &column->runs[place->run];
}

/* Writes the row's readings (and texts behind them) into the scan, which has room for all columns.
 */
static int put_row(const struct gather *gather, struct place *places, struct scan *scan,
                   struct buffer *texts)
{
    struct reading *reading = scan->readings;
    for (size_t i = 0; i < gather->column_count; i++) {
        const struct gather_column *column = &gather->columns[i];
        const struct gather_run *run = place_step(&places[i], column);
        if (run->kind == VALUE_KINDS) {
            continue;
        }
        *reading = (struct reading){.point = column->point,
                                    .kind = run->kind,
                                    .quality = run->quality,
                                    .exponent = run->exponent};
        if (run->kind == VALUE_TEXT) {
            const struct gather_text *text = &column->texts[*places[i].next[VALUE_TEXT]++];
            reading->text.offset = (uint32_t)texts->len;
            reading->text.len = text->len;
            buffer_add(texts, text->text, text->len);
        } else if (run->kind != VALUE_NULL) {
            reading->integer = *places[i].next[run->kind]++;
        }
        reading++;
    }
    scan->count = (uint16_t)(reading - scan->readings);
    return buffer_failed(texts) || texts->len > SCAN_TEXT_MAX ? -EBADMSG : 0;
}

static int put_scans(const struct job *job, const struct codec_head *head, struct buffer *to)
{
    const struct gather *gather = &job->gather;
    auto_buffer struct buffer texts = {0};
    auto_free struct place *places = calloc(gather->column_count + 1, sizeof *places);
    if (places == NULL) {
        return -ENOMEM;
    }
    for (size_t i = 0; i < gather->column_count; i++) {
        place_init(&places[i], &gather->columns[i]);
    }
    for (uint32_t row = 0; row < head->count; row++) {
        struct scan *scan = (struct scan *)buffer_reserve(
            to, scan_size_for(gather->column_count, SCAN_TEXT_MAX));
        if (scan == NULL) {
            return -ENOMEM;
        }
        uint64_t time = (uint64_t)head->first_ms +
                        (uint64_t)(job->scan_columns[1][row] + row) * (uint64_t)job->step_ms +
                        (uint64_t)job->scan_columns[2][row];
        *scan = (struct scan){.seq = head->first_seq + (uint64_t)job->scan_columns[0][row] + row,
                              .time_ms = (int64_t)time,
                              .boot_ms = (int64_t)(time + (uint64_t)job->scan_columns[3][row]),
                              .device = head->device,
                              .window_s = (uint32_t)job->scan_columns[4][row],
                              .stream = (uint16_t)head->stream};
        buffer_clear(&texts);
        int r = put_row(gather, places, scan, &texts);
        if (r < 0) {
            return r;
        }
        scan->text_len = (uint32_t)texts.len;
        if (texts.len > 0) {
            memcpy(&scan->readings[scan->count], texts.data, texts.len);
        }
        to->len += scan_size(scan);
    }
    return 0;
}

int codec_decode(const uint8_t *bytes, size_t len, struct buffer *to, struct codec_head *ret_head)
{
    struct cursor c;
    struct codec_head head = {0};
    int64_t step_ms;
    int r = read_head(bytes, len, &c, &head, &step_ms);
    if (r < 0) {
        return r;
    }
    auto_job struct job job;
    r = job_init(&job, head.count);
    job.step_ms = step_ms;
    struct bit_reader bits;
    bit_reader_init(&bits, c.end, (size_t)(bytes + len - c.end));
    for (size_t i = 0; r == 0 && i < SCAN_COLUMNS; i++) {
        r = stream_read_integers(&c, &bits, job.scan_columns[i], head.count, &no_references)
                ? 0
                : -EBADMSG;
    }
    uint64_t columns = r == 0 ? cursor_take_varint(&c) : 0;
    if (r == 0 && (c.failed || columns > CODEC_COLUMNS_MAX)) {
        r = -EBADMSG;
    }
    for (uint64_t i = 0; r == 0 && i < columns; i++) {
        r = read_column(&job, &c, &bits);
    }
    size_t before = to->len;
    r = r < 0 ? r : put_scans(&job, &head, to);
    if (r < 0) {
        to->len = before;
        return r;
    }
    *ret_head = head;
    return 0;
}
