/* errand.h - a call that may block for long (a name's lookup), run beside the sender's thread.
 *
 * The sender's thread waits for errand_fd() with its other descriptors, as long as it likes, and
 * leaves with errand_drop(); an errand that still runs then ends by itself. Whoever owns one starts
 * no other before it has dropped it, and asks errand_done() before each wait. */
#pragma once

#include "gateway/base/cleanup.h"

#include <stdbool.h>

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
