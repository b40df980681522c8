#include "gateway/store/thinning.h"

#include "gateway/store/store_clock.h"

#include <errno.h>
#include <math.h>
#include <string.h>

enum { RESULTS = 5, SCANS_A_WINDOW = 8 };
static const char *const result_names[RESULTS] = {"mean", "min", "max", "std", "count"};
static const uint32_t windows_s[] = {600, 3600, 21600, 86400};

/* One point within the window at hand. */
struct sums {
    uint16_t point;
    uint16_t ids[RESULTS]; /* of its results */
    bool named;
    uint64_t count;
    double mean, squares; /* Welford */
    struct reading least, most;
};

struct thinning {
    struct store *store;
    uint32_t device, window_s;
    struct sums *sums;
    size_t count, capacity;
    struct buffer results; /* scans without seqs */
};

static const struct scan *next_scan(const struct buffer *scans, size_t *at)
{
    const struct scan *scan = (const struct scan *)(const void *)(scans->data + *at);
    *at += scan_size(scan);
    return scan;
}

static int64_t window_start(const struct scan *scan, uint32_t window_s)
{
    int64_t length_ms = (int64_t)window_s * 1000;
    int64_t rest = scan->time_ms % length_ms;
    return scan->time_ms - (rest < 0 ? rest + length_ms : rest);
}

/* The shortest window that saves something. */
static uint32_t choose_window(const struct buffer *scans)
{
    for (size_t i = 0; i + 1 < ARRAY_SIZE(windows_s); i++) {
        size_t count = 0, windows = 0;
        int64_t last = INT64_MIN;
        for (size_t at = 0; at < scans->len; count++) {
            int64_t start = window_start(next_scan(scans, &at), windows_s[i]);
            windows += start != last;
            last = start;
        }
        if (windows * SCANS_A_WINDOW <= count) {
            return windows_s[i];
        }
    }
    return windows_s[ARRAY_SIZE(windows_s) - 1];
}

static struct sums *sums_of(struct thinning *t, uint16_t point, size_t guess)
{
    if (guess < t->count && t->sums[guess].point == point) {
        return &t->sums[guess];
    }
    for (size_t i = 0; i < t->count; i++) {
        if (t->sums[i].point == point) {
            return &t->sums[i];
        }
    }
    if (t->count == t->capacity) {
        size_t capacity = t->capacity == 0 ? 32 : t->capacity * 2;
        struct sums *sums = reallocarray(t->sums, capacity, sizeof(*sums));
        if (sums == NULL) {
            return NULL;
        }
        t->sums = sums;
        t->capacity = capacity;
    }
    t->sums[t->count] = (struct sums){.point = point};
    return &t->sums[t->count++];
}

static bool counts(const struct reading *reading)
{
    return (reading->quality == QUALITY_GOOD || reading->quality == QUALITY_UNCERTAIN) &&
           reading->kind != VALUE_TEXT && isfinite(reading_double(reading));
}

static int add_scan(struct thinning *t, const struct scan *scan)
{
    for (size_t i = 0; i < scan->count; i++) {
        const struct reading *reading = &scan->readings[i];
        struct sums *sums = counts(reading) ? sums_of(t, reading->point, i) : NULL;
        if (sums == NULL) {
            if (counts(reading)) {
                return -ENOMEM;
            }
            continue;
        }
        double value = reading_double(reading), before = value - sums->mean;
        sums->count++;
        sums->mean += before / (double)sums->count;
        sums->squares += before * (value - sums->mean);
        if (sums->count == 1 || value < reading_double(&sums->least)) {
            sums->least = *reading;
        }
        if (sums->count == 1 || value > reading_double(&sums->most)) {
            sums->most = *reading;
        }
    }
    return 0;
}

static int name_results(struct thinning *t, struct sums *sums)
{
    const struct store_names *names = store_names(t->store, t->device);
    if (names == NULL || sums->point >= names->point_count ||
        names->points[sums->point].name == NULL) {
        return -ENOBUFS;
    }
    const struct store_point_name *point = &names->points[sums->point];
    for (size_t r = 0; r < RESULTS; r++) {
        auto_free char *name = NULL;
        if (asprintf(&name, "%.*s_%s", (int)point->name_len, point->name, result_names[r]) < 0) {
            name = NULL;
            return -ENOMEM;
        }
        int rc = store_point(t->store, t->device, name, r + 1 < RESULTS ? point->unit : "",
                             &sums->ids[r]);
        if (rc < 0) {
            return rc;
        }
        names = store_names(t->store, t->device); /* a new point may have moved them */
        if (names == NULL) {
            return -ENOMEM;
        }
        point = &names->points[sums->point];
    }
    sums->named = true;
    return 0;
}

