/* ranges.h - which seqs of one device and stream are settled.
 *
 * Pure data, no locking. Everything up to `floor` is settled, and the runs in `list` (ascending,
 * apart from each other and from the floor). Normally the list is empty; with two lanes it has one
 * run, the live one. */
#pragma once

#include "gateway/base/cleanup.h"

#include <stdbool.h>
#include <stdint.h>

/* More runs than this are not kept: the settlement is refused and the scans are sent again. */
enum { RANGES_MAX = 4096 };

struct range {
    uint64_t first, last;
};

struct ranges {
    uint64_t floor;
    struct range *list;
    uint32_t count, capacity;
};

void ranges_finish(struct ranges *ranges);

/* Adds first..last; what is there already is merged. -ENOBUFS at RANGES_MAX, -ENOMEM. */
must_check int ranges_add(struct ranges *ranges, uint64_t first, uint64_t last);

/* Room for so many more runs, so that the next adds cannot fail. -ENOBUFS, -ENOMEM. */
must_check int ranges_reserve(struct ranges *ranges, size_t more);

/* first..last is open again, all of which is settled. -ENOBUFS, -ENOMEM: nothing has changed. */
must_check int ranges_remove(struct ranges *ranges, uint64_t first, uint64_t last);

/* Everything up to `floor` is settled; never fails. */
void ranges_raise(struct ranges *ranges, uint64_t floor);

bool ranges_contains(const struct ranges *ranges, uint64_t seq);
/* Whether all of first..last is settled. */
bool ranges_covers(const struct ranges *ranges, uint64_t first, uint64_t last);
/* The first seq from `from` (at least 1) on that is not settled. */
uint64_t ranges_next_open(const struct ranges *ranges, uint64_t from);
/* The first seq from `from` on that is settled; UINT64_MAX: none. */
uint64_t ranges_next_settled(const struct ranges *ranges, uint64_t from);
