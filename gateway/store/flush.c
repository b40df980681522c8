#include "gateway/store/flush.h"

#include "gateway/base/clock.h"
#include "gateway/store/codec/block.h"
#include "gateway/store/internal.h"
#include "gateway/store/large.h"

#include <errno.h>
#include <string.h>

enum {
    CHUNK_BYTES = 16000,          /* of scans, then they become a chunk */
    STEP_READINGS_LEAST = 200000, /* of the log looked at with a commit */
    STEP_READINGS_MOST = 2000000,
    STEP_BLOCKS_MAX = 256,
    COHORT_FIRST = 64, /* devices, before experience tells */
    PUTS_MAX = 512,
    COMMITS_SMOOTHED = 16,
};

/* The scans of one device and stream: old ones in chunks (length, block), the newest as they are.
 */
struct chain {
    struct buffer packed, raw;
    size_t packed_at;      /* chunks before it were taken */
    uint64_t prev_seq;     /* before the first scan that is left */
    uint64_t seen;         /* the last one looked at */
    uint64_t first_number; /* of the block with the first one */
    int64_t written_ms;
    uint32_t raw_scans;
};

struct flush {
    struct wal_decoder *decoder;
    struct buffer block, arena; /* of the log */
    uint64_t log_bytes;
    double commit_readings;       /* of commits that had some, smoothed */
    uint32_t next_device, cohort; /* the next to begin with, and how many then */

    /* The job at hand. */
    bool active, writing;
    uint32_t first, count; /* its devices */
    uint64_t next, end;    /* blocks of the log to be looked at */
    uint64_t must;         /* scans in older blocks are flushed whatever page they fill */
    struct chain *chains;  /* by device and stream */
    size_t bytes;          /* in all chains */
    size_t write_at;       /* the chain that is written */
    struct buffer scans;   /* its scans, taken out of the chunks */
    size_t scans_at;
    const struct scan **list;
    size_t list_capacity;

    struct buffer output, trial;
    struct flush_put puts[PUTS_MAX];
    size_t put_count;
};

int flush_create(struct flush **ret_flush)
{
    struct flush *flush = calloc(1, sizeof(*flush));
    if (flush == NULL) {
        return -ENOMEM;
    }
    flush->next_device = 1;
    flush->cohort = COHORT_FIRST;
    flush->block.max = WAL_RAW_MAX * 2;
    flush->scans.max = (size_t)LARGE_MEMORY_MAX * 2;
    int rc = wal_decoder_create(&flush->decoder);
    if (rc < 0) {
        flush_destroy(flush);
        return rc;
    }
    *ret_flush = flush;
    return 0;
}

static void end_job(struct flush *flush)
{
    for (size_t i = 0; i < (size_t)flush->count * STREAM_COUNT && flush->chains != NULL; i++) {
        buffer_finish(&flush->chains[i].packed);
        buffer_finish(&flush->chains[i].raw);
    }
    free(flush->chains);
    flush->chains = NULL;
    flush->count = 0;
    flush->active = flush->writing = false;
    buffer_finish(&flush->scans);
    buffer_finish(&flush->output);
    buffer_finish(&flush->trial);
    flush->put_count = 0;
}

void flush_destroy(struct flush *flush)
{
    if (flush == NULL) {
        return;
    }
    end_job(flush);
    wal_decoder_destroy(flush->decoder);
    buffer_finish(&flush->block);
    buffer_finish(&flush->arena);
    free(flush->list);
    free(flush);
}

size_t flush_puts(const struct flush *flush, const struct flush_put **ret_puts)
{
    *ret_puts = flush->puts;
    return flush->put_count;
}

const uint8_t *flush_bytes(const struct flush *flush)
{
    return flush->output.data;
}

void flush_log_bytes(struct store *store, int64_t more)
{
    store->flush->log_bytes += (uint64_t)more;
}

