#include "gateway/base/clock.h"
#include "gateway/base/log.h"
#include "gateway/store/reclaim.h"
#include "gateway/store/record.h"
#include "gateway/store/requeue.h"

#include <errno.h>
#include <string.h>

enum {
    MAP_TRIES = 4,        /* the map is enlarged so often for one commit */
    PAGES_BESIDE = 24,    /* copied on write besides blocks and state: paths, free list, index */
    DEAD_DELETES_MAX = 8, /* old dead letters that go with one commit */
};
static const int64_t day_ms = 86400000;
static const int64_t readers_cleared_every = 64; /* commits */

static struct track *track_of(struct state_uplink *uplink, const struct run *run)
{
    return &uplink->devices[run->device - 1].streams[run->stream];
}

static bool waits_for(const struct state_uplink *uplink, unsigned u, const struct run *run)
{
    return (uplink->streams & (1u << run->stream)) != 0 && (run->settled & (1u << u)) == 0;
}

/* Where the run's readings are counted for that uplink. */
static uint64_t *account_of(struct state_uplink *uplink, unsigned u, const struct run *run)
{
    return waits_for(uplink, u, run) ? &track_of(uplink, run)->waiting
                                     : &uplink->devices[run->device - 1].fates[FATE_NOT_SELECTED];
}

/* The uplink has the run's scans already. Where that cannot be kept it will get them again. */
static void settle_run(struct store *store, struct state_uplink *uplink, unsigned u,
                       struct run *run)
{
    const struct pending_scan *first = store_pending_at(store, run->first);
    const struct pending_scan *last = store_pending_at(store, run->last);
    struct ranges *settled = &uplink->devices[run->device - 1].streams[run->stream].settled;
    if (ranges_add(settled, first->prev_seq + 1, last->scan.seq) < 0) {
        run->settled &= ~(1u << u);
    }
}

static void offer_run(struct store *store, struct run *run)
{
    for (unsigned u = 0; u < STORE_UPLINKS_MAX; u++) {
        struct state_uplink *uplink = &store->state.uplinks[u];
        if (uplink->name == NULL) {
            continue;
        }
        if ((uplink->streams & (1u << run->stream)) != 0 && (run->settled & (1u << u)) != 0) {
            settle_run(store, uplink, u, run);
        }
        *account_of(uplink, u, run) += run->readings;
        track_of(uplink, run)->coming += waits_for(uplink, u, run) ? run->readings : 0;
    }
}

void commit_offer(struct store *store)
{
    store_lock(store);
    for (size_t i = 0; i < store->run_count; i++) {
        if (!store->runs[i].offered) {
            offer_run(store, &store->runs[i]);
            store->runs[i].offered = true;
        }
    }
    store_unlock(store);
}

static int by_device(const void *a, const void *b)
{
    const struct run *x = a, *y = b;
    if (x->stream != y->stream) {
        return x->stream < y->stream ? -1 : 1;
    }
    if (x->device != y->device) {
        return x->device < y->device ? -1 : 1;
    }
    return x->first < y->first ? -1 : 1;
}

static int add_row(struct store *store, size_t count, const struct pending_scan *entry)
{
    if (count == store->row_capacity) {
        size_t capacity = store->row_capacity == 0 ? 256 : store->row_capacity * 2;
        struct wal_row *rows = reallocarray(store->rows, capacity, sizeof(*rows));
        if (rows == NULL) {
            return -ENOMEM;
        }
        store->rows = rows;
        store->row_capacity = capacity;
    }
    store->rows[count] = (struct wal_row){
        .scan = &entry->scan, .prev_seq = entry->prev_seq, .alike = entry->alike};
    return 0;
}

