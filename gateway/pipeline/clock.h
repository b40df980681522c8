/* clock.h - the gateway's own clock: boot time plus an offset.
 *
 * The pipeline thread alone moves the offset, to what the store makes of the system's clock
 * (store_clock.h); drivers' threads stamp with it. So a step of the system's clock never reaches a
 * reading by itself: first the windows are cut, then the clock is moved, and what still lies in
 * the queue is stamped anew. */
#pragma once

#include "gateway/base/clock.h"
#include "gateway/base/scan.h"

struct pipeline;

enum {
    PIPELINE_CLOCK_STEP_MS = 2000,         /* a jump that cuts windows and is reported */
    PIPELINE_OWN_TIME_MS = 60 * 60 * 1000, /* further from the clock a given time is its sender's */
    PIPELINE_OFFSETS = 4,                  /* former ones, which queued scans may still have */
};

struct pipeline_clock {
    _Atomic int64_t offset_ms; /* UTC - boot time */
    int64_t system_offset_ms;  /* the system's, as last seen */
    int64_t former_ms[PIPELINE_OFFSETS];
    int64_t anchored_ms;    /* UTC since which readings are stamped like this */
    int64_t notes_moved_ms; /* so much were times off in notes from before this start */
    bool started, boot_known;
    uint8_t boot[CLOCK_BOOT_ID_SIZE];
};

void pipeline_clock_init(struct pipeline *p);
int64_t pipeline_now_ms(const struct pipeline *p);
/* Notices a step of the system's clock; cheap, at each turn. */
void pipeline_watch_clock(struct pipeline *p);
/* Asks who vouches for the clock and tells the store, at each commit. */
void pipeline_mind_clock(struct pipeline *p);
/* Stamps a scan as it is handed over; any thread. */
void pipeline_stamp(const struct pipeline *p, struct scan *scan);
/* A scan that was stamped before the clock was moved, when it comes out of the queue. */
void pipeline_restamp(const struct pipeline *p, struct scan *scan);
