/* stage.h - scans that a reader has read ahead, and those that it has handed out. */
#pragma once

#include "gateway/base/scan.h"

#include <stddef.h>
#include <stdint.h>

/* Scan memory in all lanes together, and what the live one may have beyond it. A block is loaded
 * where it fits, or its lane has nothing. */
enum { READER_STAGE_MAX = 3 * 1024 * 1024, READER_STAGE_LIVE = 768 * 1024 };

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
    uint64_t prev_seq, number; /* of the block in the log, 0: from a large block */
    int64_t written_ms;
};

struct flight_item {
    uint64_t seq, prev_seq, number;
    uint32_t readings, aside;
    int overtaken; /* the fate the writer gave it meanwhile (`aside` not selected), -1: none */
};

struct flight { /* of one device and stream, taken from one lane */
    size_t count;
    struct flight_item items[];
};

struct chain {
    struct staged *first, *last;
};
