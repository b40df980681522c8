#include "gateway/base/clock.h"
#include "gateway/pipeline/state.h"

#include <errno.h>

/* A driver's mistake must not become a wrong point or a read outside the scan later on. */
static bool scan_valid(const struct device *device, const struct scan *scan)
{
    if (scan->count > SCAN_READINGS_MAX || scan->text_len > SCAN_TEXT_MAX) {
        return false;
    }
    for (size_t i = 0; i < scan->count; i++) {
        const struct reading *reading = &scan->readings[i];
        if (reading->point >= device->config->points.count || reading->kind >= VALUE_KINDS ||
            reading->quality >= QUALITY_COUNT) {
            return false;
        }
        if (reading->kind == VALUE_TEXT &&
            (reading->text.len > scan->text_len ||
             reading->text.offset > scan->text_len - reading->text.len)) {
            return false;
        }
    }
    return true;
}

int scan_submit_pushed(struct device *device, struct scan *scan,
                       void (*durable)(void *user, int error), void *user)
{
    if (!scan_valid(device, scan)) {
        return -EINVAL;
    }
    pipeline_stamp(device->pipeline, scan);
    scan->stream = STREAM_RAW;
    scan->window_s = 0;
    scan->device = device->id;
    /* Taken even where the queue refuses the scan, so that the loss shows as a gap. */
    scan->seq = atomic_fetch_add_explicit(&device->seq[STREAM_RAW], 1, memory_order_relaxed) + 1;
    struct queue_entry head = {.kind = QUEUE_SCAN,
                               .readings = scan->count,
                               .device = device,
                               .durable = durable,
                               .user = user};
    int r = queue_push(device->pipeline->queue, &head, scan, scan_size(scan));
    scan->boot_ms = 0; /* drivers use their scans again */
    if (r < 0) {
        atomic_fetch_add_explicit(&device->overrun_readings, scan->count, memory_order_relaxed);
        atomic_fetch_add_explicit(&device->pipeline->overruns, scan->count, memory_order_relaxed);
    }
    return r;
}

int scan_submit(struct device *device, struct scan *scan)
{
    return scan_submit_pushed(device, scan, NULL, NULL);
}

bool scan_has_room(const struct device *device, size_t readings)
{
    return queue_has_room(device->pipeline->queue, readings);
}
