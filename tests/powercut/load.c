#include "load.h"

#include "gateway/store/dead.h"
#include "gateway/store/handover.h"

#include <errno.h>
#include <string.h>

enum { DEAD_EVERY = 23, TAKE_MAX = 12, DRAIN_TURNS_MAX = 10000, HANDED_MAX = 8 };
/* What was sent once more is refused in other words, so that it is left where it is then. */
static const char first_reason[] = "422 unit unknown", second_reason[] = "409 once more";

struct store_settings load_settings(int when_full)
{
    return (struct store_settings){.commit_interval_ms = 1000,
                                   .max_size_bytes = 512 << 10,
                                   .keep_ms = 0,
                                   .when_full = when_full};
}

unsigned load_chance(struct load *load, unsigned bound)
{
    load->rng ^= load->rng << 13;
    load->rng ^= load->rng >> 7;
    load->rng ^= load->rng << 17;
    return (unsigned)((load->rng >> 11) % bound);
}

static int note_of(struct load *load, uint32_t *ret_commit)
{
    int64_t note = 0;
    (void)store_note(load->store, truth_note, &note);
    bool known = note >= load->truth->acked && note <= load->truth->attempted;
    if (!known || (note > 0 && strcmp(load->truth->id, store_id(load->store)) != 0)) {
        return -EPROTO;
    }
    *ret_commit = (uint32_t)note;
    return 0;
}

static int make_names(struct load *load)
{
    int rc = 0;
    for (unsigned d = 0; d < TRUTH_DEVICES && rc == 0; d++) {
        uint32_t id = 0;
        rc = store_device(load->store, truth_device_names[d], "{\"site\":\"hill\"}", &id);
        if (rc == 0 && id != d + 1) {
            return -EPROTO;
        }
        for (unsigned p = 0; p < TRUTH_POINTS && rc == 0; p++) {
            char name[16];
            uint16_t point;
            snprintf(name, sizeof(name), "p%u", p);
            rc = store_point(load->store, id, name, "m/s", &point);
        }
    }
    return rc;
}

static int make_readers(struct load *load)
{
    for (unsigned u = 0; u < TRUTH_UPLINKS; u++) {
        int rc = store_add_uplink(load->store, truth_uplink_names[u], truth_uplink_streams[u],
                                  load->truth->max_age_ms[u], &load->uplinks[u]);
        if (rc == 0) {
            rc = store_reader_create(load->store, load->uplinks[u], u == 0, &load->readers[u]);
        }
        if (rc < 0) {
            return rc;
        }
    }
    return 0;
}

struct lesson {
    struct truth *truth;
    uint64_t known; /* the last seq that needs no look */
};

static int learn_scan(void *user, const struct scan *scan)
{
    const struct lesson *lesson = user;
    struct truth *truth = lesson->truth;
    if (scan->seq <= lesson->known || scan->seq >= truth->seqs) {
        return 0;
    }
    /* A reader in another thread may have settled it already: what it wrote down stays. */
    struct truth_scan *known = truth_at(truth, STREAM_AGGREGATE, scan->device - 1, scan->seq);
    if (truth->unseen) { /* the store was opened anew: no settlement of it came before */
        memset(known->settled, 0, sizeof(known->settled));
        memset(known->certain, 0, sizeof(known->certain));
    }
    known->made = 1;
    known->count = scan->count;
    known->hash = truth_hash(scan);
    truth->scans_made++;
    __atomic_store_n(&known->commit, truth->attempted, __ATOMIC_RELEASE); /* a kill may be near */
    return 0;
}

/* The store has made statistics of what it thinned with the commit that it is at: nobody can say
 * beforehand what is in them, but from here on they must stay what they are. */
static void learn_made(struct load *load)
{
    struct truth *truth = load->truth;
    for (unsigned d = 0; d < TRUTH_DEVICES && load->settings.when_full == STORE_FULL_THIN; d++) {
        uint64_t last = store_last_seq(load->store, STREAM_AGGREGATE, d + 1);
        struct lesson lesson = {truth, truth->last[STREAM_AGGREGATE][d]};
        if (last == lesson.known) {
            continue;
        }
        truth->last[STREAM_AGGREGATE][d] = last; /* first: a kill may be near */
        int rc = -ENOMEM;
        for (unsigned i = 0; i < 2 && rc != 0; i++) { /* the second time after a failing call */
            rc = store_history(load->store, STREAM_AGGREGATE, d + 1, INT64_MIN, INT64_MAX,
                               learn_scan, &lesson);
        }
        truth->vague |= rc != 0;
    }
}

