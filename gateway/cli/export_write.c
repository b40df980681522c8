#include "gateway/api/query.h"
#include "gateway/cli/export.h"
#include "uplink/file/file.h"
#include "uplink/selector.h"

#include <errno.h>
#include <string.h>

enum { BATCH_RECORDS = 256, BATCH_BYTES = 1024 * 1024 };

struct work {
    struct store *store;
    const struct export_wish *wish;
    struct outfile *out;
    struct exported *done;
    struct store_waiting *waiting; /* NULL: everything */
    struct selector *selector;     /* NULL: all points */
    enum stream stream;

    /* Scans of one batch; offsets, since the arena moves as it grows. */
    struct buffer arena, picks, lines;
    size_t offsets[BATCH_RECORDS], pick_at[BATCH_RECORDS];
    uint16_t picked[BATCH_RECORDS]; /* UINT16_MAX: all */
    size_t count;
    uint32_t last_device;
    bool last_fits;
};

static int flush(struct work *w)
{
    struct batch_record records[BATCH_RECORDS];
    if (w->count == 0) {
        return 0;
    }
    for (size_t i = 0; i < w->count; i++) {
        const struct scan *scan = (const struct scan *)(const void *)(w->arena.data +
                                                                      w->offsets[i]);
        bool all = w->picked[i] == UINT16_MAX;
        records[i] = (struct batch_record){
            .scan = scan,
            .names = store_names(w->store, scan->device),
            .selected = all ? NULL
                            : (const uint16_t *)(const void *)(w->picks.data + w->pick_at[i]),
            .selected_count = all ? scan->count : w->picked[i]};
    }
    const struct batch batch = {.gateway = w->wish->gateway,
                                .store_id = w->done->store,
                                .stream = w->stream,
                                .records = records,
                                .count = w->count};
    buffer_clear(&w->lines);
    int r = w->wish->csv ? file_encode_csv(&batch, &w->lines)
                         : file_encode_ndjson(&batch, &w->lines);
    if (r == 0 && buffer_failed(&w->lines)) {
        r = -ENOMEM;
    }
    w->count = 0;
    buffer_clear(&w->arena);
    buffer_clear(&w->picks);
    return r < 0 ? r : outfile_write(w->out, w->lines.data, w->lines.len);
}

static bool device_fits(struct work *w, const struct scan *scan)
{
    if (w->wish->device == NULL) {
        return true;
    }
    if (w->last_device != scan->device) {
        const struct store_names *names = store_names(w->store, scan->device);
        w->last_device = scan->device;
        w->last_fits = names != NULL && query_glob(w->wish->device, names->device);
    }
    return w->last_fits;
}

/* Longer by one scan, or another run. */
static int note_run(struct exported *done, const struct scan *scan, uint16_t selected)
{
    struct store_handed *last = done->run_count > 0 ? &done->runs[done->run_count - 1] : NULL;
    if (last != NULL && last->device == scan->device && last->stream == (enum stream)scan->stream &&
        last->last_seq + 1 == scan->seq && last->readings == scan->count &&
        last->selected == selected) {
        last->last_seq++;
        return 0;
    }
    if (done->run_count == done->run_capacity || done->runs == NULL) {
        size_t capacity = done->run_capacity == 0 ? 64 : done->run_capacity * 2;
        struct store_handed *runs = reallocarray(done->runs, capacity, sizeof *runs);
        if (runs == NULL) {
            return -ENOMEM;
        }
        done->runs = runs;
        done->run_capacity = capacity;
    }
    done->runs[done->run_count++] = (struct store_handed){.stream = (enum stream)scan->stream,
                                                          .device = scan->device,
                                                          .first_seq = scan->seq,
                                                          .last_seq = scan->seq,
                                                          .readings = scan->count,
                                                          .selected = selected};
    return 0;
}

/* What is selected of the scan, into the batch at hand; ret_count 0: nothing. */
static int pick(struct work *w, const struct scan *scan, uint16_t *ret_count)
{
    uint16_t count = scan->count;
    bool all = true;
    size_t at = w->picks.len;
    if (w->selector != NULL) {
        uint8_t *room = buffer_reserve(&w->picks, (size_t)scan->count * sizeof(uint16_t));
        const struct store_names *names = store_names(w->store, scan->device);
        int r = room == NULL || names == NULL
                    ? -ENOMEM
                    : selector_pick(w->selector, scan, names, (uint16_t *)(void *)room, &count,
                                    &all);
        if (r < 0) {
            return r;
        }
        w->picks.len += all ? 0 : count * sizeof(uint16_t);
    }
    *ret_count = count;
    if (count == 0) {
        return 0;
    }
    size_t size = scan_size(scan);
    uint8_t *to = buffer_reserve(&w->arena, size);
    if (to == NULL) {
        return -ENOMEM;
    }
    memcpy(to, scan, sizeof(*scan) + scan->count * sizeof(struct reading) + scan->text_len);
    w->offsets[w->count] = w->arena.len;
    w->pick_at[w->count] = at;
    w->picked[w->count++] = all ? UINT16_MAX : count;
    w->arena.len += size;
    return 0;
}

static int on_scan(void *user, const struct scan *scan, bool decided)
{
    struct work *w = user;
    uint16_t selected = 0;
    if (!device_fits(w, scan) || (w->waiting != NULL && !store_waiting_has(w->waiting, scan))) {
        return 0;
    }
    if (w->waiting != NULL && !decided) {
        w->done->held_scans++;
        w->done->held_readings += scan->count;
        return 0;
    }
    int r = pick(w, scan, &selected);
    if (r == 0 && w->waiting != NULL) {
        r = note_run(w->done, scan, selected);
    }
    if (r == 0 && selected > 0) {
        w->done->scans++;
        w->done->readings += selected;
    }
    if (r == 0 && (w->count == BATCH_RECORDS || w->arena.len > BATCH_BYTES)) {
        r = flush(w);
    }
    return r;
}

static int begin(struct work *w)
{
    const struct config_uplink *uplink = w->wish->uplink;
    int r = 0;
    snprintf(w->done->store, sizeof w->done->store, "%s", store_id(w->store));
    if (uplink != NULL) {
        const struct uplink_settings *common = uplink->common;
        r = store_waiting_load(w->store, uplink->name, &w->waiting);
        r = r < 0 ? r : selector_create(&common->points, &w->selector);
    }
    if (r == 0 && w->wish->csv) {
        r = outfile_write(w->out, file_csv_header, strlen(file_csv_header));
    }
    return r;
}

int export_write(struct store *store, const struct export_wish *wish, struct outfile *out,
                 struct exported *ret_exported)
{
    struct work *w = calloc(1, sizeof *w);
    if (w == NULL) {
        return -ENOMEM;
    }
    *ret_exported = (struct exported){.scans = 0};
    *w = (struct work){.store = store, .wish = wish, .out = out, .done = ret_exported};
    int r = begin(w);
    unsigned streams = w->waiting != NULL ? store_waiting_streams(w->waiting) : 1u << STREAM_RAW;
    for (int s = 0; s < STREAM_COUNT && r == 0; s++) {
        w->stream = (enum stream)s;
        if ((streams & 1u << s) != 0) {
            r = store_history_timed(store, w->stream, wish->from_ms, wish->to_ms, on_scan, w);
            r = r < 0 ? r : flush(w);
        }
    }
    selector_destroy(w->selector);
    store_waiting_free(w->waiting);
    buffer_finish(&w->arena);
    buffer_finish(&w->picks);
    buffer_finish(&w->lines);
    free(w);
    return r;
}
