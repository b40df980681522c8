/* salvage_work.h - the writer's half of salvage; salvage.c and salvage_take.c share it.
 *
 * salvage.c minds the child and keeps how far it has come, salvage_take.c works off what the child
 * sends. The writer's alone. */
#pragma once

#include "gateway/store/child.h"
#include "gateway/store/internal.h"
#include "gateway/store/salvage_frames.h"

/* Kept as notes "salvage.KEY FOLDER". */
enum salvage_key {
    SALVAGE_PART, /* struct salvage_place */
    SALVAGE_NUMBER,
    SALVAGE_LEAF,
    SALVAGE_ROW,
    SALVAGE_STATE,
    SALVAGE_READINGS,
    SALVAGE_BLOCKS,
    SALVAGE_BAD,
    SALVAGE_LOST,
    SALVAGE_TRIES,
    SALVAGE_MIXED, /* UTC of the last append */
    SALVAGE_KEYS
};

/* A device of the old store, with its names of here. */
struct salvage_device {
    uint32_t device; /* 0: not known */
    uint16_t *points;
    size_t count;
};

struct salvage {
    struct store *store;
    uint64_t (*next_seq)(void *user, uint32_t device, unsigned stream);
    void *user;

    char from[SALVAGE_NAME_MAX]; /* "": none at hand */
    char file[4096];
    struct salvage_order order;
    int64_t now[SALVAGE_KEYS], durable[SALVAGE_KEYS], noted[SALVAGE_KEYS];
    bool refused;      /* what was appended was not stored: once more from `durable` */
    bool ended;        /* the child has said so */
    int64_t wait_ms;   /* monotonic: no child before */
    int64_t split_ms;  /* monotonic: when readers were told last */
    size_t step_bytes; /* SALVAGE_STEP_BYTES; less in tests */

    struct child child;
    struct buffer input; /* frames; those before `at` were worked off */
    size_t at;
    struct buffer scan, lost;       /* lost: struct frame_lost with ids of here */
    struct salvage_place working;   /* the block that the child looks at */
    struct salvage_device *devices; /* by id there */
    size_t device_count;
    bool state_known;
    char *uplinks[STORE_UPLINKS_MAX]; /* of the old store */
};

/* Works off the first frame. 0: done with it; -EAGAIN: not all of it is there yet; -ENOSPC,
 * -ENOMEM: not now; -EBADMSG: the child talks nonsense; -EIO. *bytes grows by what was appended. */
must_check int salvage_take(struct salvage *s, size_t *bytes);
/* Forgets what a child has told. */
void salvage_forget(struct salvage *s);
