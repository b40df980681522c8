#include "gateway/store/handover.h"
#include "gateway/store/internal.h"
#include "gateway/store/large.h"

#include <errno.h>

/* A scan is written after it was taken: an aggregate's time is the start of its window, and a clock
 * may have been set back. So far behind `to` blocks are still looked at. */
static const int64_t history_slack_ms = 86400000;
static const int64_t history_back_ms = 3600000;
static const int64_t day_ms = 86400000;

/* First the large blocks, device by device, then the log. Where blocks of the log have gone before
 * they were read, they have passed into large blocks, so these are looked at again. */
struct walk {
    struct store *store;
    struct anchors anchors; /* as of the beginning */
    bool in_order;          /* times rise with the blocks' numbers */
    uint64_t number;        /* of the block at hand */
    struct wal_decoder *decoder;
    struct buffer block, large, arena;
    uint64_t next, found; /* of the log: to be looked for, and found there */
    uint64_t *shown;      /* by device: up to which seq */
    size_t devices;
    bool timed;   /* `decided` is asked for */
    bool decided; /* what is shown next has its time for ever */
};

/* The first block written on that day or later. */
static uint64_t day_start(MDB_txn *txn, int64_t day)
{
    uint64_t found;
    MDB_val value;
    if (day <= 0 || env_seek(txn, KEY_DAY, (uint64_t)day, &found, &value) < 0 ||
        value.mv_size != 8) {
        return 0;
    }
    return field_get64(value.mv_data);
}

static bool written_before(const struct walk *walk, MDB_txn *txn, uint64_t number, int64_t time_ms)
{
    MDB_val value;
    uint64_t found;
    struct wal_header header;
    if (env_seek(txn, KEY_WAL, number, &found, &value) < 0 ||
        wal_read_header(value.mv_data, value.mv_size, &header) < 0) {
        return false;
    }
    store_clock_header(&walk->anchors, found, &header);
    return header.written_ms < time_ms;
}

/* Whether the days under which blocks were put into the index are still theirs. */
static bool days_stand(const struct anchors *anchors)
{
    bool stand = true;
    for (size_t i = 0; i < anchors->count; i++) {
        stand &= anchors->list[i].shift_ms == 0;
    }
    return stand;
}

