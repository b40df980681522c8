#include "config/arena.h"

#include "gateway/base/log.h"

#include <stdalign.h>
#include <stdarg.h>
#include <string.h>

enum { CHUNK_SIZE = 16 * 1024, ALIGNMENT = alignof(max_align_t) };

struct arena_chunk {
    struct arena_chunk *next;
    size_t used, size;
    alignas(max_align_t) char bytes[];
};

void *arena_must(void *memory)
{
    if (memory == NULL) {
        log_error("out of memory while the configuration was read");
        abort();
    }
    return memory;
}

static struct arena_chunk *add_chunk(struct arena *arena, size_t size)
{
    size_t total = sizeof(struct arena_chunk) + size;
    struct arena_chunk *chunk = arena_must(calloc(1, total));
    chunk->size = size;
    arena->bytes += total;
    if (arena->chunks != NULL && size > CHUNK_SIZE) {
        /* A large piece of its own goes behind the chunk that is being filled. */
        chunk->next = arena->chunks->next;
        arena->chunks->next = chunk;
    } else {
        chunk->next = arena->chunks;
        arena->chunks = chunk;
    }
    return chunk;
}

static void *take_aligned(struct arena *arena, size_t size, size_t alignment)
{
    struct arena_chunk *chunk = arena->chunks;
    size_t start = chunk == NULL ? 0 : (chunk->used + alignment - 1) & ~(alignment - 1);
    if (chunk == NULL || size > chunk->size || start > chunk->size - size) {
        chunk = add_chunk(arena, size > CHUNK_SIZE ? size : CHUNK_SIZE);
        start = 0;
    }
    chunk->used = start + size;
    return chunk->bytes + start;
}

void *arena_take(struct arena *arena, size_t size)
{
    return take_aligned(arena, size, ALIGNMENT);
}

char *arena_text(struct arena *arena, const char *text, size_t len)
{
    char *copy = take_aligned(arena, len + 1, 1);
    memcpy(copy, text, len);
    copy[len] = '\0';
    return copy;
}

char *arena_printf(struct arena *arena, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    auto_free char *text = NULL;
    int n = vasprintf(&text, format, args);
    va_end(args);
    const char *made = arena_must(n < 0 ? NULL : text);
    return arena_text(arena, made, (size_t)n);
}

void arena_finish(struct arena *arena)
{
    while (arena->chunks != NULL) {
        struct arena_chunk *chunk = arena->chunks;
        arena->chunks = chunk->next;
        free(chunk);
    }
    arena->bytes = 0;
}

static size_t find_slot(const struct strings *strings, const char *text, size_t len)
{
    size_t mask = strings->capacity - 1;
    size_t at = (size_t)hash_bytes(HASH_START, text, len) & mask;
    while (strings->slots[at] != NULL &&
           (strncmp(strings->slots[at], text, len) != 0 || strings->slots[at][len] != '\0')) {
        at = (at + 1) & mask;
    }
    return at;
}

static void grow_strings(struct strings *strings)
{
    const char **old = strings->slots;
    size_t old_capacity = strings->capacity;
    strings->capacity = old_capacity == 0 ? 256 : old_capacity * 2;
    strings->slots = arena_must(calloc(strings->capacity, sizeof(char *)));
    for (size_t i = 0; i < old_capacity; i++) {
        if (old[i] != NULL) {
            strings->slots[find_slot(strings, old[i], strlen(old[i]))] = old[i];
        }
    }
    free(old);
}

const char *strings_keep(struct strings *strings, const char *text, size_t len)
{
    if (strings->count * 2 >= strings->capacity) {
        grow_strings(strings);
    }
    size_t at = find_slot(strings, text, len);
    if (strings->slots[at] == NULL) {
        strings->slots[at] = arena_text(strings->arena, text, len);
        strings->count++;
    }
    return strings->slots[at];
}

void strings_finish(struct strings *strings)
{
    free(strings->slots);
    strings->slots = NULL;
    strings->capacity = strings->count = 0;
}

void vector_add(struct vector *vector, void *item)
{
    if (vector->count == vector->capacity) {
        size_t capacity = vector->capacity == 0 ? 16 : vector->capacity * 2;
        vector->items = arena_must(reallocarray(vector->items, capacity, sizeof(void *)));
        vector->capacity = capacity;
    }
    vector->items[vector->count++] = item;
}

void vector_finish(struct vector *vector)
{
    free(vector->items);
    *vector = (struct vector){0};
}

uint64_t hash_bytes(uint64_t hash, const void *bytes, size_t len)
{
    const uint8_t *at = bytes;
    for (size_t i = 0; i < len; i++) {
        hash = (hash ^ at[i]) * 0x100000001b3u;
    }
    return hash;
}

uint64_t hash_text(uint64_t hash, const char *text)
{
    return text == NULL ? hash_bytes(hash, "\1", 1) : hash_bytes(hash, text, strlen(text) + 1);
}
