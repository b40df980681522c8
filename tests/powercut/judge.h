/* judge.h - opens a store as the daemon would and holds it to the truth.
 *
 * What was stored and not delivered must come, but for what the ledger says was thinned, dropped or
 * expired: those counts must equal what is missing, it must be the oldest, and old enough. What is
 * kept must be in the history; what is dead has one letter, what waits again has none.
 *
 * Changes the store (it drains it and appends), so it is given a copy or the last look. One thread;
 * a crash or a hang is for the parent to see, so run it in a child. */
#pragma once

#include "truth.h"

enum verdict {
    VERDICT_GOOD,
    VERDICT_UNOPENABLE,  /* store_open failed, or set the store aside as damaged */
    VERDICT_LOST,        /* an acknowledged commit or scan is not there */
    VERDICT_INVENTED,    /* something is there that was never appended, or not yet */
    VERDICT_WRONG_VALUE, /* a scan is there with another content */
    VERDICT_TWICE,       /* a scan is there twice, or was delivered and comes again */
    VERDICT_DAMAGED,     /* store_verify found a bad block */
    VERDICT_LEDGER,      /* the counts do not add up */
    VERDICT_NO_WORK,     /* it takes no new scans, or does not drain */
    VERDICT_CRASHED,     /* by a signal; the parent's word */
    VERDICT_HUNG,
    VERDICTS
};
const char *verdict_name(enum verdict verdict);

struct judgement {
    struct truth *truth;
    uint32_t acked, attempted; /* the commits that the store may be at */
    bool look_only;            /* nothing is written: the store goes on with its life */
    struct store_settings settings;
    uint32_t commit;  /* out: the one it is at */
    uint64_t scans;   /* out: that waited and were met, on all uplinks */
    uint64_t dropped; /* out: readings that a full store had dropped, as its ledger says */
    uint64_t expired; /* out: the same of those that were too old for their uplink */
    uint64_t made;    /* out: scans of statistics met */
    uint64_t letters; /* out: dead letters met */
    uint64_t risen;   /* out: scans that had been dead and wait again, or did */
    char reason[160]; /* out: of a bad verdict */
};

must_check enum verdict judge(const char *dir, struct judgement *judgement);
