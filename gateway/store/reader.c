#include "gateway/store/reader.h"

#include "gateway/base/clock.h"
#include "gateway/store/lanes.h"

#include <errno.h>
#include <string.h>
#include <sys/eventfd.h>

static uint64_t waiting_of(const struct state_uplink *uplink, size_t devices)
{
    uint64_t waiting = 0;
    for (size_t i = 0; i < devices; i++) {
        for (unsigned s = 0; s < STREAM_COUNT; s++) {
            waiting += uplink->devices[i].streams[s].waiting;
        }
    }
    return waiting;
}

/* What is committed now belongs to the backfill lane, and nothing of what a commit is about to
 * bring: that comes to the live lane, and would stay in this count for ever. Under the lock. */
static void set_boundary(struct store_reader *reader)
{
    const struct state_uplink *uplink = &reader->store->state.uplinks[reader->uplink];
    reader->backfill_readings = 0;
    for (size_t d = 0; uplink->name != NULL && d < reader->store->state.device_count; d++) {
        for (unsigned s = 0; s < STREAM_COUNT; s++) {
            const struct track *track = &uplink->devices[d].streams[s];
            reader->backfill_readings += track->waiting > track->coming
                                             ? track->waiting - track->coming
                                             : 0;
        }
    }
    for (size_t d = 0; d < reader->device_count; d++) {
        memcpy(reader->devices[d].boundary, reader->store->state.devices[d].committed,
               sizeof(reader->devices[d].boundary));
    }
}

static int attach(struct store_reader *reader)
{
    struct store *store = reader->store;
    store_lock(store);
    struct state_uplink *uplink = &store->state.uplinks[reader->uplink];
    int rc = uplink->name == NULL ? -ENOENT : store->readers[reader->uplink] != NULL ? -EBUSY : 0;
    if (rc == 0) {
        rc = lanes_grow(reader);
    }
    if (rc == 0) {
        store->readers[reader->uplink] = reader;
        uint64_t now = store->newest + 1;
        struct lane *backfill = &reader->lanes[STORE_LANE_BACKFILL];
        *backfill = (struct lane){.next = uplink->floor, .end = reader->split ? now : UINT64_MAX};
        reader->lanes[STORE_LANE_LIVE] = (struct lane){.next = now,
                                                       .end = reader->split ? UINT64_MAX : 0};
        set_boundary(reader);
        lanes_begin_pass(reader, STORE_LANE_BACKFILL);
    }
    store_unlock(store);
    return rc;
}

int store_reader_create(struct store *store, unsigned uplink, bool split,
                        struct store_reader **ret_reader)
{
    if (uplink >= STORE_UPLINKS_MAX) {
        return -EINVAL;
    }
    struct store_reader *reader = calloc(1, sizeof(*reader));
    if (reader == NULL) {
        return -ENOMEM;
    }
    reader->store = store;
    reader->uplink = uplink;
    reader->split = split;
    reader->requeued_from = reader->held_from = UINT64_MAX;
    reader->block.max = WAL_RAW_MAX * 2;
    reader->eventfd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    int rc = reader->eventfd < 0 ? -errno : wal_decoder_create(&reader->decoder);
    if (rc == 0) {
        rc = attach(reader);
    }
    if (rc < 0) {
        store_reader_destroy(reader);
        return rc;
    }
    *ret_reader = reader;
    return 0;
}

void store_reader_destroy(struct store_reader *reader)
{
    if (reader == NULL) {
        return;
    }
    store_lock(reader->store);
    if (reader->store->readers[reader->uplink] == reader) {
        reader->store->readers[reader->uplink] = NULL;
    }
    store_unlock(reader->store);
    lanes_finish(reader);
    wal_decoder_destroy(reader->decoder);
    wal_encoder_destroy(reader->encoder);
    buffer_finish(&reader->block);
    if (reader->eventfd >= 0) {
        close(reader->eventfd);
    }
    free(reader);
}

void store_reader_split(struct store_reader *reader)
{
    if (!reader->split) {
        return;
    }
    struct lane *backfill = &reader->lanes[STORE_LANE_BACKFILL];
    struct lane *live = &reader->lanes[STORE_LANE_LIVE];
    uint64_t floor = lanes_floor(reader);
    lanes_rewind(reader, STORE_LANE_BACKFILL);
    lanes_rewind(reader, STORE_LANE_LIVE);
    struct store *store = reader->store;
    store_lock(store);
    if (lanes_grow(reader) < 0) {
        store_unlock(store);
        return; /* the lanes stay as they are */
    }
    uint64_t now = store->newest + 1;
    set_boundary(reader);
    store_unlock(store);
    backfill->next = floor;
    backfill->end = now;
    live->next = now;
}

