/* read_now.h - points of a device read once, off its schedule, and shown raw beside every decoding.
 *
 * Field thread only. The questions share the device's connection and queue; each point is asked for
 * with a request of its own, so that one refusal hides nothing. */
#pragma once

#include "drivers/driver.h"

struct poller;

/* Begins; request->done is called once, never before this returns. -EINVAL: no such point;
 * -ENOBUFS: too many questions are open; -ENOMEM. */
must_check int read_now_begin(struct poller *poller, struct driver_request *request);

enum { READ_NOW_MAX = 16 }; /* open questions a device */

/* Answers all that are open with -ECANCELED. */
void read_now_cancel_all(struct poller *poller);
