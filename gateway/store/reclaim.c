#include "gateway/store/reclaim.h"

#include "gateway/base/clock.h"
#include "gateway/base/log.h"
#include "gateway/store/thinning.h"

#include <errno.h>
#include <string.h>
#include <sys/statvfs.h>

enum {
    TAIL_BLOCKS_MAX = 192,  /* that leave in order with one commit */
    EXPIRE_BLOCKS_MAX = 16, /* looked through for an uplink with one commit */
    PURGE_BLOCKS_MAX = 64,  /* looked at for delivered history under pressure */
    RESERVE_PAGES_MIN = 32,
    RESERVE_SHARE = 20, /* a twentieth */
    ROOM_SHOWN_MS = 5000,
};
static const uint64_t disk_margin_bytes = 1 << 20; /* left to others on a file system */
static const int64_t clock_slack_ms = 86400000; /* a block from further ahead is not kept for it */

struct opened {
    uint64_t number;
    size_t len;
    struct wal_header header;
    const struct wal_row *rows;
    bool damaged;
};

/* The first block from `from` on that is not in the plan already. -ENOENT: none. */
static int seek(struct store *store, MDB_txn *txn, uint64_t from, struct opened *block)
{
    MDB_val value;
    int rc = env_seek(txn, KEY_WAL, from, &block->number, &value);
    if (rc < 0) {
        return rc;
    }
    block->len = value.mv_size;
    block->damaged = wal_read_header(value.mv_data, value.mv_size, &block->header) < 0;
    store_clock_header(&store->anchors, block->number, &block->header);
    buffer_clear(&store->block);
    buffer_add(&store->block, value.mv_data, value.mv_size);
    return buffer_failed(&store->block) ? -ENOMEM : 0;
}

/* The rows of the block that seek() has copied. */
static int open_rows(struct store *store, struct opened *block)
{
    int rc = wal_open(store->decoder, store->block.data, store->block.len, &block->header,
                      &block->rows);
    if (rc == -EBADMSG) {
        block->damaged = true;
        block->header.scans = 0;
        return 0;
    }
    store_clock_header(&store->anchors, block->number, &block->header);
    return rc;
}

static bool settled_row(struct store *store, const struct wal_row *row)
{
    for (unsigned u = 0; u < STORE_UPLINKS_MAX; u++) {
        if (store->state.uplinks[u].name == NULL) {
            continue;
        }
        const struct track *track = ledger_track(store, u, row->stream, row->device);
        if (track != NULL && !ranges_contains(&track->settled, row->seq)) {
            return false;
        }
    }
    return true;
}

/* In a large block; or, where the log is not kept for itself, of no interest to anybody. Under the
 * lock. */
static bool passed_row(struct store *store, const struct wal_row *row, bool kept)
{
    const struct state_device *device = &store->state.devices[row->device - 1];
    return row->device > store->state.device_count || row->seq <= device->flushed[row->stream] ||
           (!kept && settled_row(store, row));
}

static bool passed(struct store *store, const struct opened *block, bool kept)
{
    bool all = true;
    store_lock(store);
    for (size_t i = 0; i < block->header.scans && all; i++) {
        const struct wal_row *row = &block->rows[i];
        all = passed_row(store, row, kept);
        if (!all) {
            store->blocker.number = block->number;
            store->blocker.stream = row->stream;
            store->blocker.device = row->device;
            store->blocker.seq = row->seq;
        }
    }
    store_unlock(store);
    return all;
}

/* Whether the scan that kept this block the last time still does. */
static bool still_blocked(struct store *store, uint64_t number, bool kept)
{
    if (store->blocker.number != number) {
        return false;
    }
    struct wal_row row = {.stream = (uint16_t)store->blocker.stream,
                          .device = store->blocker.device,
                          .seq = store->blocker.seq};
    store_lock(store);
    bool blocked = !passed_row(store, &row, kept);
    store_unlock(store);
    return blocked;
}

static bool held(const struct store *store, const struct opened *block)
{
    return !block->damaged && block->header.time_max_ms >= store->hold_since_ms;
}

static bool kept(struct store *store, const struct opened *block)
{
    int64_t age = store_age_now_ms(store) - block->header.written_ms;
    return !block->damaged && age < store->settings.keep_ms && age > -clock_slack_ms;
}

