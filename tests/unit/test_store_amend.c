/* Dead letters that wait again and readings handed over by hand, at random among everything else
 * that happens to a store, held to a model; and beside readers in threads of their own. */
#include "gateway/store/dead.h"
#include "gateway/store/handover.h"
#include "gateway/store/internal.h"
#include "store_site.h"

#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>

enum { DEVICES = 3, SEQS_MAX = 20000, STEPS = 2500, SEEDS = 2 };
enum fate { NONE, WAITS, DELIVERED, DEAD };

struct model {
    uint8_t fate[DEVICES][SEQS_MAX];
};

struct fixture {
    struct site site;
    uint64_t seq[DEVICES], committed_seq[DEVICES];
    struct model now, committed;
    uint64_t random;
    uint64_t requeued, handed, refused;
};

static unsigned roll(struct fixture *f, unsigned sides)
{
    f->random = f->random * 6364136223846793005u + 1442695040888963407u;
    return (unsigned)(f->random >> 33) % sides;
}

static int set_up(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));
    site_begin(&f->site, DEVICES);
    *state = f;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *f = *state;
    site_end(&f->site);
    free(f);
    return 0;
}

static uint64_t count_of(const struct fixture *f, enum fate fate)
{
    uint64_t count = 0;
    for (unsigned d = 0; d < DEVICES; d++) {
        for (uint64_t s = 1; s <= f->seq[d]; s++) {
            count += f->now.fate[d][s] == fate;
        }
    }
    return count;
}

static int count_letter(void *user, const struct store_letter *letter)
{
    fixture_check(letter->scan);
    ++*(uint64_t *)user;
    return 0;
}

static void commit(struct fixture *f)
{
    assert_int_equal(store_commit(f->site.store), 0);
    f->committed = f->now;
    memcpy(f->committed_seq, f->seq, sizeof(f->seq));
}

/* What the store says is what the model says. */
static void compare(struct fixture *f)
{
    struct ledger_device total;
    uint64_t letters = 0;
    fixture_adds_up(f->site.store, (int)f->site.uplink);
    assert_int_equal(store_ledger_total(f->site.store, (int)f->site.uplink, &total), 0);
    assert_int_equal(total.waiting, count_of(f, WAITS) * FIXTURE_POINTS);
    assert_int_equal(total.fates[FATE_DELIVERED], count_of(f, DELIVERED) * FIXTURE_POINTS);
    assert_int_equal(total.fates[FATE_DEAD], count_of(f, DEAD) * FIXTURE_POINTS);
    assert_int_equal(total.fates[FATE_THINNED], 0);
    assert_int_equal(store_letters(f->site.store, count_letter, &letters), 0);
    assert_int_equal(letters, count_of(f, DEAD));
}

static void append(struct fixture *f, unsigned scans)
{
    for (unsigned i = 0; i < scans; i++) {
        unsigned d = roll(f, DEVICES);
        /* Now and then a scan was lost before it came here. */
        f->seq[d] += roll(f, 50) == 0 ? 2 : 1;
        assert_true(f->seq[d] < SEQS_MAX);
        assert_int_equal(fixture_append(f->site.store, STREAM_RAW, f->site.devices[d], f->seq[d]),
                         0);
        f->now.fate[d][f->seq[d]] = WAITS;
        clock_advance_ms(300);
    }
}

static unsigned index_of(const struct fixture *f, uint32_t device)
{
    unsigned d = 0;
    while (d < DEVICES && f->site.devices[d] != device) {
        d++;
    }
    assert_true(d < DEVICES);
    return d;
}

static void settle(struct fixture *f, const struct scan *scan, bool dead)
{
    struct store_settlement s = {.stream = STREAM_RAW,
                                 .device = scan->device,
                                 .first_seq = scan->seq,
                                 .last_seq = scan->seq};
    uint8_t *fate = &f->now.fate[index_of(f, scan->device)][scan->seq];
    assert_int_equal(*fate, WAITS);
    s.fates[dead ? FATE_DEAD : FATE_DELIVERED] = scan->count;
    if (dead) {
        assert_int_equal(store_dead_letter(f->site.reader, scan, NULL, 0, "refused"), 0);
    }
    assert_int_equal(store_reader_settle(f->site.reader, &s), 0);
    *fate = dead ? DEAD : DELIVERED;
}

/* dead: one in so many, 0: none. */
static size_t take(struct fixture *f, enum store_lane lane, size_t most, unsigned dead, bool back)
{
    auto_buffer struct buffer arena = {0};
    const struct scan **scans;
    size_t count;
    assert_int_equal(
        store_reader_take(f->site.reader, lane, STREAM_RAW, most, 1 << 20, &arena, &scans, &count),
        0);
    for (size_t i = 0; i < count; i++) {
        fixture_check(scans[i]);
        if (back && roll(f, 3) == 0) {
            store_reader_return(f->site.reader, STREAM_RAW, scans[i]->device, scans[i]->seq,
                                scans[i]->seq);
        } else {
            settle(f, scans[i], dead > 0 && roll(f, dead) == 0);
        }
    }
    return count;
}

