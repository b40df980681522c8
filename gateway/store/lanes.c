#include "gateway/store/lanes.h"

#include "gateway/store/large.h"

#include <errno.h>
#include <string.h>

int lanes_grow(struct store_reader *reader)
{
    size_t count = reader->store->state.device_count;
    if (count <= reader->device_count) {
        return 0;
    }
    struct reader_device *devices = reallocarray(reader->devices, count, sizeof(*devices));
    if (devices == NULL) {
        return -ENOMEM;
    }
    memset(devices + reader->device_count, 0, (count - reader->device_count) * sizeof(*devices));
    reader->devices = devices;
    reader->device_count = count;
    return 0;
}

static int grow_devices(struct store_reader *reader)
{
    store_lock(reader->store);
    int rc = lanes_grow(reader);
    store_unlock(reader->store);
    return rc;
}

enum store_lane lanes_of(const struct store_reader *reader, unsigned stream, uint32_t device,
                         uint64_t seq)
{
    return !reader->split || seq <= reader->devices[device - 1].boundary[stream]
               ? STORE_LANE_BACKFILL
               : STORE_LANE_LIVE;
}

/* What was taken from the live lane may have become backfill since (store_reader_split()): it holds
 * both lanes up, so that each of them stays in order. */
bool lanes_in_flight(const struct store_reader *reader, enum store_lane which, uint32_t device)
{
    const struct reader_device *d = &reader->devices[device - 1];
    for (unsigned l = 0; l < STORE_LANES; l++) {
        for (unsigned s = 0; s < STREAM_COUNT; s++) {
            const struct flight *f = d->flights[l][s];
            if (f != NULL &&
                (l == which || lanes_of(reader, s, device, f->items[0].seq) == which)) {
                return true;
            }
        }
    }
    return false;
}

bool lanes_flies(const struct store_reader *reader, unsigned stream, uint32_t device, uint64_t seq)
{
    for (unsigned l = 0; l < STORE_LANES; l++) {
        const struct flight *flight = reader->devices[device - 1].flights[l][stream];
        for (size_t i = 0; flight != NULL && i < flight->count; i++) {
            if (flight->items[i].seq == seq) {
                return true;
            }
        }
    }
    return false;
}

/* Room for another block in the list of loaded ones. */
static int reserve_loaded(struct lane *lane)
{
    if (lane->from > 0 && lane->count == lane->capacity) {
        memmove(lane->loaded, lane->loaded + lane->from,
                (lane->count - lane->from) * sizeof(*lane->loaded));
        lane->count -= lane->from;
        lane->from = 0;
    }
    if (lane->count == lane->capacity) {
        size_t capacity = lane->capacity == 0 ? 16 : lane->capacity * 2;
        struct loaded *loaded = reallocarray(lane->loaded, capacity, sizeof(*loaded));
        if (loaded == NULL) {
            return -ENOMEM;
        }
        lane->loaded = loaded;
        lane->capacity = capacity;
    }
    return 0;
}

/* What of a row is to be done: staged, or it is in flight (kept open), or nothing. */
enum want { WANT_NOTHING, WANT_STAGE, WANT_FLIGHT };

static enum want want_row(struct store_reader *reader, enum store_lane which,
                          const struct wal_row *row)
{
    if (row->device > reader->device_count || reader->devices[row->device - 1].held ||
        row->seq <= reader->devices[row->device - 1].looked[which][row->stream]) {
        return WANT_NOTHING;
    }
    const struct track *track = ledger_track(reader->store, reader->uplink, row->stream,
                                             row->device);
    if (track == NULL || ranges_contains(&track->settled, row->seq)) {
        return WANT_NOTHING;
    }
    return lanes_flies(reader, row->stream, row->device, row->seq) ? WANT_FLIGHT : WANT_STAGE;
}

