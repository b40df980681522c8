#include "gateway/base/clock.h"
#include "gateway/base/log.h"
#include "gateway/pipeline/state.h"
#include "gateway/store/store.h"

#include <errno.h>
#include <string.h>

int emit_scan(struct pipeline *p, struct track *track, struct scan *scan)
{
    scan->device = track->id;
    /* The store adds statistics of its own to the aggregates, where it thins. */
    uint64_t last = store_last_seq(p->store, scan->stream, track->id);
    track->seq[scan->stream] = last > track->seq[scan->stream] ? last : track->seq[scan->stream];
    scan->seq = ++track->seq[scan->stream];
    if (track->device != NULL) {
        atomic_store_explicit(&track->device->seq[scan->stream], scan->seq, memory_order_relaxed);
    }
    return pipeline_append(p, track, scan);
}

void emit_window(struct pipeline *p, struct track *track, struct window *w)
{
    for (size_t at = 0; at < w->count;) {
        window_result(w, &at, SCAN_READINGS_MAX, p->scratch);
        p->scratch->boot_ms = p->scratch->time_ms - p->clock.offset_ms;
        if (p->scratch->count > 0 && emit_scan(p, track, p->scratch) < 0) {
            break; /* said by pipeline_append() */
        }
    }
    atomic_fetch_add_explicit(&p->windows_closed, 1, memory_order_relaxed);
}

static int name_event_points(struct pipeline *p, struct track *track)
{
    if (track->event_ids_known) {
        return 0;
    }
    int r = store_point(p->store, track->id, "event", "", &track->event_ids[0]);
    if (r == 0) {
        r = store_point(p->store, track->id, "text", "", &track->event_ids[1]);
    }
    track->event_ids_known = r == 0;
    return r;
}

int emit_event(struct pipeline *p, struct track *track, const char *kind, const char *text)
{
    int r = name_event_points(p, track);
    if (r < 0) {
        return r;
    }
    size_t kind_len = strnlen(kind, SCAN_TEXT_MAX / 2), text_len = strnlen(text, SCAN_TEXT_MAX / 2);
    auto_free struct scan *scan = calloc(1, scan_size_for(2, kind_len + text_len));
    if (scan == NULL) {
        return -ENOMEM;
    }
    pipeline_stamp(p, scan);
    scan->stream = STREAM_EVENT;
    scan->count = 2;
    scan->text_len = (uint32_t)(kind_len + text_len);
    for (size_t i = 0; i < 2; i++) {
        scan->readings[i] = (struct reading){.point = track->event_ids[i], .kind = VALUE_TEXT};
    }
    scan->readings[0].text.len = (uint32_t)kind_len;
    scan->readings[1].text.offset = (uint32_t)kind_len;
    scan->readings[1].text.len = (uint32_t)text_len;
    char *texts = (char *)&scan->readings[2];
    memcpy(texts, kind, kind_len);
    memcpy(texts + kind_len, text, text_len);
    return emit_scan(p, track, scan);
}