static void requeue(struct fixture *f, const char *device)
{
    const struct store_letter_filter filter = {.uplink = "cloud", .device = device};
    struct store_requeued done = {.more = true};
    commit(f); /* letters that wait for one are not looked at */
    while (done.more) {
        uint64_t before = count_of(f, DEAD);
        assert_int_equal(store_requeue(f->site.store, &filter, done.next, &done), 0);
        f->requeued += done.scans;
        f->refused += done.refused;
        for (unsigned d = 0; d < DEVICES && done.refused == 0; d++) {
            bool fits = device == NULL || device[1] == (char)('0' + d);
            for (uint64_t s = 1; fits && s <= f->seq[d]; s++) {
                f->now.fate[d][s] = f->now.fate[d][s] == DEAD ? WAITS : f->now.fate[d][s];
            }
        }
        assert_int_equal(done.refused, 0);
        assert_false(done.more);
        assert_int_equal(before - count_of(f, DEAD), done.scans);
        commit(f);
    }
}

static void hand_over(struct fixture *f)
{
    unsigned d = roll(f, DEVICES);
    if (f->committed_seq[d] == 0) {
        return;
    }
    uint64_t back = roll(f, 40), end = f->committed_seq[d];
    uint64_t first = end > back ? end - back : 1, last = first + roll(f, 30);
    last = last > f->committed_seq[d] ? f->committed_seq[d] : last;
    for (uint64_t s = first; s <= last; s++) {
        if (f->now.fate[d][s] == NONE) {
            continue; /* a seq that never came is in no run */
        }
        const struct store_handed run = {.stream = STREAM_RAW,
                                         .device = f->site.devices[d],
                                         .first_seq = s,
                                         .last_seq = s,
                                         .readings = FIXTURE_POINTS,
                                         .selected = FIXTURE_POINTS};
        struct store_handover done;
        assert_int_equal(store_hand_over(f->site.store, "cloud", &run, 1, &done), 0);
        assert_int_equal(done.scans, f->now.fate[d][s] == WAITS);
        f->handed += done.scans;
        f->now.fate[d][s] = f->now.fate[d][s] == WAITS ? DELIVERED : f->now.fate[d][s];
    }
}

static void crash(struct fixture *f)
{
    site_shut(&f->site);
    f->now = f->committed;
    memcpy(f->seq, f->committed_seq, sizeof(f->seq));
    site_open(&f->site, roll(f, 2) == 0);
}

static void step(struct fixture *f)
{
    static const char *const names[DEVICES + 1] = {"t0", "t1", "t2", NULL};
    unsigned dice = roll(f, 1000);
    if (dice < 450) {
        append(f, 1 + roll(f, 4));
    } else if (dice < 750) {
        take(f, roll(f, 2), 1 + roll(f, 40), 4, roll(f, 4) == 0);
    } else if (dice < 780) {
        requeue(f, names[roll(f, DEVICES + 1)]);
    } else if (dice < 850) {
        hand_over(f);
    } else if (dice < 858) {
        crash(f);
    } else if (dice < 866) {
        f->site.settings.keep_ms = roll(f, 2) == 0 ? 0 : 600000;
        store_set_settings(f->site.store, &f->site.settings);
    } else if (dice < 874) {
        store_reader_split(f->site.reader);
    } else if (dice < 880) {
        clock_advance_ms(1200000);
    }
    if (roll(f, 10) > 0) {
        commit(f);
    }
}

static void run_seed(struct fixture *f, uint64_t seed)
{
    f->random = seed;
    site_open(&f->site, roll(f, 2) == 0);
    for (unsigned i = 0; i < STEPS; i++) {
        step(f);
        if (i % 50 == 0) {
            commit(f);
            compare(f);
        }
    }
    requeue(f, NULL);
    compare(f);
    crash(f);
    while (take(f, STORE_LANE_BACKFILL, 500, 0, false) + take(f, STORE_LANE_LIVE, 500, 0, false) >
           0) {
    }
    commit(f);
    compare(f);
    assert_int_equal(count_of(f, WAITS) + count_of(f, DEAD), 0);
    assert_true(f->requeued > 100 && f->handed > 100);
    uint64_t blocks, bad;
    assert_int_equal(store_verify(f->site.store, &blocks, &bad), 0);
    assert_int_equal(bad, 0);
}

static void test_at_random(void **state)
{
    struct fixture *f = *state;
    for (uint64_t seed = 1; seed <= SEEDS; seed++) {
        run_seed(f, seed * 7919);
        if (seed < SEEDS) {
            site_end(&f->site);
            *f = (struct fixture){.random = 0};
            site_begin(&f->site, DEVICES);
        }
    }
}