/* Where to begin: by the index the day, by halving within it. */
static uint64_t start_block(const struct walk *walk, MDB_txn *txn, int64_t from_ms)
{
    uint64_t first;
    MDB_val value;
    if (!walk->in_order || env_seek(txn, KEY_WAL, 0, &first, &value) < 0) {
        return 0;
    }
    int64_t from = from_ms > INT64_MIN + history_back_ms ? from_ms - history_back_ms : INT64_MIN;
    bool days = days_stand(&walk->anchors);
    uint64_t low = days ? day_start(txn, from / day_ms) : 0;
    uint64_t high = days ? day_start(txn, from / day_ms + 1) : 0;
    low = low < first ? first : low;
    if (high <= low) {
        high = walk->store->newest + 1;
    }
    while (low < high) {
        uint64_t middle = low + (high - low) / 2;
        if (written_before(walk, txn, middle, from)) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low;
}

static int begin(struct walk *walk, int64_t from_ms)
{
    MDB_txn *txn = NULL;
    int rc = wal_decoder_create(&walk->decoder);
    if (rc == 0) {
        store_lock(walk->store);
        rc = anchors_copy(&walk->anchors, &walk->store->shown);
        store_unlock(walk->store);
        /* What was salvaged is old and lies among newer ones. */
        walk->in_order = anchors_in_order(&walk->anchors) && from_ms >= walk->store->mixed_until_ms;
    }
    if (rc == 0) {
        rc = env_read(walk->store->env, &txn);
    }
    if (rc == 0) {
        walk->next = from_ms == INT64_MIN ? 0 : start_block(walk, txn, from_ms);
        env_read_end(walk->store->env, txn);
    }
    return rc;
}

static void end(struct walk *walk)
{
    wal_decoder_destroy(walk->decoder);
    anchors_finish(&walk->anchors);
    buffer_finish(&walk->block);
    buffer_finish(&walk->large);
    buffer_finish(&walk->arena);
    free(walk->shown);
}

/* The header's span as its readings are shown: those that our clock stamped have moved. */
static void widen(const struct anchors *anchors, uint64_t number, struct wal_header *header)
{
    int64_t shift_ms = anchors_fate(anchors, number).shift_ms;
    header->written_ms += shift_ms;
    header->time_min_ms += shift_ms < 0 ? shift_ms : 0;
    header->time_max_ms += shift_ms > 0 ? shift_ms : 0;
}

/* A newer anchor than those known here may hold for the block, too. */
static bool is_decided(const struct walk *walk, MDB_txn *txn, uint64_t number)
{
    uint64_t newer;
    MDB_val value;
    return number < anchors_decided(&walk->anchors) &&
           env_seek(txn, KEY_ANCHOR, walk->anchors.next, &newer, &value) == -ENOENT;
}

/* Copies the next block whose time span meets from..to; 1: there is one, 0: no more. */
static int next_block(struct walk *walk, int64_t from_ms, int64_t to_ms)
{
    MDB_txn *txn = NULL;
    int rc = env_read(walk->store->env, &txn);
    if (rc < 0) {
        return rc;
    }
    enum { HEADERS_AT_ONCE = 4096 };
    for (unsigned i = 0;; i++) {
        MDB_val value;
        uint64_t number;
        struct wal_header header = {0};
        rc = env_seek(txn, KEY_WAL, walk->next, &number, &value);
        if (rc < 0) {
            rc = rc == -ENOENT ? 0 : rc;
            break;
        }
        walk->found = number;
        walk->next = number + 1;
        bool sound = wal_read_header(value.mv_data, value.mv_size, &header) == 0;
        widen(&walk->anchors, number, &header);
        if (sound && walk->in_order && to_ms < INT64_MAX - history_slack_ms &&
            header.written_ms > to_ms + history_slack_ms) {
            break;
        }
        if (sound && header.time_min_ms < to_ms && header.time_max_ms >= from_ms) {
            buffer_clear(&walk->block);
            buffer_add(&walk->block, value.mv_data, value.mv_size);
            walk->number = number;
            walk->decided = walk->timed && is_decided(walk, txn, number);
            rc = buffer_failed(&walk->block) ? -ENOMEM : 1;
            break;
        }
        if (i == HEADERS_AT_ONCE) {
            rc = -EAGAIN; /* a long read transaction would make the file grow */
            break;
        }
    }
    env_read_end(walk->store->env, txn);
    return rc;
}

struct wanted {
    enum stream stream;
    uint32_t device;
    int64_t from_ms, to_ms;
};

static bool is_wanted(const struct walk *walk, const struct wal_row *row,
                      const struct wanted *wanted, const struct anchor_fate *fate)
{
    int64_t time_ms = row->time_ms + anchors_shift(fate, row->time_ms, row->boot_ms);
    return row->device <= walk->devices && row->seq > walk->shown[row->device - 1] &&
           row->stream == wanted->stream && time_ms >= wanted->from_ms && time_ms < wanted->to_ms &&
           (wanted->device == 0 || row->device == wanted->device);
}

static int show_block(struct walk *walk, const struct wanted *wanted,
                      int (*fn)(void *user, const struct scan *scan), void *user)
{
    struct wal_header header;
    const struct wal_row *rows;
    int rc = wal_open(walk->decoder, walk->block.data, walk->block.len, &header, &rows);
    bool decoded = false;
    struct anchor_fate fate = anchors_fate(&walk->anchors, walk->number);
    for (size_t i = 0; rc == 0 && i < header.scans; i++) {
        bool show = is_wanted(walk, &rows[i], wanted, &fate);
        if (rows[i].stream == wanted->stream && rows[i].device <= walk->devices &&
            rows[i].seq > walk->shown[rows[i].device - 1]) {
            walk->shown[rows[i].device - 1] = rows[i].seq;
        }
        if (!show) {
            continue;
        }
        if (!decoded) {
            buffer_clear(&walk->arena);
            uint8_t *arena = buffer_reserve(&walk->arena, header.memory);
            rc = arena == NULL ? -ENOMEM : wal_scans(walk->decoder, arena);
            decoded = true;
        }
        if (rc == 0) {
            struct scan *scan = (struct scan *)(void *)(walk->arena.data + rows[i].offset);
            anchors_restamp(&fate, scan);
            rc = fn(user, scan);
        }
    }
    /* One damaged block hides nothing behind it; store_verify() counts it. */
    return rc == -EBADMSG ? 0 : rc;
}

static int show_scan(const struct wanted *wanted, const struct scan *scan,
                     int (*fn)(void *user, const struct scan *scan), void *user)
{
    return scan->time_ms >= wanted->from_ms && scan->time_ms < wanted->to_ms ? fn(user, scan) : 0;
}

/* The first seq behind `seq` of a block that may meet the time asked for: times rise with seqs,
 * give or take a step of the clock. */
static uint64_t skip_early(MDB_txn *txn, bool in_order, const struct wanted *wanted,
                           uint32_t device, uint64_t seq)
{
    struct large large;
    MDB_val value;
    uint64_t low = seq + 1, high = seq + 1;
    if (in_order && wanted->from_ms > INT64_MIN + history_back_ms &&
        large_newest(txn, wanted->stream, device, &large) == 0) {
        high = large.last_seq + 1;
    }
    while (low < high) {
        uint64_t middle = low + (high - low) / 2;
        if (large_find(txn, wanted->stream, device, middle, &large, &value) == 0 &&
            !large.damaged && large.max_ms < wanted->from_ms - history_back_ms) {
            low = large.last_seq + 1;
        } else {
            high = middle;
        }
    }
    return low;
}

/* Copies the first block behind what was shown of the device. -ENOENT: no more of interest. */
static int next_large(struct walk *walk, const struct wanted *wanted, uint32_t device,
                      uint64_t from, struct large *ret_large)
{
    int rc = large_copy(walk->store->env, wanted->stream, device, from, ret_large, &walk->large);
    if (rc == 0 && walk->in_order && !ret_large->damaged &&
        wanted->to_ms < INT64_MAX - history_slack_ms &&
        ret_large->min_ms > wanted->to_ms + history_slack_ms) {
        rc = -ENOENT;
    }
    return rc;
}

static int show_large(struct walk *walk, const struct wanted *wanted, const struct large *large,
                      int (*fn)(void *user, const struct scan *scan), void *user)
{
    uint64_t *shown = &walk->shown[large->device - 1];
    int rc = 0;
    if (large->damaged || (large->min_ms < wanted->to_ms && large->max_ms >= wanted->from_ms)) {
        rc = large_decode(large, walk->large.data, walk->large.len, &walk->arena);
    } else {
        buffer_clear(&walk->arena);
    }
    for (size_t at = 0; rc == 0 && at < walk->arena.len;) {
        const struct scan *scan = (const struct scan *)(const void *)(walk->arena.data + at);
        rc = scan->seq > *shown ? show_scan(wanted, scan, fn, user) : 0;
        at += scan_size(scan);
    }
    *shown = large->last_seq > *shown ? large->last_seq : *shown;
    return rc == -EBADMSG ? 0 : rc;
}

static int show_device(struct walk *walk, const struct wanted *wanted, uint32_t device,
                       int (*fn)(void *user, const struct scan *scan), void *user)
{
    MDB_txn *txn = NULL;
    int rc = env_read(walk->store->env, &txn);
    if (rc < 0) {
        return rc;
    }
    uint64_t from = skip_early(txn, walk->in_order, wanted, device, walk->shown[device - 1]);
    env_read_end(walk->store->env, txn);
    while (rc == 0) {
        struct large large;
        rc = next_large(walk, wanted, device, from, &large);
        if (rc == 0) {
            rc = show_large(walk, wanted, &large, fn, user);
            from = large.last_seq + 1;
        }
    }
    return rc == -ENOENT ? 0 : rc;
}

static int show_devices(struct walk *walk, const struct wanted *wanted,
                        int (*fn)(void *user, const struct scan *scan), void *user)
{
    int rc = 0;
    if (wanted->device != 0) {
        return wanted->device > walk->devices ? 0
                                              : show_device(walk, wanted, wanted->device, fn, user);
    }
    for (uint32_t d = 1; d <= walk->devices && rc == 0; d++) {
        rc = show_device(walk, wanted, d, fn, user);
    }
    return rc;
}

static int begin_history(struct walk *walk, const struct wanted *wanted)
{
    store_lock(walk->store);
    walk->devices = walk->store->state.device_count;
    store_unlock(walk->store);
    walk->shown = calloc(walk->devices + 1, sizeof(*walk->shown));
    int rc = walk->shown == NULL ? -ENOMEM : begin(walk, wanted->from_ms);
    if (wanted->stream == STREAM_AGGREGATE && rc == 0) {
        /* Statistics of what was thinned are old ones behind newer ones. */
        walk->in_order = false;
    }
    return rc;
}

static int show_all(struct walk *walk, const struct wanted *wanted,
                    int (*fn)(void *user, const struct scan *scan), void *user)
{
    int rc = begin_history(walk, wanted);
    if (rc == 0) {
        rc = show_devices(walk, wanted, fn, user);
    }
    for (uint64_t before = walk->next; rc == 0; before = walk->next) {
        int found = next_block(walk, wanted->from_ms, wanted->to_ms);
        bool decided = walk->decided;
        rc = found < 0 && found != -EAGAIN ? found : 0;
        if (rc == 0 && (found == 0 || walk->found != before)) {
            walk->decided = true; /* only what is gets into large blocks */
            rc = show_devices(walk, wanted, fn, user);
        }
        if (rc == 0 && found == 0) {
            break;
        }
        if (rc == 0 && found == 1) {
            walk->decided = decided;
            rc = show_block(walk, wanted, fn, user);
        }
    }
    return rc;
}

int store_history(struct store *store, enum stream stream, uint32_t device, int64_t from_ms,
                  int64_t to_ms, int (*fn)(void *user, const struct scan *scan), void *user)
{
    struct walk walk = {.store = store};
    const struct wanted wanted = {stream, device, from_ms, to_ms};
    int rc = show_all(&walk, &wanted, fn, user);
    end(&walk);
    return rc;
}

/* The scan, and whether its time is decided. */
struct timed {
    struct walk walk;
    int (*fn)(void *user, const struct scan *scan, bool decided);
    void *user;
};

static int show_timed(void *user, const struct scan *scan)
{
    const struct timed *timed = user;
    return timed->fn(timed->user, scan, timed->walk.decided);
}

int store_history_timed(struct store *store, enum stream stream, int64_t from_ms, int64_t to_ms,
                        int (*fn)(void *user, const struct scan *scan, bool decided), void *user)
{
    struct timed timed = {
        .walk = {.store = store, .timed = true, .decided = true}, .fn = fn, .user = user};
    const struct wanted wanted = {stream, 0, from_ms, to_ms};
    int rc = show_all(&timed.walk, &wanted, show_timed, &timed);
    end(&timed.walk);
    return rc;
}

static int verify_log(struct walk *walk, uint64_t *blocks, uint64_t *bad)
{
    uint64_t number;
    int rc;
    while ((rc = env_copy(walk->store->env, KEY_WAL, walk->next, &number, &walk->block)) == 0) {
        struct wal_header header;
        const struct wal_row *rows;
        rc = wal_open(walk->decoder, walk->block.data, walk->block.len, &header, &rows);
        if (rc == 0) {
            buffer_clear(&walk->arena);
            uint8_t *arena = buffer_reserve(&walk->arena, header.memory);
            rc = arena == NULL ? -ENOMEM : wal_scans(walk->decoder, arena);
        }
        if (rc < 0 && rc != -EBADMSG) {
            return rc;
        }
        ++*blocks;
        *bad += rc == -EBADMSG;
        walk->next = number + 1;
    }
    return rc == -ENOENT ? 0 : rc;
}

/* Copies the first large block from *key on and moves *key behind it. -ENOENT. */
static int copy_large(struct walk *walk, struct key *key, struct large *ret_large)
{
    MDB_txn *txn = NULL;
    int rc = env_read(walk->store->env, &txn);
    if (rc < 0) {
        return rc;
    }
    MDB_val name, value;
    rc = env_seek_key(txn, key, &name, &value);
    if (rc == 0 && !large_read(&name, &value, ret_large)) {
        rc = -ENOENT;
    }
    if (rc == 0) {
        buffer_clear(&walk->large);
        buffer_add(&walk->large, value.mv_data, value.mv_size);
        rc = buffer_failed(&walk->large) ? -ENOMEM : 0;
        *key = key_large(ret_large->stream, ret_large->device, ret_large->first_seq + 1);
    }
    env_read_end(walk->store->env, txn);
    return rc;
}

static int verify_large(struct walk *walk, uint64_t *blocks, uint64_t *bad)
{
    struct key key = key_large(0, 0, 0);
    struct large large;
    int rc;
    while ((rc = copy_large(walk, &key, &large)) == 0) {
        rc = large_decode(&large, walk->large.data, walk->large.len, &walk->arena);
        if (rc < 0 && rc != -EBADMSG) {
            return rc;
        }
        ++*blocks;
        *bad += rc == -EBADMSG;
    }
    return rc == -ENOENT ? 0 : rc;
}

int store_verify(struct store *store, uint64_t *ret_blocks, uint64_t *ret_bad)
{
    struct walk walk = {.store = store};
    uint64_t blocks = 0, bad = 0;
    int rc = begin(&walk, INT64_MIN);
    if (rc == 0) {
        rc = verify_large(&walk, &blocks, &bad);
    }
    if (rc == 0) {
        rc = verify_log(&walk, &blocks, &bad);
    }
    end(&walk);
    if (rc == 0) {
        *ret_blocks = blocks;
        *ret_bad = bad;
    }
    return rc;
}
