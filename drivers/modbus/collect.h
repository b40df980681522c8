/* collect.h - the scan of one round, filled request by request.
 *
 * Pure but for its memory, which collect_init() takes once; one owner. Every point that is due gets
 * exactly one reading: its value, or why there is none. */
#pragma once

#include "drivers/modbus/layout.h"

struct collect {
    const struct layout *layout;
    struct scan *scan; /* room for every point and text; count and text_len grow */
    char *text;
};

/* points stays where it is as long as the collect is used. */
must_check int collect_init(struct collect *collect, const struct layout *layout);
void collect_finish(struct collect *collect);

/* Begins a new scan. */
void collect_begin(struct collect *collect);

/* The reply of a request: its values on the wire. boot_ms becomes the scan's when it is the first
 * of the round. */
void collect_values(struct collect *collect, const struct plan *plan,
                    const struct plan_request *request, const uint8_t *data, int64_t boot_ms);

/* The points of a request that brought nothing. */
void collect_bad(struct collect *collect, const struct plan *plan,
                 const struct plan_request *request, enum quality quality);

/* The points that the device refuses and that are due in that poll. */
void collect_refused(struct collect *collect, const struct plan *plan, uint64_t poll);

/* The points that are due in that poll and stand in no SunSpec model of the device. */
void collect_unplaced(struct collect *collect, uint64_t poll, enum quality quality);

/* The whole scan, ready for scan_submit(); valid until the next collect_begin(). */
struct scan *collect_scan(struct collect *collect);
