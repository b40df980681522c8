#include "gateway/store/lanes.h"
#include "gateway/store/large.h"

#include <errno.h>
#include <string.h>

/* What a lane still wants of one device and stream in large blocks: from .. to. */
struct wish {
    unsigned stream;
    uint32_t device;
    uint64_t from, to;
};

void lanes_begin_pass(struct store_reader *reader, enum store_lane which)
{
    for (size_t d = 0; d < reader->device_count; d++) {
        memset(reader->devices[d].large_ms[which], 0, sizeof(reader->devices[d].large_ms[which]));
    }
    reader->lanes[which].pass = true;
}

/* Under the lock. */
static bool wishes(const struct store_reader *reader, enum store_lane which, unsigned stream,
                   uint32_t device, struct wish *ret_wish)
{
    const struct reader_device *known = &reader->devices[device - 1];
    const struct track *track = ledger_track(reader->store, reader->uplink, stream, device);
    if (track == NULL || known->held) {
        return false;
    }
    uint64_t behind = known->looked[which][stream];
    uint64_t to = reader->store->state.devices[device - 1].flushed[stream];
    if (reader->split && which == STORE_LANE_LIVE) {
        behind = behind > known->boundary[stream] ? behind : known->boundary[stream];
    } else if (reader->split) {
        to = to < known->boundary[stream] ? to : known->boundary[stream];
    }
    uint64_t from = behind >= to ? UINT64_MAX : ranges_next_open(&track->settled, behind + 1);
    *ret_wish = (struct wish){stream, device, from, to};
    return from <= to;
}

/* The device that is furthest behind in time: all of them advance together, so that none gets old
 * while another one's week is sent. */
static bool choose(struct store_reader *reader, enum store_lane which, struct wish *ret_wish)
{
    int64_t least = LARGE_PASS_DONE;
    store_lock(reader->store);
    for (uint32_t d = 1; d <= reader->device_count; d++) {
        for (unsigned s = 0; s < STREAM_COUNT; s++) {
            struct wish wish = {0};
            int64_t *ms = &reader->devices[d - 1].large_ms[which][s];
            if (*ms >= least) {
                continue;
            }
            if (wishes(reader, which, s, d, &wish)) {
                least = *ms;
                *ret_wish = wish;
            } else {
                *ms = LARGE_PASS_DONE;
            }
        }
    }
    store_unlock(reader->store);
    return least != LARGE_PASS_DONE;
}

/* A block that cannot be read is lost, and this uplink need not wait for it. */
static void give_up(struct store_reader *reader, const struct large *large)
{
    struct store *store = reader->store;
    store_lock(store);
    struct track *track = ledger_track(store, reader->uplink, large->stream, large->device);
    if (track != NULL && !large->damaged &&
        ranges_add(&track->settled, large->prev_seq + 1, large->last_seq) == 0) {
        uint64_t readings = large->readings < track->waiting ? large->readings : track->waiting;
        track->waiting -= readings;
        store->state.uplinks[reader->uplink].devices[large->device - 1].fates[FATE_THINNED] +=
            readings;
        store->marked = true;
    }
    store_unlock(store);
}

static bool stays(const struct store_reader *reader, const struct wish *wish,
                  const struct scan *scan)
{
    const struct track *track = ledger_track(reader->store, reader->uplink, wish->stream,
                                             wish->device);
    return scan->seq >= wish->from && scan->seq <= wish->to && track != NULL &&
           !ranges_contains(&track->settled, scan->seq) &&
           !lanes_flies(reader, wish->stream, wish->device, scan->seq);
}

/* Links what is wanted of the stage's scans. */
static void link_scans(struct store_reader *reader, enum store_lane which, const struct wish *wish,
                       const struct large *large, struct stage *stage)
{
    uint64_t prev_seq = large->prev_seq;
    store_lock(reader->store);
    for (size_t at = 0; at < large->memory;) {
        const struct scan *scan = (const struct scan *)(const void *)(stage->arena + at);
        if (stays(reader, wish, scan)) {
            struct staged *staged = &stage->scans[stage->left++];
            *staged = (struct staged){.stage = stage,
                                      .scan = scan,
                                      .prev_seq = prev_seq,
                                      .written_ms = large->written_ms};
            lanes_link(reader, which, staged);
        }
        prev_seq = scan->seq;
        at += scan_size(scan);
    }
    store_unlock(reader->store);
}

static int stage_large(struct store_reader *reader, enum store_lane which, const struct wish *wish,
                       const struct large *large)
{
    auto_buffer struct buffer scans = {0};
    int rc = large_decode(large, reader->block.data, reader->block.len, &scans);
    if (rc < 0) {
        return rc;
    }
    struct stage *stage = calloc(1, sizeof(*stage));
    if (stage == NULL) {
        return -ENOMEM;
    }
    stage->scans = calloc(large->scans + 1, sizeof(*stage->scans));
    if (stage->scans == NULL) {
        lanes_free_stage(stage);
        return -ENOMEM;
    }
    stage->arena = take_ptr(scans.data);
    stage->bytes = scans.capacity + (large->scans + 1) * sizeof(*stage->scans);
    link_scans(reader, which, wish, large, stage);
    if (stage->left == 0) {
        lanes_free_stage(stage);
        return 0;
    }
    reader->stage_bytes += stage->bytes;
    reader->lanes[which].stages++;
    lanes_average(reader, large->readings, large->scans);
    return 0;
}

int lanes_load_large(struct store_reader *reader, enum store_lane which)
{
    struct wish wish = {0};
    if (!choose(reader, which, &wish)) {
        reader->lanes[which].pass = false;
        return 0;
    }
    struct reader_device *device = &reader->devices[wish.device - 1];
    uint64_t *looked = &device->looked[which][wish.stream];
    struct large large;
    int rc = large_copy(reader->store->env, wish.stream, wish.device, wish.from, &large,
                        &reader->block);
    if (rc == -ENOENT || (rc == 0 && large.first_seq > wish.to)) {
        *looked = wish.to; /* gone, the writer settles it */
        return 0;
    }
    if (rc == 0) {
        rc = stage_large(reader, which, &wish, &large);
    }
    if (rc == -EBADMSG) {
        give_up(reader, &large);
    }
    if (rc == 0 || rc == -EBADMSG) {
        *looked = large.last_seq < wish.to ? large.last_seq : wish.to;
        device->large_ms[which][wish.stream] = large.damaged ? 0 : large.max_ms;
    }
    return rc;
}
