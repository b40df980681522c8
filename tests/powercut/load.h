/* load.h - what is done to a store under proof: opening, appends, commits, settlements on two
 * uplinks, dead letters that are sent once more, readings handed over, looks. life.h puts these
 * into an order.
 *
 * Single-threaded, through the store's public headers only; what it does it writes down in a
 * truth. It takes every error as the daemon does: a scan or settlement that was refused did not
 * happen, after -EIO nothing is acknowledged any more. */
#pragma once

#include "truth.h"

enum promise {
    PROMISE_BEGUN, /* the commit is about to be made */
    PROMISE_KEPT,  /* it is acknowledged: said before anybody outside can know */
};

enum { LOAD_SMALL = 6 }; /* readings in a small scan; a large one has TRUTH_POINTS */

struct load {
    const char *dir;
    struct truth *truth;
    struct store_settings settings;
    bool faulty;         /* calls fail around it: what is refused is no surprise */
    bool beside;         /* settles in another thread than the one that commits */
    bool early;          /* a planted bug: acknowledges before the commit */
    unsigned dead_every; /* a device's turn in so many is refused; 0: seldom */
    void (*promise)(enum promise promise, uint32_t commit); /* may be NULL */

    struct store *store;
    struct store_reader *readers[TRUTH_UPLINKS];
    unsigned uplinks[TRUTH_UPLINKS];
    uint64_t rng;
    struct buffer arena;
    uint64_t failed; /* calls that returned an error */
    _Alignas(8) uint8_t scan[TRUTH_SCAN_BYTES];
};

/* Settings of a store so small that a short load fills it. */
struct store_settings load_settings(int when_full);

/* A number below `bound`, from the load's own generator. */
unsigned load_chance(struct load *load, unsigned bound);

/* Opens the store and makes uplinks, devices, points and readers known; the truth is set back to
 * what the store holds. -EPROTO: the store is not one that the truth allows. */
must_check int load_open(struct load *load);
void load_close(struct load *load);

/* One more scan of that stream and device (from 0) with `count` readings. */
must_check int load_append(struct load *load, unsigned stream, unsigned device, unsigned count);
/* Numbers the commit and makes it. -EPROTO: the store acknowledged after it had failed. */
must_check int load_commit(struct load *load);
/* Takes something of a random lane and stream and settles it, all or in part. */
must_check int load_deliver(struct load *load, unsigned uplink);
/* Everything that waits is delivered. */
must_check int load_drain(struct load *load);

/* All dead letters of the uplink wait again, but those that did so before. */
must_check int load_requeue(struct load *load, unsigned uplink);
/* Some of a device's scans that wait leave by hand. */
must_check int load_hand_over(struct load *load, unsigned uplink);

/* Figures, ledger, history and checksums, as the API asks for them. -EPROTO: a damaged block. */
must_check int load_look(struct load *load);
