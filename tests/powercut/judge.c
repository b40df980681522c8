#include "judge.h"

#include "gateway/store/dead.h"

#include <errno.h>
#include <stdarg.h>
#include <string.h>

enum { EXTRA_COUNT = 6, TURNS_MAX = 100000 };

/* One look: what was met of each scan. */
struct look {
    struct judgement *judgement;
    struct truth *truth;
    struct store *store;
    struct store_reader *reader;
    unsigned uplinks[TRUTH_UPLINKS], uplink;
    uint8_t *met; /* by the truth's index */
    struct buffer arena;
    uint64_t extra[TRUTH_DEVICES]; /* seq of a scan that the judge appended itself; 0: none */
    bool history;                  /* what is met comes from the history, not a reader */
    bool unknown;                  /* scans were made by the commit that nobody could look at */
    enum verdict verdict;
};

const char *verdict_name(enum verdict verdict)
{
    static const char *const names[VERDICTS] = {
        "good",    "unopenable", "lost",    "invented", "wrong_value", "twice",
        "damaged", "ledger",     "no_work", "crashed",  "hung",
    };
    return verdict < VERDICTS ? names[verdict] : "?";
}

__attribute__((format(printf, 3, 4))) static void blame(struct look *look, enum verdict verdict,
                                                        const char *format, ...)
{
    if (look->verdict != VERDICT_GOOD) {
        return; /* the first one counts */
    }
    look->verdict = verdict;
    va_list args;
    va_start(args, format);
    vsnprintf(look->judgement->reason, sizeof(look->judgement->reason), format, args);
    va_end(args);
}

static size_t index_of(const struct truth *truth, unsigned stream, unsigned device, uint64_t seq)
{
    return ((size_t)stream * TRUTH_DEVICES + device) * truth->seqs + seq;
}

static bool stored_at(const struct truth_scan *scan, uint32_t commit)
{
    return scan->commit != 0 && scan->commit <= commit && !scan->refused;
}

/* What the uplink may still have to deliver: certainly, certainly not, or either. */
enum waits { WAITS, WAITS_NOT, WAITS_EITHER };

static enum waits waits_at(const struct truth_scan *scan, unsigned uplink, uint32_t commit)
{
    struct truth_fate fate = truth_fate_at(scan, uplink, commit);
    if (fate.settled == 0 || fate.settled > commit) {
        return WAITS;
    }
    return fate.certain > commit ? WAITS_EITHER : WAITS_NOT;
}

/* The store may have made it with the commit that was cut short: nobody has looked at it yet. */
static bool made_unseen(const struct look *look, const struct scan *scan)
{
    const struct judgement *judgement = look->judgement;
    return scan->stream == STREAM_AGGREGATE && judgement->settings.when_full == STORE_FULL_THIN &&
           (judgement->commit > judgement->acked || look->truth->unseen || look->truth->vague) &&
           truth_at(look->truth, STREAM_AGGREGATE, scan->device - 1, scan->seq)->commit == 0;
}

static bool same(const struct truth *truth, const struct truth_scan *known, unsigned count,
                 const struct scan *scan)
{
    return known->made ? known->hash == truth_hash(scan) : truth_equal(truth, count, scan);
}

static bool is_extra(const struct look *look, const struct scan *scan)
{
    return scan->stream == STREAM_RAW && scan->seq == look->extra[scan->device - 1];
}

static void meet(struct look *look, const struct scan *scan)
{
    struct truth *truth = look->truth;
    if (scan->stream >= STREAM_COUNT || scan->device == 0 || scan->device > TRUTH_DEVICES ||
        scan->seq >= truth->seqs) {
        blame(look, VERDICT_INVENTED, "a scan of device %u, seq %llu", scan->device,
              (unsigned long long)scan->seq);
        return;
    }
    const struct truth_scan *known = truth_at(truth, scan->stream, scan->device - 1, scan->seq);
    const char *device = truth_device_names[scan->device - 1];
    unsigned long long seq = scan->seq;
    bool extra = is_extra(look, scan);
    look->judgement->made += known->made;
    if (made_unseen(look, scan)) {
        look->unknown = true;
        return;
    }
    if (!extra && !stored_at(known, look->judgement->commit)) {
        blame(look, VERDICT_INVENTED, "%s %s seq %llu was not appended by commit %u",
              stream_name(scan->stream), device, seq, look->judgement->commit);
    } else if (!same(truth, known, extra ? EXTRA_COUNT : known->count, scan)) {
        blame(look, VERDICT_WRONG_VALUE, "%s %s seq %llu", stream_name(scan->stream), device, seq);
    } else if (look->met[index_of(truth, scan->stream, scan->device - 1, scan->seq)]++ > 0) {
        blame(look, VERDICT_TWICE, "%s %s seq %llu", stream_name(scan->stream), device, seq);
    } else if (!extra && !look->history &&
               waits_at(known, look->uplink, look->judgement->commit) == WAITS_NOT) {
        blame(look, VERDICT_TWICE, "%s %s seq %llu was delivered to %s with commit %u",
              stream_name(scan->stream), device, seq, truth_uplink_names[look->uplink],
              known->settled[look->uplink]);
    }
}