static int encode_cut(struct store *store, size_t rows)
{
    if (rows == 0) {
        return 0;
    }
    if (store->cut_count == CUTS_MAX) {
        return -ENOBUFS;
    }
    struct cut *cut = &store->cuts[store->cut_count];
    *cut = (struct cut){.offset = store->encoded.len, .scans = (uint32_t)rows};
    for (size_t i = 0; i < rows; i++) {
        cut->readings += store->rows[i].scan->count;
    }
    int rc = wal_encode(store->encoder, store->rows, rows, store_now_ms(store), &store->encoded);
    if (rc == 0) {
        cut->len = store->encoded.len - cut->offset;
        memo_note(&store->memo, store->newest + 1 + store->cut_count, store->rows, rows,
                  store->encoded.data + cut->offset, cut->len);
        store->cut_count++;
    }
    return rc;
}

/* Devices that answer in the order of their names need not be sorted. */
static void sort_runs(struct store *store)
{
    size_t i = 1;
    while (i < store->run_count && by_device(&store->runs[i - 1], &store->runs[i]) < 0) {
        i++;
    }
    if (i < store->run_count) {
        qsort(store->runs, store->run_count, sizeof(*store->runs), by_device);
    }
}

/* Everything pending as blocks of bounded size, by stream, device and seq. */
static int encode(struct store *store)
{
    store->cut_count = 0;
    buffer_clear(&store->encoded);
    sort_runs(store);
    size_t rows = 0, memory = 0;
    int rc = 0;
    for (size_t i = 0; i < store->run_count; i++) {
        for (uint32_t at = store->runs[i].first; at != 0 && rc == 0;) {
            const struct pending_scan *entry = store_pending_at(store, at);
            size_t size = entry->size - offsetof(struct pending_scan, scan);
            if (memory + size > WAL_MEMORY_MAX) {
                rc = encode_cut(store, rows);
                rows = memory = 0;
            }
            if (rc == 0) {
                rc = add_row(store, rows++, entry);
            }
            memory += size;
            at = entry->next;
        }
    }
    return rc < 0 ? rc : encode_cut(store, rows);
}

static int put_day(struct store *store, MDB_txn *txn, uint64_t number)
{
    int64_t day = store_now_ms(store) / day_ms;
    if (day == store->day || day < 0) {
        return 0;
    }
    struct key key = key_number(KEY_DAY, (uint64_t)day);
    uint8_t value[8];
    field_put64(value, number);
    int rc = env_put(txn, &key, value, sizeof(value), MDB_NOOVERWRITE);
    return rc == -EEXIST ? 0 : rc;
}

static int put_blocks(struct store *store, MDB_txn *txn)
{
    int rc = 0;
    uint64_t number = store->newest + 1;
    for (size_t i = 0; i < store->cut_count && rc == 0; i++) {
        const struct cut *cut = &store->cuts[i];
        rc = env_append(txn, number + i, store->encoded.data + cut->offset, cut->len);
    }
    return rc == 0 && store->cut_count > 0 ? put_day(store, txn, number) : rc;
}

/* A sender may have written a letter and settled its scan since the commit began: what the state
 * counts as dead has its letter in the same commit. Under the lock. */
static void number_letters(struct store *store)
{
    struct state *state = &store->state;
    buffer_add(&store->letters, store->dead.data, store->dead.len);
    if (!buffer_failed(&store->letters)) {
        buffer_clear(&store->dead);
    }
    store->letters.failed = false; /* otherwise they come with the next one */
    salvage_bury(store);
    struct cursor c = {store->letters.data, store->letters.data + store->letters.len, false};
    for (; c.at < c.end; state->dead_next++) {
        cursor_take(&c, field_get32(cursor_take(&c, 4)));
    }
    for (unsigned i = 0;
         i < DEAD_DELETES_MAX && state->dead_next - state->dead_first > DEAD_KEPT_MAX; i++) {
        state->dead_first++;
    }
}

/* Those that were numbered from `number` on; and those from `first` on that go. */
static int put_letters(struct store *store, MDB_txn *txn, uint64_t number, uint64_t first)
{
    int rc = 0;
    struct cursor c = {store->letters.data, store->letters.data + store->letters.len, false};
    for (; c.at < c.end && rc == 0; number++) {
        uint32_t len = field_get32(cursor_take(&c, 4));
        struct key key = key_number(KEY_DEAD, number);
        rc = env_put(txn, &key, cursor_take(&c, len), len, 0);
    }
    for (; first < store->state.dead_first && rc == 0; first++) {
        struct key key = key_number(KEY_DEAD, first);
        rc = env_delete(txn, &key);
    }
    return rc;
}

