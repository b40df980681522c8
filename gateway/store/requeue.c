#include "gateway/store/requeue.h"

#include "gateway/store/lanes.h"
#include "gateway/store/large.h"

#include <errno.h>
#include <string.h>

/* Where a scan lies that shall wait again. */
enum place {
    PLACE_UNKNOWN,
    PLACE_LARGE,  /* in a large block */
    PLACE_LOG,    /* in the log, and not yet passed */
    PLACE_PUT,    /* nowhere any more: it is put back from the letter */
    PLACE_NOWHERE /* it cannot be put back at present: it stays dead */
};

struct wanted {
    uint64_t number; /* of the letter */
    int64_t refused_ms;
    struct scan *scan; /* malloc'd */
    uint16_t refused;  /* readings */
    bool open;         /* the scan waits already: the letter is left alone */
    bool again;        /* a crash came between a letter and its count: the one before is the same */
    enum place place;
    uint64_t block; /* PLACE_PUT: first seq of the block that spans it; 0: none does */
    uint64_t least; /* in the first one of a device and stream: its least seq in the log */
};

struct requeue {
    struct wanted *list;
    size_t count, capacity;
    unsigned uplink;
    bool drops;         /* letters only */
    bool applied;       /* the state has changed; what is put and deleted is decided */
    struct buffer puts; /* large blocks, one behind the other */
    struct put {
        struct key key;
        size_t offset, len;
        bool fresh;
        uint64_t last_seq;
        uint32_t device;
        unsigned stream;
    } * heads;
    size_t head_count;
    uint64_t *letters; /* to be deleted */
    size_t letter_count;
    struct store_requeued result;
};

void requeue_destroy(struct requeue *r)
{
    if (r == NULL) {
        return;
    }
    for (size_t i = 0; i < r->count; i++) {
        free(r->list[i].scan);
    }
    free(r->list);
    buffer_finish(&r->puts);
    free(r->heads);
    free(r->letters);
    free(r);
}

static int add_wanted(struct requeue *r, const struct store_letter *letter)
{
    if (r->count == r->capacity) {
        size_t capacity = r->capacity == 0 ? 64 : r->capacity * 2;
        struct wanted *list = reallocarray(r->list, capacity, sizeof(*list));
        if (list == NULL) {
            return -ENOMEM;
        }
        r->list = list;
        r->capacity = capacity;
    }
    size_t size = scan_size(letter->scan);
    struct scan *scan = malloc(size);
    if (scan == NULL) {
        return -ENOMEM;
    }
    memcpy(scan, letter->scan, size);
    r->list[r->count++] = (struct wanted){.number = letter->number,
                                          .refused_ms = letter->refused_ms,
                                          .scan = scan,
                                          .refused = letter->refused_count};
    return 0;
}

struct gathering {
    struct store *store;
    const struct store_letter_filter *filter;
    struct requeue *requeue;
    size_t bytes;
};

/* 1: enough for one commit. */
static int gather(void *user, const struct store_letter *letter)
{
    struct gathering *g = user;
    struct requeue *r = g->requeue;
    if (!store_letter_fits(g->store, g->filter, letter)) {
        return 0;
    }
    g->bytes += scan_size(letter->scan);
    if (r->count == STORE_REQUEUE_MAX || (g->bytes > WAL_RAW_MAX && r->count > 0)) {
        r->result.more = true;
        r->result.next = letter->number;
        return 1;
    }
    return add_wanted(r, letter);
}

static int by_identity(const void *a, const void *b)
{
    const struct scan *x = ((const struct wanted *)a)->scan, *y = ((const struct wanted *)b)->scan;
    if (x->stream != y->stream) {
        return x->stream < y->stream ? -1 : 1;
    }
    if (x->device != y->device) {
        return x->device < y->device ? -1 : 1;
    }
    return x->seq < y->seq ? -1 : x->seq > y->seq;
}

static bool same_chain(const struct scan *a, const struct scan *b)
{
    return a->stream == b->stream && a->device == b->device;
}

/* Those that wait already are left alone; of two letters of a scan the first one counts. */
static void mark_open(struct store *store, struct requeue *r)
{
    store_lock(store);
    for (size_t i = 0; i < r->count; i++) {
        const struct scan *scan = r->list[i].scan;
        const struct track *track = ledger_track(store, r->uplink, scan->stream, scan->device);
        bool twice = i > 0 && same_chain(r->list[i - 1].scan, scan) &&
                     r->list[i - 1].scan->seq == scan->seq;
        r->list[i].open = track == NULL || twice || !ranges_contains(&track->settled, scan->seq);
        r->list[i].again = twice;
    }
    store_unlock(store);
}

