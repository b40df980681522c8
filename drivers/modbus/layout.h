/* layout.h - the points of a device as addresses on its wire.
 *
 * Pure but for its memory; one owner. Most addresses stand in the configuration; those of SunSpec
 * models are known only once the models were found, and until then have a width of 0. */
#pragma once

#include "drivers/modbus/plan.h"
#include "drivers/modbus/settings.h"
#include "drivers/modbus/sunspec.h"

struct layout {
    const struct config_device *device;
    struct registers_point *list; /* by the index in the device's points */
    bool has_models;              /* some are to be found in SunSpec models */
    size_t unplaced;
};

/* All but those of models are placed. */
must_check int layout_init(struct layout *layout, const struct config_device *device);
void layout_finish(struct layout *layout);

/* Places those of models, anew. */
void layout_place(struct layout *layout, const struct sunspec_walk *walk);

/* As if the models stood one behind the other where a chain usually begins: for estimates. */
void layout_place_nominally(struct layout *layout);

static inline bool layout_is_placed(const struct registers_point *point)
{
    return point->width > 0;
}

/* The plan that reads all that are placed; plan_finish() it. */
must_check int layout_plan(const struct layout *layout, struct plan *ret_plan);
