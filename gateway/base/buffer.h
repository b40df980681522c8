/* buffer.h - bytes that grow up to a bound.
 *
 * One owner, no locking. A failed append (no memory, or over the bound) latches `failed` and leaves
 * the content as it was; so a writer may append many parts and ask once, with buffer_failed(). */
#pragma once

#include "gateway/base/cleanup.h"

#include <stdbool.h>
#include <stdint.h>

struct buffer {
    uint8_t *data;
    size_t len;
    size_t capacity;
    size_t max; /* bound on len; 0 means BUFFER_MAX_DEFAULT */
    bool failed;
};

#define BUFFER_MAX_DEFAULT ((size_t)64 << 20)

/* Frees the bytes and makes the buffer empty and usable again; keeps `max`. */
void buffer_finish(struct buffer *b);

/* Empties it and clears `failed`; keeps the memory for the next use. */
void buffer_clear(struct buffer *b);

/* Makes room for `more` bytes and returns where they go (the caller then adds to len), or NULL. */
must_check uint8_t *buffer_reserve(struct buffer *b, size_t more);

void buffer_add(struct buffer *b, const void *bytes, size_t len);
void buffer_add_text(struct buffer *b, const char *text);
void buffer_add_byte(struct buffer *b, uint8_t byte);
void buffer_printf(struct buffer *b, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Unsigned LEB128; and zig-zag of a signed value in the same form. */
void buffer_add_varint(struct buffer *b, uint64_t value);
void buffer_add_zigzag(struct buffer *b, int64_t value);

/* Appends a NUL that does not count in len; returns the text, or NULL after a failure. */
const char *buffer_text(struct buffer *b);

static inline bool buffer_failed(const struct buffer *b)
{
    return b->failed;
}

static inline void cleanup_buffer(struct buffer *b)
{
    buffer_finish(b);
}
#define auto_buffer __attribute__((cleanup(cleanup_buffer)))

/* A reading position in foreign bytes. Every take_ checks the bound: after a failure `failed` is
 * set, and values are 0. Nothing is copied; the bytes must outlive the cursor. */
struct cursor {
    const uint8_t *at, *end;
    bool failed;
};

uint64_t cursor_take_long_varint(struct cursor *c);

/* Nearly all are one byte long. */
static inline uint64_t cursor_take_varint(struct cursor *c)
{
    return c->at < c->end && *c->at < 0x80 ? *c->at++ : cursor_take_long_varint(c);
}

static inline int64_t cursor_take_zigzag(struct cursor *c)
{
    uint64_t u = cursor_take_varint(c);
    return (int64_t)((u >> 1) ^ (0 - (u & 1)));
}

uint8_t cursor_take_byte(struct cursor *c);

/* The next len bytes, or NULL (and failed) when fewer are left. */
const uint8_t *cursor_take(struct cursor *c, size_t len);