static bool holds(const struct buffer *scans, uint64_t seq)
{
    for (size_t at = 0; at < scans->len;) {
        const struct scan *scan = (const struct scan *)(const void *)(scans->data + at);
        if (scan->seq == seq) {
            return true;
        }
        at += scan_size(scan);
    }
    return false;
}

/* A block that was opened last, and what is in it. */
struct look {
    struct large large;
    bool known;
    struct buffer value, scans;
};

/* Whether a large block spans the scan; then it is decoded into look->scans. */
static int open_spanning(struct store *store, const struct scan *scan, struct look *look,
                         bool *ret_spans)
{
    const struct large *large = &look->large;
    *ret_spans = look->known && large->stream == scan->stream && large->device == scan->device &&
                 large->first_seq <= scan->seq && large->last_seq >= scan->seq;
    if (*ret_spans) {
        return 0;
    }
    look->known = false;
    int rc = large_copy(store->env, scan->stream, scan->device, scan->seq, &look->large,
                        &look->value);
    if (rc < 0 || large->first_seq > scan->seq || large->last_seq < scan->seq) {
        return rc == -ENOENT ? 0 : rc;
    }
    rc = large_decode(large, look->value.data, look->value.len, &look->scans);
    look->known = *ret_spans = rc == 0;
    return rc;
}

static int look_in_blocks(struct store *store, struct requeue *r, struct look *look, bool *ret_log)
{
    for (size_t i = 0; i < r->count; i++) {
        struct wanted *w = &r->list[i];
        bool spans = false;
        int rc = w->open ? 0 : open_spanning(store, w->scan, look, &spans);
        if (rc == -EBADMSG) {
            w->place = PLACE_NOWHERE; /* nothing may lie in the seqs of a damaged block */
            continue;
        }
        if (rc < 0) {
            return rc;
        }
        if (w->open || (spans && holds(&look->scans, w->scan->seq))) {
            w->place = PLACE_LARGE;
            continue;
        }
        w->block = spans ? look->large.first_seq : 0;
        const struct state_device *device = &store->state.devices[w->scan->device - 1];
        bool passed = w->scan->seq <= device->flushed[w->scan->stream];
        w->place = passed ? PLACE_PUT : PLACE_UNKNOWN;
        *ret_log |= !passed;
    }
    return 0;
}

/* The first of the list that is not before that identity. */
static size_t find(const struct requeue *r, const struct wal_row *row, uint64_t seq)
{
    struct scan probe = {.seq = seq, .device = row->device, .stream = row->stream};
    const struct wanted key = {.scan = &probe};
    size_t low = 0, high = r->count;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (by_identity(&r->list[middle], &key) < 0) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low;
}

static void see_row(struct store *store, struct requeue *r, const struct wal_row *row)
{
    size_t first = find(r, row, 0);
    if (first == r->count || r->list[first].scan->stream != row->stream ||
        r->list[first].scan->device != row->device ||
        row->seq <= store->state.devices[row->device - 1].flushed[row->stream]) {
        return;
    }
    struct wanted *w = &r->list[first];
    w->least = w->least == 0 || row->seq < w->least ? row->seq : w->least;
    size_t at = find(r, row, row->seq);
    if (at < r->count && r->list[at].scan->seq == row->seq &&
        r->list[at].scan->device == row->device && r->list[at].scan->stream == row->stream &&
        r->list[at].place == PLACE_UNKNOWN) {
        r->list[at].place = PLACE_LOG;
    }
}

static int look_in_log(struct store *store, struct requeue *r)
{
    uint64_t number = store->state.tail;
    int rc;
    while ((rc = env_copy(store->env, KEY_WAL, number, &number, &store->block)) == 0) {
        struct wal_header header;
        const struct wal_row *rows;
        rc = wal_open(store->decoder, store->block.data, store->block.len, &header, &rows);
        for (size_t i = 0; rc == 0 && i < header.scans; i++) {
            see_row(store, r, &rows[i]);
        }
        if (rc < 0 && rc != -EBADMSG) {
            return rc;
        }
        number++;
    }
    return rc == -ENOENT ? 0 : rc;
}

/* In neither: it can be put back as a large block, unless older scans still lie in the log, which
 * would then count as passed. */