int store_reader_eventfd(struct store_reader *reader)
{
    return reader->eventfd;
}

void store_reader_seen(struct store_reader *reader)
{
    uint64_t count;
    ssize_t n = read(reader->eventfd, &count, sizeof(count));
    (void)n; /* nothing there: seen before */
}

void reader_wake(struct store_reader *reader)
{
    uint64_t one = 1;
    ssize_t n = write(reader->eventfd, &one, sizeof(one));
    (void)n; /* full: it is readable already */
}

/* Readings of a scan wait no more. Each is taken off once, by whoever settles its scan first: a
 * count that is too low ends the backlog before its end. Under the lock. */
static void shrink_backfill(struct store_reader *reader, unsigned stream, uint32_t device,
                            uint64_t seq, uint64_t readings)
{
    if (reader->split && lanes_of(reader, stream, device, seq) == STORE_LANE_BACKFILL) {
        uint64_t left = reader->backfill_readings;
        reader->backfill_readings -= readings < left ? readings : left;
    }
}

void reader_overtake(struct store_reader *reader, const struct wal_row *row, enum ledger_fate fate,
                     uint32_t aside)
{
    if (row->device > reader->device_count) {
        return;
    }
    shrink_backfill(reader, row->stream, row->device, row->seq, row->count);
    for (unsigned l = 0; l < STORE_LANES; l++) {
        struct flight *flight = reader->devices[row->device - 1].flights[l][row->stream];
        for (size_t i = 0; flight != NULL && i < flight->count; i++) {
            if (flight->items[i].seq == row->seq) {
                flight->items[i].overtaken = (int)fate;
                flight->items[i].aside = aside;
            }
        }
    }
}

void reader_reopen(struct store_reader *reader, const struct scan *scan)
{
    if (scan->device > reader->device_count) {
        return;
    }
    for (unsigned l = 0; l < STORE_LANES; l++) {
        struct flight *flight = reader->devices[scan->device - 1].flights[l][scan->stream];
        for (size_t i = 0; flight != NULL && i < flight->count; i++) {
            struct flight_item *item = &flight->items[i];
            if (item->prev_seq < scan->seq && item->seq > scan->seq) {
                item->prev_seq = scan->seq;
            }
        }
    }
}

/* What a take has gathered so far. */
struct taking {
    struct staged **scans; /* grows */
    size_t count, capacity;
    size_t bytes;
};

static int gather(struct taking *taking, struct staged *staged)
{
    if (taking->count == taking->capacity) {
        size_t capacity = taking->capacity == 0 ? 64 : taking->capacity * 2;
        struct staged **scans = reallocarray(taking->scans, capacity, sizeof(struct staged *));
        if (scans == NULL) {
            return -ENOMEM;
        }
        taking->scans = scans;
        taking->capacity = capacity;
    }
    taking->scans[taking->count++] = staged;
    taking->bytes += scan_size(staged->scan);
    return 0;
}

/* Under the lock. Too old: settled here, as the writer would. */
static bool expire(struct store_reader *reader, struct track *track, const struct staged *staged)
{
    struct state_uplink *uplink = &reader->store->state.uplinks[reader->uplink];
    const struct scan *scan = staged->scan;
    int64_t taken_ms = scan->time_ms < staged->written_ms ? scan->time_ms : staged->written_ms;
    if (uplink->max_age_ms <= 0 ||
        taken_ms >= store_age_now_ms(reader->store) - uplink->max_age_ms ||
        ranges_add(&track->settled, staged->prev_seq + 1, scan->seq) < 0) {
        return false;
    }
    uint64_t readings = scan->count < track->waiting ? scan->count : track->waiting;
    track->waiting -= readings;
    uplink->devices[scan->device - 1].fates[FATE_EXPIRED] += readings;
    shrink_backfill(reader, scan->stream, scan->device, scan->seq, readings);
    reader->store->marked = true;
    return true;
}

/* Whether the first staged scan is still to be sent; otherwise it is done with. Under the lock. */
static bool still_wanted(struct store_reader *reader, const struct staged *staged)
{
    struct track *track = ledger_track(reader->store, reader->uplink, staged->scan->stream,
                                       staged->scan->device);
    return track != NULL && !ranges_contains(&track->settled, staged->scan->seq) &&
           !expire(reader, track, staged);
}