static void write_results(const struct sums *sums, struct reading *to)
{
    to[0] = (struct reading){.kind = VALUE_REAL, .real = sums->mean};
    to[1] = sums->least;
    to[2] = sums->most;
    to[3] = (struct reading){
        .kind = VALUE_REAL,
        .real = sums->count < 2 ? 0 : sqrt(sums->squares / (double)(sums->count - 1))};
    to[4] = (struct reading){.kind = VALUE_DECIMAL, .integer = (int64_t)sums->count};
    for (size_t r = 0; r < RESULTS; r++) {
        to[r].point = sums->ids[r];
    }
}

/* The window at hand as one scan, or more where it has more points than a scan may. */
static int end_window(struct thinning *t, int64_t start_ms)
{
    int rc = 0;
    for (size_t from = 0; from < t->count && rc == 0;) {
        size_t size = scan_size_for(SCAN_READINGS_MAX, 0);
        struct scan *scan = (struct scan *)(void *)buffer_reserve(&t->results, size);
        if (scan == NULL) {
            return -ENOMEM;
        }
        *scan = (struct scan){.time_ms = start_ms,
                              .device = t->device,
                              .window_s = t->window_s,
                              .stream = STREAM_AGGREGATE};
        for (; from < t->count && scan->count + RESULTS <= SCAN_READINGS_MAX && rc == 0; from++) {
            struct sums *sums = &t->sums[from];
            if (sums->count > 0) {
                rc = sums->named ? 0 : name_results(t, sums);
                write_results(sums, &scan->readings[scan->count]);
                scan->count = (uint16_t)(scan->count + RESULTS);
            }
            sums->count = 0;
            sums->mean = sums->squares = 0;
        }
        t->results.len += scan->count > 0 ? scan_size(scan) : 0;
    }
    return rc;
}

static int summarise(struct thinning *t, const struct buffer *scans)
{
    int64_t start_ms = INT64_MIN;
    int rc = 0;
    t->window_s = choose_window(scans);
    for (size_t at = 0; at < scans->len && rc == 0;) {
        const struct scan *scan = next_scan(scans, &at);
        int64_t start = window_start(scan, t->window_s);
        if (start != start_ms && start_ms != INT64_MIN) {
            rc = end_window(t, start_ms);
        }
        start_ms = start;
        if (rc == 0) {
            rc = add_scan(t, scan);
        }
    }
    return rc < 0 || start_ms == INT64_MIN ? rc : end_window(t, start_ms);
}

/* Under the lock. */
static void count_result(struct store *store, const struct scan *scan)
{
    store->state.devices[scan->device - 1].counts[LEDGER_DERIVED] += scan->count;
    for (unsigned u = 0; u < STORE_UPLINKS_MAX; u++) {
        struct state_uplink *uplink = &store->state.uplinks[u];
        if (uplink->name == NULL) {
            continue;
        }
        struct track_device *track = &uplink->devices[scan->device - 1];
        if ((uplink->streams & 1u << STREAM_AGGREGATE) != 0) {
            track->streams[STREAM_AGGREGATE].waiting += scan->count;
        } else {
            track->fates[FATE_NOT_SELECTED] += scan->count;
        }
    }
}

/* Under the lock. */
static bool waited_for(struct store *store, unsigned stream, uint32_t device, uint64_t seq)
{
    for (unsigned u = 0; u < STORE_UPLINKS_MAX; u++) {
        const struct track *track = ledger_track(store, u, stream, device);
        if (track != NULL && !ranges_contains(&track->settled, seq)) {
            return true;
        }
    }
    return false;
}

/* Those that were delivered, or summarised already, are in no statistics. */
static void drop_settled(struct store *store, struct buffer *scans)
{
    size_t kept = 0;
    store_lock(store);
    for (size_t at = 0; at < scans->len;) {
        size_t from = at;
        const struct scan *scan = next_scan(scans, &at);
        if (waited_for(store, scan->stream, scan->device, scan->seq)) {
            memmove(scans->data + kept, scans->data + from, at - from);
            kept += at - from;
        }
    }
    store_unlock(store);
    scans->len = kept;
}

