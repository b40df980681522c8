/* handover.h - readings that leave by hand, on a stick: what an uplink still waits for, and that
 * it has been handed over.
 *
 * The list of what waits is a copy as of a commit, any thread, also of a store opened to be read
 * only. Marking is the writer's; it counts as delivered what of the runs still waits, and nothing
 * twice: what the network has delivered meanwhile is passed over, and what is on its way there is
 * not counted again when it arrives. */
#pragma once

#include "gateway/store/store.h"

struct store_waiting;

/* -ENOENT: the store knows no such uplink. */
must_check int store_waiting_load(struct store *store, const char *uplink,
                                  struct store_waiting **ret_waiting);
void store_waiting_free(struct store_waiting *waiting);
/* Bits 1 << enum stream. */
unsigned store_waiting_streams(const struct store_waiting *waiting);
/* Whether the uplink still had to deliver that scan. */
bool store_waiting_has(const struct store_waiting *waiting, const struct scan *scan);

/* store_history() of all devices, with whether the scan's time is decided for ever. While it is not
 * (store_clock.h) no uplink gets the scan, and it must not leave by hand either: what it was
 * stamped with may move. */
must_check int store_history_timed(struct store *store, enum stream stream, int64_t from_ms,
                                   int64_t to_ms,
                                   int (*fn)(void *user, const struct scan *scan, bool decided),
                                   void *user);

/* Scans of one device without a gap in seq, alike in what they hold. */
struct store_handed {
    enum stream stream;
    uint32_t device;
    uint64_t first_seq, last_seq;
    uint32_t readings, selected; /* of each scan: all, and those that were handed over */
};

struct store_handover {
    uint64_t scans, readings; /* that are delivered by this */
    uint64_t before;          /* scans that did not wait any more */
    uint64_t open;            /* scans that stay as they were: their ranges are too many */
};

/* Durable with the next commit. [writer] -ENOENT: no such uplink; -EINVAL: a run of nothing that
 * the store has; nothing has changed then. -EIO: latched. */
must_check int store_hand_over(struct store *store, const char *uplink,
                               const struct store_handed *runs, size_t count,
                               struct store_handover *ret_handover);
