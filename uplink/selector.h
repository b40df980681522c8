/* selector.h - which readings an uplink wants: globs over DEVICE.POINT, matched once a point.
 *
 * The sender's thread only. Names never change while the store is open, so the answer is kept a
 * device in a bit set by point id. */
#pragma once

#include "uplink/uplink.h"

struct selector;

/* patterns must outlive the selector; none of them: everything is selected. -ENOMEM only. */
must_check int selector_create(const struct config_list *patterns, struct selector **ret_selector);
void selector_destroy(struct selector *selector);

/* Writes the indexes of the selected readings to `indexes` (room for scan->count) and returns how
 * many; *ret_all is set when it is all of them. -ENOMEM is the only error. */
must_check int selector_pick(struct selector *selector, const struct scan *scan,
                             const struct store_names *names, uint16_t *indexes,
                             uint16_t *ret_count, bool *ret_all);
