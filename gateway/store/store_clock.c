#include "gateway/store/store_clock.h"

#include "gateway/base/log.h"
#include "gateway/store/internal.h"

#include <errno.h>
#include <string.h>

/* What is released moves on in steps, so that the anchor is not written with every commit. */
enum { RELEASE_STEPS = 20, RELEASE_STEP_MAX_MS = 15000, RELEASE_BLOCKS_MAX = 4096 };
static const char last_note[] = "clock.last"; /* the gateway's clock at the last commit */

int64_t store_now_ms(struct store *store)
{
    return store->clock.known ? clock_boot_ms() + store->clock.offset_ms : clock_wall_ms();
}

int64_t store_age_now_ms(struct store *store)
{
    return store->clock.known ? clock_boot_ms() + store->clock.age_offset_ms : clock_wall_ms();
}

void store_clock_header(const struct anchors *anchors, uint64_t block, struct wal_header *header)
{
    int64_t shift_ms = anchors_fate(anchors, block).shift_ms;
    header->written_ms += shift_ms;
    header->time_min_ms += shift_ms;
    header->time_max_ms += shift_ms;
}

static struct anchor *last_anchor(const struct anchors *anchors)
{
    return anchors->count > 0 ? &anchors->list[anchors->count - 1] : NULL;
}

/* What is given up by age is judged by the least that the time can be. */
static int64_t age_offset(const struct anchors *anchors, const struct anchor *now)
{
    int64_t least_ms = INT64_MIN;
    for (size_t i = 0; i < anchors->count; i++) {
        const struct anchor *a = &anchors->list[i];
        if (a->state == ANCHOR_SURE && memcmp(a->boot, now->boot, sizeof(now->boot)) == 0) {
            return now->offset_ms;
        }
        int64_t end_ms = a->offset_ms + a->shift_ms + a->until_ms;
        least_ms = a->state == ANCHOR_SURE && end_ms > least_ms ? end_ms : least_ms;
    }
    return least_ms == INT64_MIN || least_ms > now->offset_ms ? now->offset_ms : least_ms;
}

/* The readings in the blocks from..end, by their headers. */
static int count_blocks(struct store *store, uint64_t from, uint64_t end, uint64_t *ret_readings)
{
    uint64_t readings = 0;
    int rc = 0;
    while (rc == 0 && from < end) {
        MDB_txn *txn = NULL;
        rc = env_read(store->env, &txn);
        for (unsigned i = 0; rc == 0 && i < RELEASE_BLOCKS_MAX; i++) {
            MDB_val value;
            struct wal_header header;
            rc = env_seek(txn, KEY_WAL, from, &from, &value);
            if (rc == 0 && from < end &&
                wal_read_header(value.mv_data, value.mv_size, &header) == 0) {
                readings += header.readings;
            }
            from++;
        }
        if (txn != NULL) {
            env_read_end(store->env, txn);
        }
    }
    *ret_readings = readings;
    return rc == -ENOENT ? 0 : rc;
}

int store_clock_load(struct store *store, MDB_txn *txn)
{
    uint64_t number = 0, from = 0;
    MDB_val value;
    int rc;
    while ((rc = env_seek(txn, KEY_ANCHOR, from, &number, &value)) == 0) {
        struct anchor anchor = {0};
        from = number + 1;
        if (anchor_decode(value.mv_data, value.mv_size, &anchor) < 0) {
            log_error("store: what clock anchor %llu said is lost", (unsigned long long)number);
            continue;
        }
        store->anchors.next = number;
        rc = anchors_add_stored(&store->anchors, &anchor);
        if (rc < 0) {
            return rc;
        }
    }
    store->anchors.next = from;
    const struct state_note *note = state_note(&store->state, last_note);
    struct anchor *last = last_anchor(&store->anchors);
    if (last != NULL && note != NULL && note->value - last->offset_ms > last->until_ms) {
        last->until_ms = note->value - last->offset_ms;
    }
    store->decided = anchors_decided(&store->anchors);
    return rc == -ENOENT ? anchors_copy(&store->shown, &store->anchors) : rc;
}

