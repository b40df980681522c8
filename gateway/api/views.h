/* views.h - what the local API answers, as text.
 *
 * Each view appends a whole document to `out` and returns 0 or -ENOMEM. They ask the host through
 * functions that are safe from any thread; nothing blocks longer than a short lock. The ledger and
 * the history need the store only, so that the command can show them while the daemon is down. */
#pragma once

#include "gateway/api/api.h"
#include "gateway/api/json_out.h"

/* GET /v1/status: interface.md's object, and beside it `store_id`, `time` and more. */
must_check int view_status(const struct api_host *host, struct buffer *out);

/* GET /v1/devices: {"time","devices":[...]}, with errors by kind; name NULL: all of them.
 * -ENOENT: there is no device of that name. */
must_check int view_devices(const struct api_host *host, const char *name, struct buffer *out);

/* GET /v1/points: {"time","points":[{"device","point","value","unit","time","quality"}]} for
 * DEVICE.POINT names that fit the glob (NULL: all). */
must_check int view_points(const struct api_host *host, const char *glob, struct buffer *out);

/* GET /v1/ledger: all devices, all uplinks, and whether they add up. */
must_check int view_ledger(struct store *store, const char *gateway, struct buffer *out);

/* GET /v1/ledger/days: what each UTC day added to it, by the snapshots among the events. */
must_check int view_ledger_days(struct store *store, const char *gateway, struct buffer *out);

/* GET /metrics: Prometheus text format 0.0.4; values of points too when asked. */
must_check int view_metrics(const struct api_host *host, bool points, struct buffer *out);

/* One device's latest values as a member of /v1/live: {"name","state","time","values","quality"}.
 * Returns the newest time of them, 0 when there is none. */
int64_t view_live_device(const struct api_host *host, const struct device *device,
                         struct json_out *out);

/* What the latest readings of a device are; the arrays belong to the caller and are freed with
 * free(). Returns how many have a value; a point without one has time 0. */
struct snapshot {
    struct reading *readings;
    int64_t *times_ms;
    size_t count; /* of the device's points */
};
must_check int snapshot_take(struct pipeline *pipeline, const struct device *device,
                             struct snapshot *ret_snapshot);
void snapshot_finish(struct snapshot *snapshot);
#define auto_snapshot __attribute__((cleanup(snapshot_finish)))
