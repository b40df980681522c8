#include "gateway/base/clock.h"
#include "gateway/base/log.h"
#include "gateway/pipeline/state.h"
#include "gateway/store/store.h"

#include <errno.h>
#include <string.h>

struct track *track_find(struct pipeline *p, uint32_t id)
{
    /* Mostly asked for in the order in which they were made. */
    for (size_t n = 0, i = p->track_hint; n < p->track_count; n++, i++) {
        i = i < p->track_count ? i : 0;
        if (p->tracks[i]->id == id) {
            p->track_hint = i + 1;
            return p->tracks[i];
        }
    }
    return NULL;
}

int track_make(struct pipeline *p, uint32_t id, struct track **ret_track)
{
    if (p->track_count == p->track_capacity) {
        size_t capacity = p->track_capacity == 0 ? 16 : p->track_capacity * 2;
        struct track **tracks = reallocarray(p->tracks, capacity, sizeof(struct track *));
        if (tracks == NULL) {
            return -ENOMEM;
        }
        p->tracks = tracks;
        p->track_capacity = capacity;
    }
    struct track *track = calloc(1, sizeof *track);
    if (track == NULL) {
        return -ENOMEM;
    }
    track->id = id;
    track->lost_since_ms = -1;
    for (enum stream s = 0; s < STREAM_COUNT; s++) {
        track->seq[s] = store_last_seq(p->store, s, id);
    }
    p->tracks[p->track_count++] = track;
    *ret_track = track;
    return 0;
}

static void free_windows(struct track *track)
{
    for (size_t i = 0; i < track->window_count; i++) {
        window_destroy(track->windows[i]);
    }
    free(track->windows);
    track->windows = NULL;
    track->window_count = 0;
}

void track_free(struct track *track)
{
    if (track == NULL) {
        return;
    }
    free_windows(track);
    thin_destroy(track->thin);
    free(track->ids);
    device_unref(track->device);
    if (track->owner != NULL) {
        config_unref(track->owner);
    }
    free(track);
}

/* What windows and thinning hang on. */
static bool same_point(const struct config_point *a, const struct config_point *b)
{
    return strcmp(a->name, b->name) == 0 && strcmp(a->unit, b->unit) == 0 &&
           a->scale.mantissa == b->scale.mantissa && a->scale.exponent == b->scale.exponent &&
           a->offset.mantissa == b->offset.mantissa && a->offset.exponent == b->offset.exponent &&
           a->circular == b->circular && a->on_change == b->on_change &&
           !(a->deadband < b->deadband) && !(a->deadband > b->deadband);
}

static bool same_points(const struct config_points *a, const struct config_points *b)
{
    bool same = a->count == b->count;
    for (size_t i = 0; same && i < a->count; i++) {
        same = same_point(&a->list[i], &b->list[i]);
    }
    return same;
}

/* The ids of a window's results, named POINT_FUNCTION. */
static int name_results(struct pipeline *p, struct track *track, struct window *w)
{
    uint16_t *id = w->ids;
    for (size_t slot = 0; slot < w->count; slot++) {
        const struct config_point *point = &track->config->points.list[w->points[slot]];
        for (unsigned left = w->aggregate->functions; left != 0; left &= left - 1, id++) {
            enum config_functions function = left & -left;
            auto_buffer struct buffer name = {0};
            buffer_printf(&name, "%s_%s", point->name, statistics_function_name(function));
            const char *text = buffer_text(&name);
            if (text == NULL) {
                return -ENOMEM;
            }
            const char *unit = statistics_has_unit(function) ? point->unit : "";
            int r = store_point(p->store, track->id, text, unit, id);
            if (r < 0) {
                return r;
            }
        }
    }
    return 0;
}

static int make_window(struct pipeline *p, struct track *track,
                       const struct config_aggregate *aggregate, struct window **ret_window)
{
    struct window *w;
    int r = window_create(aggregate, track->config, &w);
    if (r < 0) {
        return r;
    }
    r = name_results(p, track, w);
    if (r < 0) {
        window_destroy(w);
        return r;
    }
    *ret_window = w;
    return 0;
}

static struct window *find_window(const struct track *track, const char *aggregate)
{
    for (size_t i = 0; i < track->window_count; i++) {
        if (track->windows[i] != NULL &&
            strcmp(track->windows[i]->aggregate->name, aggregate) == 0) {
            return track->windows[i];
        }
    }
    return NULL;
}

/* The window of this aggregate among the track's own, taken out of them, when it stays as it is. */
static struct window *keep_window(struct track *track, const struct config_aggregate *aggregate)
{
    for (size_t i = 0; i < track->window_count; i++) {
        struct window *w = track->windows[i];
        if (w != NULL && strcmp(w->aggregate->name, aggregate->name) == 0 &&
            w->aggregate->fingerprint == aggregate->fingerprint) {
            track->windows[i] = NULL;
            w->aggregate = aggregate;
            return w;
        }
    }
    return NULL;
}

