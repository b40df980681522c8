/* lanes.h - what a reader has read ahead and what it has handed out; inside of reader.c's struct.
 *
 * The uplink's thread, except flights, which the writer looks at under the store's lock. */
#pragma once

#include "gateway/store/internal.h"

/* Scan memory that a reader holds in all its lanes together. A block is loaded only where it fits,
 * or where its lane has nothing at all. */
enum { READER_STAGE_MAX = 2 * 1024 * 1024 };

/* A decoded block of which scans are still to be handed out. */
struct stage {
    size_t left; /* staged scans */
    size_t bytes;
    struct staged *scans;
    uint8_t *arena;
};

struct staged {
    struct staged *next; /* of this lane, stream and device */
    struct stage *stage;
    const struct scan *scan;
    uint64_t prev_seq, number;
    int64_t written_ms;
};

struct flight_item {
    uint64_t seq, prev_seq, number;
    uint32_t readings;
    int overtaken; /* the fate that the writer gave it meanwhile, -1: none */
};

/* What is in flight of one device and stream. */
struct flight {
    size_t count;
    struct flight_item items[];
};

struct chain {
    struct staged *first, *last;
};

struct reader_device {
    struct chain chains[STORE_LANES][STREAM_COUNT];
    struct flight *flights[STREAM_COUNT];
};

/* A loaded block with scans that are staged or in flight. */
struct loaded {
    uint64_t number;
    uint32_t open;
};

struct lane {
    uint64_t next, end; /* blocks next <= n < end are still to be read */
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
    size_t device_count;
    size_t stage_bytes;
    struct wal_decoder *decoder;
    struct wal_encoder *encoder; /* dead letters; made at the first one */
    struct buffer block;
    uint64_t backfill_readings; /* waiting when the lanes were split, less what was settled */
    double readings_a_scan;
    uint64_t damaged;
};

/* Reads ahead where there is room. -EBADMSG: a damaged block was passed over. */
must_check int lanes_load(struct store_reader *reader, enum store_lane lane);
/* Forgets what is staged; it will be read again from the oldest block that is not done with. */
void lanes_rewind(struct store_reader *reader, enum store_lane lane);
/* The oldest block that may hold something for this uplink. */
uint64_t lanes_floor(const struct store_reader *reader);
/* One scan of that block is done with. */
void lanes_close_one(struct store_reader *reader, uint64_t number);
/* Takes the first staged scan off its chain; its memory stays until lanes_release(). */
struct staged *lanes_pop(struct store_reader *reader, enum store_lane lane, enum stream stream,
                         uint32_t device);
void lanes_release(struct store_reader *reader, enum store_lane lane, struct staged *staged);
bool lanes_in_flight(const struct store_reader *reader, uint32_t device);
void lanes_finish(struct store_reader *reader);