/* Settles a row on behalf of an uplink, under the lock. */
void reclaim_settle_row(struct store *store, unsigned u, const struct wal_row *row,
                        enum ledger_fate fate)
{
    struct track *track = ledger_track(store, u, row->stream, row->device);
    if (track == NULL || ranges_contains(&track->settled, row->seq) ||
        ranges_add(&track->settled, row->prev_seq + 1, row->seq) < 0) {
        return;
    }
    uint64_t readings = row->count < track->waiting ? row->count : track->waiting;
    track->waiting -= readings;
    store->state.uplinks[u].devices[row->device - 1].fates[fate] += readings;
    if (store->readers[u] != NULL) {
        reader_overtake(store->readers[u], row, fate, 0);
    }
}

/* No earlier block of the log is left. Where no large block waits either, everything up to these
 * rows is settled, holes of lost scans included; and where nothing newer exists, what still counts
 * as waiting has been lost with a block. */
static void raise_floor(struct store *store, unsigned u, const struct wal_row *row)
{
    const struct state_device *device = &store->state.devices[row->device - 1];
    struct track *track = ledger_track(store, u, row->stream, row->device);
    if (track == NULL || row->seq <= device->flushed[row->stream] ||
        ranges_next_open(&track->settled, 1) <= device->flushed[row->stream]) {
        return;
    }
    ranges_raise(&track->settled, row->seq);
    if (track->waiting > 0 && track->settled.floor >= device->seq[row->stream]) {
        store->state.uplinks[u].devices[row->device - 1].fates[FATE_THINNED] += track->waiting;
        track->waiting = 0;
    }
}

static void raise_floors(struct store *store, const struct wal_row *row)
{
    for (unsigned u = 0; u < STORE_UPLINKS_MAX; u++) {
        if (store->state.uplinks[u].name != NULL) {
            raise_floor(store, u, row);
        }
    }
}

int reclaim_delete(struct store *store, MDB_txn *txn, const struct key *key, size_t len)
{
    struct plan *plan = &store->plan;
    size_t page = env_page_size(store->env);
    plan->deletes[plan->count++] = *key;
    plan->freed += len < page / 2 ? len : (len + 16 + page - 1) / page * page;
    return env_delete(txn, key);
}

static int delete_block(struct store *store, MDB_txn *txn, const struct opened *block)
{
    struct key key = key_number(KEY_WAL, block->number);
    memo_forget(&store->memo, block->number);
    flush_log_bytes(store, -(int64_t)block->len);
    if (block->damaged) {
        store->state.damaged++;
    }
    return reclaim_delete(store, txn, &key, block->len);
}

static int drop_tail(struct store *store, MDB_txn *txn, const struct opened *block)
{
    store_lock(store);
    for (size_t i = 0; i < block->header.scans; i++) {
        raise_floors(store, &block->rows[i]);
    }
    store_unlock(store);
    store->state.tail = block->number + 1;
    return delete_block(store, txn, block);
}

/* As passed(), of a run as a whole: where it cannot tell, the rows have to. Under the lock. */
static bool passed_run(struct store *store, unsigned uplinks, const struct memo_run *run, bool kept)
{
    if (run->last_seq <= store->state.devices[run->device - 1].flushed[run->stream]) {
        return true;
    }
    for (unsigned u = 0; u < uplinks && !kept; u++) {
        const struct track *track = ledger_track(store, u, run->stream, run->device);
        if (track != NULL && !ranges_covers(&track->settled, run->prev_seq + 1, run->last_seq)) {
            return false;
        }
    }
    return !kept;
}

/* The block as it is remembered; NULL: it is not, or the log has it otherwise. */
static const struct memo_block *recall(struct store *store, MDB_txn *txn, uint64_t number)
{
    const struct memo_block *memo = memo_find(&store->memo, number);
    uint64_t found;
    MDB_val value;
    bool same = memo != NULL && number <= store->newest &&
                env_seek(txn, KEY_WAL, number, &found, &value) == 0 && found == number &&
                value.mv_size == memo->len;
    return same ? memo : NULL;
}

