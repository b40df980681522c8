/* hashes.h - a set of 64-bit hashes, to drop what was there already. One thread. */
#pragma once

#include "gateway/base/buffer.h"

struct hashes {
    uint64_t *slots;
    size_t count, capacity;
};

uint64_t hash_bytes(const uint8_t *bytes, size_t len, uint64_t seed);
/* true: it is new, and is in the set now. Ends in abort() without memory. */
bool hashes_add(struct hashes *hashes, uint64_t hash);
void hashes_finish(struct hashes *hashes);
