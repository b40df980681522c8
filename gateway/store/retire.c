#include "gateway/base/log.h"
#include "gateway/store/large.h"
#include "gateway/store/reclaim.h"
#include "gateway/store/thinning.h"

#include <errno.h>
#include <string.h>

enum {
    SWEEP_CHAINS = 32,      /* devices and streams looked at with a commit */
    CHAIN_BLOCKS = 16,      /* that leave, or expire, at one look */
    PRESSED_CHAINS = 16384, /* looked at under pressure for the oldest */
    PRESSED_JUMPS = 16,
    MEND_STEPS = 16,
};
static const int64_t clock_slack_ms = 86400000;

struct place {
    unsigned stream;
    uint32_t device;
    int64_t written_ms; /* of its candidate */
};

static struct state_device *device_at(struct store *store, const struct place *place)
{
    return &store->state.devices[place->device - 1];
}

/* Whether every uplink is done with all of it. */
static bool settled(struct store *store, const struct large *large)
{
    bool all = true;
    store_lock(store);
    for (unsigned u = 0; u < STORE_UPLINKS_MAX && all; u++) {
        const struct track *track = ledger_track(store, u, large->stream, large->device);
        all = track == NULL || ranges_covers(&track->settled, large->first_seq, large->last_seq);
    }
    store_unlock(store);
    return all;
}

static bool kept(struct store *store, const struct large *large)
{
    int64_t age = store_age_now_ms(store) - large->written_ms;
    return !large->damaged && age < store->settings.keep_ms && age > -clock_slack_ms;
}

static bool held(const struct store *store, const struct large *large)
{
    return !large->damaged && large->max_ms >= store->hold_since_ms;
}

static int delete_large(struct store *store, MDB_txn *txn, const struct large *large, size_t len)
{
    struct key key = key_large(large->stream, large->device, large->first_seq);
    store->state.damaged += large->damaged;
    return reclaim_delete(store, txn, &key, len);
}

/* Settles what is open of the block for an uplink, though its scans cannot be read. */
static void settle_unread(struct store *store, unsigned u, const struct large *large,
                          enum ledger_fate fate)
{
    store_lock(store);
    struct track *track = ledger_track(store, u, large->stream, large->device);
    if (track != NULL && !ranges_covers(&track->settled, large->first_seq, large->last_seq) &&
        ranges_add(&track->settled, large->prev_seq + 1, large->last_seq) == 0) {
        uint64_t readings = large->readings < track->waiting ? large->readings : track->waiting;
        track->waiting -= readings;
        store->state.uplinks[u].devices[large->device - 1].fates[fate] += readings;
    }
    store_unlock(store);
}

/* Settles what is open of the block for one uplink. */
static int settle_large(struct store *store, unsigned u, const struct large *large,
                        const MDB_val *value, enum ledger_fate fate)
{
    auto_buffer struct buffer scans = {0};
    int rc = large_decode(large, value->mv_data, value->mv_size, &scans);
    if (rc == -EBADMSG) {
        settle_unread(store, u, large, fate);
        return 0;
    }
    if (rc < 0) {
        return rc;
    }
    store_lock(store);
    uint64_t prev_seq = large->prev_seq;
    for (size_t at = 0; at < scans.len;) {
        const struct scan *scan = (const struct scan *)(const void *)(scans.data + at);
        struct wal_row row = {.seq = scan->seq,
                              .prev_seq = prev_seq,
                              .device = scan->device,
                              .stream = scan->stream,
                              .count = scan->count};
        reclaim_settle_row(store, u, &row, fate);
        prev_seq = scan->seq;
        at += scan_size(scan);
    }
    store_unlock(store);
    return 0;
}

/* LMDB's page may change under a write transaction: what is decoded is copied first. */
static int copy_value(struct store *store, MDB_val *value)
{
    buffer_clear(&store->block);
    buffer_add(&store->block, value->mv_data, value->mv_size);
    *value = (MDB_val){.mv_size = store->block.len, .mv_data = store->block.data};
    return buffer_failed(&store->block) ? -ENOMEM : 0;
}

/* The first seq that waits for the uplink in large blocks; 0: none does. */
static uint64_t first_open(struct store *store, unsigned u, const struct place *place)
{
    store_lock(store);
    const struct track *track = ledger_track(store, u, place->stream, place->device);
    uint64_t seq = track == NULL ? UINT64_MAX : ranges_next_open(&track->settled, 1);
    store_unlock(store);
    return seq > device_at(store, place)->flushed[place->stream] ? 0 : seq;
}

