/* pace.h - when a sender may ask, and how long it keeps quiet after a failure.
 *
 * Pure, no locks: the sender's thread hands in the monotonic time and the dice. Three failures in a
 * row without a success between them open the circuit: then one request at a time probes the
 * endpoint, and everything else waits. Times are CLOCK_MONOTONIC milliseconds. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    PACE_BASE_MS = 250,        /* full jitter: uniform in 0..min(cap, base * 2^n) */
    PACE_CAP_MS = 60000,       /* longest pause after replies that say "not now" */
    PACE_FLOOR_MS = 50,        /* shortest pause, so that no die makes a busy loop */
    PACE_SILENT_CAP_MS = 1000, /* longest pause of a short outage without any reply ... */
    PACE_SILENT_PART = 16,     /* ... of a long one: this part of the outage so far */
    PACE_HOLD_MS = 30000,      /* between probes while credentials or address are wrong */
    PACE_CIRCUIT_FAILURES = 3,
};

struct pace {
    unsigned failures;        /* in a row */
    int64_t failing_since_ms; /* of the first of them */
    int64_t quiet_until_ms;   /* nothing is asked before */
    bool held;
};

/* What went wrong: an endpoint that answered, none at all, or one that wants other settings. */
enum pace_failure { PACE_ANSWERED, PACE_SILENT, PACE_HOLD };

/* Whether another request may start beside those on their way. */
bool pace_may_send(const struct pace *p, int64_t now_ms, size_t on_their_way);

/* When the next one may start: 0 now, otherwise a time to wait for. */
int64_t pace_wait_until(const struct pace *p, int64_t now_ms);

bool pace_circuit_open(const struct pace *p);

/* True when the circuit was open: an outage has ended. */
bool pace_success(struct pace *p);

/* retry_after_ms as the endpoint wished, -1: not; random is any 64 random bits. Returns the pause
 * for the request that failed; when the endpoint named one, or the circuit is open, it holds for
 * all of them (quiet_until_ms). */
int64_t pace_failed(struct pace *p, int64_t now_ms, enum pace_failure kind, int64_t retry_after_ms,
                    uint64_t random);

/* A token bucket in bytes a minute: what was spent may overdraw it once, then one waits. */
struct bucket {
    int64_t per_minute; /* 0: no limit */
    int64_t tokens;     /* bytes, at most one second's worth saved */
    int64_t filled_ms;
    int64_t rest; /* of a byte, in 1/60000 */
};
void bucket_init(struct bucket *b, int64_t per_minute, int64_t now_ms);
/* 0: may spend now; otherwise milliseconds to wait. */
int64_t bucket_wait_ms(struct bucket *b, int64_t now_ms);
void bucket_spend(struct bucket *b, int64_t bytes);