static int meet_in_history(void *user, const struct scan *scan)
{
    struct look *look = user;
    meet(look, scan);
    return look->verdict != VERDICT_GOOD ? 1 : 0;
}

static int settle_all(struct look *look, const struct scan *const *scans, size_t count)
{
    int rc = 0;
    for (size_t i = 0; i < count && rc == 0;) {
        struct store_settlement settlement = {.stream = (enum stream)scans[i]->stream,
                                              .device = scans[i]->device,
                                              .first_seq = scans[i]->seq};
        for (; i < count && scans[i]->device == settlement.device; i++) {
            settlement.last_seq = scans[i]->seq;
            settlement.fates[FATE_DELIVERED] += scans[i]->count;
        }
        rc = store_reader_settle(look->reader, &settlement);
    }
    return rc;
}

/* Everything that waits for look->uplink is met and settled; a good store refuses nothing. */
static uint64_t drain_stream(struct look *look, enum stream stream)
{
    uint64_t all = 0;
    for (unsigned turn = 0; look->verdict == VERDICT_GOOD; turn++) {
        const struct scan **scans = NULL;
        size_t count = 0;
        int rc = store_reader_take(look->reader, STORE_LANE_BACKFILL, stream, 1000, 1 << 20,
                                   &look->arena, &scans, &count);
        for (size_t i = 0; rc == 0 && i < count; i++) {
            meet(look, scans[i]);
        }
        rc = rc == 0 ? settle_all(look, scans, count) : rc;
        if (rc < 0 || turn > TURNS_MAX) {
            blame(look, rc == -EBADMSG ? VERDICT_DAMAGED : VERDICT_NO_WORK, "drain of %s: %s",
                  stream_name(stream), strerror(-rc));
        }
        all += count;
        if (count == 0) {
            break;
        }
    }
    return all;
}

static void drain(struct look *look, unsigned uplink)
{
    memset(look->met, 0, index_of(look->truth, STREAM_COUNT, 0, 0));
    look->uplink = uplink;
    look->history = false;
    int rc = store_reader_create(look->store, look->uplinks[uplink], false, &look->reader);
    if (rc < 0) {
        blame(look, VERDICT_NO_WORK, "reader: %s", strerror(-rc));
        return;
    }
    /* What is read ahead of one stream may leave no room for another: until none has anything. */
    for (uint64_t all = 1; all > 0 && look->verdict == VERDICT_GOOD;) {
        all = 0;
        for (unsigned s = 0; s < STREAM_COUNT; s++) {
            if ((truth_uplink_streams[uplink] & (1u << s)) != 0) {
                all += drain_stream(look, (enum stream)s);
            }
        }
    }
    store_reader_destroy(look->reader);
    look->reader = NULL;
}

/* Whether the uplink's max_age had passed by that commit. */
static bool old_enough(const struct look *look, const struct truth_scan *scan, uint64_t seq)
{
    const struct truth *truth = look->truth;
    int64_t taken_ms = truth->held_ms + 1000 * (int64_t)scan->commit;
    int64_t stamped_ms = truth->base_ms + 1000 * (int64_t)seq;
    return (taken_ms < stamped_ms ? taken_ms : stamped_ms) <
           truth->held_ms + 1000 * (int64_t)look->judgement->commit -
               truth->max_age_ms[look->uplink];
}

/* Of one stream and device: what waits and was not met. Only the oldest may be missing, dropped by
 * a full store (but statistics stay longer than what lies beside raw scans in the log), or what is
 * too old for the uplink; and *missing readings of them. */
