/* store_clock.h - what time it is for the readings, whatever the system's clock says.
 *
 * The gateway's clock is boot time plus an offset that only the pipeline moves, here: to the system
 * clock's where that is synchronised, or on from the last time that was sure. Readings stamped
 * while nobody vouched for it are held back from the uplinks until somebody does, or until they
 * have waited; then they go out uncertain. See anchors.h for the rules. */
#pragma once

#include "gateway/store/anchors.h"
#include "gateway/store/store.h"

/* Whether minding this look would move the clock, and to which offset. [writer] */
int64_t store_clock_plan(struct store *store, const struct anchors_look *look);
/* Tells the store what the clocks say, at each commit and after a step. What is pending is
 * committed first where the look changes anything, and then the change. wait_ms: how long readings
 * are held back. ret_moved_ms: by how much the times of what was stamped last have moved since,
 * 0 mostly. [writer] Errors as of store_commit(). */
must_check int store_clock_mind(struct store *store, const struct anchors_look *look,
                                int64_t wait_ms, int64_t *ret_moved_ms);

/* UTC by the gateway's clock; the system's before the first look. Any thread. */
int64_t store_now_ms(struct store *store);
/* The same for what is given up by its age: never later than what is known for certain, so that a
 * clock in the future throws nothing away. Any thread. */
int64_t store_age_now_ms(struct store *store);

struct store_clock {
    bool known;       /* there was a look */
    bool vouched;     /* by the last look */
    bool sure;        /* vouched for, or as it was when it was, and not stepped since */
    uint64_t held;    /* readings that wait for it */
    int64_t wait_ms;  /* how long they do, at most */
    int64_t since_ms; /* boot time at which the present anchor began */
};
void store_clock(struct store *store, struct store_clock *ret_clock);
