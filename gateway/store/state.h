/* state.h - the packed state record: everything about the store that is not a scan or a name.
 *
 * Plain data and a pure codec, no locking. Written whole with every commit: seqs, what each uplink
 * has settled, the ledger, notes and the bounds of the write-ahead log. By column over the devices
 * as differences from the device before, then zstd-1 where that is smaller, with CRC32C. */
#pragma once

#include "gateway/store/ranges.h"
#include "gateway/store/store.h"

enum {
    STATE_VERSION = 2, /* 1: without the counts of salvage */
    STATE_DEVICES_MAX = 65535,
    STATE_NOTES_MAX = 4096,
    STATE_NAME_MAX = 255, /* of an uplink, a note */
    STATE_RAW_MAX = 64 * 1024 * 1024,
    STATE_ID_SIZE = 13, /* 12 hex digits and a NUL */
};

struct state_device {
    uint64_t seq[STREAM_COUNT]; /* the last appended */
    uint64_t counts[LEDGER_COUNTS];
    /* Not in the record, found at a start. Under the store's lock: the last one committed, and the
     * last one that has passed from the log into large blocks. */
    uint64_t committed[STREAM_COUNT], flushed[STREAM_COUNT];
    uint64_t looked; /* the block of the log up to which this device was flushed */
};

struct track {
    struct ranges settled;
    uint64_t waiting; /* readings */
    uint64_t coming;  /* of those, what is in no commit yet: no reader can have it */
};

struct track_device {
    struct track streams[STREAM_COUNT];
    uint64_t fates[FATE_COUNTS];
};

struct state_uplink {
    char *name; /* NULL: the slot is free */
    unsigned streams;
    int64_t max_age_ms;
    uint64_t floor;  /* blocks before it hold nothing that waits for this uplink */
    uint64_t expiry; /* blocks before it were looked through for scans older than max_age */
    struct track_device *devices;
};

struct state_note {
    char *name;
    int64_t value;
};

struct state {
    char id[STATE_ID_SIZE];
    int64_t made_ms;
    uint64_t tail, next; /* write-ahead blocks are numbered tail <= n < next */
    uint64_t dead_first, dead_next;
    uint64_t commits, readings, bytes; /* appended since the store was made */
    uint64_t blocks;                   /* of the log that are there */
    uint64_t damaged;                  /* blocks that did not pass their checksum */
    struct state_device *devices;      /* of id 1, 2, ... */
    size_t device_count, device_capacity;
    struct state_uplink uplinks[STORE_UPLINKS_MAX];
    struct state_note *notes;
    size_t note_count;
};

void state_finish(struct state *state);

/* Room for devices up to that id, in the uplinks too. -ENOMEM, -ENOBUFS at STATE_DEVICES_MAX. */
must_check int state_add_devices(struct state *state, size_t count);
must_check int state_set_note(struct state *state, const char *name, int64_t value);
const struct state_note *state_note(const struct state *state, const char *name);

/* The uplink's slot becomes free. */
void state_drop_uplink(struct state *state, unsigned uplink);
/* A free slot under that name, everything zero. -ENOBUFS, -ENOMEM. */
must_check int state_add_uplink(struct state *state, const char *name, unsigned *ret_uplink);

/* Replaces what is in ret_record. zstd: a compressor that is used again and again, or NULL. */
struct ZSTD_CCtx_s;
must_check int state_encode(const struct state *state, struct ZSTD_CCtx_s *zstd,
                            struct buffer *ret_record);
/* -EBADMSG, -ENOMEM; ret_state is untouched then. */
must_check int state_decode(const void *record, size_t len, struct state *ret_state);
