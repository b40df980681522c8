#include "uplink/pace.h"

static int64_t smaller(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

static int64_t larger(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

bool pace_circuit_open(const struct pace *p)
{
    return p->held || p->failures >= PACE_CIRCUIT_FAILURES;
}

bool pace_may_send(const struct pace *p, int64_t now_ms, size_t on_their_way)
{
    return now_ms >= p->quiet_until_ms && (!pace_circuit_open(p) || on_their_way == 0);
}

int64_t pace_wait_until(const struct pace *p, int64_t now_ms)
{
    return p->quiet_until_ms > now_ms ? p->quiet_until_ms : 0;
}

bool pace_success(struct pace *p)
{
    bool was_open = pace_circuit_open(p);
    *p = (struct pace){0};
    return was_open;
}

/* The longest pause of this failure. Without any reply a probe costs the endpoint nothing, so a
 * short outage is noticed to be over within a second, and a long one within a sixteenth of it. */
static int64_t cap_ms(const struct pace *p, int64_t now_ms, enum pace_failure kind)
{
    int64_t cap = PACE_CAP_MS;
    if (kind == PACE_SILENT) {
        int64_t part = (now_ms - p->failing_since_ms) / PACE_SILENT_PART;
        cap = smaller(cap, larger(PACE_SILENT_CAP_MS, part));
    }
    unsigned doublings = p->failures < 16 ? p->failures - 1 : 15;
    return smaller(cap, (int64_t)PACE_BASE_MS << doublings);
}

int64_t pace_failed(struct pace *p, int64_t now_ms, enum pace_failure kind, int64_t retry_after_ms,
                    uint64_t random)
{
    if (p->failures++ == 0) {
        p->failing_since_ms = now_ms;
    }
    p->held = kind == PACE_HOLD;
    int64_t pause_ms;
    if (kind == PACE_HOLD) {
        pause_ms = PACE_HOLD_MS / 2 + (int64_t)(random % (PACE_HOLD_MS / 2));
    } else {
        pause_ms = (int64_t)(random % (uint64_t)(cap_ms(p, now_ms, kind) + 1));
    }
    pause_ms = larger(larger(pause_ms, PACE_FLOOR_MS), retry_after_ms);
    if (retry_after_ms >= 0 || pace_circuit_open(p)) {
        p->quiet_until_ms = larger(p->quiet_until_ms, now_ms + pause_ms);
    }
    return pause_ms;
}

void bucket_init(struct bucket *b, int64_t per_minute, int64_t now_ms)
{
    *b = (struct bucket){.per_minute = per_minute, .filled_ms = now_ms};
}

int64_t bucket_wait_ms(struct bucket *b, int64_t now_ms)
{
    if (b->per_minute <= 0) {
        return 0;
    }
    /* A minute at most: what lies longer back cannot matter, and the product stays small. */
    int64_t passed_ms = smaller(larger(now_ms - b->filled_ms, 0), 60000);
    int64_t grown = passed_ms * smaller(b->per_minute, 100000000000000) + b->rest;
    b->filled_ms = now_ms;
    b->tokens = smaller(b->tokens + grown / 60000, larger(b->per_minute / 60, 1));
    b->rest = grown % 60000;
    if (b->tokens > 0) {
        return 0;
    }
    return (1 - b->tokens) * 60000 / b->per_minute + 1;
}

void bucket_spend(struct bucket *b, int64_t bytes)
{
    if (b->per_minute > 0) {
        b->tokens -= bytes;
    }
}
