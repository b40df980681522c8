/* truth.h - what a store must hold, written down beside it by the load that fills it.
 *
 * One writer (the load), in memory shared with its parent, so that it outlives a kill. Every commit
 * is numbered and carries its number as the store's note "commit": a store found later says by it
 * which commit it is at, and must then be exactly that commit, neither less nor more. Scans, with
 * kinds of values that are easy to get wrong, follow from (stream, device, seq) alone. */
#pragma once

#include "gateway/store/reader.h"

enum {
    TRUTH_DEVICES = 3,
    TRUTH_UPLINKS = 2,
    TRUTH_POINTS = 24, /* at most in a scan; such a one is large */
    TRUTH_TEXT = 900,  /* bytes of text in a large one */
    TRUTH_SCAN_BYTES = 4096,
};

/* What the load did with one scan. */
struct truth_scan {
    uint32_t commit; /* it went with; 0: never handed to the store */
    /* The commits that its settlement went with at the earliest and at the latest; 0: it waits.
     * They are the same unless it was settled beside a running commit. */
    uint32_t settled[TRUTH_UPLINKS], certain[TRUTH_UPLINKS];
    uint8_t fate[TRUTH_UPLINKS]; /* enum ledger_fate */
    /* Before that it was a dead letter from one commit on, until it was made to wait again with
     * another; 0: never. */
    uint32_t died[TRUTH_UPLINKS], rose[TRUTH_UPLINKS];
    uint8_t refused; /* the store was full and said so */
    uint8_t made;    /* by the store: statistics of what it thinned */
    uint16_t count;  /* readings */
    uint32_t hash;   /* of a made one: its content */
};

struct truth {
    char id[16]; /* of the store */
    uint64_t seed;
    int64_t base_ms;
    _Atomic uint32_t attempted, acked; /* commits begun; commits that the store promised */
    uint32_t scans_refused;
    uint32_t scans_made; /* by the store */
    bool unseen;         /* what the store made with its last commit is not known yet */
    bool vague;          /* nor ever will be: there was no memory to look at it */
    bool letters;        /* each dead scan has its letter, and no other has one */
    int64_t max_age_ms[TRUTH_UPLINKS]; /* 0: none */
    int64_t held_ms; /* UTC at commit 0 where the clocks are held, a second a commit; 0: not */
    uint64_t seqs;   /* bound on seq */
    uint64_t last[STREAM_COUNT][TRUTH_DEVICES]; /* seq handed over */
    struct truth_scan scans[];                  /* by truth_at() */
};

/* How an uplink has settled a scan, as of that commit; settled 0: not at all. */
struct truth_fate {
    uint32_t settled, certain;
    enum ledger_fate fate;
};
static inline struct truth_fate truth_fate_at(const struct truth_scan *scan, unsigned uplink,
                                              uint32_t commit)
{
    bool before = scan->rose[uplink] != 0 && commit < scan->rose[uplink];
    struct truth_fate fate = {scan->settled[uplink], scan->certain[uplink],
                              (enum ledger_fate)scan->fate[uplink]};
    return before ? (struct truth_fate){scan->died[uplink], scan->died[uplink], FATE_DEAD} : fate;
}

/* Shared anonymous memory for seqs below `seqs`; NULL: no memory. */
struct truth *truth_create(uint64_t seed, uint64_t seqs);
/* As it was made, for another store. */
void truth_reset(struct truth *truth);
void truth_destroy(struct truth *truth);

/* device counts from 0; seq < truth->seqs. */
struct truth_scan *truth_at(struct truth *truth, unsigned stream, unsigned device, uint64_t seq);

extern const char *const truth_device_names[TRUTH_DEVICES];
extern const char *const truth_uplink_names[TRUTH_UPLINKS];
extern const unsigned truth_uplink_streams[TRUTH_UPLINKS];
extern const char truth_note[];

/* Builds the scan of that identity into `into`, TRUTH_SCAN_BYTES long. */
void truth_build(const struct truth *truth, unsigned stream, unsigned device, uint64_t seq,
                 unsigned count, struct scan *into);
/* Whether it is, to the bit, what truth_build() makes of that identity. */
bool truth_equal(const struct truth *truth, unsigned count, const struct scan *scan);
/* Over everything in it but the order of its readings. */
uint32_t truth_hash(const struct scan *scan);
/* Holds this process's clocks where they were at that commit, if they were held. */
void truth_hold_clocks(const struct truth *truth, uint32_t commit);

/* The store turned out to be at that commit: what came after it never happened. */
void truth_rebase(struct truth *truth, uint32_t commit);