static int put_large(struct store *store, MDB_txn *txn)
{
    const struct flush_put *puts;
    size_t count = flush_puts(store->flush, &puts);
    int rc = 0;
    for (size_t i = 0; i < count && rc == 0; i++) {
        if (puts[i].len > 0) {
            rc = env_put(txn, &puts[i].key, flush_bytes(store->flush) + puts[i].offset, puts[i].len,
                         0);
        }
    }
    return rc;
}

/* By pages: a leaf with the state, the free list and the meta page come with each; its root, or now
 * and then what moves into the barn. */
static void count_written(struct store *store)
{
    enum { PAGES_A_COMMIT = 4 };
    const struct flush_put *puts;
    size_t count = flush_puts(store->flush, &puts), page = env_page_size(store->env);
    size_t pages = PAGES_A_COMMIT + store->record.len / page;
    for (size_t i = 0; i < store->cut_count; i++) {
        pages += store->cuts[i].len / page;
    }
    for (size_t i = 0; i < count; i++) {
        pages += puts[i].len > 0 ? (puts[i].len + page - 1) / page : 0;
    }
    const struct state_note *before = state_note(&store->state, STORE_WRITTEN_NOTE);
    int64_t bytes = (before == NULL ? 0 : before->value) + (int64_t)(pages * page);
    if (state_set_note(&store->state, STORE_WRITTEN_NOTE, bytes) < 0) {
        log_debug("store: no room for the note %s", STORE_WRITTEN_NOTE);
    }
}

/* The numbers of the log and the totals move on, once for a commit. */
static void advance(struct store *store)
{
    struct state *state = &store->state;
    if (store->plan.advanced) {
        return;
    }
    store->plan.advanced = true;
    count_written(store);
    state->commits++;
    state->next += store->cut_count;
    state->blocks += store->cut_count;
    const struct flush_put *puts;
    size_t count = flush_puts(store->flush, &puts);
    for (size_t i = 0; i < count; i++) {
        state->blocks += puts[i].len > 0;
    }
    state->blocks -= store->plan.count < state->blocks ? store->plan.count : state->blocks;
    for (size_t i = 0; i < store->cut_count; i++) {
        state->readings += store->cuts[i].readings;
        flush_log_bytes(store, (int64_t)store->cuts[i].len);
        state->bytes += store->cuts[i].len;
    }
}

static int put_state(struct store *store, MDB_txn *txn)
{
    store_lock(store);
    uint64_t number = store->state.dead_next, first = store->state.dead_first;
    number_letters(store);
    advance(store);
    int rc = state_encode(&store->state, wal_encoder_zstd(store->encoder), &store->record);
    store_unlock(store);
    rc = rc < 0 ? rc : put_letters(store, txn, number, first);
    if (rc == 0) {
        struct key key = key_plain(KEY_STATE);
        rc = env_put(txn, &key, store->record.data, store->record.len, 0);
    }
    return rc;
}

static size_t needed(const struct store *store)
{
    size_t page = env_page_size(store->env);
    size_t beside = store->record.len + 2 * store->records.len;
    size_t bytes = (PAGES_BESIDE + beside / page + 1) * page + requeue_bytes(store);
    for (size_t i = 0; i < store->cut_count; i++) {
        bytes += (store->cuts[i].len + 16 + page - 1) / page * page;
    }
    const struct flush_put *puts;
    size_t count = flush_puts(store->flush, &puts);
    for (size_t i = 0; i < count; i++) {
        bytes += (puts[i].len + 16 + page - 1) / page * page;
    }
    return bytes;
}