static void settle_hole(struct store *store, unsigned u, const struct place *place, uint64_t first,
                        uint64_t last)
{
    store_lock(store);
    struct track *track = ledger_track(store, u, place->stream, place->device);
    if (track != NULL && first <= last && ranges_add(&track->settled, first, last) == 0 &&
        track->waiting > 0 && track->settled.floor >= device_at(store, place)->seq[place->stream]) {
        /* Nothing is left that could be what still counts as waiting: lost with a damaged block. */
        store->state.uplinks[u].devices[place->device - 1].fates[FATE_THINNED] += track->waiting;
        track->waiting = 0;
    }
    store_unlock(store);
}

/* What a damaged head may have held: up to the next block. */
static uint64_t end_of_damaged(struct store *store, MDB_txn *txn, const struct place *place,
                               const struct large *large)
{
    struct large next;
    MDB_val value;
    return large_find(txn, place->stream, place->device, large->first_seq + 1, &next, &value) == 0
               ? next.first_seq - 1
               : device_at(store, place)->flushed[place->stream];
}

/* Seqs that wait but are in no block any more, and blocks too old for the uplink. */
static int look_for_uplink(struct store *store, MDB_txn *txn, unsigned u, const struct place *place)
{
    int64_t max_age_ms = store->state.uplinks[u].max_age_ms;
    for (unsigned i = 0; i < MEND_STEPS; i++) {
        uint64_t open = first_open(store, u, place);
        struct large large;
        MDB_val value;
        int rc = open == 0 ? -EAGAIN
                           : large_find(txn, place->stream, place->device, open, &large, &value);
        if (rc == -ENOENT) {
            settle_hole(store, u, place, open, device_at(store, place)->flushed[place->stream]);
        } else if (rc < 0) {
            return rc == -EAGAIN ? 0 : rc;
        } else if (large.prev_seq >= open) {
            settle_hole(store, u, place, open, large.prev_seq);
        } else if (large.damaged) {
            settle_hole(store, u, place, open, end_of_damaged(store, txn, place, &large));
        } else if (max_age_ms > 0 && large.written_ms < store_age_now_ms(store) - max_age_ms) {
            rc = copy_value(store, &value);
            rc = rc < 0 ? rc : settle_large(store, u, &large, &value, FATE_EXPIRED);
            if (rc < 0) {
                return rc;
            }
        } else {
            return 0;
        }
    }
    return 0;
}

/* The oldest blocks of a device and stream leave, when nobody waits for them and they were kept
 * long enough. */
static int retire_chain(struct store *store, MDB_txn *txn, const struct place *place)
{
    for (unsigned u = 0; u < STORE_UPLINKS_MAX; u++) {
        int rc = store->state.uplinks[u].name == NULL ? 0 : look_for_uplink(store, txn, u, place);
        if (rc < 0) {
            return rc;
        }
    }
    for (unsigned i = 0; i < CHAIN_BLOCKS && store->plan.count < PLAN_DELETES_MAX / 2; i++) {
        struct large large;
        MDB_val value;
        int rc = large_find(txn, place->stream, place->device, 1, &large, &value);
        if (rc < 0) {
            return rc == -ENOENT ? 0 : rc;
        }
        if (kept(store, &large) || held(store, &large) || !settled(store, &large)) {
            return 0;
        }
        rc = delete_large(store, txn, &large, value.mv_size);
        if (rc < 0) {
            return rc;
        }
    }
    return 0;
}

/* The device and stream with that number; false when it has no large blocks. */
static bool place_at(struct store *store, uint64_t number, struct place *ret_place)
{
    *ret_place = (struct place){.stream = (unsigned)(number % STREAM_COUNT),
                                .device = (uint32_t)(number / STREAM_COUNT) + 1};
    return device_at(store, ret_place)->flushed[ret_place->stream] > 0;
}

int retire_run(struct store *store, MDB_txn *txn)
{
    uint64_t all = store->state.device_count * STREAM_COUNT;
    unsigned looked = 0;
    for (uint64_t i = 0; i < all && looked < SWEEP_CHAINS; i++) {
        struct place place;
        store->sweep = store->sweep >= all ? 0 : store->sweep;
        if (place_at(store, store->sweep++, &place)) {
            looked++;
            int rc = retire_chain(store, txn, &place);
            if (rc < 0) {
                return rc;
            }
        }
    }
    return 0;
}

/* The first seq from `seq` on that all uplinks have settled. */
static uint64_t next_settled(struct store *store, const struct place *place, uint64_t seq)
{
    store_lock(store);
    for (uint64_t before = 0; before != seq && seq != UINT64_MAX;) {
        before = seq;
        for (unsigned u = 0; u < STORE_UPLINKS_MAX && seq != UINT64_MAX; u++) {
            const struct track *track = ledger_track(store, u, place->stream, place->device);
            seq = track == NULL ? seq : ranges_next_settled(&track->settled, seq);
        }
    }
    store_unlock(store);
    return seq;
}

/* What may go under pressure: delivered history, wherever it lies; raw blocks; any. The oldest of
 * each place. */