int load_open(struct load *load)
{
    truth_hold_clocks(load->truth, load->truth->attempted);
    int rc = store_open(load->dir, &load->settings, &load->store);
    if (rc < 0) {
        load->store = NULL;
        return rc;
    }
    uint32_t commit = 0;
    rc = store_quarantined(load->store) != NULL ? -EPROTO : note_of(load, &commit);
    if (rc < 0) {
        return rc;
    }
    load->truth->unseen = true; /* a kill may be near */
    truth_rebase(load->truth, commit);
    learn_made(load);
    load->truth->unseen = false;
    snprintf(load->truth->id, sizeof(load->truth->id), "%s", store_id(load->store));
    rc = make_readers(load);
    return rc < 0 ? rc : make_names(load);
}

void load_close(struct load *load)
{
    for (unsigned u = 0; u < TRUTH_UPLINKS; u++) {
        store_reader_destroy(load->readers[u]);
        load->readers[u] = NULL;
    }
    store_close(load->store);
    load->store = NULL;
    buffer_finish(&load->arena);
}

int load_append(struct load *load, unsigned stream, unsigned device, unsigned count)
{
    struct truth *truth = load->truth;
    uint64_t gap = load_chance(load, 29) == 0 ? 2 : 1;
    uint64_t seq = truth->last[stream][device] + gap;
    if (seq >= truth->seqs) {
        return -E2BIG;
    }
    struct scan *scan = (struct scan *)(void *)load->scan;
    truth_build(truth, stream, device, seq, count, scan);
    int rc = store_append(load->store, scan);
    if (rc < 0) {
        load->failed++;
        return rc;
    }
    *truth_at(truth, stream, device, seq) = (struct truth_scan){.commit = truth->attempted + 1,
                                                                .count = (uint16_t)count};
    truth->last[stream][device] = seq;
    if (stream == STREAM_RAW) {
        store_count(load->store, device + 1, LEDGER_READ, count);
    }
    return 0;
}

/* The store was full: what the commit was to bring was never stored. */
static void mark_refused(struct truth *truth, uint32_t commit)
{
    for (unsigned s = 0; s < STREAM_COUNT; s++) {
        for (unsigned d = 0; d < TRUTH_DEVICES; d++) {
            for (uint64_t seq = truth->last[s][d]; seq > 0; seq--) {
                struct truth_scan *scan = truth_at(truth, s, d, seq);
                if (scan->commit == commit) {
                    scan->refused = 1;
                    truth->scans_refused++;
                } else if (scan->commit != 0) {
                    break;
                }
            }
        }
    }
}

/* After a failed commit nothing may be promised until the store was opened again. */
static int expect_latch(struct load *load)
{
    struct scan *scan = (struct scan *)(void *)load->scan;
    truth_build(load->truth, STREAM_RAW, 0, load->truth->last[STREAM_RAW][0] + 1, LOAD_SMALL, scan);
    bool latched = store_append(load->store, scan) == -EIO && store_commit(load->store) == -EIO;
    return latched ? -EIO : -EPROTO;
}

int load_commit(struct load *load)
{
    struct truth *truth = load->truth;
    uint32_t commit = truth->attempted + 1;
    store_set_note(load->store, truth_note, commit);
    int64_t note = -1;
    if (!store_note(load->store, truth_note, &note) || note != commit) {
        load->failed++;
        return -ENOMEM; /* the first note found no memory */
    }
    truth->attempted = commit;
    if (load->promise != NULL) {
        load->promise(PROMISE_BEGUN, commit);
    }
    if (load->early && load->promise != NULL) {
        load->promise(PROMISE_KEPT, commit);
    }
    truth_hold_clocks(truth, commit);
    int rc = store_commit(load->store);
    if (rc < 0 && rc != -ENOSPC) {
        load->failed++;
        return expect_latch(load);
    }
    if (rc == -ENOSPC) {
        mark_refused(truth, commit);
    }
    learn_made(load);
    truth->acked = commit;
    if (!load->early && load->promise != NULL) {
        load->promise(PROMISE_KEPT, commit);
    }
    return rc;
}

