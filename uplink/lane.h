/* lane.h - when a lane's batch is cut: it is full, or its first reading waited long enough.
 *
 * Pure. Times are CLOCK_MONOTONIC milliseconds. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

struct lane {
    int64_t since_ms; /* something waits since then; -1: nothing known to wait */
    int64_t last_ms;  /* the last arrival; -1: none yet */
    bool recheck;     /* emptied while a full batch was out: its devices may hold more */
    bool blocked;     /* what waits belongs to devices in flight: ask again after an answer */
};

enum lane_due { LANE_NOT_DUE, LANE_DUE_FULL, LANE_DUE_TIME };

void lane_init(struct lane *l);
/* A commit brought something. */
void lane_arrived(struct lane *l, int64_t now_ms);
enum lane_due lane_due(const struct lane *l, int64_t now_ms, uint64_t waiting, uint64_t full,
                       int64_t interval_ms);
/* When it becomes due by time; -1: never. */
int64_t lane_deadline(const struct lane *l, int64_t interval_ms);
/* A take found nothing: full_out says whether a full batch of this lane is still out. */
void lane_emptied(struct lane *l, enum lane_due due, bool full_out);
/* A batch of it was answered for; waiting: scans left in the lane. */
void lane_answered(struct lane *l, int64_t now_ms, bool full, uint64_t waiting,
                   int64_t interval_ms);