int thinning_add(struct store *store, struct buffer *scans)
{
    drop_settled(store, scans);
    if (scans->len == 0) {
        return 0;
    }
    size_t first = 0;
    struct thinning t = {.store = store,
                         .device = next_scan(scans, &first)->device,
                         .results = {.max = THINNING_BYTES_MAX}};
    int rc = summarise(&t, scans);
    size_t from = store->thinned.len;
    if (rc == 0) {
        buffer_add(&store->thinned, t.results.data, t.results.len);
        rc = buffer_failed(&store->thinned) ? -ENOMEM : 0;
    }
    buffer_finish(&t.results);
    free(t.sums);
    store_lock(store);
    for (size_t at = from; rc == 0 && at < store->thinned.len;) {
        struct scan *scan = (struct scan *)(void *)(store->thinned.data + at);
        scan->seq = ++store->state.devices[scan->device - 1].seq[STREAM_AGGREGATE];
        count_result(store, scan);
        at += scan_size(scan);
    }
    store_unlock(store);
    return rc;
}

/* The scans of a device's rows from `from` on; *ret_next: the first row of another one. */
static int gather(struct store *store, const struct wal_header *header, const struct wal_row *rows,
                  const struct anchor_fate *fate, uint8_t *arena, size_t from,
                  struct buffer *ret_scans, size_t *ret_next)
{
    size_t i = from, count = 0;
    buffer_clear(ret_scans);
    store_lock(store);
    for (; i < header->scans && rows[i].device == rows[from].device &&
           rows[i].stream == rows[from].stream;
         i++) {
        uint64_t flushed = store->state.devices[rows[i].device - 1].flushed[STREAM_RAW];
        if (rows[i].stream == STREAM_RAW && rows[i].seq > flushed &&
            waited_for(store, STREAM_RAW, rows[i].device, rows[i].seq)) {
            struct scan *scan = (struct scan *)(void *)(arena + rows[i].offset);
            anchors_restamp(fate, scan);
            buffer_add(ret_scans, scan, scan_size(scan));
            count++;
        }
    }
    store_unlock(store);
    *ret_next = i;
    if (count < SCANS_A_WINDOW) {
        buffer_clear(ret_scans);
    }
    return buffer_failed(ret_scans) ? -ENOMEM : 0;
}

int thinning_add_block(struct store *store, uint64_t number, const struct wal_header *header,
                       const struct wal_row *rows)
{
    auto_buffer struct buffer arena = {0}, scans = {0};
    struct anchor_fate fate = anchors_fate(&store->anchors, number);
    uint8_t *at = header->scans == 0 ? NULL : buffer_reserve(&arena, header->memory);
    if (at == NULL) {
        return header->scans == 0 ? 0 : -ENOMEM;
    }
    int rc = wal_scans(store->decoder, at);
    for (size_t i = 0; rc == 0 && i < header->scans;) {
        rc = gather(store, header, rows, &fate, at, i, &scans, &i);
        rc = rc < 0 ? rc : thinning_add(store, &scans);
    }
    return rc;
}

bool thinning_has_room(const struct store *store)
{
    return store->thinned.len < THINNING_BYTES_MAX / 2 && store->cut_count < CUTS_MAX;
}

static int by_place(const void *a, const void *b)
{
    const struct scan *x = ((const struct wal_row *)a)->scan,
                      *y = ((const struct wal_row *)b)->scan;
    if (x->device != y->device) {
        return x->device < y->device ? -1 : 1;
    }
    return x->seq < y->seq ? -1 : x->seq > y->seq;
}

static int encode_rows(struct store *store, struct wal_row *rows, size_t count)
{
    qsort(rows, count, sizeof(*rows), by_place);
    struct cut *cut = &store->cuts[store->cut_count];
    *cut = (struct cut){.offset = store->encoded.len, .scans = (uint32_t)count};
    for (size_t i = 0; i < count; i++) {
        cut->readings += rows[i].scan->count;
    }
    int rc = wal_encode(store->encoder, rows, count, store_now_ms(store), &store->encoded);
    if (rc == 0) {
        cut->len = store->encoded.len - cut->offset;
        store->cut_count++;
    }
    return rc;
}

int thinning_encode(struct store *store)
{
    size_t count = 0;
    for (size_t at = 0; at < store->thinned.len; count++) {
        (void)next_scan(&store->thinned, &at);
    }
    if (count == 0) {
        return 0;
    }
    auto_free struct wal_row *rows = calloc(count, sizeof(*rows));
    if (rows == NULL) {
        return -ENOMEM;
    }
    size_t at = 0;
    for (size_t i = 0; i < count; i++) {
        const struct scan *scan = next_scan(&store->thinned, &at);
        rows[i] = (struct wal_row){.scan = scan, .seq = scan->seq, .prev_seq = scan->seq - 1};
    }
    return encode_rows(store, rows, count);
}
