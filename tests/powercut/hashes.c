#include "hashes.h"

#include <string.h>

static uint64_t stir(uint64_t h, uint64_t word)
{
    h = (h ^ word) * 0x9FB21C651E98DF25;
    return h ^ (h >> 32);
}

/* Four lanes, since an image is half a megabyte and there are many. len is a multiple of 8. */
uint64_t hash_bytes(const uint8_t *bytes, size_t len, uint64_t seed)
{
    uint64_t lanes[4] = {seed, seed + 1, seed + 2, seed + 3};
    for (size_t at = 0; at + 8 <= len; at += 8) {
        uint64_t word;
        memcpy(&word, bytes + at, 8);
        uint64_t *lane = &lanes[at / 8 % 4];
        *lane = stir(*lane, word);
    }
    return stir(stir(stir(stir(len, lanes[0]), lanes[1]), lanes[2]), lanes[3]);
}

static void grow(struct hashes *hashes)
{
    struct hashes more = {.capacity = hashes->capacity == 0 ? 1 << 14 : hashes->capacity * 4};
    more.slots = calloc(more.capacity, sizeof(*more.slots));
    if (more.slots == NULL) {
        abort();
    }
    for (size_t i = 0; i < hashes->capacity; i++) {
        if (hashes->slots[i] != 0) {
            (void)hashes_add(&more, hashes->slots[i]);
        }
    }
    free(hashes->slots);
    *hashes = more;
}

bool hashes_add(struct hashes *hashes, uint64_t hash)
{
    if (hashes->count * 2 >= hashes->capacity) {
        grow(hashes);
    }
    hash += hash == 0;
    size_t at = hash & (hashes->capacity - 1);
    while (hashes->slots[at] != 0) {
        if (hashes->slots[at] == hash) {
            return false;
        }
        at = (at + 1) & (hashes->capacity - 1);
    }
    hashes->slots[at] = hash;
    hashes->count++;
    return true;
}

void hashes_finish(struct hashes *hashes)
{
    free(hashes->slots);
    *hashes = (struct hashes){.slots = NULL};
}