static int next_window(struct pipeline *p, struct track *track,
                       const struct config_aggregate *aggregate, bool cut, int64_t now_ms,
                       struct window **ret_window)
{
    *ret_window = keep_window(track, aggregate);
    if (*ret_window != NULL) {
        return 0;
    }
    int r = make_window(p, track, aggregate, ret_window);
    if (r == 0 && (cut || find_window(track, aggregate->name) != NULL)) {
        window_open_rest(*ret_window, now_ms);
    } else if (r == 0) {
        window_open_at(*ret_window, now_ms);
    }
    return r == -ENOENT ? 0 : r;
}

/* Closes short what the new set does not keep. */
static void drop_windows(struct pipeline *p, struct track *track, int64_t now_ms)
{
    for (size_t i = 0; i < track->window_count; i++) {
        struct window *w = track->windows[i];
        if (w != NULL && w->open) {
            window_cut(w, now_ms);
            emit_window(p, track, w);
        }
    }
    free_windows(track);
}

int track_set_aggregates(struct pipeline *p, struct track *track, const struct config *config,
                         bool cut)
{
    int64_t now_ms = pipeline_now_ms(p);
    size_t count = 0;
    struct window **windows = calloc(config->aggregate_count + 1, sizeof(struct window *));
    int r = windows == NULL ? -ENOMEM : 0;
    for (size_t i = 0; r == 0 && track->config != NULL && i < config->aggregate_count; i++) {
        r = next_window(p, track, &config->aggregates[i], cut, now_ms, &windows[count]);
        count += r == 0 && windows[count] != NULL ? 1 : 0;
    }
    drop_windows(p, track, now_ms);
    track->windows = windows;
    track->window_count = count;
    p->windows_moved = true;
    return r;
}

static int name_points(struct pipeline *p, struct track *track)
{
    free(take_ptr(track->ids));
    const struct config_points *points = &track->config->points;
    uint16_t *ids = calloc(points->count + 1, sizeof *ids);
    if (ids == NULL) {
        return -ENOMEM;
    }
    for (size_t i = 0; i < points->count; i++) {
        int r = store_point(p->store, track->id, points->list[i].name, points->list[i].unit,
                            &ids[i]);
        if (r < 0) {
            free(ids);
            return r;
        }
    }
    track->ids = ids;
    return 0;
}

/* New points: everything that hangs on the old ones has ended. */
static int renew(struct pipeline *p, struct track *track, bool cut)
{
    int r = name_points(p, track);
    if (r < 0) {
        return r;
    }
    thin_destroy(track->thin);
    track->thin = NULL;
    r = thin_create(&track->config->points, &track->thin);
    return r < 0 ? r : track_set_aggregates(p, track, p->config, cut);
}

/* Identities go on where either of the two had come to. */
static void join_seqs(struct track *track, struct device *device)
{
    for (size_t s = 0; s < STREAM_COUNT; s++) {
        uint64_t seq = atomic_load(&device->seq[s]);
        while (seq < track->seq[s] &&
               !atomic_compare_exchange_weak(&device->seq[s], &seq, track->seq[s])) {
        }
        if (s != STREAM_RAW && seq > track->seq[s]) {
            track->seq[s] = seq;
        }
    }
}

int track_configure(struct pipeline *p, struct track *track, const struct config *owner,
                    const struct config_device *config)
{
    int64_t now_ms = pipeline_now_ms(p);
    bool known = track->config != NULL;
    bool same = known && same_points(&track->config->points, &config->points);
    if (known && !same) {
        drop_windows(p, track, now_ms);
    }
    const struct config *former = track->owner;
    track->owner = config_ref(owner);
    track->config = config;
    if (former != NULL) {
        config_unref(former);
    }
    int r = same ? 0 : renew(p, track, known);
    for (size_t i = 0; i < track->window_count; i++) {
        if (!track->windows[i]->open) {
            window_open_at(track->windows[i], now_ms);
        }
    }
    return r;
}

int track_attach(struct pipeline *p, struct track *track, struct device *device)
{
    device_unref(track->device);
    track->device = device;
    device->pipeline_data = track;
    join_seqs(track, device);
    return track_configure(p, track, device->owner, device->config);
}

/* What the queue refused, into the ledger; the scans' own counts go with their data. */
void track_count_overruns(struct pipeline *p, struct track *track)
{
    struct device *device = track->device;
    if (device == NULL ||
        atomic_load_explicit(&device->overrun_readings, memory_order_relaxed) == 0) {
        return;
    }
    uint64_t lost = atomic_exchange_explicit(&device->overrun_readings, 0, memory_order_relaxed);
    store_count(p->store, track->id, LEDGER_READ, lost);
    store_count(p->store, track->id, LEDGER_DROPPED_OVERRUN, lost);
}

