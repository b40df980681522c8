/* errand.h - a call that may block for long (a name's lookup), run beside the sender's thread.
 *
 * The sender's thread waits for errand_fd() with its other descriptors, as long as it likes, and
 * leaves with errand_drop(); an errand that still runs then ends by itself. Whoever owns one starts
 * no other before it has dropped it, and asks errand_done() before each wait. */
#pragma once

#include "gateway/base/cleanup.h"

#include <stdbool.h>
#include <stdint.h>

struct errand;

/* run(arg) is called by a thread of its own; after errand_done() said yes, arg is the owner's to
 * look at. release(arg) is called when both have left. On an error arg stays the caller's. */
must_check int errand_start(void (*run)(void *arg), void (*release)(void *arg), void *arg,
                            struct errand **ret_errand);
bool errand_done(const struct errand *e);
/* Readable once it is done. */
int errand_fd(const struct errand *e);
void *errand_arg(const struct errand *e);
/* Takes NULL. */
void errand_drop(struct errand *e);

/* Errands whose owner has gone on without them, and that have not come to their end: few, because
 * where they hang a further one would hang as well. Zero it first. */
enum { ERRANDS_LEFT_MAX = 3 };
struct errands_left {
    struct errand *list[ERRANDS_LEFT_MAX];
};
/* Room for one more, NULL: there are ERRANDS_LEFT_MAX. */
struct errand **errands_left_room(struct errands_left *left);
/* Waits for them at most that long and drops them all. */
void errands_left_end(struct errands_left *left, int64_t wait_ms);
