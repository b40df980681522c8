#include "gateway/store/letter.h"

#include <errno.h>
#include <string.h>

enum { LETTER_VERSION = 2 };

static void add_text(struct buffer *record, const char *text)
{
    buffer_add_varint(record, strlen(text));
    buffer_add_text(record, text);
}

static void add_refused(struct buffer *record, const struct scan *scan, const uint16_t *refused,
                        uint16_t count)
{
    bool all = refused == NULL || count == scan->count;
    buffer_add_varint(record, all ? 0 : count);
    for (uint16_t i = 0; i < count && !all; i++) {
        buffer_add_varint(record, scan->readings[refused[i]].point);
    }
}

int letter_encode(struct wal_encoder *encoder, const struct store_letter *letter, int64_t now_ms,
                  struct buffer *record)
{
    buffer_add_byte(record, LETTER_VERSION);
    buffer_add_zigzag(record, letter->refused_ms);
    add_text(record, letter->uplink);
    add_text(record, letter->why);
    add_refused(record, letter->scan, letter->refused, letter->refused_count);
    struct wal_row row = {.scan = letter->scan, .prev_seq = letter->scan->seq - 1};
    int rc = wal_encode(encoder, &row, 1, now_ms, record);
    return rc == 0 && buffer_failed(record) ? -ENOMEM : rc;
}

int letter_opener_init(struct letter_opener *o)
{
    *o = (struct letter_opener){.record.max = WAL_RAW_MAX * 2};
    return wal_decoder_create(&o->decoder);
}

void letter_opener_finish(struct letter_opener *o)
{
    wal_decoder_destroy(o->decoder);
    buffer_finish(&o->record);
    buffer_finish(&o->uplink);
    buffer_finish(&o->why);
    buffer_finish(&o->points);
    buffer_finish(&o->arena);
    buffer_finish(&o->refused);
}

static const char *take_text(struct cursor *c, struct buffer *to)
{
    uint64_t len = cursor_take_varint(c);
    const uint8_t *at = len <= (uint64_t)(c->end - c->at) ? cursor_take(c, (size_t)len) : NULL;
    c->failed |= at == NULL;
    buffer_clear(to);
    buffer_add(to, at, at != NULL ? (size_t)len : 0);
    return buffer_text(to);
}

/* The point ids of version 2; count 0: all. */
static int take_points(struct cursor *c, uint8_t version, struct buffer *points,
                       uint16_t *ret_count)
{
    uint64_t count = version >= 2 ? cursor_take_varint(c) : 0;
    buffer_clear(points);
    if (c->failed || count > SCAN_READINGS_MAX) {
        return -EBADMSG;
    }
    for (uint64_t i = 0; i < count; i++) {
        uint16_t point = (uint16_t)cursor_take_varint(c);
        buffer_add(points, &point, sizeof(point));
    }
    *ret_count = (uint16_t)count;
    return c->failed ? -EBADMSG : buffer_failed(points) ? -ENOMEM : 0;
}

static bool is_named(const struct buffer *points, uint16_t point)
{
    for (size_t at = 0; at < points->len; at += sizeof(point)) {
        if (memcmp(points->data + at, &point, sizeof(point)) == 0) {
            return true;
        }
    }
    return false;
}

static int list_refused(struct letter_opener *o, bool all, struct store_letter *letter)
{
    buffer_clear(&o->refused);
    for (uint16_t i = 0; i < letter->scan->count; i++) {
        if (all || is_named(&o->points, letter->scan->readings[i].point)) {
            buffer_add(&o->refused, &i, sizeof(i));
        }
    }
    letter->refused = (const uint16_t *)(const void *)o->refused.data;
    letter->refused_count = (uint16_t)(o->refused.len / sizeof(uint16_t));
    return buffer_failed(&o->refused) ? -ENOMEM : 0;
}

static int take_scan(struct letter_opener *o, struct cursor *c, struct store_letter *letter)
{
    struct wal_header header;
    const struct wal_row *rows;
    int rc = wal_open(o->decoder, c->at, (size_t)(c->end - c->at), &header, &rows);
    if (rc < 0 || header.scans != 1) {
        return rc < 0 ? rc : -EBADMSG;
    }
    buffer_clear(&o->arena);
    uint8_t *arena = buffer_reserve(&o->arena, header.memory);
    rc = arena == NULL ? -ENOMEM : wal_scans(o->decoder, arena);
    if (rc == 0) {
        letter->scan = (const struct scan *)(const void *)(arena + rows[0].offset);
    }
    return rc;
}

int letter_open(struct letter_opener *o, const void *record, size_t len,
                struct store_letter *ret_letter)
{
    const uint8_t *at = record;
    struct cursor c = {at, at + len, false};
    struct store_letter letter = {.number = ret_letter->number};
    uint16_t count = 0;
    uint8_t version = cursor_take_byte(&c);
    letter.refused_ms = cursor_take_zigzag(&c);
    letter.uplink = take_text(&c, &o->uplink);
    letter.why = take_text(&c, &o->why);
    if (c.failed || version == 0 || version > LETTER_VERSION) {
        return -EBADMSG;
    }
    int rc = letter.uplink == NULL || letter.why == NULL ? -ENOMEM : 0;
    rc = rc < 0 ? rc : take_points(&c, version, &o->points, &count);
    rc = rc < 0 ? rc : take_scan(o, &c, &letter);
    rc = rc < 0 ? rc : letter.scan == NULL ? -EBADMSG : list_refused(o, count == 0, &letter);
    if (rc == 0) {
        *ret_letter = letter;
    }
    return rc;
}