/* Lets a block go without reading it. -ENOENT: it is not remembered, or its rows have to tell. */
static int drop_remembered(struct store *store, MDB_txn *txn, uint64_t number)
{
    const struct memo_block *memo = recall(store, txn, number);
    if (memo == NULL) {
        return -ENOENT;
    }
    struct opened block = {.number = number, .len = memo->len, .header = memo->header};
    store_clock_header(&store->anchors, number, &block.header);
    bool stays = held(store, &block) || kept(store, &block), all = true;
    store_lock(store);
    unsigned uplinks = STORE_UPLINKS_MAX; /* slots up to the last one in use: mostly few */
    while (uplinks > 0 && store->state.uplinks[uplinks - 1].name == NULL) {
        uplinks--;
    }
    for (size_t i = 0; i < memo->run_count && all; i++) {
        all = passed_run(store, uplinks, &memo->runs[i], stays);
    }
    for (size_t i = 0; i < memo->run_count && all && uplinks > 0; i++) {
        const struct memo_run *run = &memo->runs[i];
        raise_floors(
            store,
            &(struct wal_row){.device = run->device, .stream = run->stream, .seq = run->last_seq});
    }
    store_unlock(store);
    store->state.tail = all ? number + 1 : store->state.tail;
    return all ? delete_block(store, txn, &block) : -ENOENT;
}

/* The oldest blocks leave once everybody is done with them and they are old enough. */
static int reclaim_tail(struct store *store, MDB_txn *txn)
{
    for (unsigned i = 0; i < TAIL_BLOCKS_MAX && store->plan.count < PLAN_DELETES_MAX; i++) {
        struct opened block = {0};
        int rc = drop_remembered(store, txn, store->state.tail);
        if (rc == 0) {
            continue;
        }
        if (rc == -ENOENT) {
            rc = seek(store, txn, store->state.tail, &block);
        }
        if (rc == -ENOENT) {
            store->state.tail = store->state.next;
            return 0;
        }
        if (rc < 0) {
            return rc;
        }
        store->state.tail = block.number;
        bool stays = held(store, &block) || kept(store, &block);
        if (still_blocked(store, block.number, stays)) {
            return 0;
        }
        rc = open_rows(store, &block);
        if (rc < 0 || !passed(store, &block, stays)) {
            return rc;
        }
        rc = drop_tail(store, txn, &block);
        if (rc < 0) {
            return rc;
        }
    }
    return 0;
}

static int expire_uplink(struct store *store, MDB_txn *txn, unsigned u, int64_t cutoff_ms)
{
    struct state_uplink *uplink = &store->state.uplinks[u];
    for (unsigned i = 0; i < EXPIRE_BLOCKS_MAX; i++) {
        store_lock(store);
        uint64_t from = uplink->expiry > uplink->floor ? uplink->expiry : uplink->floor;
        store_unlock(store);
        struct opened block = {0};
        int rc = seek(store, txn, from, &block);
        if (rc == 0 && block.header.written_ms >= cutoff_ms && !block.damaged) {
            return 0;
        }
        if (rc == 0) {
            rc = open_rows(store, &block);
        }
        if (rc < 0) {
            return rc == -ENOENT ? 0 : rc;
        }
        store_lock(store);
        for (size_t r = 0; r < block.header.scans; r++) {
            reclaim_settle_row(store, u, &block.rows[r], FATE_EXPIRED);
        }
        uplink->expiry = block.number + 1;
        store_unlock(store);
    }
    return 0;
}

static int expire(struct store *store, MDB_txn *txn)
{
    int rc = 0;
    for (unsigned u = 0; u < STORE_UPLINKS_MAX && rc == 0; u++) {
        const struct state_uplink *uplink = &store->state.uplinks[u];
        if (uplink->name != NULL && uplink->max_age_ms > 0) {
            rc = expire_uplink(store, txn, u, store_age_now_ms(store) - uplink->max_age_ms);
        }
    }
    return rc;
}

/* How many more pages the file system has for us, at most `limit`. */
static int64_t disk_pages(const struct store *store, int64_t page, int64_t limit)
{
    struct statvfs fs;
    if (statvfs(store->path, &fs) < 0) {
        return limit;
    }
    uint64_t bytes = (uint64_t)fs.f_bavail * fs.f_frsize;
    bytes = bytes > disk_margin_bytes ? bytes - disk_margin_bytes : 0;
    return bytes / (uint64_t)page < (uint64_t)limit ? (int64_t)(bytes / (uint64_t)page) : limit;
}

/* Bytes short of what is needed beside the reserve, as of the last commit; 0: there is room. The
 * free list is gone through only near the limit. by_disk: the file system sets it, not max_size. */
