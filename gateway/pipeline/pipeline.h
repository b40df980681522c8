/* pipeline.h - the one thread between the field and the store.
 *
 * It takes scans from the bounded queue (scan_submit), scales them, judges quality, feeds windows
 * and the live view, thins by on-change and deadband, appends to the store and commits. It is the
 * only writer of the store. Everything here may be called from any thread unless it says other. */
#pragma once

#include "gateway/pipeline/device.h"

struct store;
struct pipeline;

enum { PIPELINE_QUEUE_READINGS = 64 * 1024 };

/* The pipeline with its queue, no thread yet. The store outlives it. */
must_check int pipeline_create(struct store *store, const struct config *config,
                               struct pipeline **ret_pipeline);
/* Rebuilds the open windows of configured devices from what the store holds, in one pass, and
 * starts the thread. Devices are added before it or after. */
must_check int pipeline_start(struct pipeline *pipeline);
/* Drains the queue, closes nothing that is still open (windows are rebuilt at the next start),
 * commits, ends the thread. Drivers must have stopped. */
void pipeline_stop(struct pipeline *pipeline);
void pipeline_destroy(struct pipeline *pipeline);

/* Before a device's driver is started, and after it was stopped: goes through the queue in order
 * with the scans, so that all scans of a retired device are processed first. */
must_check int pipeline_add_device(struct pipeline *pipeline, struct device *device);
must_check int pipeline_retire_device(struct pipeline *pipeline, struct device *device);

/* New aggregates after a reload; takes a reference. */
must_check int pipeline_set_config(struct pipeline *pipeline, const struct config *config);

/* Runs fn on the pipeline thread, between two turns, and returns its result; on the caller's own
 * thread while the pipeline does not run. For what only the store's writer may do. Not to be called
 * from the pipeline thread. */
int pipeline_call(struct pipeline *pipeline, int (*fn)(void *user), void *user);

/* From now on what is readable of a store that was set aside comes back, beside the work; its small
 * records go to `record`, on the pipeline's thread (store/salvage.h, struct salvage_takers). Once
 * all devices and uplinks are known. */
must_check int pipeline_salvage(struct pipeline *pipeline,
                                int (*record)(void *user, const void *bytes, size_t len),
                                void *user);

/* The same, and where fn returns 0 what it did is durable when this returns 0. */
int pipeline_call_durable(struct pipeline *pipeline, int (*fn)(void *user), void *user);

/* -errno once the store has failed for good (only a restart helps), otherwise 0. */
int pipeline_error(struct pipeline *pipeline);
/* An eventfd of the caller's that is written to at that moment. Before pipeline_start(). */
void pipeline_tell_failure(struct pipeline *pipeline, int eventfd);

/* Wakes the thread and returns a counter that moves at each of its turns; for the watchdog. */
uint64_t pipeline_heartbeat(struct pipeline *pipeline);

/* An event (uplink down, clock stepped, ...) into the event stream of a device or of the gateway
 * itself (device NULL: recorded under the gateway's name). */
void pipeline_event(struct pipeline *pipeline, struct device *device, const char *kind,
                    const char *text);

struct pipeline_stats {
    uint64_t queue_readings, queue_peak, overruns, late, windows_closed;
};
void pipeline_stats(struct pipeline *pipeline, struct pipeline_stats *ret_stats);

/* Live view: the latest reading of each point of a device, copied under a short lock. ret_readings
 * has room for device->config->points.count entries, ret_times_ms likewise, both by the index in
 * the configuration; values are scaled, a time of 0 says that there is none yet. Texts are not kept
 * here. Returns how many have a value. */
size_t pipeline_latest(struct pipeline *pipeline, const struct device *device,
                       struct reading *ret_readings, int64_t *ret_times_ms);

/* A counter that moves whenever anything in the live view changed: cheap polling for the api. */
uint64_t pipeline_live_version(struct pipeline *pipeline);
