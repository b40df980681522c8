/* large.h - large blocks: the scans of one device and stream, out of many commits, as one value.
 *
 * Pure but for the seeks, which read the transaction they are given. The key (`b`, stream, device,
 * first seq) sorts a device's blocks by seq. The value is a head with its own CRC32C, so that one
 * page tells what a block holds, and a block of codec/block.h behind it. */
#pragma once

#include "gateway/base/scan.h"
#include "gateway/store/env.h"

enum {
    LARGE_VERSION = 1,
    LARGE_HEAD_SIZE = 56,
    LARGE_MEMORY_MAX = 768 * 1024, /* of the scans in one block, decoded */
};

struct large {
    unsigned stream;
    uint32_t device;
    uint64_t prev_seq, first_seq, last_seq; /* prev_seq: of the scan before the block */
    uint32_t scans, readings, memory;       /* memory: decoded bytes */
    int64_t written_ms;                     /* when the newest of them was committed */
    int64_t min_ms, max_ms;                 /* times of the scans */
    bool damaged; /* the head is not readable: only stream, device and first_seq are known */
};

/* Appends the value for count scans of one device and stream in seq order. -EINVAL, -ENOMEM. */
must_check int large_encode(const struct scan *const *scans, size_t count, uint64_t prev_seq,
                            int64_t written_ms, struct buffer *to);

/* The head of an entry; false when it is no large block at all. */
bool large_read(const MDB_val *name, const MDB_val *value, struct large *ret_large);

/* Replaces what is in ret_scans by the scans, one behind the other. -EBADMSG, -ENOMEM. */
must_check int large_decode(const struct large *large, const void *value, size_t len,
                            struct buffer *ret_scans);

/* The block that holds seq, or else the first one behind it. -ENOENT. */
must_check int large_find(MDB_txn *txn, unsigned stream, uint32_t device, uint64_t seq,
                          struct large *ret_large, MDB_val *ret_value);
/* The newest block of a device and stream. -ENOENT. */
must_check int large_newest(MDB_txn *txn, unsigned stream, uint32_t device,
                            struct large *ret_large);
/* The same as large_find(), with the value copied into ret_value (replaced). */
must_check int large_copy(struct env *env, unsigned stream, uint32_t device, uint64_t seq,
                          struct large *ret_large, struct buffer *ret_value);
