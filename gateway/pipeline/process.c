#include "gateway/base/clock.h"
#include "gateway/base/log.h"
#include "gateway/pipeline/durable.h"
#include "gateway/pipeline/scale.h"
#include "gateway/pipeline/state.h"
#include "gateway/store/store.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

void pipeline_fail(struct pipeline *p, int error)
{
    int expected = 0;
    if (atomic_compare_exchange_strong(&p->error, &expected, error)) {
        log_error("store: %s; nothing is acknowledged any more until the gateway is restarted",
                  strerrordesc_np(-error));
        uint64_t one = 1;
        ssize_t told = p->failure_fd < 0 ? 0 : write(p->failure_fd, &one, sizeof one);
        (void)told; /* an eventfd at its bound is readable as well */
    }
}

/* Said at most once a minute: a store at its bound refuses and takes in turns. */
static void say_refused(struct pipeline *p, const struct track *track, int error)
{
    int64_t now_ms = clock_mono_ms();
    if (p->refused_said_ms == 0 || now_ms - p->refused_said_ms >= PIPELINE_REFUSED_SAID_MS) {
        p->refused_said_ms = now_ms;
        log_warning("store: %s; readings are dropped and counted (just now: %s)",
                    error == -ENOSPC ? "full" : strerrordesc_np(-error),
                    track->config != NULL ? track->config->name : "events");
    }
}

int pipeline_append(struct pipeline *p, struct track *track, struct scan *scan)
{
    int r = atomic_load_explicit(&p->error, memory_order_relaxed);
    if (r < 0) {
        return r;
    }
    r = store_append(p->store, scan);
    if (r == -EIO || r == -EBADMSG) {
        pipeline_fail(p, r);
    } else if (r < 0) {
        say_refused(p, track, r);
    }
    return r;
}

/* Takes out what on-change and deadband hold back, and gives the rest the store's ids. Texts lie
 * behind the readings, so they move when some leave. Returns how many left. */
static size_t thin_scan(struct track *track, struct scan *scan)
{
    const struct config_points *points = &track->config->points;
    const char *texts = (const char *)&scan->readings[scan->count];
    uint16_t kept = 0;
    for (size_t i = 0; i < scan->count; i++) {
        struct reading reading = scan->readings[i];
        if (track->thin == NULL || thin_passes(track->thin, points, scan, &reading)) {
            reading.point = track->ids[reading.point];
            scan->readings[kept++] = reading;
        }
    }
    size_t left = (size_t)(scan->count - kept);
    if (left > 0) {
        memmove(&scan->readings[kept], texts, scan->text_len);
        scan->count = kept;
    }
    return left;
}

/* Identities never repeat, whatever the seq was that a device object began with. */
static void order_seq(struct track *track, struct scan *scan)
{
    if (scan->seq <= track->seq[STREAM_RAW]) {
        scan->seq = track->seq[STREAM_RAW] + 1;
    }
    track->seq[STREAM_RAW] = scan->seq;
}

void process_scan(struct pipeline *p, struct queue_entry *entry)
{
    struct track *track = entry->device->pipeline_data;
    struct scan *scan = (struct scan *)entry->payload;
    if (track == NULL || track->ids == NULL) {
        durable_answer(p, entry, -ENODEV); /* said when it was added */
        return;
    }
    order_seq(track, scan);
    pipeline_restamp(p, scan);
    for (size_t i = 0; i < scan->count; i++) {
        scale_reading(&track->config->points.list[scan->readings[i].point], &scan->readings[i]);
    }
    latest_update(p->latest, entry->device, scan);
    track_feed(p, track, scan);
    size_t read = scan->count, suppressed = thin_scan(track, scan);
    int r = pipeline_append(p, track, scan);
    store_count(p->store, track->id, LEDGER_READ, read);
    if (suppressed > 0) {
        store_count(p->store, track->id, LEDGER_SUPPRESSED, suppressed);
    }
    if (r < 0) {
        store_count(p->store, track->id, LEDGER_DROPPED_DISK, read - suppressed);
    }
    durable_answer(p, entry, r);
}