void lanes_link(struct store_reader *reader, enum store_lane which, struct staged *staged)
{
    const struct scan *scan = staged->scan;
    struct chain *chain = &reader->devices[scan->device - 1].chains[which][scan->stream];
    if (chain->last == NULL) {
        chain->first = staged;
    } else {
        chain->last->next = staged;
    }
    chain->last = staged;
    reader->lanes[which].staged[scan->stream]++;
}

struct found {
    uint64_t number;
    struct wal_header header;
    const struct wal_row *rows;
    uint8_t *wants; /* enum want a row */
    uint32_t staged, flying;
};

void lanes_free_stage(struct stage *stage)
{
    if (stage != NULL) {
        free(stage->scans);
        free(stage->arena);
        free(stage);
    }
}

/* A stage with the decoded block in it, no scans yet. */
static int make_stage(struct store_reader *reader, const struct found *found,
                      struct stage **ret_stage)
{
    struct stage *stage = calloc(1, sizeof(*stage));
    if (stage == NULL) {
        return -ENOMEM;
    }
    stage->scans = calloc(found->staged, sizeof(*stage->scans));
    stage->arena = malloc(found->header.memory);
    int rc = stage->scans == NULL || stage->arena == NULL
                 ? -ENOMEM
                 : wal_scans(reader->decoder, stage->arena);
    if (rc < 0) {
        lanes_free_stage(stage);
        return rc;
    }
    stage->bytes = found->header.memory + found->staged * sizeof(*stage->scans);
    *ret_stage = stage;
    return 0;
}

/* The times that the readings of this block have since its clock is known; returns the shift. */
static int64_t restamp(struct store *store, const struct found *found, uint8_t *arena)
{
    store_lock(store);
    struct anchor_fate fate = anchors_fate(&store->shown, found->number);
    store_unlock(store);
    for (size_t i = 0; i < found->header.scans; i++) {
        anchors_restamp(&fate, (struct scan *)(void *)(arena + found->rows[i].offset));
    }
    return fate.shift_ms;
}

void lanes_average(struct store_reader *reader, uint64_t readings, uint64_t scans)
{
    double average = (double)readings / (double)scans, *known = &reader->readings_a_scan;
    *known = *known > 0 ? *known + 0.1 * (average - *known) : average;
}

static int stage_block(struct store_reader *reader, enum store_lane which,
                       const struct found *found)
{
    struct stage *stage = NULL;
    int rc = make_stage(reader, found, &stage);
    if (rc < 0) {
        return rc;
    }
    int64_t shift_ms = restamp(reader->store, found, stage->arena);
    for (size_t i = 0; i < found->header.scans; i++) {
        if (found->wants[i] == WANT_STAGE) {
            struct staged *staged = &stage->scans[stage->left++];
            *staged = (struct staged){
                .stage = stage,
                .scan = (const struct scan *)(const void *)(stage->arena + found->rows[i].offset),
                .prev_seq = found->rows[i].prev_seq,
                .number = found->number,
                .written_ms = found->header.written_ms + shift_ms,
            };
            lanes_link(reader, which, staged);
        }
    }
    reader->stage_bytes += stage->bytes;
    reader->lanes[which].stages++;
    lanes_average(reader, found->header.readings, found->header.scans);
    return 0;
}

static int sort_rows(struct store_reader *reader, enum store_lane which, struct found *found)
{
    found->wants = calloc(found->header.scans, 1);
    if (found->wants == NULL) {
        return -ENOMEM;
    }
    store_lock(reader->store);
    for (size_t i = 0; i < found->header.scans; i++) {
        enum want want = want_row(reader, which, &found->rows[i]);
        found->wants[i] = (uint8_t)want;
        found->staged += want == WANT_STAGE;
        found->flying += want == WANT_FLIGHT;
    }
    store_unlock(reader->store);
    return 0;
}

