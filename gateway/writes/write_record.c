#include "gateway/writes/write_record.h"

#include "gateway/base/crc32c.h"

#include <errno.h>
#include <string.h>

/* 1: without the two fields of standing commands. 2: without the CRC32C of all before it, low byte
 * first, by which salvage knows a record that is whole. */
enum { VERSION = 3, CRC_SIZE = 4 };
enum { STANDING = 1, AFAR = 2 }; /* flags */

static void add_text(struct buffer *b, const char *text)
{
    size_t len = strlen(text);
    buffer_add_varint(b, len);
    buffer_add(b, text, len);
}

void write_record_encode(const struct write_record *record, struct buffer *ret_bytes)
{
    size_t begin = ret_bytes->len;
    buffer_add_byte(ret_bytes, VERSION);
    buffer_add_zigzag(ret_bytes, record->time_ms);
    buffer_add_varint(ret_bytes, (uint64_t)record->status);
    buffer_add_byte(ret_bytes, record->chosen);
    add_text(ret_bytes, record->id);
    add_text(ret_bytes, record->device);
    add_text(ret_bytes, record->point);
    add_text(ret_bytes, record->who);
    add_text(ret_bytes, record->value);
    add_text(ret_bytes, record->body);
    buffer_add_byte(ret_bytes,
                    (uint8_t)((record->standing ? STANDING : 0) | (record->afar ? AFAR : 0)));
    buffer_add_zigzag(ret_bytes, record->order);
    uint32_t crc = buffer_failed(ret_bytes)
                       ? 0
                       : crc32c(0, ret_bytes->data + begin, ret_bytes->len - begin);
    for (unsigned i = 0; i < CRC_SIZE; i++) {
        buffer_add_byte(ret_bytes, (uint8_t)(crc >> (8 * i)));
    }
}

static bool is_whole(const uint8_t *bytes, size_t len)
{
    uint32_t crc = len < CRC_SIZE ? 0 : crc32c(0, bytes, len - CRC_SIZE);
    bool whole = len >= CRC_SIZE;
    for (unsigned i = 0; whole && i < CRC_SIZE; i++) {
        whole = bytes[len - CRC_SIZE + i] == (uint8_t)(crc >> (8 * i));
    }
    return whole;
}

bool write_record_is_sealed(const void *bytes)
{
    return *(const uint8_t *)bytes > 2;
}

static void take_text(struct cursor *c, char *text, size_t max)
{
    uint64_t len = cursor_take_varint(c);
    const uint8_t *from = len <= max ? cursor_take(c, (size_t)len) : NULL;
    if (from == NULL || memchr(from, '\0', (size_t)len) != NULL) {
        c->failed = true;
        len = 0;
    } else if (len > 0) {
        memcpy(text, from, (size_t)len);
    }
    text[len] = '\0';
}

int write_record_decode(const void *bytes, size_t len, struct write_record *ret_record)
{
    const uint8_t *at = bytes;
    struct cursor c = {at, at + len, false};
    uint8_t version = cursor_take_byte(&c);
    if (version < 1 || version > VERSION || (version > 2 && !is_whole(at, len))) {
        return -EBADMSG;
    }
    c.end -= version > 2 ? CRC_SIZE : 0;
    ret_record->time_ms = cursor_take_zigzag(&c);
    uint64_t status = cursor_take_varint(&c);
    ret_record->status = status < 1000 ? (int)status : 0;
    ret_record->chosen = cursor_take_byte(&c) != 0;
    take_text(&c, ret_record->id, WRITE_ID_MAX);
    take_text(&c, ret_record->device, WRITE_NAME_MAX);
    take_text(&c, ret_record->point, WRITE_NAME_MAX);
    take_text(&c, ret_record->who, WRITE_NAME_MAX);
    take_text(&c, ret_record->value, WRITE_VALUE_MAX);
    take_text(&c, ret_record->body, WRITE_BODY_MAX);
    uint8_t flags = version > 1 ? cursor_take_byte(&c) : 0;
    ret_record->standing = (flags & STANDING) != 0;
    ret_record->afar = (flags & AFAR) != 0;
    ret_record->order = version > 1 ? cursor_take_zigzag(&c) : 0;
    return c.failed || c.at != c.end || status >= 1000 ? -EBADMSG : 0;
}

bool write_record_same(const struct write_record *a, const struct write_record *b)
{
    return strcmp(a->device, b->device) == 0 && strcmp(a->point, b->point) == 0 &&
           strcmp(a->value, b->value) == 0;
}

bool write_record_rivals(const struct write_record *a, const struct write_record *b)
{
    return a->standing && b->standing && strcmp(a->device, b->device) == 0 &&
           strcmp(a->point, b->point) == 0 && strcmp(a->who, b->who) == 0;
}
