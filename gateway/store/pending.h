/* pending.h - what lies in memory between an append and its commit. The writer's alone. */
#pragma once

#include "gateway/base/scan.h"
#include "gateway/store/key.h"
#include "gateway/store/store.h"

struct store;

/* A scan that waits for the commit, in store.pending. */
struct pending_scan {
    uint64_t prev_seq;
    uint32_t next; /* offset of the next one of this device and stream, 0: none */
    uint32_t size; /* of this entry */
    /* Scans with the same one, not 0, differ in their values only, of which none is a text. */
    uint32_t alike;
    struct scan scan;
};

/* The scans of one device and stream that wait for the commit. */
struct run {
    uint32_t device;
    uint16_t stream;
    bool offered;         /* counted for the uplinks */
    bool salvaged;        /* out of a store that was set aside */
    uint32_t settled;     /* uplinks, by slot, that it is none of the business of */
    uint32_t first, last; /* offsets in store.pending */
    uint32_t scans;
    uint64_t readings;
};

/* An encoded block of the commit at hand. */
struct cut {
    size_t offset, len;
    uint32_t scans, readings;
};

enum { CUTS_MAX = 16 }; /* STORE_PENDING_MAX in blocks of WAL_MEMORY_MAX are fewer */

/* Where there is no room. Monotonic times; room and disk_full are set under the lock. */
struct pressure {
    enum store_room room;
    bool disk_full;
    int64_t last_ms, tried_ms; /* room was wanting; the last commit looked for some */
};

/* What one commit does besides writing; decided once, done again when the transaction is. */
enum { PLAN_DELETES_MAX = 256 };
struct plan {
    struct key deletes[PLAN_DELETES_MAX];
    size_t count;
    size_t freed;     /* bytes */
    uint64_t records; /* small ones that there were before */
    bool records_counted;
    bool decided, advanced, refused;
};

/* The note that counts what was given to the device. */
#define STORE_WRITTEN_NOTE "store.written"

/* append.c: store_append() for what comes out of a store that was set aside. */
struct append_how {
    bool salvaged;
    uint32_t settled; /* bits of the uplinks that it is not for */
};
must_check int store_append_as(struct store *store, const struct scan *scan,
                               const struct append_how *how);

/* commit.c */
/* Counts the pending runs for the uplinks that are there now. */
void commit_offer(struct store *store);