/* Loads the block that lies in reader->block. */
static int load_block(struct store_reader *reader, enum store_lane which, uint64_t number)
{
    struct lane *lane = &reader->lanes[which];
    struct found found = {.number = number};
    int rc = wal_open(reader->decoder, reader->block.data, reader->block.len, &found.header,
                      &found.rows);
    if (rc == 0) {
        rc = reserve_loaded(lane);
    }
    if (rc == 0) {
        rc = sort_rows(reader, which, &found);
    }
    if (rc == 0 && found.staged > 0) {
        rc = stage_block(reader, which, &found);
    }
    free(found.wants);
    for (size_t i = 0; rc == 0 && i < found.header.scans; i++) {
        const struct wal_row *row = &found.rows[i];
        if (row->device <= reader->device_count &&
            row->seq > reader->devices[row->device - 1].looked[which][row->stream]) {
            reader->devices[row->device - 1].looked[which][row->stream] = row->seq;
        }
    }
    if (rc == 0 && found.staged + found.flying > 0) {
        lane->loaded[lane->count++] = (struct loaded){number, found.staged + found.flying};
    }
    return rc;
}

/* Whether another block, which may be as large as blocks are, still fits. */
static bool has_room(const struct store_reader *reader, enum store_lane which)
{
    const struct lane *lane = &reader->lanes[which];
    size_t more = reader->split && which == STORE_LANE_LIVE ? READER_STAGE_LIVE : 0;
    size_t scans = lane->pass ? (size_t)LARGE_MEMORY_MAX : (size_t)WAL_MEMORY_MAX;
    size_t most = scans + scans / sizeof(struct scan) * sizeof(struct staged) / 8;
    return lane->stages == 0 || reader->stage_bytes + most <= READER_STAGE_MAX + more;
}

/* The next block of the log up to `end`, or the pass that must come before it. */
static int load_next(struct store_reader *reader, enum store_lane which, uint64_t end)
{
    struct lane *lane = &reader->lanes[which];
    uint64_t number;
    int rc = env_copy(reader->store->env, KEY_WAL, lane->next, &number, &reader->block);
    if (rc == -ENOENT || (rc == 0 && number != lane->next)) {
        lane->next = rc == -ENOENT || number > end ? end : number;
        lanes_begin_pass(reader, which);
        return 0;
    }
    if (rc == 0) {
        lane->next = number + 1;
        rc = load_block(reader, which, number);
        if (rc == -ENOMEM) {
            lane->next = number;
        }
    }
    return rc;
}

void lanes_restart(struct store_reader *reader, uint64_t from)
{
    lanes_rewind(reader, STORE_LANE_BACKFILL);
    lanes_rewind(reader, STORE_LANE_LIVE);
    struct lane *backfill = &reader->lanes[STORE_LANE_BACKFILL];
    struct lane *live = &reader->lanes[STORE_LANE_LIVE];
    backfill->next = from < backfill->next ? from : backfill->next;
    if (reader->split && from < live->next) {
        live->next = from > backfill->end ? from : backfill->end;
    }
}

void lanes_take_requeued(struct store_reader *reader)
{
    if (!reader->requeued) {
        return;
    }
    reader->requeued = false;
    store_lock(reader->store);
    reader->backfill_readings += atomic_exchange(&reader->requeued_readings, 0);
    store_unlock(reader->store);
    lanes_restart(reader, reader->requeued_from);
    reader->requeued_from = UINT64_MAX;
}

int lanes_load(struct store_reader *reader, enum store_lane which)
{
    struct lane *lane = &reader->lanes[which];
    lanes_take_requeued(reader);
    int rc = grow_devices(reader);
    if (rc == 0 && lane->rewind) {
        lanes_rewind(reader, which);
    }
    while (rc == 0 && has_room(reader, which)) {
        if (lane->pass) {
            rc = lanes_load_large(reader, which);
            continue;
        }
        uint64_t newest = reader->store->newest, decided = reader->store->decided;
        newest = newest < decided ? newest : decided - 1; /* what has no time yet is held back */
        uint64_t end = newest < lane->end ? newest + 1 : lane->end;
        if (lane->next >= end) {
            return 0;
        }
        /* A device is known before its first block is committed, so those of all blocks up to
         * `newest` are known now; a row of an unknown one would be passed over for ever. */
        rc = grow_devices(reader);
        rc = rc < 0 ? rc : load_next(reader, which, end);
    }
    reader->damaged += rc == -EBADMSG;
    return rc;
}