void track_detach(struct pipeline *p, struct track *track)
{
    track_count_overruns(p, track);
    latest_detach(p->latest, track->device);
    track->device->pipeline_data = NULL;
    device_unref(take_ptr(track->device));
}

/* Empties a window that gave its result: where the clock or the reading that closed it stands. */
static void close_window(struct pipeline *p, struct track *track, struct window *w, int64_t next_ms)
{
    emit_window(p, track, w);
    window_open_at(w, next_ms);
    p->windows_moved = true;
}

static void feed_window(struct pipeline *p, struct track *track, struct window *w,
                        const struct scan *scan, int64_t now_ms)
{
    switch (window_place(w, scan->time_ms, now_ms)) {
    case WINDOW_CLOSE:
    case WINDOW_SHORT:
        close_window(p, track, w, scan->time_ms);
        break;
    case WINDOW_LATE:
        atomic_fetch_add_explicit(&p->late, window_takes_of(w, scan), memory_order_relaxed);
        return;
    case WINDOW_FITS:
        break;
    }
    window_add(w, scan);
}

void track_feed(struct pipeline *p, struct track *track, const struct scan *scan)
{
    int64_t now_ms = track->window_count > 0 ? pipeline_now_ms(p) : 0;
    for (size_t i = 0; i < track->window_count; i++) {
        feed_window(p, track, track->windows[i], scan, now_ms);
    }
}

static bool close_over(struct pipeline *p, struct track *track, int64_t now_ms)
{
    bool any_open = false;
    for (size_t i = 0; i < track->window_count; i++) {
        struct window *w = track->windows[i];
        if (window_is_over(w, now_ms)) {
            close_window(p, track, w, now_ms);
            w->open = track->device != NULL;
        }
        any_open |= w->open;
    }
    return any_open;
}

void tracks_close_over(struct pipeline *p, int64_t now_ms)
{
    for (size_t i = 0; i < p->track_count;) {
        struct track *track = p->tracks[i];
        bool any_open = close_over(p, track, now_ms);
        if (track->device == NULL && !any_open && track != p->gateway) {
            track_free(track);
            p->tracks[i] = p->tracks[--p->track_count];
        } else {
            i++;
        }
    }
}

void tracks_cut(struct pipeline *p, int64_t now_ms)
{
    for (size_t i = 0; i < p->track_count; i++) {
        struct track *track = p->tracks[i];
        for (size_t k = 0; k < track->window_count; k++) {
            struct window *w = track->windows[k];
            if (w->open && (!window_is_empty(w) || now_ms >= w->end_ms)) {
                window_cut(w, now_ms);
                emit_window(p, track, w);
            }
        }
    }
}

void tracks_reopen(struct pipeline *p, int64_t now_ms)
{
    for (size_t i = 0; i < p->track_count; i++) {
        const struct track *track = p->tracks[i];
        for (size_t k = 0; k < track->window_count; k++) {
            struct window *w = track->windows[k];
            w->open &= track->device != NULL;
            if (w->open) {
                /* A little back, for the scans that are on their way; not over its beginning. */
                int64_t floor_ms = window_floor(now_ms, w->aggregate->window_ms);
                int64_t from_ms = now_ms - WINDOW_GRACE_MS;
                window_open_rest(w, from_ms > floor_ms ? from_ms : floor_ms);
            }
        }
    }
    p->windows_moved = true;
}

/* The earliest start of this aggregate's open windows. */
static int64_t earliest_open(const struct pipeline *p, const struct config_aggregate *aggregate)
{
    int64_t earliest = INT64_MAX;
    for (size_t i = 0; i < p->track_count; i++) {
        const struct track *track = p->tracks[i];
        for (size_t k = 0; k < track->window_count; k++) {
            const struct window *w = track->windows[k];
            if (w->open && w->aggregate == aggregate && w->start_ms < earliest) {
                earliest = w->start_ms;
            }
        }
    }
    return earliest;
}

void tracks_note(struct pipeline *p, int64_t now_ms)
{
    int64_t hold_ms = INT64_MAX;
    for (size_t i = 0; i < p->config->aggregate_count; i++) {
        const struct config_aggregate *aggregate = &p->config->aggregates[i];
        int64_t closed_ms = earliest_open(p, aggregate);
        if (closed_ms == INT64_MAX) {
            continue;
        }
        closed_ms = closed_ms > now_ms - PIPELINE_REBUILD_MS ? closed_ms
                                                             : now_ms - PIPELINE_REBUILD_MS;
        char name[PIPELINE_NOTE_SIZE];
        pipeline_note_name(aggregate, name);
        store_set_note(p->store, name, closed_ms);
        hold_ms = closed_ms < hold_ms ? closed_ms : hold_ms;
    }
    store_hold_since(p->store, hold_ms);
}