int store_clock_save(struct store *store, MDB_txn *txn)
{
    int rc = 0;
    for (size_t i = 0; i < store->anchors.count && rc == 0; i++) {
        const struct anchor *a = &store->anchors.list[i];
        if (a->changed) {
            uint8_t record[ANCHOR_SIZE];
            anchor_encode(a, record);
            struct key key = key_number(KEY_ANCHOR, a->number);
            rc = env_put(txn, &key, record, sizeof(record), 0);
        }
    }
    if (rc == 0 && store->anchors.forgotten > 0) {
        struct key key = key_number(KEY_ANCHOR, store->anchors.forgotten - 1);
        rc = env_delete(txn, &key);
    }
    return rc;
}

void store_clock_note(struct store *store)
{
    int rc = 0;
    if (store->anchors.count > 0) {
        store_lock(store);
        rc = state_set_note(&store->state, last_note, store_now_ms(store));
        store_unlock(store);
    }
    if (rc < 0) {
        log_error("store: no room for the note %s", last_note);
    }
}

bool store_clock_changed(const struct store *store)
{
    return store->anchors.changed;
}

void store_clock_publish(struct store *store)
{
    const struct anchor *last = last_anchor(&store->anchors);
    if (last == NULL) {
        return;
    }
    uint64_t decided = anchors_decided(&store->anchors);
    store->clock.held = decided == UINT64_MAX ? 0 : store->clock.held;
    for (size_t i = 0; i < store->cut_count && decided != UINT64_MAX; i++) {
        store->clock.held += store->cuts[i].readings;
    }
    if (!store->anchors.changed) {
        return;
    }
    for (size_t i = 0; i < store->anchors.count; i++) {
        store->anchors.list[i].changed = false;
    }
    store->anchors.changed = false;
    store->anchors.forgotten = 0;
    if (anchors_copy(&store->shown, &store->anchors) < 0) {
        store->anchors.changed = true; /* shown with the next commit */
        return;
    }
    bool more = decided > store->decided;
    store->decided = decided;
    for (unsigned u = 0; u < STORE_UPLINKS_MAX && more; u++) {
        if (store->readers[u] != NULL) {
            reader_wake(store->readers[u]);
        }
    }
}

/* Blocks of this anchor that were written up to `until_ms` (boot time) have waited long enough. */
static int release_blocks(struct store *store, struct anchor *a, uint64_t end, int64_t until_ms)
{
    MDB_txn *txn = NULL;
    int rc = env_read(store->env, &txn);
    if (rc < 0) {
        return rc;
    }
    uint64_t readings = 0, from = a->released > a->first_block ? a->released : a->first_block;
    uint64_t released = from;
    for (unsigned i = 0; rc == 0 && i < RELEASE_BLOCKS_MAX; i++) {
        MDB_val value;
        struct wal_header header = {.written_ms = INT64_MIN};
        rc = env_seek(txn, KEY_WAL, released, &from, &value);
        if (rc < 0 || from >= end) {
            released = end == UINT64_MAX ? released : end; /* nothing more will come under it */
            break;
        }
        if (wal_read_header(value.mv_data, value.mv_size, &header) == 0 &&
            header.written_ms - a->offset_ms > until_ms) {
            break;
        }
        readings += header.readings;
        released = from + 1;
    }
    env_read_end(store->env, txn);
    if (released > a->released && released > a->first_block) {
        a->released = released;
        a->changed = store->anchors.changed = true;
    }
    store_lock(store);
    store->clock.held -= readings < store->clock.held ? readings : store->clock.held;
    store_unlock(store);
    return rc == -ENOENT ? 0 : rc;
}

/* Of an earlier boot: it ended before this one began, so what it took waits longer than that. */
static void release_boot(struct store *store, struct anchor *a, uint64_t end, int64_t waited_ms,
                         int64_t wait_ms)
{
    if (waited_ms >= wait_ms) {
        a->released = end;
        a->changed = store->anchors.changed = true;
    }
}