/* -- in threads -- */

struct sender {
    struct fixture *f;
    _Atomic bool done;
    _Atomic bool mended;
    uint64_t wrong;
};

static void *run_sender(void *arg)
{
    struct sender *t = arg;
    auto_buffer struct buffer arena = {0};
    for (unsigned idle = 0; idle < 500;) {
        struct pollfd fd = {.fd = store_reader_eventfd(t->f->site.reader), .events = POLLIN};
        bool last = t->done;
        size_t got = 0;
        poll(&fd, 1, last ? 0 : 5);
        store_reader_seen(t->f->site.reader);
        struct store_backlog backlog;
        store_reader_backlog(t->f->site.reader, &backlog);
        for (unsigned lane = 0; lane < STORE_LANES; lane++) {
            const struct scan **scans;
            size_t count = 0;
            t->wrong += store_reader_take(t->f->site.reader, lane, STREAM_RAW, 30, 1 << 20, &arena,
                                          &scans, &count) < 0;
            for (size_t i = 0; i < count; i++) {
                bool dead = scans[i]->seq % 4 == 0 && !t->mended;
                struct store_settlement s = {.stream = STREAM_RAW,
                                             .device = scans[i]->device,
                                             .first_seq = scans[i]->seq,
                                             .last_seq = scans[i]->seq};
                s.fates[dead ? FATE_DEAD : FATE_DELIVERED] = scans[i]->count;
                if (dead) {
                    t->wrong += store_dead_letter(t->f->site.reader, scans[i], NULL, 0, "refused") <
                                0;
                }
                t->wrong += store_reader_settle(t->f->site.reader, &s) < 0;
            }
            got += count;
        }
        idle = last && got == 0 ? idle + 1 : 0;
    }
    return NULL;
}

/* The last committed scans of a device, which may be anywhere by now. */
static void hand_over_unknown(struct fixture *f)
{
    unsigned d = roll(f, DEVICES);
    uint64_t last = f->committed_seq[d];
    if (last < 5 || f->now.fate[d][last - 1] == NONE) {
        return;
    }
    const struct store_handed run = {.stream = STREAM_RAW,
                                     .device = f->site.devices[d],
                                     .first_seq = last - 1,
                                     .last_seq = last,
                                     .readings = FIXTURE_POINTS,
                                     .selected = FIXTURE_POINTS};
    struct store_handover done;
    assert_int_equal(store_hand_over(f->site.store, "cloud", &run, 1, &done), 0);
}

/* As of the last commit there is a letter for every dead scan, whenever the sender settled it. */
static void letters_match(struct fixture *f)
{
    struct ledger_device total;
    uint64_t letters = 0;
    assert_int_equal(store_ledger_total(f->site.store, (int)f->site.uplink, &total), 0);
    assert_int_equal(store_letters(f->site.store, count_letter, &letters), 0);
    assert_true(total.fates[FATE_DEAD] <= letters * FIXTURE_POINTS);
}

static void test_beside_a_sender(void **state)
{
    struct fixture *f = *state;
    f->random = 5;
    site_open(&f->site, roll(f, 2) == 0);
    struct sender t = {.f = f};
    const struct store_letter_filter all = {.uplink = "cloud"};
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, run_sender, &t), 0);
    for (unsigned i = 0; i < 400; i++) {
        append(f, 6);
        if (i % 3 == 1) {
            struct store_requeued done;
            assert_int_equal(store_requeue(f->site.store, &all, 0, &done), 0);
        }
        if (i % 5 == 2) {
            hand_over_unknown(f);
        }
        commit(f);
        letters_match(f);
    }
    t.mended = true;
    for (unsigned i = 0; i < 3; i++) { /* what was refused meanwhile, and is not committed yet */
        struct store_requeued done;
        commit(f);
        assert_int_equal(store_requeue(f->site.store, &all, 0, &done), 0);
        commit(f);
    }
    t.done = true;
    pthread_join(thread, NULL);
    commit(f);
    struct store_requeued done;
    assert_int_equal(store_requeue(f->site.store, &all, 0, &done), 0);
    commit(f);
    t.done = true;
    assert_int_equal(pthread_create(&thread, NULL, run_sender, &t), 0);
    pthread_join(thread, NULL);
    commit(f);
    assert_int_equal(t.wrong, 0);
    struct ledger_device total;
    fixture_adds_up(f->site.store, (int)f->site.uplink);
    assert_int_equal(store_ledger_total(f->site.store, (int)f->site.uplink, &total), 0);
    assert_int_equal(total.waiting, 0);
    assert_int_equal(total.fates[FATE_DEAD], 0);
    assert_int_equal(total.fates[FATE_DELIVERED], total.offered);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_at_random, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_beside_a_sender, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