enum prey { PREY_HISTORY, PREY_RAW, PREY_ANY };

static int candidate(struct store *store, MDB_txn *txn, const struct place *place, enum prey prey,
                     struct large *ret_large, MDB_val *ret_value)
{
    bool history = prey == PREY_HISTORY;
    uint64_t seq = 1;
    if (prey == PREY_RAW && place->stream != STREAM_RAW) {
        return -ENOENT;
    }
    for (unsigned i = 0; i < PRESSED_JUMPS; i++) {
        seq = history ? next_settled(store, place, seq) : seq;
        if (seq > device_at(store, place)->flushed[place->stream]) {
            return -ENOENT;
        }
        int rc = large_find(txn, place->stream, place->device, seq, ret_large, ret_value);
        if (rc < 0 || !history || (settled(store, ret_large) && !held(store, ret_large))) {
            return rc;
        }
        seq = ret_large->last_seq + 1;
    }
    return -ENOENT;
}

static int by_age(const void *a, const void *b)
{
    const struct place *x = a, *y = b;
    return x->written_ms < y->written_ms ? -1 : x->written_ms > y->written_ms;
}

/* The places with a candidate, the one with the oldest first. */
static int list_places(struct store *store, MDB_txn *txn, enum prey prey, struct place **ret_places,
                       size_t *ret_count)
{
    uint64_t all = store->state.device_count * STREAM_COUNT;
    size_t most = all < PRESSED_CHAINS ? (size_t)all : PRESSED_CHAINS, count = 0;
    auto_free struct place *places = calloc(most + 1, sizeof(*places));
    if (places == NULL) {
        return -ENOMEM;
    }
    uint64_t number = store->sweep;
    for (uint64_t i = 0; i < all && count < most; i++, number++) {
        struct large large;
        MDB_val value;
        int rc = !place_at(store, number % all, &places[count])
                     ? -ENOENT
                     : candidate(store, txn, &places[count], prey, &large, &value);
        if (rc == 0) {
            places[count++].written_ms = large.written_ms;
        } else if (rc != -ENOENT) {
            return rc;
        }
    }
    qsort(places, count, sizeof(*places), by_age);
    *ret_places = take_ptr(places);
    *ret_count = count;
    return 0;
}

/* What is readable of the block lives on as statistics; without memory for them it does not. */
static void summarise(struct store *store, const struct large *large, const MDB_val *value)
{
    auto_buffer struct buffer scans = {0};
    int rc = large_decode(large, value->mv_data, value->mv_size, &scans);
    if (rc == 0) {
        rc = thinning_add(store, &scans);
    }
    if (rc < 0) {
        log_warning("store: a block of device %u was dropped, not thinned: %s", large->device,
                    strerror(-rc));
    }
}

static int drop_large(struct store *store, MDB_txn *txn, const struct large *large, MDB_val *value)
{
    size_t len = value->mv_size;
    int rc = copy_value(store, value);
    if (rc == 0 && large->stream == STREAM_RAW && store->settings.when_full == STORE_FULL_THIN &&
        !settled(store, large)) {
        summarise(store, large, value);
    }
    for (unsigned u = 0; u < STORE_UPLINKS_MAX && rc == 0; u++) {
        if (store->state.uplinks[u].name != NULL) {
            rc = settle_large(store, u, large, value, FATE_THINNED);
        }
    }
    return rc < 0 ? rc : delete_large(store, txn, large, len);
}

static bool enough(const struct store *store, size_t short_bytes)
{
    return !thinning_has_room(store) || store->plan.freed >= short_bytes ||
           store->plan.count >= PLAN_DELETES_MAX;
}

/* Oldest first, one block of each place a round. */
static int retire_pressed(struct store *store, MDB_txn *txn, size_t short_bytes, enum prey prey)
{
    bool progress = true;
    int rc = 0;
    while (rc == 0 && progress && !enough(store, short_bytes)) {
        auto_free struct place *places = NULL;
        size_t count = 0;
        rc = list_places(store, txn, prey, &places, &count);
        progress = count > 0;
        for (size_t i = 0; i < count && rc == 0 && !enough(store, short_bytes); i++) {
            struct large large;
            MDB_val value;
            rc = candidate(store, txn, &places[i], prey, &large, &value);
            if (rc == 0) {
                rc = prey == PREY_HISTORY ? delete_large(store, txn, &large, value.mv_size)
                                          : drop_large(store, txn, &large, &value);
            }
        }
    }
    return rc;
}

int retire_history(struct store *store, MDB_txn *txn, size_t short_bytes)
{
    return retire_pressed(store, txn, short_bytes, PREY_HISTORY);
}

int retire_waiting(struct store *store, MDB_txn *txn, size_t short_bytes, bool raw_only)
{
    return retire_pressed(store, txn, short_bytes, raw_only ? PREY_RAW : PREY_ANY);
}
