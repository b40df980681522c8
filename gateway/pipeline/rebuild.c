#include "gateway/base/clock.h"
#include "gateway/base/log.h"
#include "gateway/pipeline/state.h"
#include "gateway/store/store.h"

#include <errno.h>
#include <string.h>

/* Windows are fed with the raw scans that the store still holds. What is known of windows that have
 * a result already: the note (for all devices together), and, of the last seconds before a crash,
 * the aggregate stream itself. */
struct rebuild {
    struct pipeline *pipeline;
    int64_t now_ms;
    uint64_t scans;
    struct buffer results; /* scans: the store is being read, nothing may be appended meanwhile */
};

void pipeline_note_name(const struct config_aggregate *aggregate, char name[PIPELINE_NOTE_SIZE])
{
    snprintf(name, PIPELINE_NOTE_SIZE, "closed_until.%s", aggregate->name);
}

/* A note further back is one of a clock that was wrong. */
static const int64_t notes_kept_ms = (int64_t)3650 * 86400000;

/* From when on a window of this aggregate may still be without its result. */
static int64_t rebuild_from(struct pipeline *p, const struct config_aggregate *aggregate,
                            int64_t now_ms)
{
    char name[PIPELINE_NOTE_SIZE];
    pipeline_note_name(aggregate, name);
    int64_t noted_ms;
    if (store_note(p->store, name, &noted_ms) &&
        noted_ms + p->clock.notes_moved_ms > now_ms - notes_kept_ms) {
        return noted_ms + p->clock.notes_moved_ms;
    }
    int64_t start_ms = window_floor(now_ms, aggregate->window_ms);
    return start_ms > now_ms - PIPELINE_REBUILD_MS ? start_ms : now_ms - PIPELINE_REBUILD_MS;
}

static bool is_result_of(const struct window *w, const struct scan *scan)
{
    size_t ids = w->count * window_functions(w);
    for (size_t i = 0; scan->count > 0 && i < ids; i++) {
        if (w->ids[i] == scan->readings[0].point) {
            return (int64_t)scan->window_s * 1000 == w->aggregate->window_ms;
        }
    }
    return false;
}

/* A result that the store has: its window is not built again. */
static int see_result(void *user, const struct scan *scan)
{
    struct rebuild *rebuild = user;
    struct track *track = track_find(rebuild->pipeline, scan->device);
    for (size_t i = 0; track != NULL && i < track->window_count; i++) {
        struct window *w = track->windows[i];
        int64_t end_ms = scan->time_ms + (int64_t)scan->window_s * 1000;
        if (end_ms > w->result_until_ms && is_result_of(w, scan)) {
            w->result_until_ms = end_ms;
        }
    }
    return 0;
}

static void keep_result(struct rebuild *rebuild, struct track *track, struct window *w)
{
    struct pipeline *p = rebuild->pipeline;
    struct scan *scan = p->scratch;
    for (size_t at = 0; at < w->count;) {
        window_result(w, &at, SCAN_READINGS_MAX, scan);
        scan->device = track->id;
        /* Of this clock's time: it moves with it. What an earlier boot left has its time. */
        scan->boot_ms = w->end_ms > p->clock.anchored_ms ? scan->time_ms - p->clock.offset_ms : 0;
        if (scan->count > 0) {
            buffer_add(&rebuild->results, scan, scan_size(scan));
        }
    }
}

/* The configuration's index of a stored point, looked for from the last one on. */
static bool index_of(const struct track *track, uint16_t id, size_t *at)
{
    size_t count = track->config->points.count;
    for (size_t i = 0; i < count; i++, *at = *at + 1 < count ? *at + 1 : 0) {
        if (track->ids[*at] == id) {
            return true;
        }
    }
    return false;
}

static void feed_window(struct rebuild *rebuild, struct track *track, struct window *w,
                        const struct scan *scan)
{
    if (scan->time_ms < w->result_until_ms) {
        return;
    }
    enum window_place place = window_place(w, scan->time_ms, rebuild->now_ms);
    if (place == WINDOW_LATE) {
        return;
    }
    if (place != WINDOW_FITS) {
        keep_result(rebuild, track, w);
        window_open_at(w, scan->time_ms);
    }
    size_t at = 0;
    for (size_t i = 0; i < scan->count; i++) {
        struct reading reading = scan->readings[i];
        if (index_of(track, reading.point, &at)) {
            reading.point = (uint16_t)at;
            window_add_reading(w, &reading);
        }
    }
}