static void settle_places(struct requeue *r)
{
    uint64_t least = 0;
    for (size_t i = 0; i < r->count; i++) {
        struct wanted *w = &r->list[i];
        least = i > 0 && same_chain(r->list[i - 1].scan, w->scan) ? least : w->least;
        if (w->place == PLACE_UNKNOWN) {
            w->place = least != 0 && least < w->scan->seq ? PLACE_NOWHERE : PLACE_PUT;
        }
    }
}

static int add_block(struct requeue *r, const struct scan *const *scans, size_t count,
                     uint64_t prev_seq, int64_t written_ms, bool fresh)
{
    struct put *heads = reallocarray(r->heads, r->head_count + 1, sizeof(*heads));
    if (heads == NULL) {
        return -ENOMEM;
    }
    r->heads = heads;
    struct put *put = &heads[r->head_count];
    *put = (struct put){.key = key_large(scans[0]->stream, scans[0]->device, scans[0]->seq),
                        .offset = r->puts.len,
                        .fresh = fresh,
                        .last_seq = scans[count - 1]->seq,
                        .device = scans[0]->device,
                        .stream = scans[0]->stream};
    int rc = large_encode(scans, count, prev_seq, written_ms, &r->puts);
    put->len = r->puts.len - put->offset;
    r->head_count += rc == 0;
    return rc;
}

/* Scans in seq order as blocks within the limits of one; the first has the old block's key. */
static int add_blocks(struct requeue *r, const struct scan *const *scans, size_t count,
                      uint64_t prev_seq, int64_t written_ms, bool fresh)
{
    size_t memory = 0;
    for (size_t from = 0, i = 0; i <= count; i++) {
        size_t size = i < count ? scan_size(scans[i]) : 0;
        if (i == count || (memory + size > LARGE_MEMORY_MAX && i > from)) {
            int rc = add_block(r, scans + from, i - from,
                               from == 0 ? prev_seq : scans[from - 1]->seq, written_ms,
                               fresh || from > 0);
            if (rc < 0) {
                return rc;
            }
            from = i;
            memory = 0;
        }
        memory += size;
    }
    return 0;
}

/* The scan before a block that is written again: one that is put back may lie nearer. */
static uint64_t behind(const struct requeue *r, size_t first, const struct large *large)
{
    uint64_t nearest = large->prev_seq;
    for (size_t i = first; i > 0 && same_chain(r->list[i - 1].scan, r->list[first].scan); i--) {
        uint64_t seq = r->list[i - 1].scan->seq;
        if (r->list[i - 1].place == PLACE_PUT && seq < large->first_seq) {
            return seq > nearest ? seq : nearest;
        }
    }
    return nearest;
}

/* list[from .. to) lie between the scans of one block: it is written again with them. */
static int merge(struct store *store, struct requeue *r, size_t from, size_t to, struct look *look)
{
    const size_t first = from;
    bool spans = false;
    int rc = open_spanning(store, r->list[from].scan, look, &spans);
    if (rc < 0 || !spans) {
        return rc < 0 ? rc : -EBADMSG;
    }
    size_t most = look->large.scans + (to - from), count = 0;
    auto_free const struct scan **scans = calloc(most + 1, sizeof(const struct scan *));
    if (scans == NULL) {
        return -ENOMEM;
    }
    for (size_t at = 0; at < look->scans.len && count < most;) {
        const struct scan *scan = (const struct scan *)(const void *)(look->scans.data + at);
        while (from < to && r->list[from].scan->seq < scan->seq) {
            scans[count++] = r->list[from++].scan;
        }
        scans[count++] = scan;
        at += scan_size(scan);
    }
    return add_blocks(r, scans, count, behind(r, first, &look->large), look->large.written_ms,
                      false);
}

/* The block behind list[to - 1], if its head counts that scan among what is missing before it:
 * whoever settles its first scan would settle the gap, too. It is written again with a smaller one.
 */
static int shorten_gap(struct store *store, struct requeue *r, size_t to, struct look *look)
{
    const struct scan *last = r->list[to - 1].scan;
    struct large next;
    int rc = large_copy(store->env, last->stream, last->device, last->seq, &next, &look->value);
    look->known = false;
    if (rc < 0 || next.damaged || next.prev_seq >= last->seq) {
        return rc == -ENOENT ? 0 : rc;
    }
    for (size_t i = to;
         i < r->count && same_chain(r->list[i].scan, last) && r->list[i].scan->seq <= next.last_seq;
         i++) {
        if (r->list[i].place == PLACE_PUT) {
            return 0; /* the next one of the list, or the block is written with it anyway */
        }
    }
    rc = large_decode(&next, look->value.data, look->value.len, &look->scans);
    auto_free const struct scan **scans = calloc(next.scans + 1, sizeof(const struct scan *));
    if (rc < 0 || scans == NULL) {
        return rc < 0 ? rc : -ENOMEM;
    }
    size_t count = 0;
    for (size_t at = 0; at < look->scans.len && count < next.scans; count++) {
        scans[count] = (const struct scan *)(const void *)(look->scans.data + at);
        at += scan_size(scans[count]);
    }
    return add_blocks(r, scans, count, last->seq, next.written_ms, false);
}

