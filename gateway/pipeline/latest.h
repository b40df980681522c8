/* latest.h - the latest value of every point, for the api.
 *
 * Written by the pipeline thread, attached by the thread that adds devices, read by any; one short
 * lock inside. An entry belongs to a device's name and keeps its index and, where the point's name
 * stays, its values across reloads. */
#pragma once

#include "gateway/pipeline/device.h"

struct latest;

must_check int latest_create(struct latest **ret_latest);
void latest_destroy(struct latest *latest);

/* Gives the device its index; from now on only this object's scans are shown under its name. */
must_check int latest_attach(struct latest *latest, struct device *device);

/* The device is retired: what is shown under it ends, unless another object took its name over. */
void latest_detach(struct latest *latest, const struct device *device);

/* The readings of a scaled scan whose `point` is still the configuration's index. */
void latest_update(struct latest *latest, const struct device *device, const struct scan *scan);

/* See pipeline_latest(). */
size_t latest_read(struct latest *latest, const struct device *device, struct reading *ret_readings,
                   int64_t *ret_times_ms);
uint64_t latest_version(const struct latest *latest);
