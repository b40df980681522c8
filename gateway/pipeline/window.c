#include "gateway/pipeline/window.h"

#include <errno.h>
#include <fnmatch.h>
#include <string.h>

#define WITH_SAMPLES (FUNCTION_MEDIAN | FUNCTION_P95)

bool window_takes(const struct config_list *globs, const char *device, const char *point)
{
    char full[512];
    snprintf(full, sizeof full, "%s.%s", device, point);
    for (size_t i = 0; i < globs->count; i++) {
        if (fnmatch(globs->items[i], point, 0) == 0 || fnmatch(globs->items[i], full, 0) == 0) {
            return true;
        }
    }
    return false;
}

size_t window_functions(const struct window *window)
{
    return (size_t)__builtin_popcount(window->aggregate->functions);
}

static int allocate(struct window *w)
{
    w->points = calloc(w->count, sizeof *w->points);
    w->statistics = calloc(w->count, sizeof *w->statistics);
    w->circular = calloc(w->count, sizeof *w->circular);
    w->ids = calloc(w->count * window_functions(w), sizeof *w->ids);
    bool samples = (w->aggregate->functions & WITH_SAMPLES) != 0;
    w->samples = samples ? calloc(w->count, sizeof *w->samples) : NULL;
    bool complete = w->points != NULL && w->statistics != NULL && w->circular != NULL &&
                    w->ids != NULL && (!samples || w->samples != NULL);
    return complete ? 0 : -ENOMEM;
}

/* Numbers the points taken; the count is known when all were looked at. */
static int fill_slots(struct window *w, const struct config_device *device)
{
    w->slot_count = (uint16_t)device->points.count;
    w->slots = calloc(w->slot_count + 1U, sizeof *w->slots);
    if (w->slots == NULL) {
        return -ENOMEM;
    }
    for (uint16_t i = 0; i < w->slot_count; i++) {
        bool taken = window_takes(&w->aggregate->points, device->name, device->points.list[i].name);
        w->slots[i] = taken ? w->count++ : WINDOW_NO_SLOT;
    }
    return w->count == 0 ? -ENOENT : 0;
}

int window_create(const struct config_aggregate *aggregate, const struct config_device *device,
                  struct window **ret_window)
{
    struct window *w = calloc(1, sizeof *w);
    if (w == NULL) {
        return -ENOMEM;
    }
    w->aggregate = aggregate;
    int r = fill_slots(w, device);
    if (r == 0) {
        r = allocate(w);
    }
    if (r < 0) {
        window_destroy(w);
        return r;
    }
    for (uint16_t i = 0; i < w->slot_count; i++) {
        if (w->slots[i] != WINDOW_NO_SLOT) {
            w->points[w->slots[i]] = i;
            w->circular[w->slots[i]] = device->points.list[i].circular;
        }
    }
    *ret_window = w;
    return 0;
}

void window_destroy(struct window *w)
{
    if (w == NULL) {
        return;
    }
    for (size_t i = 0; w->samples != NULL && i < w->count; i++) {
        samples_finish(&w->samples[i]);
    }
    free(w->points);
    free(w->slots);
    free(w->circular);
    free(w->statistics);
    free(w->samples);
    free(w->ids);
    free(w);
}

int64_t window_floor(int64_t time_ms, int64_t window_ms)
{
    int64_t rest = time_ms % window_ms;
    return time_ms - (rest < 0 ? rest + window_ms : rest);
}

static void empty(struct window *w)
{
    memset(w->statistics, 0, w->count * sizeof *w->statistics);
    for (size_t i = 0; w->samples != NULL && i < w->count; i++) {
        w->samples[i].count = w->samples[i].stride = w->samples[i].skip = 0;
    }
}

void window_open_at(struct window *w, int64_t time_ms)
{
    w->start_ms = window_floor(time_ms, w->aggregate->window_ms);
    w->end_ms = w->start_ms + w->aggregate->window_ms;
    w->open = true;
    empty(w);
}

void window_open_rest(struct window *w, int64_t time_ms)
{
    window_open_at(w, time_ms);
    w->start_ms = time_ms;
}

void window_cut(struct window *w, int64_t cut_ms)
{
    if (w->open && cut_ms > w->start_ms && cut_ms < w->end_ms) {
        w->end_ms = cut_ms;
    }
}

enum window_place window_place(const struct window *w, int64_t time_ms, int64_t now_ms)
{
    if (time_ms >= w->end_ms) {
        return WINDOW_CLOSE;
    }
    if (time_ms >= w->start_ms) {
        return WINDOW_FITS;
    }
    return w->start_ms > now_ms + WINDOW_GRACE_MS ? WINDOW_SHORT : WINDOW_LATE;
}

static uint16_t slot_of(const struct window *w, const struct reading *reading)
{
    return reading->point < w->slot_count ? w->slots[reading->point] : WINDOW_NO_SLOT;
}

void window_add_reading(struct window *w, const struct reading *reading)
{
    uint16_t slot = slot_of(w, reading);
    if (slot == WINDOW_NO_SLOT) {
        return;
    }
    if (statistic_add(&w->statistics[slot], reading, w->circular[slot]) && w->samples != NULL &&
        reading->kind != VALUE_TEXT) {
        samples_add(&w->samples[slot], reading_double(reading));
    }
}

void window_add(struct window *w, const struct scan *scan)
{
    for (size_t i = 0; i < scan->count; i++) {
        window_add_reading(w, &scan->readings[i]);
    }
}

size_t window_takes_of(const struct window *w, const struct scan *scan)
{
    size_t taken = 0;
    for (size_t i = 0; i < scan->count; i++) {
        taken += slot_of(w, &scan->readings[i]) != WINDOW_NO_SLOT ? 1 : 0;
    }
    return taken;
}

bool window_is_empty(const struct window *w)
{
    for (size_t i = 0; i < w->count; i++) {
        if (w->statistics[i].count > 0) {
            return false;
        }
    }
    return true;
}

bool window_is_over(const struct window *w, int64_t now_ms)
{
    return w->open && now_ms >= w->end_ms + WINDOW_GRACE_MS;
}

static void point_result(struct window *w, size_t slot, struct scan *scan)
{
    const uint16_t *id = &w->ids[slot * window_functions(w)];
    struct samples *samples = w->samples != NULL ? &w->samples[slot] : NULL;
    for (unsigned left = w->aggregate->functions; left != 0; left &= left - 1, id++) {
        enum config_functions function = left & -left;
        struct reading *reading = &scan->readings[scan->count];
        *reading = (struct reading){.point = *id};
        if (statistic_result(&w->statistics[slot], samples, function, w->circular[slot], reading) ==
            0) {
            scan->count++;
        }
    }
}

void window_result(struct window *w, size_t *at, size_t max, struct scan *ret_scan)
{
    *ret_scan = (struct scan){.time_ms = w->start_ms,
                              .window_s = (uint32_t)((w->end_ms - w->start_ms + 500) / 1000),
                              .stream = STREAM_AGGREGATE};
    size_t functions = window_functions(w);
    for (; *at < w->count && ret_scan->count + functions <= max; (*at)++) {
        point_result(w, *at, ret_scan);
    }
}
