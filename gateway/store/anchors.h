/* anchors.h - which UTC the times of each boot belong to.
 *
 * Pure, one owner. An anchor holds for a run of blocks whose readings were stamped alike: UTC =
 * boot time + offset, where the offset is the UTC at which that boot began, as it was known then. A
 * synchronised clock makes a sure anchor. Under any other the readings wait: until a sure one of
 * the same boot says by how much they were off (found), or one of a later boot bounds them
 * (guessed), or they waited long enough (released). Each block's fate is decided once and durable
 * before a reader sees it, so that it has one time for ever. Blocks before the first anchor keep
 * the times they have. */
#pragma once

#include "gateway/base/clock.h"
#include "gateway/base/scan.h"

enum anchor_state {
    ANCHOR_SURE,    /* the clock was synchronised, or is trusted */
    ANCHOR_WAITING, /* nobody vouched for it yet */
    ANCHOR_FOUND,   /* its boot was synchronised later: shift_ms is exact */
    ANCHOR_GUESSED, /* its boot never was: shift_ms keeps it between its neighbours */
    ANCHOR_STATES
};

struct anchor {
    uint64_t number;      /* in its key */
    uint64_t first_block; /* it holds from here to the next anchor's first block */
    uint64_t released;    /* blocks before it went out uncertain, as they were stamped */
    int64_t offset_ms, shift_ms;
    int64_t from_ms, until_ms; /* CLOCK_BOOTTIME; until: known once another anchor follows */
    int64_t learned_ms;        /* UTC when its state was decided */
    uint8_t boot[CLOCK_BOOT_ID_SIZE];
    uint8_t state;
    bool changed; /* since it was written */
};

/* More are forgotten, oldest first; one comes with each start of the machine and each step. */
enum { ANCHORS_MAX = 1024 };
/* Two offsets within it are the same; what reading two clocks may take. */
enum { ANCHORS_SAME_MS = 10 };
/* A scan this far from its gateway's clock was stamped by its sender, and is left alone. */
enum { ANCHORS_OWN_MS = 200 };
/* Aggregates moved by this or more did not lie on the windows that they name. */
enum { ANCHORS_STEP_MS = 2000 };

struct anchors {
    struct anchor *list;
    size_t count, capacity;
    uint64_t next;      /* number of the next one */
    uint64_t forgotten; /* since the last commit: its number + 1 */
    bool changed;       /* since the last commit */
};

/* What the clocks say. */
struct anchors_look {
    bool vouched;
    int64_t offset_ms, boot_ms;
    uint8_t boot[CLOCK_BOOT_ID_SIZE];
};

void anchors_finish(struct anchors *anchors);
must_check int anchors_copy(struct anchors *to, const struct anchors *from);

/* The anchor that this look calls for; false: the last one holds on. */
bool anchors_plan(const struct anchors *anchors, const struct anchors_look *look,
                  struct anchor *ret_fresh);
/* Appends it; a sure one decides all that wait. first_block is set by the caller. */
must_check int anchors_add(struct anchors *anchors, const struct anchor *fresh);

/* The next one of those that were stored. */
must_check int anchors_add_stored(struct anchors *anchors, const struct anchor *anchor);

/* The first block that is not decided, UINT64_MAX when all are. */
uint64_t anchors_decided(const struct anchors *anchors);
/* The anchor that holds for that block, or NULL. */
struct anchor *anchors_of(const struct anchors *anchors, uint64_t block);

/* What a block's scans are handed out as. */
struct anchor_fate {
    int64_t offset_ms, shift_ms;
    bool uncertain;
};
struct anchor_fate anchors_fate(const struct anchors *anchors, uint64_t block);
/* By how much a scan's time moves, and what becomes of the scan itself. */
int64_t anchors_shift(const struct anchor_fate *fate, int64_t time_ms, int64_t boot_ms);
void anchors_restamp(const struct anchor_fate *fate, struct scan *scan);

/* Whether the times of all blocks rise with their numbers (but for an hour). */
bool anchors_in_order(const struct anchors *anchors);

enum { ANCHOR_VERSION = 1, ANCHOR_SIZE = 88 };
void anchor_encode(const struct anchor *anchor, uint8_t to[ANCHOR_SIZE]);
/* -EBADMSG. The number is the key's. */
must_check int anchor_decode(const void *record, size_t len, struct anchor *ret_anchor);
