#include "uplink/flight.h"

#include <errno.h>
#include <string.h>

/* A take of which nothing is selected is settled and followed by another one, this many times
 * before the sender looks at its other work. */
enum { TAKES_IN_A_ROW = 32, DAMAGED_IN_A_ROW = 8 };

void flight_finish(struct flight *f)
{
    buffer_finish(&f->arena);
    buffer_finish(&f->request.body);
    buffer_finish(&f->request.headers);
    free(f->records);
    free(f->scan_of);
    free(f->picks);
}

static int make_room(struct flight *f)
{
    size_t readings = 0;
    for (size_t i = 0; i < f->scan_count; i++) {
        readings += f->scans[i]->count;
    }
    f->readings = readings;
    if (f->scan_count > f->record_capacity) {
        void *records = realloc(f->records, f->scan_count * sizeof *f->records);
        f->records = records != NULL ? records : f->records;
        void *scan_of = realloc(f->scan_of, f->scan_count * sizeof *f->scan_of);
        f->scan_of = scan_of != NULL ? scan_of : f->scan_of;
        if (records == NULL || scan_of == NULL) {
            return -ENOMEM;
        }
        f->record_capacity = f->scan_count;
    }
    if (readings > f->pick_capacity) {
        void *picks = realloc(f->picks, readings * sizeof *f->picks);
        if (picks == NULL) {
            return -ENOMEM;
        }
        f->picks = picks;
        f->pick_capacity = readings;
    }
    return 0;
}

static int pick_records(struct flight *f, struct store *store, struct selector *selector)
{
    int r = make_room(f);
    uint16_t *picks = f->picks;
    f->record_count = 0;
    for (size_t i = 0; i < f->scan_count && r == 0; i++) {
        const struct scan *scan = f->scans[i];
        const struct store_names *names = store_names(store, scan->device);
        uint16_t count = 0;
        bool all = false;
        if (names == NULL) {
            r = -ENOENT;
        } else if (scan->time_ms >= f->expired_before_ms) {
            r = selector_pick(selector, scan, names, picks, &count, &all);
        }
        if (count > 0 && r == 0) {
            f->scan_of[f->record_count] = i;
            f->records[f->record_count++] = (struct batch_record){.scan = scan,
                                                                  .names = names,
                                                                  .selected = all ? NULL : picks,
                                                                  .selected_count = count};
            picks += all ? 0 : count;
        }
    }
    return r;
}

/* Where the scans of records up to `to` end: those in which nothing is selected go with the record
 * before them. */
static size_t scans_end(const struct flight *f, size_t to)
{
    return to == f->record_count ? f->scan_count : f->scan_of[to - 1] + 1;
}

static const struct uplink_rejected *rejection(const struct uplink_verdict *verdict, size_t record)
{
    for (size_t i = 0; i < verdict->rejected_count; i++) {
        if (verdict->rejected[i].record == record) {
            return &verdict->rejected[i];
        }
    }
    return NULL;
}

/* Adds one scan's readings to its device's settlement; record is NULL when nothing is selected. */
static int settle_scan(struct flight *f, struct store_reader *reader, const struct scan *scan,
                       const struct batch_record *record, const char *why,
                       struct store_settlement *to)
{
    if (record == NULL) {
        bool expired = scan->time_ms < f->expired_before_ms;
        to->fates[expired ? FATE_EXPIRED : FATE_NOT_SELECTED] += scan->count;
        return 0;
    }
    to->fates[FATE_NOT_SELECTED] += (uint64_t)(scan->count - record->selected_count);
    if (why == NULL) {
        to->fates[FATE_DELIVERED] += record->selected_count;
        return 0;
    }
    to->fates[FATE_DEAD] += record->selected_count;
    return store_dead_letter(reader, scan, record->selected, record->selected_count, why);
}

/* Why that record is dead, NULL: it is delivered. */
static const char *dead_because(const struct uplink_verdict *verdict, size_t record)
{
    if (verdict->outcome == UPLINK_REJECTED) {
        return verdict->why;
    }
    const struct uplink_rejected *rejected = rejection(verdict, record);
    return rejected != NULL ? rejected->why : NULL;
}

static bool goes_again(const struct uplink_verdict *verdict, size_t record)
{
    const struct uplink_rejected *rejected = verdict->outcome == UPLINK_DELIVERED
                                                 ? rejection(verdict, record)
                                                 : NULL;
    return rejected != NULL && rejected->again;
}

/* A part while it is settled. What is put off stays directly before next_scan and from, so that
 * it and what could not be settled are always one part. */
struct settling {
    const struct uplink_verdict *verdict;
    size_t first, end; /* record that the verdict counts from; scan behind the part */
    size_t put_off;    /* of scans, and of records */
};

/* Moves what was put off behind the scans up to `scan` and the records up to `record`, which are
 * done with. */
static void advance(struct flight *f, const struct settling *s, size_t scan, size_t record)
{
    size_t n = s->put_off;
    memmove(f->scans + scan - n, f->scans + f->next_scan - n, n * sizeof *f->scans);
    memmove(f->records + record - n, f->records + f->from - n, n * sizeof *f->records);
    for (size_t i = 0; i < n; i++) {
        f->scan_of[record - n + i] = scan - n + i;
    }
    f->next_scan = scan;
    f->from = record;
}