static int feed(void *user, const struct scan *scan)
{
    struct rebuild *rebuild = user;
    struct track *track = track_find(rebuild->pipeline, scan->device);
    for (size_t i = 0; track != NULL && i < track->window_count; i++) {
        feed_window(rebuild, track, track->windows[i], scan);
    }
    rebuild->scans += track != NULL ? 1 : 0;
    return 0;
}

/* Each window begins where its results end; returns the earliest of all. */
static int64_t set_back(struct pipeline *p, int64_t now_ms, int64_t *ret_longest_ms)
{
    int64_t earliest_ms = now_ms;
    *ret_longest_ms = 0;
    for (size_t i = 0; i < p->config->aggregate_count; i++) {
        const struct config_aggregate *aggregate = &p->config->aggregates[i];
        int64_t from_ms = rebuild_from(p, aggregate, now_ms);
        *ret_longest_ms = aggregate->window_ms > *ret_longest_ms ? aggregate->window_ms
                                                                 : *ret_longest_ms;
        for (size_t t = 0; t < p->track_count; t++) {
            struct track *track = p->tracks[t];
            for (size_t k = 0; k < track->window_count; k++) {
                struct window *w = track->windows[k];
                if (w->aggregate == aggregate) {
                    window_open_at(w, from_ms);
                    w->result_until_ms = from_ms;
                    earliest_ms = from_ms < earliest_ms ? from_ms : earliest_ms;
                }
            }
        }
    }
    return earliest_ms;
}

/* Windows that nothing was found for begin now; no row of empty results is made up for the time in
 * which the gateway did not run. */
static void bring_forward(struct pipeline *p, int64_t now_ms)
{
    for (size_t t = 0; t < p->track_count; t++) {
        struct track *track = p->tracks[t];
        for (size_t k = 0; k < track->window_count; k++) {
            struct window *w = track->windows[k];
            if (window_is_empty(w) && now_ms >= w->end_ms) {
                window_open_at(w, now_ms);
            }
        }
    }
}

static void append_results(struct rebuild *rebuild)
{
    struct pipeline *p = rebuild->pipeline;
    for (size_t at = 0; at < rebuild->results.len;) {
        struct scan *scan = (struct scan *)(void *)(rebuild->results.data + at);
        at += scan_size(scan);
        struct track *track = track_find(p, scan->device);
        if (track != NULL && emit_scan(p, track, scan) < 0) {
            return; /* said by pipeline_append() */
        }
        atomic_fetch_add_explicit(&p->windows_closed, 1, memory_order_relaxed);
    }
}

static const struct config_device *find_device(const struct config *config, const char *name)
{
    for (size_t i = 0; i < config->device_count; i++) {
        if (strcmp(config->devices[i].name, name) == 0) {
            return &config->devices[i];
        }
    }
    return NULL;
}

/* Devices are added one by one later on; a pass over the store for each would be far too many. */
static int make_tracks(struct pipeline *p)
{
    auto_free struct ledger_device *devices = NULL;
    size_t count = 0;
    int r = store_ledger(p->store, -1, &devices, &count);
    for (size_t i = 0; r == 0 && i < count; i++) {
        const struct config_device *config = find_device(p->config, devices[i].name);
        struct track *track;
        if (config == NULL || track_find(p, devices[i].device) != NULL) {
            continue;
        }
        r = track_make(p, devices[i].device, &track);
        r = r < 0 ? r : track_configure(p, track, p->config, config);
    }
    return r;
}

static void rebuild_windows(struct pipeline *p)
{
    int64_t started_ms = clock_mono_ms();
    struct rebuild rebuild = {.pipeline = p, .now_ms = pipeline_now_ms(p)};
    int64_t longest_ms, from_ms = set_back(p, rebuild.now_ms, &longest_ms);
    int r = store_history(p->store, STREAM_AGGREGATE, 0, from_ms - longest_ms, INT64_MAX,
                          see_result, &rebuild);
    if (r == 0) {
        r = store_history(p->store, STREAM_RAW, 0, from_ms, INT64_MAX, feed, &rebuild);
    }
    if (r < 0) {
        log_warning("windows: not all readings could be read back (%s); counts will be short",
                    strerrordesc_np(-r));
    }
    bring_forward(p, rebuild.now_ms);
    append_results(&rebuild);
    buffer_finish(&rebuild.results);
    p->windows_moved = true;
    if (rebuild.scans > 0) {
        log_info("windows: rebuilt from %llu scans in %lld ms", (unsigned long long)rebuild.scans,
                 (long long)(clock_mono_ms() - started_ms));
    }
}

void pipeline_restore(struct pipeline *p)
{
    int r = make_tracks(p);
    if (r < 0) {
        log_warning("windows: not all devices of the store could be taken up: %s",
                    strerrordesc_np(-r));
    }
    rebuild_windows(p);
}
