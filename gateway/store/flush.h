/* flush.h - the log turned into large blocks, a few devices at a time.
 *
 * The writer's alone. There are no encoders in memory that a crash could lose: a cohort of devices
 * is flushed by reading the log again, some blocks with each commit, keeping the cohort's scans in
 * compressed chunks, and then putting a few large blocks into each following commit. So memory is
 * bounded whatever the site is, nothing is rebuilt at a start, and what the log still holds is
 * simply looked at again. What was flushed is known from the large blocks themselves.
 *
 * A device's blocks are cut so that they fill LMDB's pages; what does not fill one stays in the log
 * for the next round, unless it gets old. */
#pragma once

#include "gateway/base/buffer.h"
#include "gateway/store/key.h"

struct store;
struct flush;

enum {
    FLUSH_BLOCKS = 1024,                /* of the log at most between two rounds of a device */
    FLUSH_BLOCKS_LEAST = 64,            /* and at least */
    FLUSH_READINGS = 16 * 1024,         /* of a device that are enough for a round */
    FLUSH_MEMORY_MAX = 6 * 1024 * 1024, /* of the chunks of a cohort */
    FLUSH_LOG_MAX = 64 * 1024 * 1024,   /* bytes of the log that begin a round early */
    FLUSH_LOG_SHARE = 8,                /* or this share of the store */
    FLUSH_PUT_BYTES = 128 * 1024,       /* of large blocks with a commit, and half as much for the
                                           last one; more where the commit itself is large */
};

/* A large block for the commit at hand; len 0: nothing to be put, the scans up to last_seq are not
 * needed any more. */
struct flush_put {
    struct key key;
    size_t offset, len; /* in flush_bytes() */
    uint64_t last_seq;
    uint32_t device;
    unsigned stream;
};

must_check int flush_create(struct flush **ret_flush);
void flush_destroy(struct flush *flush);

/* At a start: how far each device was flushed, and the size of the log. */
must_check int flush_load(struct store *store);

/* A step of the work; afterwards there may be something to put. readings: of the commit at hand. */
void flush_step(struct store *store, uint64_t readings);
size_t flush_puts(const struct flush *flush, const struct flush_put **ret_puts);
const uint8_t *flush_bytes(const struct flush *flush);
/* They are durable. Under the lock. */
void flush_done(struct store *store);
/* They were not put: the cohort will be gathered anew. */
void flush_cancel(struct store *store);
/* Blocks of the log were put (or deleted). */
void flush_log_bytes(struct store *store, int64_t more);
