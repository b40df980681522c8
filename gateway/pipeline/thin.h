/* thin.h - on-change and deadband: which readings of a device are worth storing.
 *
 * Pure; belongs to one device. Compared is with the last reading that passed, so that slow drift
 * shows. What always passes: a point's first reading, a changed quality or kind, one reading at
 * least every THIN_ALWAYS_MS, and everything of points that have neither attribute. */
#pragma once

#include "config/config.h"
#include "gateway/base/scan.h"

enum { THIN_ALWAYS_MS = 60 * 60 * 1000 };

struct thin;

/* NULL in ret_thin when no point of the device is thinned. */
must_check int thin_create(const struct config_points *points, struct thin **ret_thin);
void thin_destroy(struct thin *thin);

/* Whether this reading (scaled; `point` is the index in the configuration) is to be stored; if so
 * it is what the next one is compared with. thin may be NULL. */
bool thin_passes(struct thin *thin, const struct config_points *points, const struct scan *scan,
                 const struct reading *reading);