static int release(struct store *store, const struct anchors_look *look, int64_t wait_ms)
{
    struct anchors *anchors = &store->anchors;
    int64_t step_ms = wait_ms / RELEASE_STEPS;
    step_ms = step_ms < RELEASE_STEP_MAX_MS ? step_ms : RELEASE_STEP_MAX_MS;
    if (anchors_decided(anchors) == UINT64_MAX ||
        look->boot_ms - store->clock.released_ms < step_ms) {
        return 0;
    }
    store->clock.released_ms = look->boot_ms;
    int rc = 0;
    for (size_t i = 0; i < anchors->count && rc == 0; i++) {
        struct anchor *a = &anchors->list[i];
        uint64_t end = i + 1 < anchors->count ? a[1].first_block : UINT64_MAX;
        if (a->state != ANCHOR_WAITING || a->released >= end) {
            continue;
        }
        if (memcmp(a->boot, look->boot, sizeof(a->boot)) != 0) {
            release_boot(store, a, end, look->boot_ms, wait_ms);
        } else {
            rc = release_blocks(store, a, end, look->boot_ms - wait_ms);
        }
        if (a->released < end) {
            break; /* what comes after it waits too */
        }
    }
    return rc;
}

int64_t store_clock_plan(struct store *store, const struct anchors_look *look)
{
    struct anchor fresh;
    return anchors_plan(&store->anchors, look, &fresh) ? fresh.offset_ms
                                                       : last_anchor(&store->anchors)->offset_ms;
}

/* From the next block on the fresh anchor holds. */
static int change(struct store *store, struct anchor *fresh, int64_t wait_ms, int64_t *ret_moved_ms)
{
    int rc = store_commit(store);
    if (rc < 0 && rc != -ENOSPC) {
        return rc;
    }
    fresh->first_block = store->state.next;
    if (fresh->state == ANCHOR_WAITING && wait_ms == 0) {
        fresh->released = UINT64_MAX;
    }
    bool waited = anchors_decided(&store->anchors) != UINT64_MAX;
    rc = anchors_add(&store->anchors, fresh);
    if (rc == 0 && store->anchors.count > 1) {
        *ret_moved_ms = store->anchors.list[store->anchors.count - 2].shift_ms;
    }
    if (rc == 0 && waited && fresh->state == ANCHOR_SURE) {
        log_info("clock: synchronised; what was read before moves by %lld ms",
                 (long long)*ret_moved_ms);
    } else if (rc == 0 && fresh->state == ANCHOR_WAITING) {
        log_warning("clock: not synchronised; readings wait for it up to %lld s",
                    (long long)wait_ms / 1000);
    }
    return rc;
}

static void show(struct store *store, const struct anchors_look *look, int64_t wait_ms)
{
    const struct anchor *last = last_anchor(&store->anchors);
    store_lock(store);
    store->clock.vouched = look->vouched;
    store->clock.sure = last->state == ANCHOR_SURE;
    store->clock.wait_ms = wait_ms;
    store->clock.since_ms = last->from_ms;
    store_unlock(store);
    store->clock.offset_ms = last->offset_ms;
    store->clock.age_offset_ms = age_offset(&store->anchors, last);
    store->clock.known = true;
}

int store_clock_mind(struct store *store, const struct anchors_look *look, int64_t wait_ms,
                     int64_t *ret_moved_ms)
{
    struct anchor fresh;
    *ret_moved_ms = 0;
    int rc = 0;
    if (anchors_plan(&store->anchors, look, &fresh)) {
        rc = change(store, &fresh, wait_ms, ret_moved_ms);
    }
    if (rc < 0) {
        return rc;
    }
    show(store, look, wait_ms);
    rc = release(store, look, wait_ms);
    if (rc == 0 && store->anchors.changed) {
        rc = store_commit(store);
        rc = rc == -ENOSPC ? 0 : rc;
    }
    return rc;
}

void store_clock(struct store *store, struct store_clock *ret_clock)
{
    store_lock(store);
    *ret_clock = (struct store_clock){.known = store->clock.known,
                                      .vouched = store->clock.vouched,
                                      .sure = store->clock.sure,
                                      .held = store->clock.held,
                                      .wait_ms = store->clock.wait_ms,
                                      .since_ms = store->clock.since_ms};
    store_unlock(store);
}

int store_clock_start(struct store *store)
{
    return store->decided == UINT64_MAX
               ? 0
               : count_blocks(store, store->decided, store->newest + 1, &store->clock.held);
}
