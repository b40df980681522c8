/* export.h - the inside of `windrow export`: scans out of the store as lines, and what is marked.
 *
 * One thread. */
#pragma once

#include "config/config.h"
#include "gateway/cli/outfile.h"
#include "gateway/store/handover.h"
#include "uplink/uplink.h"

/* What is asked for. */
struct export_wish {
    const char *gateway;
    const struct config_uplink *uplink; /* NULL: whatever was stored in that time */
    const char *device;                 /* a pattern over names; NULL: all */
    int64_t from_ms, to_ms;             /* from <= time < to */
    bool csv;
};

struct exported {
    uint64_t scans, readings;
    /* With an uplink: not in the file, since the clock has not decided their time yet; all readings
     * of them. */
    uint64_t held_scans, held_readings;
    char store[16];            /* the store's id */
    struct store_handed *runs; /* with an uplink: what was exported; freed by the caller */
    size_t run_count, run_capacity;
};

/* Writes all of it to `out`. -errno; -ENOENT: the store knows no such uplink. */
must_check int export_write(struct store *store, const struct export_wish *wish,
                            struct outfile *out, struct exported *ret_exported);
