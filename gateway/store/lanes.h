/* lanes.h - what a reader has read ahead and what it has handed out; inside of reader.c's struct.
 *
 * The uplink's thread, except flights, which the writer looks at under the store's lock. */
#pragma once

#include "gateway/store/internal.h"
#include "gateway/store/stage.h"

struct reader_device {
    struct chain chains[STORE_LANES][STREAM_COUNT];
    struct flight *flights[STORE_LANES][STREAM_COUNT]; /* by the lane they were taken from */
    uint64_t looked[STORE_LANES][STREAM_COUNT];        /* up to this seq: staged, or done with */
    /* How far in time its large blocks were loaded in this pass; LARGE_PASS_DONE. */
    int64_t large_ms[STORE_LANES][STREAM_COUNT];
    uint64_t boundary[STREAM_COUNT]; /* the last seq of the backfill lane, when split */
    bool held;                       /* passed over: nothing of it is staged */
};
#define LARGE_PASS_DONE INT64_MAX

/* A loaded block with scans that are staged or in flight. */
struct loaded {
    uint64_t number;
    uint32_t open;
};

/* A lane looks through the large blocks first (a pass) and goes on with the log. Where blocks of
 * the log have gone before they were read, they have passed into large blocks: another pass. */
struct lane {
    uint64_t next, end; /* blocks of the log next <= n < end are still to be read */
    bool pass;
    struct loaded *loaded;
    size_t from, count, capacity; /* loaded[from .. count) */
    size_t stages;
    size_t staged[STREAM_COUNT];  /* scans */
    uint32_t rotor[STREAM_COUNT]; /* the device to begin with */
    bool rewind;
};

struct store_reader {
    struct store *store;
    unsigned uplink;
    bool split;
    int eventfd;
    struct lane lanes[STORE_LANES];
    struct reader_device *devices;
    size_t device_count, stage_bytes;
    struct wal_decoder *decoder;
    struct wal_encoder *encoder; /* dead letters; made at the first one */
    struct buffer block;
    /* Waiting when the lanes were split, less what was settled since. Under the store's lock. */
    uint64_t backfill_readings;
    double readings_a_scan; /* of the blocks read lately, 0: none yet */
    uint64_t damaged;
    size_t held_count;
    uint64_t held_from; /* the block of the log where a held device may begin, UINT64_MAX: none */
    /* Set by the writer: scans wait again, in the log from there on (UINT64_MAX: not there). */
    _Atomic uint64_t requeued_from, requeued_readings;
    _Atomic bool split_due;        /* likewise: old scans came back among the live ones */
    _Atomic bool requeued, barred; /* barred: nothing is taken until that is committed */
};

/* Room for the devices that the store knows by now. Under the lock. */
must_check int lanes_grow(struct store_reader *reader);
/* The lane that a seq belongs to. */
enum store_lane lanes_of(const struct store_reader *reader, unsigned stream, uint32_t device,
                         uint64_t seq);
/* Reads ahead where there is room. -EBADMSG: a damaged block was passed over. */
must_check int lanes_load(struct store_reader *reader, enum store_lane lane);
/* What the writer has made to wait again belongs to its lane from now on. */
void lanes_take_requeued(struct store_reader *reader);
/* Forgets what is staged; it will be read again from the oldest block that is not done with. */
void lanes_rewind(struct store_reader *reader, enum store_lane lane);
/* Both lanes begin anew, in the log with that block. */
void lanes_restart(struct store_reader *reader, uint64_t from);
/* The oldest block that may hold something for this uplink. */
uint64_t lanes_floor(const struct store_reader *reader);
/* A scan of that block is done with. */
void lanes_close_one(struct store_reader *reader, uint64_t number);
/* The first staged scan off its chain; its memory stays until lanes_release(). */
struct staged *lanes_pop(struct store_reader *reader, enum store_lane lane, enum stream stream,
                         uint32_t device);
void lanes_release(struct store_reader *reader, enum store_lane lane, struct staged *staged);
/* Whether that lane has to wait for something of the device that is on its way. */
bool lanes_in_flight(const struct store_reader *reader, enum store_lane lane, uint32_t device);
/* A scan behind the others of its device; staged->number and so on are set. */
void lanes_link(struct store_reader *reader, enum store_lane lane, struct staged *staged);
bool lanes_flies(const struct store_reader *reader, unsigned stream, uint32_t device, uint64_t seq);
/* A block was read: how many readings a scan has is estimated by it. */
void lanes_average(struct store_reader *reader, uint64_t readings, uint64_t scans);
void lanes_free_stage(struct stage *stage);
/* lanes_large.c: begins a pass; loads the block whose turn it is, ends the pass after the last. */
void lanes_begin_pass(struct store_reader *reader, enum store_lane lane);
must_check int lanes_load_large(struct store_reader *reader, enum store_lane lane);
void lanes_finish(struct store_reader *reader);