static int shortage(struct store *store, size_t need, int64_t *ret_bytes, bool *ret_by_disk)
{
    int64_t page = (int64_t)env_page_size(store->env);
    int64_t pages = (int64_t)env_pages(store->env);
    int64_t limit = (int64_t)store->max_bytes / page;
    int64_t disk = pages + disk_pages(store, page, limit);
    *ret_by_disk = disk < limit;
    limit = disk < limit ? disk : limit;
    int64_t reserve = limit / RESERVE_SHARE > RESERVE_PAGES_MIN ? limit / RESERVE_SHARE
                                                                : RESERVE_PAGES_MIN;
    int64_t want = reserve + (int64_t)need / page + 1;
    *ret_bytes = 0;
    if (limit - pages >= want) {
        return 0;
    }
    MDB_txn *txn = NULL;
    uint64_t free_pages = 0;
    int rc = env_read(store->env, &txn);
    if (rc == 0) {
        rc = env_free_pages(txn, &free_pages);
        env_read_end(store->env, txn);
    }
    int64_t room = limit - pages + (int64_t)free_pages;
    *ret_bytes = rc < 0 || room >= want ? 0 : (want - room) * page;
    return rc;
}

/* Delivered history goes first, though it was to be kept; wherever it lies. */
static int purge_history(struct store *store, MDB_txn *txn, size_t short_bytes)
{
    if (store->purge < store->state.tail) {
        store->purge = store->state.tail;
    }
    for (unsigned i = 0; i < PURGE_BLOCKS_MAX && store->plan.freed < short_bytes &&
                         store->plan.count < PLAN_DELETES_MAX;
         i++) {
        struct opened block = {0};
        int rc = seek(store, txn, store->purge, &block);
        if (rc == -ENOENT) {
            store->purge = 0; /* once round: the next time from the start */
            return 0;
        }
        if (rc == 0) {
            rc = open_rows(store, &block);
        }
        if (rc < 0) {
            return rc;
        }
        store->purge = block.number + 1;
        if (passed(store, &block, held(store, &block))) {
            rc = block.number == store->state.tail ? drop_tail(store, txn, &block)
                                                   : delete_block(store, txn, &block);
            if (rc < 0) {
                return rc;
            }
        }
    }
    return 0;
}

/* What is waited for in the block lives on as statistics, where these are smaller. */
static void summarise(struct store *store, const struct opened *block)
{
    int rc = thinning_add_block(store, block->number, &block->header, block->rows);
    if (rc < 0) {
        log_warning("store: a block of the log was dropped, not thinned: %s", strerror(-rc));
    }
}

/* Whether raw scans that are in no large block make up some of it. */
static bool has_raw(const struct store *store, const struct opened *block)
{
    bool raw = block->damaged;
    for (size_t i = 0; i < block->header.scans && !raw; i++) {
        const struct wal_row *row = &block->rows[i];
        raw = row->stream == STREAM_RAW &&
              row->seq > store->state.devices[row->device - 1].flushed[STREAM_RAW];
    }
    return raw;
}

static int drop_block(struct store *store, MDB_txn *txn, const struct opened *block)
{
    if (store->settings.when_full == STORE_FULL_THIN) {
        summarise(store, block);
    }
    store_lock(store);
    for (unsigned u = 0; u < STORE_UPLINKS_MAX; u++) {
        for (size_t i = 0; i < block->header.scans; i++) {
            const struct wal_row *row = &block->rows[i];
            if (row->seq > store->state.devices[row->device - 1].flushed[row->stream]) {
                reclaim_settle_row(store, u, row, FATE_THINNED);
            }
        }
    }
    store_unlock(store);
    return block->number == store->state.tail ? drop_tail(store, txn, block)
                                              : delete_block(store, txn, block);
}

/* raw_first: statistics stay, they are small and stand for much. Some of them are looked over. */
static int drop_oldest(struct store *store, MDB_txn *txn, size_t short_bytes, bool raw_first)
{
    uint64_t from = store->state.tail;
    unsigned stay = 0;
    while (store->plan.freed < short_bytes && store->plan.count < PLAN_DELETES_MAX &&
           thinning_has_room(store) && stay < PURGE_BLOCKS_MAX) {
        struct opened block = {0};
        int rc = seek(store, txn, from, &block);
        if (rc == -ENOENT) {
            return 0;
        }
        if (rc == 0) {
            rc = open_rows(store, &block);
        }
        if (rc < 0) {
            return rc;
        }
        from = block.number + 1;
        store->state.tail = stay == 0 ? block.number : store->state.tail;
        if (raw_first && !has_raw(store, &block)) {
            stay++;
            continue;
        }
        rc = drop_block(store, txn, &block);
        if (rc < 0) {
            return rc;
        }
    }
    return 0;
}

