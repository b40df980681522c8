/* arena.h - memory that is given back all at once, and texts kept once in it.
 *
 * One owner, no locking. There is no error to check: a machine without the few hundred KiB of a
 * configuration cannot run the gateway either, so the process ends with a log line. */
#pragma once

#include <stddef.h>
#include <stdint.h>

struct arena_chunk;

struct arena {
    struct arena_chunk *chunks; /* the newest first */
    size_t bytes;               /* taken from malloc in all */
};

/* Zeroed, aligned for any type; valid until arena_finish(). */
void *arena_take(struct arena *arena, size_t size);
char *arena_text(struct arena *arena, const char *text, size_t len);
char *arena_printf(struct arena *arena, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
void arena_finish(struct arena *arena);

/* The memory, or the end of the process when there was none. */
void *arena_must(void *memory);

/* Texts that are kept once: the same text gives the same pointer. The table itself is freed by
 * strings_finish(), the texts live in the arena. */
struct strings {
    struct arena *arena;
    const char **slots;
    size_t capacity, count;
};

const char *strings_keep(struct strings *strings, const char *text, size_t len);
void strings_finish(struct strings *strings);

/* Pointers in a row, growing. */
struct vector {
    void **items;
    size_t count, capacity;
};

void vector_add(struct vector *vector, void *item);
void vector_finish(struct vector *vector);

/* FNV-1a, 64 bit; begin with HASH_START. hash_text takes the closing NUL too, so that "ab" "c" and
 * "a" "bc" differ. */
#define HASH_START 0xcbf29ce484222325u
uint64_t hash_bytes(uint64_t hash, const void *bytes, size_t len);
uint64_t hash_text(uint64_t hash, const char *text);