static void discard(struct store_reader *reader, enum store_lane lane, struct staged *staged)
{
    lanes_close_one(reader, staged->number);
    lanes_release(reader, lane, staged);
}

/* Takes what it can of one device; they are in flight afterwards. Under the lock. */
static int take_device(struct store_reader *reader, enum store_lane lane, enum stream stream,
                       uint32_t device, size_t max_scans, size_t max_bytes, struct taking *taking)
{
    struct chain *chain = &reader->devices[device - 1].chains[lane][stream];
    size_t from = taking->count;
    int rc = 0;
    while (chain->first != NULL && taking->count < max_scans && rc == 0) {
        struct staged *first = chain->first;
        if (!still_wanted(reader, first)) {
            discard(reader, lane, lanes_pop(reader, lane, stream, device));
            continue;
        }
        if (taking->count > 0 && taking->bytes + scan_size(first->scan) > max_bytes) {
            break;
        }
        rc = gather(taking, first);
        if (rc == 0) {
            (void)lanes_pop(reader, lane, stream, device);
        }
    }
    size_t count = taking->count - from;
    if (count == 0) {
        return rc;
    }
    struct flight *flight = malloc(sizeof(*flight) + count * sizeof(flight->items[0]));
    if (flight == NULL) {
        reader->lanes[lane].rewind = true; /* they are read again */
        for (size_t i = from; i < taking->count; i++) {
            lanes_release(reader, lane, taking->scans[i]);
        }
        taking->count = from;
        return -ENOMEM;
    }
    flight->count = count;
    for (size_t i = 0; i < count; i++) {
        const struct staged *staged = taking->scans[from + i];
        flight->items[i] = (struct flight_item){.seq = staged->scan->seq,
                                                .prev_seq = staged->prev_seq,
                                                .number = staged->number,
                                                .readings = staged->scan->count,
                                                .overtaken = -1};
    }
    reader->devices[device - 1].flights[lane][stream] = flight;
    return rc;
}

static int take_devices(struct store_reader *reader, enum store_lane lane, enum stream stream,
                        size_t max_scans, size_t max_bytes, struct taking *taking)
{
    int rc = 0;
    uint32_t count = (uint32_t)reader->device_count;
    uint32_t *rotor = &reader->lanes[lane].rotor[stream];
    store_lock(reader->store);
    /* What was read ahead does not know of scans that wait again: it is read anew first. */
    bool stale = reader->barred || reader->requeued;
    for (uint32_t i = 0; !stale && i < count && rc == 0 && taking->count < max_scans &&
                         (taking->count == 0 || taking->bytes < max_bytes) &&
                         reader->lanes[lane].staged[stream] > 0;
         i++) {
        uint32_t device = *rotor % count + 1;
        if (reader->devices[device - 1].chains[lane][stream].first != NULL &&
            !lanes_in_flight(reader, lane, device)) {
            rc = take_device(reader, lane, stream, device, max_scans, max_bytes, taking);
        }
        *rotor = device;
    }
    store_unlock(reader->store);
    return rc;
}

/* The array of pointers, then the scans, in one piece of the caller's arena. */
static int copy_out(struct taking *taking, struct buffer *arena, const struct scan ***ret_scans)
{
    buffer_clear(arena);
    size_t head = taking->count * sizeof(struct scan *);
    head = (head + 7) & ~(size_t)7;
    uint8_t *to = buffer_reserve(arena, head + taking->bytes);
    if (to == NULL) {
        return -ENOMEM;
    }
    const struct scan **scans = (const struct scan **)(void *)to;
    size_t at = head;
    for (size_t i = 0; i < taking->count; i++) {
        size_t size = scan_size(taking->scans[i]->scan);
        memcpy(to + at, taking->scans[i]->scan, size);
        scans[i] = (const struct scan *)(const void *)(to + at);
        at += size;
    }
    arena->len = at;
    *ret_scans = scans;
    return 0;
}

static void return_all(struct store_reader *reader, const struct taking *taking)
{
    for (size_t i = 0; i < taking->count; i++) {
        const struct scan *scan = taking->scans[i]->scan;
        store_reader_return(reader, (enum stream)scan->stream, scan->device, scan->seq, scan->seq);
    }
}

