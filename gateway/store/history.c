#include "gateway/store/internal.h"

#include <errno.h>

/* A scan is written after it was taken: an aggregate's time is the start of its window, and a clock
 * may have been set back. So far behind `to` blocks are still looked at. */
static const int64_t history_slack_ms = 86400000;
static const int64_t history_back_ms = 3600000;
static const int64_t day_ms = 86400000;

struct walk {
    struct store *store;
    struct anchors anchors; /* as of the beginning */
    bool in_order;          /* times rise with the blocks' numbers */
    uint64_t number;        /* of the block at hand */
    struct wal_decoder *decoder;
    struct buffer block, arena;
    uint64_t next;
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
        walk->in_order = anchors_in_order(&walk->anchors);
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
    buffer_finish(&walk->arena);
}

/* The header's span as its readings are shown: those that our clock stamped have moved. */
static void widen(const struct anchors *anchors, uint64_t number, struct wal_header *header)
{
    int64_t shift_ms = anchors_fate(anchors, number).shift_ms;
    header->written_ms += shift_ms;
    header->time_min_ms += shift_ms < 0 ? shift_ms : 0;
    header->time_max_ms += shift_ms > 0 ? shift_ms : 0;
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

static bool is_wanted(const struct wal_row *row, const struct wanted *wanted,
                      const struct anchor_fate *fate)
{
    int64_t time_ms = row->time_ms + anchors_shift(fate, row->time_ms, row->boot_ms);
    return row->stream == wanted->stream && time_ms >= wanted->from_ms && time_ms < wanted->to_ms &&
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
        if (!is_wanted(&rows[i], wanted, &fate)) {
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

int store_history(struct store *store, enum stream stream, uint32_t device, int64_t from_ms,
                  int64_t to_ms, int (*fn)(void *user, const struct scan *scan), void *user)
{
    struct walk walk = {.store = store};
    struct wanted wanted = {stream, device, from_ms, to_ms};
    int rc = begin(&walk, from_ms);
    while (rc == 0) {
        rc = next_block(&walk, from_ms, to_ms);
        if (rc == 0) {
            break;
        }
        if (rc == 1) {
            rc = show_block(&walk, &wanted, fn, user);
        } else if (rc == -EAGAIN) {
            rc = 0;
        }
    }
    end(&walk);
    return rc;
}

int store_verify(struct store *store, uint64_t *ret_blocks, uint64_t *ret_bad)
{
    struct walk walk = {.store = store};
    uint64_t blocks = 0, bad = 0, number;
    int rc = begin(&walk, INT64_MIN);
    while (rc == 0) {
        rc = env_copy(store->env, KEY_WAL, walk.next, &number, &walk.block);
        if (rc == -ENOENT) {
            *ret_blocks = blocks;
            *ret_bad = bad;
            rc = 0;
            break;
        }
        struct wal_header header;
        const struct wal_row *rows;
        if (rc == 0) {
            rc = wal_open(walk.decoder, walk.block.data, walk.block.len, &header, &rows);
            if (rc == 0) {
                buffer_clear(&walk.arena);
                uint8_t *arena = buffer_reserve(&walk.arena, header.memory);
                rc = arena == NULL ? -ENOMEM : wal_scans(walk.decoder, arena);
            }
            blocks++;
            bad += rc == -EBADMSG;
            rc = rc == -EBADMSG ? 0 : rc;
            walk.next = number + 1;
        }
    }
    end(&walk);
    return rc;
}