void lanes_release(struct store_reader *reader, enum store_lane which, struct staged *staged)
{
    if (--staged->stage->left == 0) {
        reader->stage_bytes -= staged->stage->bytes;
        reader->lanes[which].stages--;
        lanes_free_stage(staged->stage);
    }
}

struct staged *lanes_pop(struct store_reader *reader, enum store_lane which, enum stream stream,
                         uint32_t device)
{
    struct chain *chain = &reader->devices[device - 1].chains[which][stream];
    struct staged *staged = chain->first;
    if (staged != NULL) {
        chain->first = staged->next;
        chain->last = staged->next == NULL ? NULL : chain->last;
        reader->lanes[which].staged[stream]--;
    }
    return staged;
}

static uint64_t lane_floor(const struct lane *lane)
{
    return lane->from < lane->count ? lane->loaded[lane->from].number : lane->next;
}

void lanes_rewind(struct store_reader *reader, enum store_lane which)
{
    struct lane *lane = &reader->lanes[which];
    for (uint32_t d = 1; d <= reader->device_count; d++) {
        for (unsigned s = 0; s < STREAM_COUNT; s++) {
            struct staged *staged;
            while ((staged = lanes_pop(reader, which, s, d)) != NULL) {
                lanes_release(reader, which, staged);
            }
        }
    }
    for (size_t d = 0; d < reader->device_count; d++) {
        memset(reader->devices[d].looked[which], 0, sizeof(reader->devices[d].looked[which]));
    }
    lane->next = lane_floor(lane);
    lane->from = lane->count = 0;
    lane->rewind = false;
    lanes_begin_pass(reader, which);
}

static uint64_t floor_of_lanes(const struct store_reader *reader)
{
    uint64_t floor = lane_floor(&reader->lanes[STORE_LANE_BACKFILL]);
    if (reader->split) {
        uint64_t live = lane_floor(&reader->lanes[STORE_LANE_LIVE]);
        const struct lane *backfill = &reader->lanes[STORE_LANE_BACKFILL];
        bool done = backfill->from == backfill->count && backfill->next >= backfill->end;
        floor = done || live < floor ? live : floor;
    }
    return floor;
}

uint64_t lanes_floor(const struct store_reader *reader)
{
    uint64_t floor = floor_of_lanes(reader), requeued = reader->requeued_from;
    floor = reader->held_from < floor ? reader->held_from : floor;
    return requeued < floor ? requeued : floor;
}

void lanes_close_one(struct store_reader *reader, uint64_t number)
{
    struct lane *lane =
        &reader->lanes[number < reader->lanes[STORE_LANE_BACKFILL].end ? STORE_LANE_BACKFILL
                                                                       : STORE_LANE_LIVE];
    size_t low = lane->from, high = lane->count;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (lane->loaded[middle].number < number) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    if (low < lane->count && lane->loaded[low].number == number && lane->loaded[low].open > 0) {
        lane->loaded[low].open--;
    }
    while (lane->from < lane->count && lane->loaded[lane->from].open == 0) {
        lane->from++;
    }
    if (lane->from == lane->count) {
        lane->from = lane->count = 0;
    }
}

void lanes_finish(struct store_reader *reader)
{
    for (unsigned which = 0; which < STORE_LANES; which++) {
        lanes_rewind(reader, which);
        free(reader->lanes[which].loaded);
    }
    for (size_t d = 0; d < reader->device_count; d++) {
        for (unsigned s = 0; s < STREAM_COUNT; s++) {
            free(reader->devices[d].flights[STORE_LANE_LIVE][s]);
            free(reader->devices[d].flights[STORE_LANE_BACKFILL][s]);
        }
    }
    free(reader->devices);
}