static int load_log(struct store *store, MDB_txn *txn)
{
    uint64_t number = store->state.tail;
    MDB_val value;
    int rc;
    while ((rc = env_seek(txn, KEY_WAL, number, &number, &value)) == 0) {
        store->flush->log_bytes += value.mv_size;
        number++;
    }
    return rc == -ENOENT ? 0 : rc;
}

int flush_load(struct store *store)
{
    MDB_txn *txn = NULL;
    int rc = env_read(store->env, &txn);
    if (rc < 0) {
        return rc;
    }
    for (uint32_t d = 1; d <= store->state.device_count && rc == 0; d++) {
        struct state_device *device = &store->state.devices[d - 1];
        for (unsigned s = 0; s < STREAM_COUNT && rc == 0; s++) {
            struct large large;
            device->committed[s] = device->seq[s];
            rc = device->seq[s] == 0 ? -ENOENT : large_newest(txn, s, d, &large);
            device->flushed[s] = rc == 0 ? large.last_seq : 0;
            rc = rc == -ENOENT ? 0 : rc;
        }
    }
    if (rc == 0 && store->flush != NULL) {
        rc = load_log(store, txn);
    }
    env_read_end(store->env, txn);
    return rc;
}

static uint64_t log_limit(const struct store *store)
{
    uint64_t share = store->max_bytes / FLUSH_LOG_SHARE;
    return share < FLUSH_LOG_MAX ? share : FLUSH_LOG_MAX;
}

/* Blocks of the log between two rounds of a device: enough for some pages of each. Where a commit
 * holds many scans of few devices more would only make the log long, and with it LMDB's list of
 * free pages, which each commit writes anew. */
static uint64_t blocks_between(const struct store *store)
{
    uint64_t wanted = (uint64_t)store->state.device_count * FLUSH_READINGS;
    double blocks = (double)wanted / (store->flush->commit_readings + 1);
    return blocks < FLUSH_BLOCKS_LEAST ? FLUSH_BLOCKS_LEAST
           : blocks > FLUSH_BLOCKS     ? FLUSH_BLOCKS
                                       : (uint64_t)blocks;
}

/* The next cohort's turn has come when enough was appended since its last one. */
static void begin_job(struct store *store)
{
    struct flush *flush = store->flush;
    struct state *state = &store->state;
    uint64_t newest = store->newest;
    newest = newest < store->decided ? newest : store->decided - 1; /* what has no time yet waits */
    if (state->device_count == 0 || newest < state->tail) {
        return;
    }
    flush->next_device = flush->next_device > state->device_count ? 1 : flush->next_device;
    uint64_t looked = state->devices[flush->next_device - 1].looked;
    looked = looked < state->tail - 1 ? state->tail - 1 : looked;
    bool pressed = flush->log_bytes >= log_limit(store);
    uint64_t between = blocks_between(store);
    uint64_t least = pressed ? (newest - state->tail) / 4 + 1 : between;
    if (newest - looked < least) {
        return;
    }
    uint32_t left = (uint32_t)state->device_count - flush->next_device + 1;
    flush->first = flush->next_device;
    flush->count = flush->cohort < left ? flush->cohort : left;
    flush->chains = calloc((size_t)flush->count * STREAM_COUNT, sizeof(*flush->chains));
    if (flush->chains == NULL) {
        flush->count = 0;
        return;
    }
    flush->active = true;
    flush->bytes = 0;
    flush->next = state->tail;
    flush->end = newest + 1;
    flush->must = pressed            ? state->tail + (newest - state->tail) / 2
                  : newest > between ? newest - between
                                     : 0;
    flush->write_at = 0;
    flush->scans_at = 0;
}

static size_t chain_bytes(const struct chain *chain)
{
    return chain->packed.capacity + chain->raw.capacity;
}

