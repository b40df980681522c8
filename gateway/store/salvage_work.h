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
    SALVAGE_MIXED,   /* UTC of the last append */
    SALVAGE_RECORDS, /* enum salvage_records, or UTC before which any may be missing */
    SALVAGE_DEAD,    /* letters that came back */
    SALVAGE_KEYS
};
enum salvage_records {
    RECORDS_SOUGHT,
    RECORDS_WHOLE,
    RECORDS_MISSING /* since when is not known */
};

/* A device of the old store, with its names of here. */
struct salvage_device {
    uint32_t device; /* 0: not known */
    uint16_t *points;
    size_t count;
};

/* A dead letter of a scan that was appended for the commit at hand; its record lies behind it. */
struct grave {
    uint64_t seq;
    uint32_t device, len;
    uint16_t stream, refused;
    unsigned uplink; /* STORE_UPLINKS_MAX: none here */
};

struct salvage {
    struct store *store;
    struct salvage_takers takers;

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
    struct buffer letters, graves;  /* frames about the next scan; struct grave */
    bool records_bad;               /* one was not what its checksum says */
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

/* salvage_dead.c: a frame about the next scan; the bits of the uplinks here that these are of; and
 * their graves, once that scan was appended. map: the index that each reading has now, UINT16_MAX
 * where it was left out. */
must_check int salvage_take_letter(struct salvage *s, const uint8_t *at, size_t len);
uint32_t salvage_dead_for(const struct salvage *s);
void salvage_dig(struct salvage *s, const struct scan *scan, const uint16_t *map, size_t map_len,
                 size_t *bytes);

bool salvage_is_marked(const char *dir, const char *name);
int64_t salvage_noted(const struct state *state, enum salvage_key key, const char *from);
/* The folder that a note of that key is about, or NULL. */
const char *salvage_about(const struct state_note *note, enum salvage_key key);
/* salvage_doubt.c: at a start, and when what is known of the records has changed. */
void salvage_weigh(struct store *store);
/* Before a commit: dates what could not be dated. */
void salvage_date(struct store *store);