static void write_down(struct load *load, unsigned uplink, const struct scan *const *scans,
                       size_t count, enum ledger_fate fate, uint32_t earliest, uint32_t latest)
{
    for (size_t i = 0; i < count; i++) {
        struct truth_scan *known = truth_at(load->truth, scans[i]->stream, scans[i]->device - 1,
                                            scans[i]->seq);
        known->fate[uplink] = (uint8_t)fate;
        known->certain[uplink] = latest;
        known->settled[uplink] = earliest;
    }
}

/* Settles a run of one device as a whole. A kill may come at any moment, so the truth says before
 * what may be and afterwards what is. */
static int settle(struct load *load, unsigned uplink, const struct scan *const *scans, size_t count,
                  enum ledger_fate fate)
{
    struct store_settlement settlement = {.stream = (enum stream)scans[0]->stream,
                                          .device = scans[0]->device,
                                          .first_seq = scans[0]->seq,
                                          .last_seq = scans[count - 1]->seq};
    for (size_t i = 0; i < count; i++) {
        settlement.fates[fate] += scans[i]->count;
    }
    uint32_t earliest = load->truth->attempted + (load->beside ? 0 : 1);
    write_down(load, uplink, scans, count, fate, earliest, UINT32_MAX);
    int rc = store_reader_settle(load->readers[uplink], &settlement);
    if (rc < 0) {
        write_down(load, uplink, scans, count, fate, 0, 0);
    } else {
        write_down(load, uplink, scans, count, fate, earliest, load->truth->attempted + 1);
    }
    return rc;
}

/* One device's scans: mostly all delivered, sometimes the rest returned, sometimes refused. */
static int settle_run(struct load *load, unsigned uplink, const struct scan *const *scans,
                      size_t count)
{
    size_t part = load_chance(load, 4) == 0 ? 1 + load_chance(load, (unsigned)count) : count;
    int rc = 0;
    if (load_chance(load, load->dead_every > 0 ? load->dead_every : DEAD_EVERY) == 0) {
        const struct truth_scan *known = truth_at(load->truth, scans[0]->stream,
                                                  scans[0]->device - 1, scans[0]->seq);
        rc = store_dead_letter(load->readers[uplink], scans[0], NULL, 0,
                               known->rose[uplink] != 0 ? second_reason : first_reason);
        part = 1;
        rc = rc < 0 ? rc : settle(load, uplink, scans, part, FATE_DEAD);
    } else {
        rc = settle(load, uplink, scans, part, FATE_DELIVERED);
    }
    size_t from = rc < 0 ? 0 : part;
    if (from < count) {
        store_reader_return(load->readers[uplink], (enum stream)scans[0]->stream, scans[0]->device,
                            scans[from]->seq, scans[count - 1]->seq);
    }
    return rc;
}

static int take(struct load *load, unsigned uplink, enum store_lane lane, enum stream stream,
                size_t max, size_t *ret_count)
{
    const struct scan **scans = NULL;
    *ret_count = 0;
    int rc = store_reader_take(load->readers[uplink], lane, stream, max, 64 << 10, &load->arena,
                               &scans, ret_count);
    for (size_t i = 0; rc == 0 && i < *ret_count;) {
        size_t run = 1;
        while (i + run < *ret_count && scans[i + run]->device == scans[i]->device) {
            run++;
        }
        rc = settle_run(load, uplink, scans + i, run);
        i += run;
    }
    load->failed += rc < 0;
    return rc;
}

int load_deliver(struct load *load, unsigned uplink)
{
    size_t count;
    enum stream stream = load_chance(load, 3) == 0 ? load_chance(load, STREAM_COUNT) : STREAM_RAW;
    enum store_lane lane = uplink == 0 ? load_chance(load, STORE_LANES) : STORE_LANE_BACKFILL;
    if (uplink == 0 && load_chance(load, 12) == 0) {
        store_reader_split(load->readers[uplink]);
    }
    return take(load, uplink, lane, stream, 1 + load_chance(load, TAKE_MAX), &count);
}

int load_drain(struct load *load)
{
    for (unsigned turn = 0; turn < DRAIN_TURNS_MAX; turn++) {
        size_t all = 0;
        for (unsigned u = 0; u < TRUTH_UPLINKS; u++) {
            for (unsigned lane = 0; lane < STORE_LANES; lane++) {
                for (unsigned stream = 0; stream < STREAM_COUNT; stream++) {
                    size_t count;
                    int rc = take(load, u, (enum store_lane)lane, (enum stream)stream, 1000,
                                  &count);
                    if (rc < 0) {
                        return rc;
                    }
                    all += count;
                }
            }
        }
        if (all == 0) {
            return 0;
        }
    }
    return -EPROTO; /* the same again and again */
}

