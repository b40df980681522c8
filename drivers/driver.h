/* driver.h - what a driver is: the one interface between the field and the core.
 *
 * A driver turns what stands on a site into scans. The core knows drivers only through this struct
 * and the registry; a driver knows the core only through struct device and scan_submit(). All
 * callbacks run on the field thread, whose event base the driver shares, and never block; a driver
 * with a thread of its own (a serial bus) hands over to it inside. */
#pragma once

#include "config/config.h"
#include "gateway/pipeline/device.h"

#include <jansson.h>

struct event_base;

/* A question put to one device from outside its schedule, answered once by `done`, on the field
 * thread, within deadline_ms; the result is a JSON object (given away) or an error with words. */
struct driver_request {
    int64_t deadline_ms;  /* CLOCK_MONOTONIC */
    const size_t *points; /* indexes in the device's points; NULL: all */
    size_t point_count;
    const char *value; /* write only: the value as text, in scaled units */
    void (*done)(struct driver_request *request, int error, const char *why, json_t *result);
    void *user;
};

struct driver {
    const char *name;                   /* required: the value of `driver =` */
    const struct config_table *table;   /* required: its keys in [device] and [profile] */
    const struct config_table *section; /* optional: a section of its own ([bus], [coap]) */
    size_t address_size;                /* required: of what parse_point fills */

    /* Required, pure: the words of `point.NAME = WORDS` (before the first comma) and the point's
     * other attributes to an address; settings is the device's struct. On error writes why. */
    int (*parse_point)(const struct config_point *point, const void *settings, void *ret_address,
                       char *ret_why, size_t why_size);

    /* Optional, pure: looks at a device as a whole once its points are known. */
    void (*check_device)(const struct config_device *device, struct config_errors *errors);

    /* Required: the driver's state on this event base; config is the one at start (buses). */
    int (*create)(struct event_base *base, const struct config *config, void **ret_state);
    void (*destroy)(void *state);

    /* Required: begins to read a device, and ends it for good. After remove() returns the driver
     * holds no reference to the device and will submit nothing more for it. */
    int (*add)(void *state, struct device *device);
    void (*remove)(void *state, struct device *device);

    /* Optional: reads points now, off schedule; the result shows raw bytes beside every decoding.
     * -ENOSYS is said by the core where it is NULL. */
    int (*read_now)(void *state, struct device *device, struct driver_request *request);

    /* Optional: writes one point (request->points[0]) and reads it back. An error says that nothing
     * went out to the device. Otherwise the result has "outcome" (done, failed, unknown) and, but
     * for done, "why"; "old", "written" and "read_back" are JSON values as text, as far as they are
     * known. What went out is never sent again. */
    int (*write)(void *state, struct device *device, struct driver_request *request);

    /* Optional, pure: the exact requests a device will get, a line each, for `check --plan`. */
    int (*describe_plan)(const struct config_device *device, struct buffer *ret_text);

    /* Optional, pure: what the devices of one `section` (a bus) ask of it together, a line for
     * `check --plan`, and config_warn() when it is too much. Either output may be NULL. */
    void (*describe_section)(const struct config *config, const char *name, struct buffer *ret_text,
                             struct config_errors *errors);
};

/* The drivers built in, in the order they are shown. */
extern const struct driver *const drivers[];
extern const size_t drivers_count;
const struct driver *driver_find(const char *name);
