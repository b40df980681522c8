/* clock_state.h - what the parts of the store share of its clock; nobody outside includes it.
 *
 * store_clock.c owns it: the writer's thread, and under the store's lock where it says so. */
#pragma once

#include "gateway/store/env.h"
#include "gateway/store/store_clock.h"
#include "gateway/store/wal.h"

#include <stdatomic.h>

struct clock_state {
    _Atomic bool known;
    _Atomic int64_t offset_ms, age_offset_ms;
    int64_t released_ms; /* the writer's: boot time of the last look at what waits */
    bool vouched, sure;  /* from here on under the lock */
    uint64_t held;
    int64_t wait_ms, since_ms;
};

/* When a store is opened: the anchors; and what waits for a time, counted. */
must_check int store_clock_load(struct store *store, MDB_txn *txn);
must_check int store_clock_start(struct store *store);

/* In a commit: before it, in its transaction (again when that is), after it under the lock. */
bool store_clock_changed(const struct store *store);
void store_clock_note(struct store *store);
must_check int store_clock_save(struct store *store, MDB_txn *txn);
void store_clock_publish(struct store *store);

/* Gives a block's header the times that its readings have now. */
void store_clock_header(const struct anchors *anchors, uint64_t block, struct wal_header *header);