int store_reader_take(struct store_reader *reader, enum store_lane lane, enum stream stream,
                      size_t max_scans, size_t max_bytes, struct buffer *ret_arena,
                      const struct scan ***ret_scans, size_t *ret_count)
{
    if (reader->store->failed) {
        return -EIO;
    }
    if (atomic_exchange(&reader->split_due, false)) {
        store_reader_split(reader);
    }
    int rc = lanes_load(reader, lane);
    if (rc < 0 && (rc != -EBADMSG || reader->lanes[lane].staged[stream] == 0)) {
        return rc;
    }
    struct taking taking = {0};
    rc = take_devices(reader, lane, stream, max_scans, max_bytes, &taking);
    const struct scan **scans = NULL;
    if (rc == 0 && taking.count > 0) {
        rc = copy_out(&taking, ret_arena, &scans);
    }
    if (rc < 0) {
        return_all(reader, &taking);
    }
    for (size_t i = 0; i < taking.count; i++) {
        lanes_release(reader, lane, taking.scans[i]);
    }
    free(taking.scans);
    if (rc < 0) {
        return rc;
    }
    *ret_scans = scans;
    *ret_count = taking.count;
    return 0;
}

/* The items of a flight within first..last are [*ret_from, *ret_to). Its pointer is where the
 * reader keeps it. */
static struct flight **find_flight(struct store_reader *reader, unsigned stream, uint32_t device,
                                   uint64_t first, uint64_t last, size_t *ret_from, size_t *ret_to)
{
    if (stream >= STREAM_COUNT || device == 0 || device > reader->device_count) {
        return NULL;
    }
    for (unsigned l = 0; l < STORE_LANES; l++) {
        struct flight **at = &reader->devices[device - 1].flights[l][stream];
        const struct flight *flight = *at;
        size_t from = 0;
        while (flight != NULL && from < flight->count && flight->items[from].seq < first) {
            from++;
        }
        size_t to = from;
        while (flight != NULL && to < flight->count && flight->items[to].seq <= last) {
            to++;
        }
        if (from < to) {
            *ret_from = from;
            *ret_to = to;
            return at;
        }
    }
    return NULL;
}

/* Takes items out of a flight; the last one frees it. Under the lock. */
static void land(struct flight **at, size_t from, size_t to)
{
    struct flight *flight = *at;
    memmove(&flight->items[from], &flight->items[to],
            (flight->count - to) * sizeof(flight->items[0]));
    flight->count -= to - from;
    if (flight->count == 0) {
        free(flight);
        *at = NULL;
    }
}

/* With the gap before each, but nothing else: what lies between and was returned stays open. All or
 * nothing. */
static int add_items(struct ranges *settled, const struct flight_item *items, size_t count)
{
    size_t runs = 0; /* that touch nothing settled: in order none does, so a full list can drain */
    for (size_t i = 0; i < count; i++) {
        runs += (i == 0 || items[i].prev_seq != items[i - 1].seq) &&
                !ranges_contains(settled, items[i].prev_seq);
    }
    int rc = ranges_reserve(settled, runs);
    for (size_t i = 0, from = 0; i < count && rc == 0; i++) {
        if (i + 1 == count || items[i + 1].prev_seq != items[i].seq) {
            rc = ranges_add(settled, items[from].prev_seq + 1, items[i].seq);
            from = i + 1;
        }
    }
    return rc;
}

static int settle_items(struct store_reader *reader, const struct store_settlement *settlement,
                        const struct flight_item *items, size_t count)
{
    struct store *store = reader->store;
    struct state_uplink *uplink = &store->state.uplinks[reader->uplink];
    struct track *track = ledger_track(store, reader->uplink, settlement->stream,
                                       settlement->device);
    if (track == NULL) {
        return 0; /* dropped meanwhile: nothing is kept for it */
    }
    uint64_t *fates = uplink->devices[settlement->device - 1].fates;
    int rc = add_items(&track->settled, items, count);
    if (rc < 0) {
        return rc;
    }
    for (size_t i = 0; i < count; i++) {
        if (items[i].overtaken >= 0) {
            fates[items[i].overtaken] -= items[i].readings - items[i].aside;
            fates[FATE_NOT_SELECTED] -= items[i].aside;
        } else {
            uint64_t readings = items[i].readings;
            track->waiting -= readings < track->waiting ? readings : track->waiting;
        }
    }
    for (unsigned f = 0; f < FATE_COUNTS; f++) {
        fates[f] += settlement->fates[f];
    }
    return 0;
}