struct rising {
    struct load *load;
    unsigned uplink;
    uint64_t scans;
};

/* A kill may be near: the truth says it before the commit. */
static int raise_letter(void *user, const struct store_letter *letter)
{
    struct rising *rising = user;
    unsigned u = rising->uplink;
    struct truth_scan *known = truth_at(rising->load->truth, letter->scan->stream,
                                        letter->scan->device - 1, letter->scan->seq);
    if (strcmp(letter->uplink, truth_uplink_names[u]) == 0 &&
        strcmp(letter->why, first_reason) == 0 && known->rose[u] == 0) {
        known->died[u] = known->settled[u];
        known->rose[u] = rising->load->truth->attempted + 1;
        known->settled[u] = known->certain[u] = 0;
        rising->scans++;
    }
    return 0;
}

int load_requeue(struct load *load, unsigned uplink)
{
    const struct store_letter_filter filter = {.uplink = truth_uplink_names[uplink],
                                               .reason = first_reason};
    struct rising rising = {.load = load, .uplink = uplink};
    struct store_requeued done = {0};
    int rc = store_requeue(load->store, &filter, 0, &done);
    if (rc == 0 && (done.scans > 0 || done.refused > 0)) {
        rc = store_letters(load->store, raise_letter, &rising); /* those that are committed */
        if (rc < 0 || done.refused > 0) {
            load->truth->vague = true;
        }
    }
    load->failed += rc < 0;
    bool all = done.scans == rising.scans && !done.more && done.refused == 0;
    return rc == 0 && !all && !load->faulty ? -EPROTO : rc;
}

/* The next of the device's raw scans that wait and are committed. */
static size_t choose_handed(struct load *load, unsigned uplink, unsigned device,
                            struct store_handed runs[HANDED_MAX])
{
    const struct truth *truth = load->truth;
    uint64_t last = truth->last[STREAM_RAW][device];
    uint64_t seq = last == 0 ? 1 : 1 + load_chance(load, (unsigned)last);
    size_t count = 0;
    for (; seq <= last && count < HANDED_MAX; seq++) {
        const struct truth_scan *known = truth_at(load->truth, STREAM_RAW, device, seq);
        if (known->commit == 0 || known->commit > truth->acked || known->refused ||
            known->settled[uplink] != 0 || known->rose[uplink] > truth->acked) {
            continue;
        }
        runs[count++] = (struct store_handed){.stream = STREAM_RAW,
                                              .device = device + 1,
                                              .first_seq = seq,
                                              .last_seq = seq,
                                              .readings = known->count,
                                              .selected = known->count};
    }
    return count;
}

int load_hand_over(struct load *load, unsigned uplink)
{
    struct store_handed runs[HANDED_MAX] = {{.device = 0}};
    struct store_handover done = {0};
    unsigned device = load_chance(load, TRUTH_DEVICES);
    size_t count = choose_handed(load, uplink, device, runs);
    int rc = store_hand_over(load->store, truth_uplink_names[uplink], runs, count, &done);
    load->failed += rc < 0;
    if (rc < 0) {
        return rc;
    }
    for (size_t i = 0; i < count; i++) {
        struct truth_scan *known = truth_at(load->truth, STREAM_RAW, device, runs[i].first_seq);
        known->fate[uplink] = FATE_DELIVERED;
        known->settled[uplink] = known->certain[uplink] = load->truth->attempted + 1;
    }
    load->truth->vague |= done.scans != count && load->faulty;
    return done.scans != count && !load->faulty ? -EPROTO : 0;
}

static int count_scan(void *user, const struct scan *scan)
{
    (void)scan;
    ++*(uint64_t *)user;
    return 0;
}

int load_look(struct load *load)
{
    struct store_stat stat;
    struct store_backlog backlog;
    struct ledger_device total;
    uint64_t scans = 0, blocks = 0, bad = 0;
    store_stat(load->store, &stat);
    store_reader_backlog(load->readers[0], &backlog);
    int rc = store_ledger_total(load->store, (int)load->uplinks[0], &total);
    rc = rc < 0 ? rc : store_history(load->store, STREAM_RAW, 1, 0, INT64_MAX, count_scan, &scans);
    rc = rc < 0 ? rc : store_verify(load->store, &blocks, &bad);
    return rc == 0 && bad > 0 ? -EPROTO : rc;
}