static void count_missing(struct look *look, unsigned stream, unsigned device, uint64_t *missing)
{
    struct truth *truth = look->truth;
    bool ages = truth->max_age_ms[look->uplink] > 0;
    bool in_order = !ages && (stream == STREAM_RAW ||
                              look->judgement->settings.when_full != STORE_FULL_THIN);
    uint64_t met_first = 0;
    for (uint64_t seq = 1; seq <= truth->last[stream][device]; seq++) {
        const struct truth_scan *scan = truth_at(truth, stream, device, seq);
        if (!stored_at(scan, look->judgement->commit) ||
            waits_at(scan, look->uplink, look->judgement->commit) != WAITS) {
            continue;
        }
        if (look->met[index_of(truth, stream, device, seq)] > 0) {
            met_first = met_first == 0 ? seq : met_first;
            look->judgement->scans++;
        } else if (ages && !old_enough(look, scan, seq)) {
            blame(look, VERDICT_LOST, "%s %s seq %llu is not there, and was not too old",
                  stream_name((enum stream)stream), truth_device_names[device],
                  (unsigned long long)seq);
        } else if (met_first != 0 && in_order) {
            blame(look, VERDICT_LOST, "%s %s seq %llu, though %llu is there",
                  stream_name((enum stream)stream), truth_device_names[device],
                  (unsigned long long)seq, (unsigned long long)met_first);
        } else {
            *missing += scan->count;
        }
    }
}

/* Readings that had this fate by the commit; with WAITS_EITHER, those that may have had it. */
static uint64_t settled_readings(const struct look *look, unsigned device, enum ledger_fate fate,
                                 enum waits waits)
{
    uint64_t sum = 0;
    for (unsigned s = 0; s < STREAM_COUNT; s++) {
        for (uint64_t seq = 1; seq <= look->truth->last[s][device]; seq++) {
            const struct truth_scan *scan = truth_at(look->truth, s, device, seq);
            enum ledger_fate was = truth_fate_at(scan, look->uplink, look->judgement->commit).fate;
            if (was == fate && stored_at(scan, look->judgement->commit) &&
                waits_at(scan, look->uplink, look->judgement->commit) == waits) {
                sum += scan->count;
            }
        }
    }
    return sum;
}

static uint64_t stored_readings(const struct look *look, unsigned stream, unsigned device)
{
    uint64_t sum = 0;
    for (uint64_t seq = 1; seq <= look->truth->last[stream][device]; seq++) {
        const struct truth_scan *scan = truth_at(look->truth, stream, device, seq);
        sum += stored_at(scan, look->judgement->commit) ? scan->count : 0;
    }
    return sum;
}

static void check_sums(struct look *look, const struct ledger_device *row)
{
    const uint64_t *c = row->counts;
    uint64_t fates = row->waiting;
    for (unsigned f = 0; f < FATE_COUNTS; f++) {
        fates += row->fates[f];
    }
    if (c[LEDGER_READ] != c[LEDGER_STORED] + c[LEDGER_SUPPRESSED] + c[LEDGER_DROPPED_OVERRUN] +
                              c[LEDGER_DROPPED_DISK] ||
        fates != row->offered) {
        blame(look, VERDICT_LEDGER, "%s does not add up for %s", row->name,
              truth_uplink_names[look->uplink]);
    }
}

static void check_fate(struct look *look, const struct ledger_device *row, enum ledger_fate fate)
{
    unsigned device = row->device - 1;
    if (look->unknown || look->truth->vague) {
        return;
    }
    uint64_t sure = settled_readings(look, device, fate, WAITS_NOT);
    uint64_t open = settled_readings(look, device, FATE_DELIVERED, WAITS_EITHER) +
                    settled_readings(look, device, FATE_DEAD, WAITS_EITHER);
    if (row->fates[fate] < sure || row->fates[fate] > sure + open) {
        blame(look, VERDICT_LEDGER, "%s for %s: %llu %s, not %llu (+%llu)", row->name,
              truth_uplink_names[look->uplink], (unsigned long long)row->fates[fate],
              ledger_fate_name(fate), (unsigned long long)sure, (unsigned long long)open);
    }
}

