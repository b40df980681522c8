#include "gateway/store/handover.h"

#include "gateway/store/internal.h"

#include <errno.h>
#include <string.h>

struct store_waiting {
    struct state state;
    unsigned uplink;
};

static int find_uplink(const struct state *state, const char *name, unsigned *ret_uplink)
{
    for (unsigned u = 0; u < STORE_UPLINKS_MAX; u++) {
        if (state->uplinks[u].name != NULL && strcmp(state->uplinks[u].name, name) == 0) {
            *ret_uplink = u;
            return 0;
        }
    }
    return -ENOENT;
}

int store_waiting_load(struct store *store, const char *uplink, struct store_waiting **ret_waiting)
{
    struct store_waiting *w = calloc(1, sizeof(*w));
    int rc = w == NULL ? -ENOMEM : store_read_state(store, &w->state);
    rc = rc < 0 ? rc : find_uplink(&w->state, uplink, &w->uplink);
    if (rc < 0) {
        store_waiting_free(w);
        return rc;
    }
    *ret_waiting = w;
    return 0;
}

void store_waiting_free(struct store_waiting *waiting)
{
    if (waiting != NULL) {
        state_finish(&waiting->state);
        free(waiting);
    }
}

unsigned store_waiting_streams(const struct store_waiting *waiting)
{
    return waiting->state.uplinks[waiting->uplink].streams;
}

bool store_waiting_has(const struct store_waiting *waiting, const struct scan *scan)
{
    const struct state_uplink *uplink = &waiting->state.uplinks[waiting->uplink];
    if ((uplink->streams & 1u << scan->stream) == 0) {
        return false;
    }
    if (scan->device == 0 || scan->device > waiting->state.device_count) {
        return scan->device != 0; /* it came after that commit */
    }
    const struct track *track = &uplink->devices[scan->device - 1].streams[scan->stream];
    return !ranges_contains(&track->settled, scan->seq);
}

static bool is_sound(const struct store *store, const struct store_handed *run)
{
    return run->stream < STREAM_COUNT && run->device > 0 &&
           run->device <= store->state.device_count && run->first_seq > 0 &&
           run->first_seq <= run->last_seq && run->selected <= run->readings &&
           run->readings <= SCAN_READINGS_MAX &&
           run->last_seq <= store->state.devices[run->device - 1].committed[run->stream];
}

/* One scan that still waits. Under the lock. */
static bool hand_over(struct store *store, unsigned u, const struct store_handed *run, uint64_t seq,
                      struct track *track, struct store_handover *done)
{
    if (ranges_add(&track->settled, seq, seq) < 0) {
        return false;
    }
    uint64_t moved = run->readings < track->waiting ? run->readings : track->waiting;
    uint64_t delivered = run->selected < moved ? run->selected : moved;
    uint64_t *fates = store->state.uplinks[u].devices[run->device - 1].fates;
    track->waiting -= moved;
    fates[FATE_DELIVERED] += delivered;
    fates[FATE_NOT_SELECTED] += moved - delivered;
    const struct wal_row row = {.seq = seq,
                                .device = run->device,
                                .stream = (uint16_t)run->stream,
                                .count = (uint16_t)moved};
    if (store->readers[u] != NULL) {
        reader_overtake(store->readers[u], &row, FATE_DELIVERED, (uint32_t)(moved - delivered));
    }
    done->scans++;
    done->readings += delivered;
    return true;
}

static void hand_over_run(struct store *store, unsigned u, const struct store_handed *run,
                          struct store_handover *done)
{
    struct track *track = ledger_track(store, u, run->stream, run->device);
    for (uint64_t seq = run->first_seq; seq <= run->last_seq; seq++) {
        if (track == NULL || ranges_contains(&track->settled, seq)) {
            done->before++;
        } else if (!hand_over(store, u, run, seq, track, done)) {
            done->open++;
        }
    }
}

int store_hand_over(struct store *store, const char *uplink, const struct store_handed *runs,
                    size_t count, struct store_handover *ret_handover)
{
    struct store_handover done = {0};
    unsigned u = 0;
    if (store->failed || store->readonly) {
        return store->failed ? -EIO : -EROFS;
    }
    store_lock(store);
    int rc = find_uplink(&store->state, uplink, &u);
    for (size_t i = 0; i < count && rc == 0; i++) {
        rc = is_sound(store, &runs[i]) ? 0 : -EINVAL;
    }
    for (size_t i = 0; i < count && rc == 0; i++) {
        hand_over_run(store, u, &runs[i], &done);
    }
    if (rc == 0 && done.scans > 0) {
        store->marked = true;
        if (store->readers[u] != NULL) {
            reader_wake(store->readers[u]);
        }
    }
    store_unlock(store);
    if (rc == 0) {
        *ret_handover = done;
    }
    return rc;
}
