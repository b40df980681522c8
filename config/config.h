/* config.h - what the user said, checked, complete and immutable.
 *
 * config_load() reads windrow.ini and conf.d/, fills one struct config, reports all errors at once.
 * A loaded config is never changed; it is shared by reference count, any thread. Sections carry a
 * fingerprint over their resolved keys, profile and points (secrets too), so that a reload restarts
 * only what differs. Texts belong to the config. */
#pragma once

#include "config/errors.h"
#include "gateway/base/decimal.h"

struct config_tag {
    const char *name, *value;
};
/* One `point.NAME = SOURCE, ATTRIBUTE ...` line. */
struct config_point {
    const char *name;
    const char *source;          /* the words before the first comma, e.g. "holding 0 uint16" */
    const void *address;         /* what the driver's parse_point() made of source and order */
    const char *unit;            /* "" when not given */
    const char *order;           /* byte order, NULL: the device's */
    struct decimal scale;        /* 1 when not given */
    struct decimal offset;       /* 0 when not given */
    double min, max;             /* -INFINITY, INFINITY when not given; in scaled units */
    uint64_t invalid;            /* the raw register pattern that means "not available" */
    double deadband;             /* in scaled units, 0: none */
    double write_min, write_max; /* in scaled units */
    uint32_t every;              /* read only each n-th poll, from 1 */
    bool has_invalid, circular, on_change, writable;
};

struct config_points {
    const struct config_point *list;
    size_t count;
};

struct config_device {
    const char *name, *driver, *profile; /* profile NULL: none */
    struct config_points points;         /* shared with other devices of the same profile */
    const struct config_tag *tags;
    size_t tag_count;
    int64_t poll_ms, timeout_ms;
    const void *settings; /* the driver's own struct, by its config_table */
    uint64_t fingerprint;
    const char *file;
    unsigned line;
};

enum config_functions { /* bits of config_aggregate.functions */
                        FUNCTION_MEAN = 1 << 0,
                        FUNCTION_MIN = 1 << 1,
                        FUNCTION_MAX = 1 << 2,
                        FUNCTION_STD = 1 << 3,
                        FUNCTION_COUNT = 1 << 4,
                        FUNCTION_FIRST = 1 << 5,
                        FUNCTION_LAST = 1 << 6,
                        FUNCTION_SUM = 1 << 7,
                        FUNCTION_MEDIAN = 1 << 8,
                        FUNCTION_P95 = 1 << 9,
                        FUNCTION_TI = 1
                                      << 10, /* turbulence intensity, std / mean (IEC 61400-12-1) */
};

struct config_aggregate {
    const char *name;
    int64_t window_ms;
    struct config_list points; /* globs over POINT or DEVICE.POINT */
    unsigned functions;
    uint64_t fingerprint;
};

struct config_bus {
    const char *name;
    const void *settings; /* of the modbus-rtu driver's table for section "bus" */
    uint64_t fingerprint;
};

struct config_uplink {
    const char *name, *type;
    const void *common;   /* struct uplink_settings, uplink/uplink.h */
    const void *settings; /* the type's own struct */
    uint64_t fingerprint;
    const char *file;
    unsigned line;
};

enum config_clock { CONFIG_CLOCK_KERNEL, CONFIG_CLOCK_TRUSTED }; /* who says that it is right */
struct config_gateway {
    const char *name, *data_dir, *run_dir;
    int log_level, clock; /* enum config_clock */
    int64_t clock_wait_ms, write_interval_ms;
    bool allow_writes;
};

struct config {
    const struct config_gateway *gateway;
    const void *store; /* struct store_settings, gateway/store/store.h */
    const void *api;   /* struct api_settings, gateway/api/api.h */
    const void *coap;  /* the coap driver's settings for section "coap", NULL when it has none */
    const struct config_device *devices;
    size_t device_count;
    const struct config_bus *buses;
    size_t bus_count;
    const struct config_aggregate *aggregates;
    size_t aggregate_count;
    const struct config_uplink *uplinks;
    size_t uplink_count;
    uint64_t gateway_fingerprint, store_fingerprint, api_fingerprint, coap_fingerprint;
};

/* Reads path and its conf.d/. 0: ret_config holds one reference. -EINVAL: `errors` says why (all);
 * any other -errno: path cannot be read, also in `errors`. Blocks on the disk only. */
must_check int config_load(const char *path, struct config_errors *errors,
                           const struct config **ret_config);

const struct config *config_ref(const struct config *config);
void config_unref(const struct config *config);

const struct config_device *config_find_device(const struct config *config, const char *name);
const struct config_uplink *config_find_uplink(const struct config *config, const char *name);