/* Keeps the first half of a cohort that turned out too large. */
static void halve_cohort(struct flush *flush)
{
    uint32_t keep = flush->count / 2;
    for (size_t i = (size_t)keep * STREAM_COUNT; i < (size_t)flush->count * STREAM_COUNT; i++) {
        flush->bytes -= chain_bytes(&flush->chains[i]);
        buffer_finish(&flush->chains[i].packed);
        buffer_finish(&flush->chains[i].raw);
    }
    flush->count = keep;
    flush->cohort = keep;
}

/* The pointers to the scans that lie one behind the other in from[0 .. len). */
static int list_scans(struct flush *flush, const uint8_t *from, size_t len, size_t *ret_count)
{
    size_t count = 0;
    for (size_t at = 0; at < len; count++) {
        if (count == flush->list_capacity) {
            size_t capacity = count == 0 ? 256 : count * 2;
            const struct scan **list = reallocarray(flush->list, capacity,
                                                    sizeof(const struct scan *));
            if (list == NULL) {
                return -ENOMEM;
            }
            flush->list = list;
            flush->list_capacity = capacity;
        }
        flush->list[count] = (const struct scan *)(const void *)(from + at);
        at += scan_size(flush->list[count]);
    }
    *ret_count = count;
    return 0;
}

static int pack_chunk(struct flush *flush, struct chain *chain)
{
    size_t count;
    int rc = list_scans(flush, chain->raw.data, chain->raw.len, &count);
    size_t from = chain->packed.len;
    static const uint8_t none[4];
    buffer_add(&chain->packed, none, sizeof(none));
    if (rc == 0 && buffer_failed(&chain->packed)) {
        rc = -ENOMEM;
    }
    if (rc == 0) {
        rc = codec_encode(flush->list, count, &chain->packed);
    }
    if (rc == 0) {
        field_put32(chain->packed.data + from, (uint32_t)(chain->packed.len - from - 4));
        buffer_clear(&chain->raw);
    }
    return rc;
}

static int add_scan(struct flush *flush, struct chain *chain, const struct scan *scan)
{
    size_t size = scan_size(scan), before = chain_bytes(chain);
    int rc = 0;
    if (chain->raw.len > 0 && chain->raw.len + size > CHUNK_BYTES) {
        rc = pack_chunk(flush, chain);
    }
    if (rc == 0) {
        buffer_add(&chain->raw, scan, size);
        rc = buffer_failed(&chain->raw) ? -ENOMEM : 0;
    }
    flush->bytes += chain_bytes(chain) - before;
    return rc;
}

static struct chain *chain_of(struct flush *flush, const struct wal_row *row)
{
    if (row->device < flush->first || row->device - flush->first >= flush->count) {
        return NULL;
    }
    return &flush->chains[(size_t)(row->device - flush->first) * STREAM_COUNT + row->stream];
}

/* Whether somebody waits for it. Under the lock. */
static bool waited_for(struct store *store, const struct wal_row *row)
{
    for (unsigned u = 0; u < STORE_UPLINKS_MAX; u++) {
        const struct track *track = ledger_track(store, u, row->stream, row->device);
        if (track != NULL && !ranges_contains(&track->settled, row->seq)) {
            return true;
        }
    }
    return false;
}

/* Adds what is wanted of the block that lies in flush->block. */
static int gather_rows(struct store *store, uint64_t number, const struct wal_header *header,
                       const struct wal_row *rows)
{
    struct flush *flush = store->flush;
    bool kept = store_age_now_ms(store) - header->written_ms < store->settings.keep_ms;
    struct anchor_fate fate = anchors_fate(&store->anchors, number);
    bool decoded = false;
    int rc = 0;
    for (size_t i = 0; i < header->scans && rc == 0; i++) {
        struct chain *chain = chain_of(flush, &rows[i]);
        if (chain == NULL || rows[i].seq <= chain->seen ||
            rows[i].seq <= store->state.devices[rows[i].device - 1].flushed[rows[i].stream]) {
            continue;
        }
        store_lock(store);
        bool wanted = kept || header->time_max_ms >= store->hold_since_ms ||
                      waited_for(store, &rows[i]);
        store_unlock(store);
        if (wanted && !decoded) {
            buffer_clear(&flush->arena);
            uint8_t *arena = buffer_reserve(&flush->arena, header->memory);
            rc = arena == NULL ? -ENOMEM : wal_scans(flush->decoder, arena);
            decoded = true;
        }
        if (wanted && rc == 0) {
            if (chain->first_number == 0) {
                chain->first_number = number;
                chain->prev_seq = rows[i].prev_seq;
            }
            struct scan *scan = (struct scan *)(void *)(flush->arena.data + rows[i].offset);
            anchors_restamp(&fate, scan);
            rc = add_scan(flush, chain, scan);
            chain->written_ms = header->written_ms;
        }
        chain->seen = rc == 0 ? rows[i].seq : chain->seen;
    }
    return rc;
}