/* The ledger as it was found, beside what was met: `row` is of before the drain. */
static void check_ledger(struct look *look, const struct ledger_device *row)
{
    unsigned device = row->device - 1;
    uint64_t missing = 0, given_up = row->fates[FATE_THINNED] + row->fates[FATE_EXPIRED];
    check_sums(look, row);
    for (unsigned s = 0; s < STREAM_COUNT; s++) {
        if ((truth_uplink_streams[look->uplink] & (1u << s)) != 0) {
            count_missing(look, s, device, &missing);
        }
    }
    uint64_t open = settled_readings(look, device, FATE_DELIVERED, WAITS_EITHER) +
                    settled_readings(look, device, FATE_DEAD, WAITS_EITHER);
    look->judgement->dropped += row->fates[FATE_THINNED];
    look->judgement->expired += row->fates[FATE_EXPIRED];
    if ((missing > given_up || missing + open < given_up) && !look->truth->vague) {
        blame(look, missing > given_up ? VERDICT_LOST : VERDICT_LEDGER,
              "%s for %s: %llu readings are gone, the ledger tells of %llu", row->name,
              truth_uplink_names[look->uplink], (unsigned long long)missing,
              (unsigned long long)given_up);
    }
    uint64_t stored = stored_readings(look, STREAM_RAW, device);
    uint64_t derived = stored_readings(look, STREAM_AGGREGATE, device) +
                       stored_readings(look, STREAM_EVENT, device);
    if (row->counts[LEDGER_STORED] != stored ||
        (row->counts[LEDGER_DERIVED] != derived && !look->unknown && !look->truth->vague)) {
        blame(look, VERDICT_LEDGER, "%s: stored %llu and %llu, not %llu and %llu", row->name,
              (unsigned long long)row->counts[LEDGER_STORED],
              (unsigned long long)row->counts[LEDGER_DERIVED], (unsigned long long)stored,
              (unsigned long long)derived);
    }
    check_fate(look, row, FATE_DELIVERED);
    check_fate(look, row, FATE_DEAD);
}

static bool is_dead(const struct look *look, const struct truth_scan *scan)
{
    uint32_t commit = look->judgement->commit;
    return stored_at(scan, commit) && waits_at(scan, look->uplink, commit) == WAITS_NOT &&
           truth_fate_at(scan, look->uplink, commit).fate == FATE_DEAD;
}

static int meet_letter(void *user, const struct store_letter *letter)
{
    struct look *look = user;
    const struct scan *scan = letter->scan;
    if (strcmp(letter->uplink, truth_uplink_names[look->uplink]) != 0) {
        return 0;
    }
    if (scan->stream >= STREAM_COUNT || scan->device == 0 || scan->device > TRUTH_DEVICES ||
        scan->seq >= look->truth->seqs) {
        blame(look, VERDICT_INVENTED, "a letter of device %u", scan->device);
        return 1;
    }
    const struct truth_scan *known = truth_at(look->truth, scan->stream, scan->device - 1,
                                              scan->seq);
    const char *device = truth_device_names[scan->device - 1];
    unsigned long long seq = scan->seq;
    if (!is_dead(look, known)) {
        blame(look, VERDICT_TWICE, "a letter of %s seq %llu, which is not dead", device, seq);
    } else if (!same(look->truth, known, known->count, scan)) {
        blame(look, VERDICT_WRONG_VALUE, "the letter of %s seq %llu", device, seq);
    } else if (look->met[index_of(look->truth, scan->stream, scan->device - 1, scan->seq)]++ > 0) {
        blame(look, VERDICT_TWICE, "two letters of %s seq %llu", device, seq);
    }
    return look->verdict != VERDICT_GOOD;
}

/* What is dead has a letter, and what waits or was delivered has none. */
static void check_letters(struct look *look)
{
    struct truth *truth = look->truth;
    memset(look->met, 0, index_of(truth, STREAM_COUNT, 0, 0));
    int rc = store_letters(look->store, meet_letter, look);
    if (rc < 0) {
        blame(look, VERDICT_DAMAGED, "letters: %s", strerror(-rc));
    }
    for (unsigned s = 0; s < STREAM_COUNT; s++) {
        for (unsigned d = 0; d < TRUTH_DEVICES; d++) {
            for (uint64_t seq = 1; seq <= truth->last[s][d]; seq++) {
                const struct truth_scan *scan = truth_at(truth, s, d, seq);
                if (is_dead(look, scan) && look->met[index_of(truth, s, d, seq)] == 0) {
                    blame(look, VERDICT_LOST, "the letter of %s %s seq %llu",
                          stream_name((enum stream)s), truth_device_names[d],
                          (unsigned long long)seq);
                }
                look->judgement->letters += is_dead(look, scan);
                look->judgement->risen += scan->rose[look->uplink] != 0 &&
                                          scan->rose[look->uplink] <= look->judgement->commit;
            }
        }
    }
}