/* list[from .. to) follow each other, and no block spans them. */
static int make(struct requeue *r, size_t from, size_t to)
{
    auto_free const struct scan **scans = calloc(to - from, sizeof(const struct scan *));
    if (scans == NULL) {
        return -ENOMEM;
    }
    for (size_t i = from; i < to; i++) {
        scans[i - from] = r->list[i].scan;
    }
    return add_blocks(r, scans, to - from, scans[0]->seq - 1, r->list[from].refused_ms, true);
}

/* Neighbours that become one block. */
static bool together(const struct wanted *a, const struct wanted *b)
{
    return b->place == PLACE_PUT && same_chain(a->scan, b->scan) && a->block == b->block &&
           (a->block != 0 || b->scan->seq == a->scan->seq + 1);
}

static int build(struct store *store, struct requeue *r, struct look *look)
{
    for (size_t i = 0, to; i < r->count; i = to) {
        to = i + 1;
        if (r->list[i].place != PLACE_PUT) {
            continue;
        }
        while (to < r->count && together(&r->list[to - 1], &r->list[to])) {
            to++;
        }
        bool spanned = r->list[i].block != 0;
        int rc = spanned ? merge(store, r, i, to, look) : make(r, i, to);
        rc = rc < 0 || spanned ? rc : shorten_gap(store, r, to, look);
        if (rc < 0) {
            return rc;
        }
    }
    return 0;
}

/* Opens the range again and moves the counts; false: it stays as it is. Under the lock. */
static bool reopen(struct store *store, struct requeue *r, const struct wanted *w)
{
    const struct scan *scan = w->scan;
    struct track *track = ledger_track(store, r->uplink, scan->stream, scan->device);
    uint64_t *fates = store->state.uplinks[r->uplink].devices[scan->device - 1].fates;
    uint64_t rest = (uint64_t)(scan->count - w->refused);
    if (track == NULL || fates[FATE_DEAD] < w->refused || fates[FATE_NOT_SELECTED] < rest ||
        ranges_remove(&track->settled, scan->seq, scan->seq) < 0) {
        return false;
    }
    fates[FATE_DEAD] -= w->refused;
    fates[FATE_NOT_SELECTED] -= rest;
    track->waiting += scan->count;
    if (store->readers[r->uplink] != NULL) {
        reader_reopen(store->readers[r->uplink], scan);
    }
    return true;
}

/* Before the commit reclaims anything: what waits behind `flushed` is looked for in the log. */
static void note_blocks(struct store *store, const struct requeue *r)
{
    for (size_t i = 0; i < r->head_count; i++) {
        const struct put *put = &r->heads[i];
        uint64_t *flushed = &store->state.devices[put->device - 1].flushed[put->stream];
        *flushed = put->last_seq > *flushed ? put->last_seq : *flushed;
        store->state.blocks += put->fresh;
    }
}

static void apply(struct store *store, struct requeue *r)
{
    bool in_log = false, applied = false;
    store_lock(store);
    for (size_t i = 0; i < r->count; i++) {
        const struct wanted *w = &r->list[i];
        applied = w->again ? applied : false;
        if (w->again && applied) {
            r->letters[r->letter_count++] = w->number;
        }
        if (w->open) {
            continue;
        }
        if (w->place != PLACE_NOWHERE && reopen(store, r, w)) {
            applied = true;
            r->letters[r->letter_count++] = w->number;
            r->result.scans++;
            in_log |= w->place == PLACE_LOG;
            r->result.readings += w->scan->count;
        } else {
            r->result.refused++;
        }
    }
    struct state_uplink *uplink = &store->state.uplinks[r->uplink];
    if (r->letter_count > 0) {
        uplink->floor = uplink->floor < store->state.tail ? uplink->floor : store->state.tail;
        struct store_reader *reader = store->readers[r->uplink];
        if (reader != NULL) {
            reader->barred = true;
            reader->requeued_from = in_log ? store->state.tail : reader->requeued_from;
        }
        note_blocks(store, r);
        store->marked = true;
        r->applied = true;
    }
    store_unlock(store);
    store->blocker.number = 0;
}

