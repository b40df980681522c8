#include "gateway/store/dead.h"

#include "gateway/store/lanes.h"
#include "gateway/store/requeue.h"

#include <errno.h>
#include <string.h>

/* Version 1: time, uplink, why, the scan as a block of the log. Version 2: before the block how
 * many readings were refused and their point ids; 0 is all of them. */
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

static int encode_letter(struct store_reader *reader, const struct scan *scan,
                         const uint16_t *refused, uint16_t count, const char *why,
                         struct buffer *record)
{
    int rc = reader->encoder == NULL ? wal_encoder_create(&reader->encoder) : 0;
    if (rc < 0) {
        return rc;
    }
    buffer_add_byte(record, LETTER_VERSION);
    buffer_add_zigzag(record, store_now_ms(reader->store));
    add_text(record, store_uplink_name(reader->store, reader->uplink));
    add_text(record, why);
    add_refused(record, scan, refused, count);
    struct wal_row row = {.scan = scan, .prev_seq = scan->seq - 1};
    rc = wal_encode(reader->encoder, &row, 1, store_now_ms(reader->store), record);
    return rc == 0 && buffer_failed(record) ? -ENOMEM : rc;
}

int store_dead_letter(struct store_reader *reader, const struct scan *scan, const uint16_t *refused,
                      uint16_t refused_count, const char *why)
{
    auto_buffer struct buffer record = {0};
    int rc = encode_letter(reader, scan, refused, refused_count, why, &record);
    if (rc < 0) {
        return rc;
    }
    uint8_t len[4];
    field_put32(len, (uint32_t)record.len);
    struct store *store = reader->store;
    store_lock(store);
    if (store->dead.len + record.len + sizeof(len) > DEAD_PENDING_MAX) {
        rc = -ENOBUFS;
    } else if (buffer_reserve(&store->dead, record.len + sizeof(len)) == NULL) {
        store->dead.failed = false; /* the others that wait are whole */
        rc = -ENOMEM;
    } else {
        buffer_add(&store->dead, len, sizeof(len));
        buffer_add(&store->dead, record.data, record.len);
        store->marked = true;
    }
    store_unlock(store);
    return rc;
}

/* What a letter is read into. */
struct opened {
    struct wal_decoder *decoder;
    struct buffer record, uplink, why, points, arena, refused;
};

static void finish(struct opened *o)
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

static int list_refused(struct opened *o, bool all, struct store_letter *letter)
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

static int take_scan(struct opened *o, struct cursor *c, struct store_letter *letter)
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

/* The letter that lies in o->record. */
static int open_letter(struct opened *o, struct store_letter *ret_letter)
{
    struct cursor c = {o->record.data, o->record.data + o->record.len, false};
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

int store_letters_from(struct store *store, uint64_t from,
                       int (*fn)(void *user, const struct store_letter *letter), void *user)
{
    struct opened o = {.record.max = WAL_RAW_MAX * 2};
    int rc = wal_decoder_create(&o.decoder);
    while (rc == 0) {
        struct store_letter letter = {0};
        rc = env_copy(store->env, KEY_DEAD, from, &letter.number, &o.record);
        if (rc == 0) {
            from = letter.number + 1;
            rc = open_letter(&o, &letter);
            rc = rc == 0 ? fn(user, &letter) : rc == -EBADMSG ? 0 : rc;
        }
    }
    finish(&o);
    return rc == -ENOENT ? 0 : rc;
}

int store_letters(struct store *store, int (*fn)(void *user, const struct store_letter *letter),
                  void *user)
{
    return store_letters_from(store, 0, fn, user);
}

bool store_letter_fits(struct store *store, const struct store_letter_filter *filter,
                       const struct store_letter *letter)
{
    const struct store_names *names = store_names(store, letter->scan->device);
    return (filter->uplink == NULL || strcmp(filter->uplink, letter->uplink) == 0) &&
           (filter->device == NULL ||
            (names != NULL && strcmp(filter->device, names->device) == 0)) &&
           (filter->reason == NULL || strcasestr(letter->why, filter->reason) != NULL);
}
