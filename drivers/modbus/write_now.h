/* write_now.h - a write that somebody asked for: read, write, read back.
 *
 * Field thread only, over whatever wire. One at a time for a device; it goes in front of its polls.
 * The old value is read first (a point that cannot be read could not be checked either), then one
 * write request goes out, at most once and not after the deadline, then the point is read again. */
#pragma once

#include "drivers/driver.h"

struct poller;

/* For struct driver's write. -EBUSY: one is under way; -EINVAL, -ENOBUFS. */
must_check int write_now_begin(struct poller *poller, struct driver_request *request);

/* The poller ends: the write is answered, as unknown where its request was out already. */
void write_now_cancel(struct poller *poller);