static int gather_block(struct store *store, uint64_t *readings)
{
    struct flush *flush = store->flush;
    uint64_t number;
    int rc = env_copy(store->env, KEY_WAL, flush->next, &number, &flush->block);
    if (rc == -ENOENT || (rc == 0 && number >= flush->end)) {
        flush->next = flush->end;
        return 0;
    }
    struct wal_header header;
    const struct wal_row *rows;
    if (rc == 0) {
        rc = wal_open(flush->decoder, flush->block.data, flush->block.len, &header, &rows);
    }
    if (rc == 0) {
        *readings += header.readings;
        store_clock_header(&store->anchors, number, &header);
        rc = gather_rows(store, number, &header, rows);
    }
    if (rc == 0 || rc == -EBADMSG) { /* a damaged block is lost, and counted when it leaves */
        flush->next = number + 1;
        rc = 0;
    }
    while (flush->bytes > FLUSH_MEMORY_MAX && flush->count > 1) {
        halve_cohort(flush);
    }
    if (flush->bytes > FLUSH_MEMORY_MAX) {
        flush->end = flush->next; /* one device alone: so far, then */
    }
    return rc;
}

static int gather(struct store *store, uint64_t readings)
{
    struct flush *flush = store->flush;
    uint64_t rounds = store->state.device_count / flush->count + 2;
    uint64_t most = readings * rounds * 3 / 2;
    most = most < STEP_READINGS_LEAST ? STEP_READINGS_LEAST : most;
    most = most > STEP_READINGS_MOST ? STEP_READINGS_MOST : most;
    uint64_t looked = 0;
    int rc = 0;
    for (unsigned i = 0; i < STEP_BLOCKS_MAX && looked < most && flush->next < flush->end; i++) {
        rc = gather_block(store, &looked);
        if (rc < 0) {
            return rc;
        }
    }
    if (flush->next >= flush->end) {
        flush->writing = true;
        /* The next cohort will fill the memory better. */
        uint64_t fits = flush->bytes == 0
                            ? UINT32_MAX
                            : (uint64_t)flush->count * (FLUSH_MEMORY_MAX / 5 * 4) / flush->bytes;
        uint64_t most_devices = (uint64_t)flush->count * 4;
        fits = fits > most_devices ? most_devices : fits;
        flush->cohort = fits == 0 ? 1 : (uint32_t)fits;
    }
    return 0;
}

/* Scans out of the chunks of a chain, until there are enough for a block. */
static int unpack(struct flush *flush, struct chain *chain)
{
    if (flush->scans_at > 0) {
        memmove(flush->scans.data, flush->scans.data + flush->scans_at,
                flush->scans.len - flush->scans_at);
        flush->scans.len -= flush->scans_at;
        flush->scans_at = 0;
    }
    while (flush->scans.len < LARGE_MEMORY_MAX && chain->packed_at < chain->packed.len) {
        const uint8_t *at = chain->packed.data + chain->packed_at;
        uint32_t len = field_get32(at);
        struct codec_head head;
        int rc = codec_decode(at + 4, len, &flush->scans, &head);
        if (rc < 0) {
            return rc;
        }
        chain->packed_at += 4 + len;
    }
    if (flush->scans.len < LARGE_MEMORY_MAX && chain->raw.len > 0) {
        buffer_add(&flush->scans, chain->raw.data, chain->raw.len);
        buffer_clear(&chain->raw);
    }
    return buffer_failed(&flush->scans) ? -ENOMEM : 0;
}