static void check_uplink(struct look *look, unsigned uplink)
{
    auto_free struct ledger_device *rows = NULL;
    size_t count = 0;
    if (store_ledger(look->store, (int)look->uplinks[uplink], &rows, &count) < 0) {
        blame(look, VERDICT_LEDGER, "no ledger");
        return;
    }
    look->uplink = uplink;
    if (look->truth->letters && !look->unknown && !look->truth->vague) {
        check_letters(look);
    }
    drain(look, uplink);
    for (size_t i = 0; i < count && look->verdict == VERDICT_GOOD; i++) {
        if (rows[i].device >= 1 && rows[i].device <= TRUTH_DEVICES) {
            check_ledger(look, &rows[i]);
        }
    }
}

/* Seqs go on where the commit left them: none is given twice, none is skipped. */
static void check_seqs(struct look *look)
{
    for (unsigned s = 0; s < STREAM_COUNT; s++) {
        for (unsigned d = 0; d < TRUTH_DEVICES; d++) {
            uint64_t last = 0;
            for (uint64_t seq = 1; seq <= look->truth->last[s][d]; seq++) {
                const struct truth_scan *scan = truth_at(look->truth, s, d, seq);
                last = scan->commit != 0 && scan->commit <= look->judgement->commit ? seq : last;
            }
            uint64_t found = store_last_seq(look->store, (enum stream)s, d + 1);
            bool made = found > last && s == STREAM_AGGREGATE &&
                        (look->unknown || look->truth->vague);
            if (found != last && !made) {
                blame(look, found < last ? VERDICT_LOST : VERDICT_INVENTED,
                      "%s %s: the last seq is %llu, not %llu", stream_name((enum stream)s),
                      truth_device_names[d], (unsigned long long)found, (unsigned long long)last);
            }
        }
    }
}

/* Where keep is longer than the store's life nothing ever leaves it. */
static void check_kept(struct look *look)
{
    struct truth *truth = look->truth;
    for (unsigned s = 0; s < STREAM_COUNT; s++) {
        for (unsigned d = 0; d < TRUTH_DEVICES; d++) {
            for (uint64_t seq = 1; seq <= truth->last[s][d]; seq++) {
                if (stored_at(truth_at(truth, s, d, seq), look->judgement->commit) &&
                    look->met[index_of(truth, s, d, seq)] == 0) {
                    blame(look, VERDICT_LOST, "%s %s seq %llu is not in the history",
                          stream_name((enum stream)s), truth_device_names[d],
                          (unsigned long long)seq);
                }
            }
        }
    }
}

static void check_history(struct look *look)
{
    memset(look->met, 0, index_of(look->truth, STREAM_COUNT, 0, 0));
    look->history = true;
    for (unsigned s = 0; s < STREAM_COUNT && look->verdict == VERDICT_GOOD; s++) {
        int rc = store_history(look->store, (enum stream)s, 0, INT64_MIN, INT64_MAX,
                               meet_in_history, look);
        if (rc != 0) {
            blame(look, VERDICT_DAMAGED, "history of %s: %s", stream_name((enum stream)s),
                  strerror(-rc));
        }
    }
    if (look->judgement->settings.keep_ms > 0) {
        check_kept(look);
    }
}

static void check_content(struct look *look)
{
    uint64_t blocks, bad = 0;
    int rc = store_verify(look->store, &blocks, &bad);
    if (rc < 0 || bad > 0) {
        blame(look, VERDICT_DAMAGED, "verify: %s, %llu bad blocks", strerror(-rc),
              (unsigned long long)bad);
        return;
    }
    check_history(look);
    check_seqs(look);
    for (unsigned u = 0; u < TRUTH_UPLINKS && look->verdict == VERDICT_GOOD; u++) {
        check_uplink(look, u);
    }
}

static int append_extra(struct look *look)
{
    int rc = 0;
    for (unsigned d = 0; d < TRUTH_DEVICES && rc == 0; d++) {
        _Alignas(8) uint8_t memory[TRUTH_SCAN_BYTES];
        struct scan *scan = (struct scan *)(void *)memory;
        look->extra[d] = store_last_seq(look->store, STREAM_RAW, d + 1) + 1;
        truth_build(look->truth, STREAM_RAW, d, look->extra[d], EXTRA_COUNT, scan);
        rc = store_append(look->store, scan);
        store_count(look->store, d + 1, LEDGER_READ, rc == 0 ? EXTRA_COUNT : 0);
    }
    return rc < 0 ? rc : store_commit(look->store);
}