const char *store_room_name(enum store_room room)
{
    static const char *const names[STORE_ROOMS] = {"enough", "thinning", "dropping", "refusing"};
    return room < STORE_ROOMS ? names[room] : "?";
}

/* Said at the change, and shown for a while, since not every commit of a full store finds it so. */
static void note_room(struct store *store, enum store_room room, bool by_disk)
{
    struct pressure *pressure = &store->pressure;
    int64_t now_ms = clock_mono_ms();
    if (room != STORE_ROOM_ENOUGH) {
        pressure->last_ms = now_ms;
    } else if (pressure->room == STORE_ROOM_ENOUGH || now_ms - pressure->last_ms < ROOM_SHOWN_MS) {
        return;
    }
    bool worse = pressure->room == STORE_ROOM_ENOUGH || room == STORE_ROOM_REFUSING;
    if (room != pressure->room && room != STORE_ROOM_ENOUGH && worse) {
        log_warning("store: the %s is full: %s", by_disk ? "disk" : "store", store_room_name(room));
    } else if (room != pressure->room && room == STORE_ROOM_ENOUGH) {
        log_info("store: there is room again");
    }
    store_lock(store);
    pressure->room = room;
    pressure->disk_full = by_disk;
    store_unlock(store);
}

/* The oldest of what waits, in large blocks and in the log; with `thin` statistics go last. Where
 * they fill the commit, the next one goes on. */
static int give_up_waiting(struct store *store, MDB_txn *txn, size_t short_bytes)
{
    int rc = 0;
    if (store->settings.when_full == STORE_FULL_THIN) {
        rc = retire_waiting(store, txn, short_bytes, true);
        rc = rc < 0 ? rc : drop_oldest(store, txn, short_bytes, true);
    }
    rc = rc < 0 ? rc : retire_waiting(store, txn, short_bytes, false);
    return rc < 0 ? rc : drop_oldest(store, txn, short_bytes, false);
}

static int make_room(struct store *store, MDB_txn *txn, size_t need)
{
    bool by_disk = false, pause = store->settings.when_full == STORE_FULL_PAUSE;
    store->need_bytes = store->cut_count > 0 ? need : store->need_bytes;
    /* With `pause` the next commit must have room too: it cannot be refused any more then. */
    size_t want = pause ? need + store->need_bytes : need;
    int64_t missing = 0;
    int rc = shortage(store, want, &missing, &by_disk);
    if (rc == 0 && (size_t)missing > store->plan.freed) {
        rc = retire_history(store, txn, (size_t)missing);
    }
    if (rc == 0 && (size_t)missing > store->plan.freed) {
        rc = purge_history(store, txn, (size_t)missing);
    }
    bool wanting = rc == 0 && (size_t)missing > store->plan.freed;
    if (wanting && !pause) {
        rc = give_up_waiting(store, txn, (size_t)missing);
    }
    if (rc == 0) {
        rc = thinning_encode(store);
    }
    if (rc < 0) {
        return rc;
    }
    size_t lacking = (size_t)missing > store->plan.freed ? (size_t)missing - store->plan.freed : 0;
    store->full = pause && lacking > 0;
    store->pressure.tried_ms = clock_mono_ms();
    /* The reserve is there for what cannot be avoided; half of it at most for a block. */
    size_t reserve = store->max_bytes / RESERVE_SHARE / 2;
    size_t least = RESERVE_PAGES_MIN / 2 * env_page_size(store->env);
    size_t beyond = want - need + (reserve > least ? reserve : least);
    store->plan.refused = store->cut_count > 0 && lacking > beyond;
    note_room(store,
              !wanting                             ? STORE_ROOM_ENOUGH
              : store->full || store->plan.refused ? STORE_ROOM_REFUSING
              : store->thinned.len > 0             ? STORE_ROOM_THINNING
                                                   : STORE_ROOM_DROPPING,
              by_disk);
    return 0;
}

int reclaim_run(struct store *store, MDB_txn *txn, size_t need_bytes)
{
    if (store->plan.decided) {
        int rc = 0;
        for (size_t i = 0; i < store->plan.count && rc == 0; i++) {
            rc = env_delete(txn, &store->plan.deletes[i]);
        }
        return rc;
    }
    int rc = expire(store, txn);
    if (rc == 0) {
        rc = retire_run(store, txn);
    }
    if (rc == 0) {
        rc = reclaim_tail(store, txn);
    }
    if (rc == 0) {
        rc = make_room(store, txn, need_bytes);
    }
    store->plan.decided = rc == 0;
    return rc;
}
