#include "gateway/base/buffer.h"

#include <stdarg.h>
#include <string.h>

void buffer_finish(struct buffer *b)
{
    free(b->data);
    *b = (struct buffer){.max = b->max};
}

void buffer_clear(struct buffer *b)
{
    b->len = 0;
    b->failed = false;
}

uint8_t *buffer_reserve(struct buffer *b, size_t more)
{
    if (b->failed) {
        return NULL;
    }
    size_t max = b->max != 0 ? b->max : BUFFER_MAX_DEFAULT;
    if (more > max || b->len > max - more) {
        b->failed = true;
        return NULL;
    }
    size_t need = b->len + more;
    if (need > b->capacity) {
        size_t capacity = b->capacity < 64 ? 64 : b->capacity;
        while (capacity < need) {
            capacity *= 2;
        }
        uint8_t *data = realloc(b->data, capacity);
        if (data == NULL) {
            b->failed = true;
            return NULL;
        }
        b->data = data;
        b->capacity = capacity;
    }
    return b->data + b->len;
}

/* buffer_reserve(), mostly without a call. */
static inline uint8_t *room_for(struct buffer *b, size_t more)
{
    size_t max = b->max != 0 ? b->max : BUFFER_MAX_DEFAULT;
    bool there = !b->failed && b->capacity - b->len >= more && b->len + more <= max;
    return there ? b->data + b->len : buffer_reserve(b, more);
}

void buffer_add(struct buffer *b, const void *bytes, size_t len)
{
    uint8_t *to = len == 0 ? NULL : buffer_reserve(b, len);
    if (to != NULL) {
        memcpy(to, bytes, len);
        b->len += len;
    }
}

void buffer_add_text(struct buffer *b, const char *text)
{
    buffer_add(b, text, strlen(text));
}

void buffer_add_byte(struct buffer *b, uint8_t byte)
{
    uint8_t *to = room_for(b, 1);
    if (to != NULL) {
        *to = byte;
        b->len++;
    }
}

void buffer_printf(struct buffer *b, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    va_list again;
    va_copy(again, args);
    int n = vsnprintf(NULL, 0, format, args);
    va_end(args);
    uint8_t *to = n < 0 ? NULL : buffer_reserve(b, (size_t)n + 1);
    if (to != NULL) {
        vsnprintf((char *)to, (size_t)n + 1, format, again);
        b->len += (size_t)n;
    } else {
        b->failed = true;
    }
    va_end(again);
}

void buffer_add_varint(struct buffer *b, uint64_t value)
{
    uint8_t *to = room_for(b, 10);
    if (to == NULL) {
        return;
    }
    size_t n = 0;
    while (value >= 0x80) {
        to[n++] = (uint8_t)(value | 0x80);
        value >>= 7;
    }
    to[n++] = (uint8_t)value;
    b->len += n;
}

void buffer_add_zigzag(struct buffer *b, int64_t value)
{
    buffer_add_varint(b, ((uint64_t)value << 1) ^ (uint64_t)(value >> 63));
}

const char *buffer_text(struct buffer *b)
{
    uint8_t *to = buffer_reserve(b, 1);
    if (to == NULL) {
        return NULL;
    }
    *to = 0;
    return (const char *)b->data;
}

uint64_t cursor_take_long_varint(struct cursor *c)
{
    uint64_t value = 0;
    for (unsigned shift = 0; shift < 64; shift += 7) {
        if (c->at >= c->end) {
            break;
        }
        uint8_t byte = *c->at++;
        if (shift == 63 && byte > 1) {
            break;
        }
        value |= (uint64_t)(byte & 0x7f) << shift;
        if ((byte & 0x80) == 0) {
            return value;
        }
    }
    c->failed = true;
    c->at = c->end;
    return 0;
}

uint8_t cursor_take_byte(struct cursor *c)
{
    const uint8_t *byte = cursor_take(c, 1);
    return byte == NULL ? 0 : *byte;
}

const uint8_t *cursor_take(struct cursor *c, size_t len)
{
    if (c->failed || (size_t)(c->end - c->at) < len) {
        c->failed = true;
        c->at = c->end;
        return NULL;
    }
    const uint8_t *from = c->at;
    c->at += len;
    return from;
}
