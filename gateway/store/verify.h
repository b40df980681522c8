/* verify.h - every block of the store against its checksum, in the background after a start.
 *
 * What is looked at before the store is opened (check.h) are its trees and the ends of the log. The
 * rest is read once after each start by a child (child.h), slowly; what it found is kept as notes.
 * A damaged block costs nothing but itself: its readings are counted when a reader comes to it. */
#pragma once

#include <stdint.h>

struct store;

enum {
    VERIFY_DELAY_MS = 10 * 1000,      /* after the first step */
    VERIFY_BYTES_S = 4 * 1024 * 1024, /* read a second, at most */
    VERIFY_BEAT_BLOCKS = 64,          /* between two reports of the child */
};

struct store_verified {
    int64_t time_ms; /* UTC when it was done the last time, 0: never */
    uint64_t blocks, bad;
};
/* As of the last commit; any thread. */
void store_verified(struct store *store, struct store_verified *ret_verified);

/* Minds it, with each commit: begins it, takes its reports, says what was found. [writer] */
void store_verify_step(struct store *store);

/* Inside the store: when it is closed. */
void verify_stop(struct store *store);