static int try_block(struct flush *flush, const struct chain *chain, size_t count)
{
    buffer_clear(&flush->trial);
    return large_encode(flush->list, count, chain->prev_seq, chain->written_ms, &flush->trial);
}

/* Large blocks for one commit. What it deletes can be used again only by the next one: in a small
 * store they must fit into the reserve. */
static size_t put_bytes(const struct store *store)
{
    enum { STORE_SHARE = 64, PAGES_LEAST = 4 };
    size_t share = (size_t)(store->max_bytes / STORE_SHARE);
    size_t least = PAGES_LEAST * env_page_size(store->env);
    size_t most = store->encoded.len * 3 > FLUSH_PUT_BYTES ? store->encoded.len * 3
                                                           : FLUSH_PUT_BYTES;
    return share > most ? most : share > least ? share : least;
}

/* How many of the first `count` scans fill whole pages, 0: not even one. Ends with that block in
 * flush->trial. */
static int fill_pages(struct store *store, const struct chain *chain, size_t count,
                      size_t *ret_count)
{
    enum { TRIES = 5, OVERFLOW_HEAD = 16, SLACK_SHARE = 64 };
    struct flush *flush = store->flush;
    size_t page = env_page_size(store->env);
    int rc = try_block(flush, chain, count);
    size_t pages = (flush->trial.len + OVERFLOW_HEAD) / page;
    if (rc < 0 || pages == 0) {
        *ret_count = 0;
        return rc;
    }
    size_t most = put_bytes(store) / 2 / page;
    pages = pages < most ? pages : most;
    size_t room = pages * page - OVERFLOW_HEAD;
    size_t fits = 0, tried = count, size = flush->trial.len, beyond = count + 1;
    for (unsigned i = 0; i < TRIES && rc == 0; i++) {
        if (size <= room) {
            fits = tried;
            if (room - size <= room / SLACK_SHARE / pages || tried == count) {
                break;
            }
        } else {
            beyond = tried;
        }
        size_t next = (size_t)((double)tried * (double)room / (double)size);
        next = next >= beyond ? beyond - 1 : next <= fits ? fits + 1 : next;
        if (next == 0 || next >= beyond) {
            break;
        }
        tried = next;
        rc = try_block(flush, chain, tried);
        size = flush->trial.len;
    }
    if (rc == 0 && fits > 0 && tried != fits) {
        tried = fits;
        rc = try_block(flush, chain, tried);
    }
    *ret_count = tried;
    return rc;
}

static int put_block(struct flush *flush, struct chain *chain, size_t count)
{
    const struct scan *first = flush->list[0], *last = flush->list[count - 1];
    flush->puts[flush->put_count] = (struct flush_put){
        .key = key_large(first->stream, first->device, first->seq),
        .offset = flush->output.len,
        .len = flush->trial.len,
        .last_seq = last->seq,
        .device = first->device,
        .stream = first->stream,
    };
    buffer_add(&flush->output, flush->trial.data, flush->trial.len);
    if (buffer_failed(&flush->output)) {
        return -ENOMEM;
    }
    flush->put_count++;
    chain->prev_seq = last->seq;
    for (size_t i = 0; i < count; i++) {
        flush->scans_at += scan_size(flush->list[i]);
    }
    return 0;
}

/* What the limits of a block allow of the scans that were unpacked. */
static size_t within_limits(const struct flush *flush, size_t count)
{
    size_t memory = 0, n = 0;
    while (n < count && n < CODEC_SCANS_MAX) {
        memory += scan_size(flush->list[n]);
        if (memory > LARGE_MEMORY_MAX && n > 0) {
            break;
        }
        n++;
    }
    return n;
}

