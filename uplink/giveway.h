/* giveway.h - how the backfill lane gives way to the live one on the same line.
 *
 * A line is shared by all requests, so what backfill has on its way is what a live request waits
 * behind. Backfill therefore keeps to requests that take little longer than an unloaded one does,
 * and starts none shortly before a live batch is due. Pure; times are CLOCK_MONOTONIC milliseconds.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    GIVEWAY_RECORDS_LEAST = 8,
    GIVEWAY_SHARE = 16,        /* of batch_interval that backfill may hold the line for, at least */
    GIVEWAY_LEAST_MS = 50,     /* ... this, */
    GIVEWAY_MOST_MS = 2000,    /* at most this */
    GIVEWAY_WINDOW_MS = 30000, /* for which the quickest answer is remembered, once or twice */
    GIVEWAY_LIVE_MS = 10000,   /* without new readings, and two intervals: nobody to give way to */
};

struct giveway {
    int64_t interval_ms;    /* batch_interval */
    int64_t live_seen_ms;   /* something arrived in the live lane; INT64_MIN: never */
    int64_t quickest_ms[2]; /* of this window and the one before; -1: none */
    int64_t window_ms;      /* when this one began */
    int64_t sent_ms;        /* the last live request was; INT64_MIN: none yet */
    int64_t taken_ms;       /* what backfill's requests take lately; -1: not known */
    size_t records, most;   /* in a backfill request at present; never more than */
};

void giveway_init(struct giveway *g, int64_t interval_ms, size_t most);
/* Something new is there for the live lane. */
void giveway_arrived(struct giveway *g, int64_t now_ms);
/* A live request goes out. */
void giveway_sent(struct giveway *g, int64_t now_ms);
/* A request was answered as delivered after took_ms. */
void giveway_answered(struct giveway *g, bool backfill, size_t records, int64_t took_ms,
                      int64_t now_ms);

/* Whether there is a live lane in use. */
bool giveway_live(const struct giveway *g, int64_t now_ms);
/* Scans that a backfill request may have. */
size_t giveway_records(const struct giveway *g, int64_t now_ms);
/* Whether backfill waits because a live batch is due at due_ms (-1: none), or has just been sent.
 * only_one: requests go one after the other. */
bool giveway_waits(const struct giveway *g, int64_t now_ms, int64_t due_ms, bool only_one);
/* When it has waited for the live request that was sent, 0: it does not. */
int64_t giveway_until(const struct giveway *g, int64_t now_ms);
