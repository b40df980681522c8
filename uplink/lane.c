#include "uplink/lane.h"

void lane_init(struct lane *l)
{
    *l = (struct lane){.since_ms = -1, .last_ms = -1};
}

void lane_arrived(struct lane *l, int64_t now_ms)
{
    l->blocked = false;
    l->last_ms = now_ms;
    if (l->since_ms < 0) {
        l->since_ms = now_ms;
    }
}

enum lane_due lane_due(const struct lane *l, int64_t now_ms, uint64_t waiting, uint64_t full,
                       int64_t interval_ms)
{
    if (l->blocked) {
        return LANE_NOT_DUE;
    }
    if (l->since_ms >= 0 && now_ms - l->since_ms >= interval_ms) {
        return LANE_DUE_TIME;
    }
    return waiting >= full ? LANE_DUE_FULL : LANE_NOT_DUE;
}

int64_t lane_deadline(const struct lane *l, int64_t interval_ms)
{
    return l->since_ms < 0 || l->blocked ? -1 : l->since_ms + interval_ms;
}

void lane_emptied(struct lane *l, enum lane_due due, bool full_out)
{
    l->blocked = true;
    if (due == LANE_DUE_TIME) {
        l->since_ms = -1;
        l->recheck = full_out;
    }
}

void lane_answered(struct lane *l, int64_t now_ms, bool full, uint64_t waiting, int64_t interval_ms)
{
    l->blocked = false;
    if (waiting == 0) {
        return;
    }
    if (full && l->recheck) {
        l->recheck = false;
        l->since_ms = now_ms - interval_ms;
    } else if (l->since_ms < 0) {
        /* What was left by the last batch had come by then, and waits no longer for it. */
        l->since_ms = l->last_ms >= 0 ? l->last_ms : now_ms;
    }
}