/* What was found takes new scans, hands out exactly those, and ends empty. */
static void check_work(struct look *look)
{
    int rc = store_commit(look->store); /* a full one makes room by what was drained */
    rc = rc < 0 ? rc : append_extra(look);
    if (rc < 0) {
        blame(look, VERDICT_NO_WORK, "new scans: %s", strerror(-rc));
        return;
    }
    for (unsigned u = 0; u < TRUTH_UPLINKS && look->verdict == VERDICT_GOOD; u++) {
        drain(look, u);
        uint64_t met = 0;
        for (unsigned d = 0; d < TRUTH_DEVICES; d++) {
            met += look->met[index_of(look->truth, STREAM_RAW, d, look->extra[d])];
        }
        struct ledger_device total;
        rc = store_commit(look->store);
        rc = rc < 0 ? rc : store_ledger_total(look->store, (int)look->uplinks[u], &total);
        if (rc < 0 || met != TRUTH_DEVICES || total.waiting != 0) {
            blame(look, VERDICT_NO_WORK, "new scans: %s, %llu of %d came back", strerror(-rc),
                  (unsigned long long)met, TRUTH_DEVICES);
        }
    }
}

static void check_commit(struct look *look)
{
    struct judgement *judgement = look->judgement;
    int64_t note = 0;
    (void)store_note(look->store, truth_note, &note);
    if (note < judgement->acked) {
        blame(look, VERDICT_LOST, "commit %lld, though %u was acknowledged", (long long)note,
              judgement->acked);
    } else if (note > judgement->attempted) {
        blame(look, VERDICT_INVENTED, "commit %lld, though %u was the newest", (long long)note,
              judgement->attempted);
    } else if (note > 0 && strcmp(store_id(look->store), look->truth->id) != 0) {
        blame(look, VERDICT_LOST, "another store: %s", store_id(look->store));
    }
    judgement->commit = look->verdict == VERDICT_GOOD ? (uint32_t)note : 0;
}

static int know_names(struct look *look)
{
    int rc = 0;
    for (unsigned u = 0; u < TRUTH_UPLINKS && rc == 0; u++) {
        rc = store_add_uplink(look->store, truth_uplink_names[u], truth_uplink_streams[u], 0,
                              &look->uplinks[u]);
    }
    for (unsigned d = 0; d < TRUTH_DEVICES && rc == 0; d++) {
        uint32_t id;
        uint16_t point;
        rc = store_device(look->store, truth_device_names[d], "{\"site\":\"hill\"}", &id);
        for (unsigned p = 0; p < EXTRA_COUNT && rc == 0; p++) {
            char name[16];
            snprintf(name, sizeof(name), "p%u", p);
            rc = id != d + 1 ? -EPROTO : store_point(look->store, id, name, "m/s", &point);
        }
    }
    return rc;
}

static void check_store(struct look *look)
{
    check_commit(look);
    if (look->verdict != VERDICT_GOOD) {
        return;
    }
    int rc = know_names(look);
    if (rc < 0) {
        blame(look, VERDICT_NO_WORK, "names: %s", strerror(-rc));
        return;
    }
    if (look->judgement->commit > 0) {
        check_content(look);
    }
    if (look->verdict == VERDICT_GOOD && !look->judgement->look_only) {
        check_work(look);
    }
}

enum verdict judge(const char *dir, struct judgement *judgement)
{
    struct look look = {.judgement = judgement, .truth = judgement->truth};
    judgement->scans = judgement->dropped = judgement->expired = judgement->made = 0;
    judgement->letters = judgement->risen = 0;
    truth_hold_clocks(look.truth, judgement->attempted);
    int rc = store_open(dir, &judgement->settings, &look.store);
    if (rc < 0) {
        blame(&look, VERDICT_UNOPENABLE, "store_open: %s", strerror(-rc));
        return look.verdict;
    }
    auto_free uint8_t *met = malloc(index_of(look.truth, STREAM_COUNT, 0, 0));
    look.met = met;
    if (store_quarantined(look.store) != NULL) {
        blame(&look, VERDICT_UNOPENABLE, "set aside as damaged");
    } else if (met == NULL) {
        blame(&look, VERDICT_NO_WORK, "no memory for the judge");
    } else {
        check_store(&look);
    }
    store_reader_destroy(look.reader);
    buffer_finish(&look.arena);
    store_close(look.store);
    return look.verdict;
}