/* One block of the chain that is written; done: nothing more of it. */
static int write_block(struct store *store, struct chain *chain, bool *ret_done)
{
    struct flush *flush = store->flush;
    size_t all = 0, take = 0;
    int rc = unpack(flush, chain);
    if (rc == 0) {
        rc = list_scans(flush, flush->scans.data, flush->scans.len, &all);
    }
    if (rc < 0 || all == 0) {
        *ret_done = true;
        return rc;
    }
    size_t count = within_limits(flush, all);
    bool more = count < all || chain->packed_at < chain->packed.len || chain->raw.len > 0;
    rc = fill_pages(store, chain, count, &take);
    if (rc == 0 && take == 0 && (more || chain->first_number < flush->must)) {
        take = count; /* less than a page: memory ran out, or it gets too old; in flush->trial */
    }
    if (rc == 0 && take > 0) {
        rc = put_block(flush, chain, take);
        /* What is left of a chain that had waited is younger than that. */
        chain->first_number = UINT64_MAX;
    }
    *ret_done = rc < 0 || take == 0;
    return rc;
}

/* All of the chain was put, or none of it was needed: what was looked at has passed. */
static void pass_chain(struct flush *flush, const struct chain *chain)
{
    size_t at = flush->write_at;
    if (flush->scans.len > flush->scans_at || chain->seen == 0) {
        return;
    }
    flush->puts[flush->put_count++] = (struct flush_put){
        .last_seq = chain->seen,
        .device = flush->first + (uint32_t)(at / STREAM_COUNT),
        .stream = (unsigned)(at % STREAM_COUNT),
    };
}

static void finish_job(struct store *store)
{
    struct flush *flush = store->flush;
    for (uint32_t d = flush->first; d < flush->first + flush->count; d++) {
        store->state.devices[d - 1].looked = flush->end - 1;
    }
    flush->next_device = flush->first + flush->count;
}

static int write_chains(struct store *store, size_t most)
{
    struct flush *flush = store->flush;
    size_t chains = (size_t)flush->count * STREAM_COUNT;
    while (flush->write_at < chains && flush->output.len < most &&
           flush->put_count + 2 < PUTS_MAX) {
        struct chain *chain = &flush->chains[flush->write_at];
        bool done = false;
        int rc = write_block(store, chain, &done);
        if (rc < 0) {
            return rc;
        }
        if (done) {
            pass_chain(flush, chain);
            buffer_finish(&chain->packed);
            buffer_finish(&chain->raw);
            buffer_clear(&flush->scans);
            flush->scans_at = 0;
            flush->write_at++;
        }
    }
    return 0;
}

void flush_step(struct store *store, uint64_t readings)
{
    struct flush *flush = store->flush;
    int rc = 0;
    if (readings > 0) {
        flush->commit_readings += ((double)readings - flush->commit_readings) / COMMITS_SMOOTHED;
    }
    if (store->full) {
        return; /* the last pages are for what cannot be avoided */
    }
    if (!flush->active) {
        begin_job(store);
    }
    if (flush->active && !flush->writing) {
        rc = gather(store, readings);
    } else if (flush->active) {
        rc = write_chains(store, put_bytes(store));
    }
    if (rc < 0) {
        end_job(flush); /* no memory: the log still has it all */
    }
}

void flush_done(struct store *store)
{
    struct flush *flush = store->flush;
    for (size_t i = 0; i < flush->put_count; i++) {
        const struct flush_put *put = &flush->puts[i];
        uint64_t *flushed = &store->state.devices[put->device - 1].flushed[put->stream];
        *flushed = put->last_seq > *flushed ? put->last_seq : *flushed;
    }
    flush->put_count = 0;
    buffer_clear(&flush->output);
    if (flush->writing && flush->write_at == (size_t)flush->count * STREAM_COUNT) {
        finish_job(store);
        end_job(flush);
    }
}

void flush_cancel(struct store *store)
{
    end_job(store->flush);
}
