/* breaker.h - how often a device that does not answer is asked again.
 *
 * Pure; one owner, no locking; times are CLOCK_MONOTONIC milliseconds. A breaker opens after some
 * failed rounds in a row; then one probe is let through after each pause, and pauses grow up to
 * BREAKER_PAUSE_MAX_MS. What a failure cost the connection in waiting is paid for by a pause
 * BREAKER_SHARE times as long, both by the device and by all failing devices of that connection
 * together (the line): so its working devices lose less than 5 % of their cycle. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

enum {
    BREAKER_SHARE = 20,
    BREAKER_FAILURES = 3,        /* rounds until it opens, alone on its connection */
    BREAKER_FAILURES_SHARED = 2, /* with neighbours on it */
    BREAKER_PAUSE_MIN_MS = 1000,
    BREAKER_PAUSE_MAX_MS = 30000 /* more only where BREAKER_SHARE asks for it */
};

/* Zero-initialised is closed. */
struct breaker {
    unsigned failures; /* in a row */
    int64_t cost_ms;   /* of the failures not yet paid for by a pause */
    int64_t pause_ms;
    int64_t open_until_ms;
};

/* One a connection; zero-initialised is free. */
struct breaker_line {
    int64_t free_at_ms;
};

static inline bool breaker_is_open(const struct breaker *breaker)
{
    return breaker->open_until_ms != 0;
}

/* Whether the device may be asked now. */
bool breaker_allows(const struct breaker *breaker, const struct breaker_line *line, int64_t now_ms);

/* The device answered. */
void breaker_good(struct breaker *breaker);

/* The device did not; waiting for it held the connection for cost_ms. Returns whether it is open
 * now. */
bool breaker_bad(struct breaker *breaker, struct breaker_line *line, int64_t now_ms,
                 int64_t cost_ms, bool shared);