static int find_uplink(struct store *store, const char *name, unsigned *ret_uplink)
{
    for (unsigned u = 0; u < STORE_UPLINKS_MAX; u++) {
        if (name[0] != '\0' && strcmp(store_uplink_name(store, u), name) == 0) {
            *ret_uplink = u;
            return 0;
        }
    }
    return -ENOENT;
}

static int prepare(struct store *store, struct requeue *r)
{
    struct look look = {.known = false};
    bool log = false;
    if (r->count == 0) {
        return 0;
    }
    qsort(r->list, r->count, sizeof(*r->list), by_identity);
    mark_open(store, r);
    int rc = look_in_blocks(store, r, &look, &log);
    if (rc == 0 && log) {
        rc = look_in_log(store, r);
    }
    if (rc == 0) {
        settle_places(r);
        rc = build(store, r, &look);
    }
    buffer_finish(&look.value);
    buffer_finish(&look.scans);
    return rc;
}

/* Everything that was gathered goes as it is. */
static void drop(struct store *store, struct requeue *r)
{
    for (size_t i = 0; i < r->count; i++) {
        r->letters[r->letter_count++] = r->list[i].number;
        r->result.scans++;
        r->result.readings += r->list[i].refused;
    }
    r->applied = r->letter_count > 0;
    store->marked |= r->applied;
}

static int begin(struct store *store, const struct store_letter_filter *filter, uint64_t from,
                 bool drops, struct store_requeued *ret_requeued)
{
    if (store->failed || store->readonly || store->requeue != NULL) {
        return store->failed ? -EIO : store->readonly ? -EROFS : -EBUSY;
    }
    struct requeue *r = calloc(1, sizeof(*r));
    struct gathering g = {.store = store, .filter = filter, .requeue = r};
    int rc = r == NULL ? -ENOMEM : drops ? 0 : find_uplink(store, filter->uplink, &r->uplink);
    if (rc == 0) {
        r->drops = drops;
        rc = store_letters_from(store, from, gather, &g);
        rc = rc > 0 ? 0 : rc;
    }
    if (rc == 0) {
        r->letters = calloc(r->count + 1, sizeof(*r->letters));
        rc = r->letters == NULL ? -ENOMEM : drops ? 0 : prepare(store, r);
    }
    if (rc < 0) {
        requeue_destroy(r);
        return rc;
    }
    if (drops) {
        drop(store, r);
    } else {
        /* A cohort that is being gathered has passed over them while they were settled. */
        flush_cancel(store);
        apply(store, r);
    }
    *ret_requeued = r->result;
    if (r->applied) {
        store->requeue = r;
    } else {
        requeue_destroy(r);
    }
    return 0;
}

int store_requeue(struct store *store, const struct store_letter_filter *filter, uint64_t from,
                  struct store_requeued *ret_requeued)
{
    return begin(store, filter, from, false, ret_requeued);
}

int store_drop_letters(struct store *store, const struct store_letter_filter *filter, uint64_t from,
                       struct store_requeued *ret_dropped)
{
    return begin(store, filter, from, true, ret_dropped);
}

int requeue_put(struct store *store, MDB_txn *txn)
{
    const struct requeue *r = store->requeue;
    int rc = 0;
    for (size_t i = 0; r != NULL && i < r->head_count && rc == 0; i++) {
        const struct put *put = &r->heads[i];
        rc = env_put(txn, &put->key, r->puts.data + put->offset, put->len, 0);
    }
    for (size_t i = 0; r != NULL && i < r->letter_count && rc == 0; i++) {
        struct key key = key_number(KEY_DEAD, r->letters[i]);
        rc = env_delete(txn, &key);
    }
    return rc;
}

size_t requeue_bytes(const struct store *store)
{
    const struct requeue *r = store->requeue;
    size_t page = env_page_size(store->env), bytes = 0;
    for (size_t i = 0; r != NULL && i < r->head_count; i++) {
        bytes += (r->heads[i].len + 16 + page - 1) / page * page;
    }
    return r != NULL ? bytes + r->letter_count / 8 * page : 0;
}

void requeue_done(struct store *store)
{
    struct requeue *r = store->requeue;
    if (r == NULL) {
        return;
    }
    struct store_reader *reader = store->readers[r->uplink];
    if (reader != NULL && !r->drops) {
        reader->requeued_readings += r->result.readings;
        reader->requeued = true;
        reader->barred = false;
        reader_wake(reader);
    }
    requeue_destroy(take_ptr(store->requeue));
}