static void close_items(struct store_reader *reader, const struct store_settlement *settlement,
                        const struct flight_item *items, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        if (items[i].overtaken < 0) {
            shrink_backfill(reader, settlement->stream, settlement->device, items[i].seq,
                            items[i].readings);
        }
        lanes_close_one(reader, items[i].number);
    }
}

int store_reader_settle(struct store_reader *reader, const struct store_settlement *settlement)
{
    struct store *store = reader->store;
    if (store->failed) {
        return -EIO;
    }
    size_t from, to;
    struct flight **at = find_flight(reader, settlement->stream, settlement->device,
                                     settlement->first_seq, settlement->last_seq, &from, &to);
    if (at == NULL) {
        return -ENOENT;
    }
    const struct flight *flight = *at;
    uint64_t readings = 0, told = 0;
    for (size_t i = from; i < to; i++) {
        readings += flight->items[i].readings;
    }
    for (unsigned f = 0; f < FATE_COUNTS; f++) {
        told += settlement->fates[f];
    }
    if (readings != told) {
        return -EINVAL;
    }
    store_lock(store);
    int rc = settle_items(reader, settlement, flight->items + from, to - from);
    if (rc == 0) {
        close_items(reader, settlement, flight->items + from, to - from);
        land(at, from, to);
        if (store->state.uplinks[reader->uplink].name != NULL) {
            store->state.uplinks[reader->uplink].floor = lanes_floor(reader);
        }
        store->marked = true;
    }
    store_unlock(store);
    return rc;
}

void store_reader_return(struct store_reader *reader, enum stream stream, uint32_t device,
                         uint64_t first_seq, uint64_t last_seq)
{
    size_t from, to;
    struct flight **at = find_flight(reader, stream, device, first_seq, last_seq, &from, &to);
    if (at == NULL) {
        return;
    }
    for (size_t i = from; i < to; i++) {
        reader->lanes[lanes_of(reader, stream, device, (*at)->items[i].seq)].rewind = true;
    }
    store_lock(reader->store);
    land(at, from, to);
    store_unlock(reader->store);
}

/* Under the lock. */
static uint64_t held_readings(const struct store_reader *reader, const struct state_uplink *uplink)
{
    uint64_t held = 0;
    for (size_t d = 0; reader->held_count > 0 && d < reader->device_count; d++) {
        for (unsigned s = 0; reader->devices[d].held && s < STREAM_COUNT; s++) {
            held += uplink->name != NULL ? uplink->devices[d].streams[s].waiting : 0;
        }
    }
    return held;
}

void store_reader_backlog(struct store_reader *reader, struct store_backlog *ret_backlog)
{
    struct store *store = reader->store;
    lanes_take_requeued(reader);
    store_lock(store);
    const struct state_uplink *uplink = &store->state.uplinks[reader->uplink];
    uint64_t waiting = uplink->name == NULL ? 0 : waiting_of(uplink, store->state.device_count);
    struct store_backlog backlog = {.held = held_readings(reader, uplink)};
    waiting -= backlog.held;
    uint64_t backfill = !reader->split || reader->backfill_readings > waiting
                            ? waiting
                            : reader->backfill_readings;
    store_unlock(store);
    backlog.readings[STORE_LANE_BACKFILL] = backfill;
    backlog.readings[STORE_LANE_LIVE] = waiting - backfill;
    double each = reader->readings_a_scan < 1 ? 1 : reader->readings_a_scan;
    for (unsigned l = 0; l < STORE_LANES; l++) {
        backlog.scans[l] = (uint64_t)((double)backlog.readings[l] / each);
        backlog.scans[l] += backlog.readings[l] > 0 && backlog.scans[l] == 0;
    }
    MDB_txn *txn = NULL;
    if (waiting + backlog.held > 0 && env_read(store->env, &txn) == 0) {
        MDB_val value;
        uint64_t number;
        struct wal_header header;
        if (env_seek(txn, KEY_WAL, lanes_floor(reader), &number, &value) == 0 &&
            wal_read_header(value.mv_data, value.mv_size, &header) == 0) {
            store_lock(store);
            store_clock_header(&store->shown, number, &header);
            store_unlock(store);
            backlog.oldest_ms = header.time_min_ms;
        }
        env_read_end(store->env, txn);
        int64_t large_ms = ledger_oldest_large_ms(store, (int)reader->uplink);
        if (large_ms != INT64_MAX && (large_ms < backlog.oldest_ms || backlog.oldest_ms == 0)) {
            backlog.oldest_ms = large_ms;
        }
    }
    *ret_backlog = backlog;
}