/* What waits does not fit, and nothing may go for it: it was never stored. */
static void refuse_pending(struct store *store)
{
    store_lock(store);
    for (size_t i = 0; i < store->run_count; i++) {
        const struct run *run = &store->runs[i];
        struct state_device *device = &store->state.devices[run->device - 1];
        uint64_t raw = run->stream == STREAM_RAW ? run->readings : 0;
        device->counts[run->stream == STREAM_RAW ? LEDGER_STORED : LEDGER_DERIVED] -= run->readings;
        if (run->salvaged) { /* it is still where it was set aside */
            device->counts[LEDGER_READ] -= raw;
            device->counts[LEDGER_SALVAGED] -= run->readings;
        } else {
            device->counts[LEDGER_DROPPED_DISK] += raw;
        }
        for (unsigned u = 0; u < STORE_UPLINKS_MAX; u++) {
            struct state_uplink *uplink = &store->state.uplinks[u];
            if (uplink->name != NULL) {
                uint64_t *count = account_of(uplink, u, run);
                *count -= run->readings < *count ? run->readings : *count;
            }
        }
    }
    salvage_refused(store);
    store_unlock(store);
    for (size_t i = 0; i < store->cut_count; i++) {
        memo_forget(&store->memo, store->newest + 1 + i);
    }
    /* Statistics are all that is left of what went for them: their block, the last one, stays. */
    if (store->thinned.len > 0) {
        store->cuts[0] = store->cuts[store->cut_count - 1];
    }
    store->cut_count = store->thinned.len > 0;
}

static int fill(struct store *store, MDB_txn *txn)
{
    bool refused = store->plan.refused;
    int rc = requeue_put(store, txn);
    rc = rc < 0 ? rc : reclaim_run(store, txn, needed(store));
    if (rc == 0 && store->plan.refused && !refused) {
        refuse_pending(store);
        flush_cancel(store);
    }
    if (rc == 0) {
        rc = put_blocks(store, txn);
    }
    if (rc == 0) {
        rc = put_large(store, txn);
    }
    if (rc == 0) {
        rc = dictionary_save(store->dictionary, txn);
    }
    if (rc == 0) {
        rc = store_clock_save(store, txn);
    }
    if (rc == 0) {
        rc = record_put_all(store, txn);
    }
    return rc < 0 ? rc : put_state(store, txn);
}

static int attempt(struct store *store)
{
    MDB_txn *txn = NULL;
    int rc = env_write(store->env, &txn);
    if (rc < 0) {
        return rc;
    }
    rc = fill(store, txn);
    if (rc < 0) {
        mdb_txn_abort(txn);
        return rc;
    }
    return env_error(mdb_txn_commit(txn));
}

/* One transaction; a map that turned out too small for it is enlarged, nothing is decided anew. */
static int transact(struct store *store)
{
    store->plan = (struct plan){0};
    uint64_t dead_first = store->state.dead_first, dead_next = store->state.dead_next;
    int rc = attempt(store);
    for (unsigned i = 0; i < MAP_TRIES && rc == -ENOBUFS; i++) {
        size_t map = env_map_bytes(store->env);
        store->state.dead_first = dead_first;
        store->state.dead_next = dead_next;
        rc = env_resize(store->env, map + map / 4);
        rc = rc < 0 ? rc : attempt(store);
    }
    return rc;
}

static void clear_pending(struct store *store)
{
    for (size_t i = 0; i < store->run_count; i++) {
        const struct run *run = &store->runs[i];
        store->run_of[(size_t)(run->device - 1) * STREAM_COUNT + run->stream] = 0;
    }
    store->run_count = 0;
    store->counted = false;
    buffer_clear(&store->pending);
    buffer_clear(&store->records);
    buffer_clear(&store->thinned);
    dictionary_saved(store->dictionary);
}

static void wake_readers(struct store *store)
{
    unsigned streams = 0;
    for (size_t i = 0; i < store->run_count; i++) {
        streams |= 1u << store->runs[i].stream;
    }
    streams |= store->thinned.len > 0 ? 1u << STREAM_AGGREGATE : 0;
    for (unsigned u = 0; u < STORE_UPLINKS_MAX; u++) {
        if (store->readers[u] != NULL && (store->state.uplinks[u].streams & streams) != 0) {
            reader_wake(store->readers[u]);
        }
    }
}

