/* window.h - one aggregate of one device: the points it takes and the window open now.
 *
 * Pure but for memory; pipeline thread. Windows are aligned to UTC (floor of the Unix time, so 10
 * minutes begin at :00, :10; a day at midnight). A window is closed by a reading of a later one, by
 * the clock once it passed the end and WINDOW_GRACE_MS, or short when it turns out to lie in the
 * future (the clock was set back) or the configuration changed. What is left of a window that
 * closed short begins at the cut, so that no two results have the same start. */
#pragma once

#include "config/config.h"
#include "gateway/base/scan.h"
#include "gateway/pipeline/statistics.h"

enum { WINDOW_GRACE_MS = 2000 };
#define WINDOW_NO_SLOT UINT16_MAX

struct window {
    const struct config_aggregate *aggregate;
    int64_t start_ms, end_ms;
    bool open;
    uint16_t count;               /* points taken */
    uint16_t slot_count;          /* points of the device */
    uint16_t *points;             /* count: their index in the configuration */
    uint16_t *slots;              /* slot_count: position in `points`, or WINDOW_NO_SLOT */
    bool *circular;               /* count */
    struct statistic *statistics; /* count */
    struct samples *samples;      /* count; NULL unless median or p95 is asked for */
    uint16_t *ids;                /* count * functions: the store's ids of the results */
    int64_t result_until_ms;      /* results before this time are in the store (rebuild) */
};

/* -ENOENT: the aggregate takes no point of this device; -ENOMEM. */
must_check int window_create(const struct config_aggregate *aggregate,
                             const struct config_device *device, struct window **ret_window);
void window_destroy(struct window *window);

/* Whether a glob of the list fits POINT or DEVICE.POINT. */
bool window_takes(const struct config_list *globs, const char *device, const char *point);

/* The start of the aligned window that holds that time; also before 1970. */
int64_t window_floor(int64_t time_ms, int64_t window_ms);

/* Opens the aligned window that holds that time, empty; or what is left of it from that time on. */
void window_open_at(struct window *window, int64_t time_ms);
void window_open_rest(struct window *window, int64_t time_ms);

/* Ends the open window at the cut, where that lies inside: what its result then says. */
void window_cut(struct window *window, int64_t cut_ms);

enum window_place {
    WINDOW_FITS,
    WINDOW_CLOSE, /* of a later window: close the open one, open its own */
    WINDOW_SHORT, /* the open one lies in the future: close it, open its own */
    WINDOW_LATE,  /* older than the open window: raw only */
};
enum window_place window_place(const struct window *window, int64_t time_ms, int64_t now_ms);

/* Lets the readings of a scaled scan in; `point` is the configuration's index. */
void window_add(struct window *window, const struct scan *scan);
void window_add_reading(struct window *window, const struct reading *reading);

/* How many readings of the scan are of its points. */
size_t window_takes_of(const struct window *window, const struct scan *scan);

/* Whether nothing has entered. */
bool window_is_empty(const struct window *window);

/* Whether the clock alone closes it. */
bool window_is_over(const struct window *window, int64_t now_ms);

/* How many functions it has: ids[slot * functions + i] is the i-th set bit's of that slot. */
size_t window_functions(const struct window *window);

/* Fills a scan of the aggregate stream (time, window_s, readings with store ids) from slot *at on,
 * as many points as `max` readings (at least STATISTICS_FUNCTIONS) hold; *at moves on, the last
 * call leaves it at `count`. */
void window_result(struct window *window, size_t *at, size_t max, struct scan *ret_scan);
