/* salvage_frames.h - what the child that salvages tells the daemon, through a pipe.
 *
 * Both are the same program, so a frame is a plain struct: struct frame, then `len` bytes of the
 * one that its kind names, and what follows that. The daemon holds the child to the bounds here. */
#pragma once

#include "gateway/base/scan.h"
#include "gateway/store/ledger.h"
#include "gateway/store/state.h"

enum frame_kind {
    FRAME_BEAT,    /* still at work */
    FRAME_BEGIN,   /* struct frame_begin; again, when more of the file is looked at */
    FRAME_UPLINK,  /* uint32_t slot, then its name: an uplink that the old store knew */
    FRAME_NOTE,    /* int64_t value, then its name: how far an older salvage has come */
    FRAME_RECORD,  /* uint64_t number, then the small record's bytes (record.h) */
    FRAME_RECORDS, /* struct frame_records: those were all */
    FRAME_DEVICE,  /* uint32_t id, then the dictionary's record: before its first scan */
    FRAME_BLOCK,   /* struct salvage_place: is looked at now */
    FRAME_LETTER,  /* struct frame_letter and what follows it: about the next scan */
    FRAME_SCAN,    /* struct frame_scan, then the scan with the old store's ids */
    FRAME_LOST,    /* struct frame_lost */
    FRAME_END,     /* struct frame_end: that was all */
    FRAME_KINDS
};

enum { FRAME_BYTES_MAX = 4 * 1024 * 1024 };

struct frame {
    uint32_t kind, len;
};

/* Where in the order of things a scan lies: the block (as in struct wreck_entry) and the scans of
 * it that were looked at. Kept with what was appended, so that no start salvages a scan twice. */
struct salvage_place {
    uint64_t part, number, leaf, row;
};

/* Scans that only their dead letters hold come behind all blocks. */
#define SALVAGE_LETTERS (UINT64_C(1) << 56)

struct frame_begin {
    uint32_t state_known; /* otherwise nobody knows what was delivered */
    uint32_t reserved;
    uint64_t blocks; /* listed */
};

struct frame_scan {
    struct salvage_place place; /* behind this scan */
    uint32_t settled;           /* uplinks, by slot, that have nothing to do with it any more */
    uint32_t reserved;
};

/* Then the uplink's name, why it refused, and which readings as uint16_t each (none: all). */
struct frame_letter {
    int64_t refused_ms;
    uint32_t uplink_len, why_len, refused_count, reserved;
};

struct frame_records {
    uint32_t complete; /* there were no others when the store was set aside */
};

/* Readings of a device that waited in the old store, or whose seqs are missing. */
struct frame_lost {
    uint32_t device, reserved;
    uint64_t readings;
};

struct frame_end {
    uint64_t blocks, bad, nameless; /* nameless: readings whose device the dictionary lost */
    uint64_t letters_bad;           /* dead letters that do not read */
};

/* What the child is asked to do, and may map. */
enum { SALVAGE_CRASHES_MAX = 16, SALVAGE_MEMORY_MAX = 256 * 1024 * 1024 };
struct salvage_order {
    const char *file;
    struct salvage_place from;             /* what lies before it was salvaged */
    uint64_t crashes[SALVAGE_CRASHES_MAX]; /* leaves of blocks not to be touched again */
    unsigned crash_count;
    int64_t kept_since_ms; /* what nobody was to have goes along from then on */
    bool records_done;     /* small records are not sent */
    bool look_only;        /* no scans are sent */
};

/* Runs in the child; the result is its exit status. */
int salvage_child(int out, void *order);
