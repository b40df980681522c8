/* harvest.h - readings of one device on their way from SenML records to scans.
 *
 * Pure but for its own memory; one owner. A harvest is filled by one or several messages and then
 * cut into scans, one for each time stamp, in the order of time. A point that occurs twice at one
 * time keeps the later value. */
#pragma once

#include "config/config.h"
#include "drivers/coap/senml.h"

enum { HARVEST_READINGS_MAX = 8192, HARVEST_TEXT_MAX = SCAN_TEXT_MAX };

struct harvest;

must_check int harvest_create(const struct config_device *device, struct harvest **ret_harvest);
void harvest_destroy(struct harvest *harvest);

void harvest_clear(struct harvest *harvest);

/* Takes the records that belong to points with `senml NAME`: NAME is the whole name or what stands
 * behind the base name. Returns how many readings were taken, or -EMSGSIZE, -ENOMEM. */
must_check int harvest_add(struct harvest *harvest, const struct senml_pack *pack);

/* Takes the one value of a resource for the point with that `path`; -EINVAL: not one value. */
must_check int harvest_add_value(struct harvest *harvest, size_t point,
                                 const struct senml_pack *pack);

/* A point without a value, now. */
must_check int harvest_add_bad(struct harvest *harvest, size_t point, enum quality quality);

size_t harvest_count(const struct harvest *harvest);

/* How many scans harvest_each() makes. */
size_t harvest_scans(struct harvest *harvest);

/* Calls with each scan until one call fails, and returns its error. time_ms of a scan whose
 * readings are of now is now_ms. The scan is valid during the call. */
must_check int harvest_each(struct harvest *harvest, int64_t now_ms,
                            int (*each)(void *user, struct scan *scan), void *user);