/* The scans of one device from next_scan on, up to the part's end or one that is put off. */
static int settle_run(struct flight *f, struct store_reader *reader, struct settling *s,
                      struct flight_result *result)
{
    size_t i = f->next_scan, record = f->from;
    uint32_t device = f->scans[i]->device;
    uint64_t readings = 0;
    struct store_settlement run = {
        .stream = f->stream, .device = device, .first_seq = f->scans[i]->seq};
    for (; i < s->end && f->scans[i]->device == device; i++) {
        const struct batch_record *r = NULL;
        const char *why = NULL;
        if (record < f->to && f->scan_of[record] == i) {
            if (goes_again(s->verdict, record - s->first)) {
                break;
            }
            r = &f->records[record];
            why = dead_because(s->verdict, record++ - s->first);
        }
        int e = settle_scan(f, reader, f->scans[i], r, why, &run);
        if (e < 0) {
            return e;
        }
        run.last_seq = f->scans[i]->seq;
        readings += f->scans[i]->count;
    }
    if (i == f->next_scan) { /* put off itself: it stays where it is */
        s->put_off++;
        f->next_scan++;
        f->from++;
        return 0;
    }
    int e = store_reader_settle(reader, &run);
    if (e < 0) {
        return e;
    }
    f->readings -= readings;
    f->encoded = false;
    advance(f, s, i, record);
    result->delivered += run.fates[FATE_DELIVERED];
    result->dead += run.fates[FATE_DEAD];
    return 0;
}

static int settle_part(struct flight *f, struct store_reader *reader,
                       const struct uplink_verdict *verdict, struct flight_result *result)
{
    struct settling s = {.verdict = verdict, .first = f->from, .end = scans_end(f, f->to)};
    int r = 0;
    while (f->next_scan < s.end && r == 0) {
        r = settle_run(f, reader, &s, result);
    }
    f->next_scan -= s.put_off;
    f->from -= s.put_off;
    result->put_off = r == 0 ? s.put_off : 0;
    return r;
}

static void next_part(struct flight *f)
{
    f->encoded = false;
    f->from = f->to;
    size_t left = f->record_count - f->from;
    f->to = f->from + (left < f->cap ? left : f->cap);
    f->state = left > 0 ? FLIGHT_READY : FLIGHT_FREE;
}

static int take_scans(struct flight *f, struct store_reader *reader, size_t max_scans)
{
    int r = -EBADMSG;
    for (int i = 0; i < DAMAGED_IN_A_ROW && r == -EBADMSG; i++) {
        buffer_clear(&f->arena);
        f->scan_count = f->next_scan = 0;
        r = store_reader_take(reader, f->lane, f->stream, max_scans, FLIGHT_TAKE_BYTES, &f->arena,
                              &f->scans, &f->scan_count);
    }
    return r;
}

int flight_take(struct flight *f, struct store *store, struct store_reader *reader,
                struct selector *selector, enum store_lane lane, enum stream stream,
                size_t max_scans, size_t cap_max, int64_t expired_before_ms, bool *ret_got)
{
    f->lane = lane;
    f->stream = stream;
    f->expired_before_ms = expired_before_ms;
    f->cap = f->cap_max = cap_max;
    f->record_count = f->from = f->to = 0;
    f->put_offs = 0;
    *ret_got = false;
    for (int i = 0; i < TAKES_IN_A_ROW; i++) {
        int r = take_scans(f, reader, max_scans);
        if (r < 0 || f->scan_count == 0) {
            return r;
        }
        *ret_got = true;
        r = pick_records(f, store, selector);
        if (r < 0) {
            f->record_count = 0;
            flight_return(f, reader);
            return r;
        }
        if (f->record_count > 0) {
            f->full = f->scan_count >= max_scans || f->arena.len >= FLIGHT_TAKE_BYTES / 2;
            next_part(f);
            return 0;
        }
        struct flight_result nothing = {0};
        static const struct uplink_verdict none = {.outcome = UPLINK_DELIVERED};
        r = settle_part(f, reader, &none, &nothing);
        if (r < 0) {
            return r;
        }
    }
    return 0;
}

struct batch flight_batch(const struct flight *f, const char *gateway, const char *store_id)
{
    return (struct batch){.gateway = gateway,
                          .store_id = store_id,
                          .stream = f->stream,
                          .records = f->records + f->from,
                          .count = f->to - f->from};
}

int flight_encode(struct flight *f, const struct uplink *type, const void *settings,
                  const char *gateway, const char *store_id)
{
    if (f->encoded) {
        return 0;
    }
    struct batch batch = flight_batch(f, gateway, store_id);
    if (type->together != NULL) {
        batch.count = type->together(settings, &batch);
        f->to = f->from + batch.count;
    }
    int r = type->encode(settings, &batch, &f->request);
    f->encoded = r == 0;
    return r;
}

bool flight_shrink(struct flight *f, bool too_large)
{
    size_t count = f->to - f->from;
    if (count <= 1) {
        return false;
    }
    f->cap = count / 2;
    if (too_large) {
        f->cap_max = f->cap;
    }
    f->to = f->from;
    next_part(f);
    return true;
}

int flight_settle(struct flight *f, struct store_reader *reader,
                  const struct uplink_verdict *verdict, struct flight_result *ret)
{
    int r = settle_part(f, reader, verdict, ret);
    if (r < 0) {
        return r;
    }
    if (ret->put_off > 0) {
        f->encoded = false;
        f->state = FLIGHT_READY;
        return 0;
    }
    f->cap = f->cap * 2 < f->cap_max ? f->cap * 2 : f->cap_max;
    next_part(f);
    return 0;
}

void flight_return(struct flight *f, struct store_reader *reader)
{
    for (size_t i = f->next_scan; i < f->scan_count;) {
        size_t last = i;
        while (last + 1 < f->scan_count && f->scans[last + 1]->device == f->scans[i]->device) {
            last++;
        }
        store_reader_return(reader, f->stream, f->scans[i]->device, f->scans[i]->seq,
                            f->scans[last]->seq);
        i = last + 1;
    }
    f->state = FLIGHT_FREE;
}