/* Figures of the commit, smoothed over about a minute. */
static void measure(struct store *store, int64_t started_ns)
{
    int64_t now = clock_mono_ms();
    double seconds = (double)(now - store->committed_mono_ms) / 1000.0;
    uint64_t readings = 0, bytes = 0;
    for (size_t i = 0; i < store->cut_count; i++) {
        readings += store->cuts[i].readings;
        bytes += store->cuts[i].len;
    }
    if (seconds > 0) {
        double weight = seconds > 60.0 ? 1.0 : seconds / 60.0;
        store->growth += weight * ((double)bytes / seconds - store->growth);
        double quick = seconds > 5.0 ? 1.0 : seconds / 5.0;
        store->rate += quick * ((double)readings / seconds - store->rate);
    }
    store->committed_mono_ms = now;
    store->commit_us_last = (clock_mono_ns() - started_ns) / 1000;
    if (store->commit_us_last > store->commit_us_max) {
        store->commit_us_max = store->commit_us_last;
    }
}

/* What came with the commit may be read from now on. */
static void arrive(struct store *store, const struct run *run)
{
    struct state_device *device = &store->state.devices[run->device - 1];
    device->committed[run->stream] = device->seq[run->stream];
    for (unsigned u = 0; u < STORE_UPLINKS_MAX; u++) {
        if (store->state.uplinks[u].name != NULL) {
            track_of(&store->state.uplinks[u], run)->coming = 0;
        }
    }
}

static void publish(struct store *store, int64_t started_ns)
{
    store_lock(store);
    measure(store, started_ns);
    for (size_t i = 0; i < store->run_count; i++) {
        arrive(store, &store->runs[i]);
    }
    for (size_t at = 0; at < store->thinned.len;) {
        const struct scan *scan = (const struct scan *)(const void *)(store->thinned.data + at);
        store->state.devices[scan->device - 1].committed[STREAM_AGGREGATE] = scan->seq;
        at += scan_size(scan);
    }
    flush_done(store);
    requeue_done(store);
    store->newest = store->state.next - 1;
    store_clock_publish(store);
    salvage_publish(store);
    if (store->cut_count > 0) {
        store->day = store_now_ms(store) / day_ms;
        wake_readers(store);
    }
    store_unlock(store);
    store_adapt_interval(store);
    clear_pending(store);
    if (store->state.commits % (uint64_t)readers_cleared_every == 0) {
        env_clear_readers(store->env);
    }
}

/* What readers mark from here on waits for the next commit. */
static void take_marks(struct store *store)
{
    store_lock(store);
    store->marked = false;
    struct buffer letters = store->letters;
    store->letters = store->dead;
    store->dead = letters;
    store->dead.max = store->letters.max;
    buffer_clear(&store->dead);
    store_unlock(store);
}

static uint64_t pending_readings(const struct store *store)
{
    uint64_t readings = 0;
    for (size_t i = 0; i < store->cut_count; i++) {
        readings += store->cuts[i].readings;
    }
    return readings;
}

int store_commit(struct store *store)
{
    if (store->failed) {
        return -EIO;
    }
    if (store->readonly) {
        return -EROFS;
    }
    if (!store_has_pending(store)) {
        return 0;
    }
    int64_t started_ns = clock_mono_ns();
    store_clock_note(store);
    salvage_note(store);
    take_marks(store);
    commit_offer(store);
    int rc = encode(store);
    if (rc == 0) {
        flush_step(store, pending_readings(store));
        rc = transact(store);
    }
    if (rc < 0) {
        /* What the kernel did with the pages is unknown now; a second fdatasync would lie. */
        store->failed = true;
        log_error("store: commit failed: %s; nothing is acknowledged until a restart",
                  strerror(-rc));
        return -EIO;
    }
    bool refused = store->plan.refused && store->pending.len > 0;
    publish(store, started_ns);
    return refused ? -ENOSPC : 0;
}
