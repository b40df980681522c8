/* Dead letters: listed with what was refused and why, and put back to wait wherever their scans lie
 * by then: in the log, in a large block, between the scans of one, or nowhere any more. */
#include "gateway/store/dead.h"
#include "gateway/store/internal.h"
#include "gateway/store/large.h"
#include "store_site.h"

enum { DEVICES = 2, SCANS = 40 };

struct fixture {
    struct site site;
    uint64_t seq;
};

static int set_up(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));
    site_begin(&f->site, DEVICES);
    site_open(&f->site, true);
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

static void append(struct fixture *f, unsigned scans)
{
    for (unsigned i = 0; i < scans; i++) {
        f->seq++;
        for (unsigned d = 0; d < DEVICES; d++) {
            assert_int_equal(fixture_append(f->site.store, STREAM_RAW, f->site.devices[d], f->seq),
                             0);
        }
        clock_advance_ms(1000);
    }
    assert_int_equal(store_commit(f->site.store), 0);
}

static bool is_bad(const struct scan *scan, unsigned every)
{
    return every > 0 && scan->seq % every == 0;
}

/* Everything that waits: delivered, but each `every`-th scan is refused for three of its readings.
 * Returns the refused scans. */
static unsigned deliver(struct fixture *f, unsigned every)
{
    static const uint16_t refused[] = {0, 3, 7};
    auto_buffer struct buffer arena = {0};
    unsigned dead = 0;
    for (unsigned lane = 0; lane < STORE_LANES; lane++) {
        for (;;) {
            const struct scan **scans;
            size_t count;
            assert_int_equal(store_reader_take(f->site.reader, lane, STREAM_RAW, 64, 1 << 20,
                                               &arena, &scans, &count),
                             0);
            for (size_t i = 0; i < count; i++) {
                fixture_check(scans[i]);
                bool bad = is_bad(scans[i], every);
                struct store_settlement s = {.stream = STREAM_RAW,
                                             .device = scans[i]->device,
                                             .first_seq = scans[i]->seq,
                                             .last_seq = scans[i]->seq};
                s.fates[bad ? FATE_DEAD : FATE_DELIVERED] = bad ? 3 : scans[i]->count;
                s.fates[FATE_NOT_SELECTED] = bad ? scans[i]->count - 3u : 0;
                if (bad) {
                    assert_int_equal(
                        store_dead_letter(f->site.reader, scans[i], refused, 3, "422 Unit unknown"),
                        0);
                }
                assert_int_equal(store_reader_settle(f->site.reader, &s), 0);
                dead += bad;
            }
            if (count == 0) {
                break;
            }
        }
    }
    assert_int_equal(store_commit(f->site.store), 0);
    return dead;
}

static int count_letter(void *user, const struct store_letter *letter)
{
    unsigned *count = user;
    assert_string_equal(letter->uplink, "cloud");
    assert_string_equal(letter->why, "422 Unit unknown");
    assert_int_equal(letter->refused_count, 3);
    assert_int_equal(letter->scan->readings[letter->refused[1]].point, 3);
    assert_true(letter->refused_ms >= 1769855400000);
    fixture_check(letter->scan);
    ++*count;
    return 0;
}

static unsigned letters(struct fixture *f)
{
    unsigned count = 0;
    assert_int_equal(store_letters(f->site.store, count_letter, &count), 0);
    return count;
}

static const struct store_letter_filter all = {.uplink = "cloud"};

/* All that fit; returns the scans that wait again. */
static unsigned requeue(struct fixture *f, const struct store_letter_filter *filter)
{
    struct store_requeued done = {.more = true};
    unsigned scans = 0;
    while (done.more) {
        assert_int_equal(store_requeue(f->site.store, filter, done.next, &done), 0);
        assert_int_equal(done.refused, 0);
        assert_int_equal(store_commit(f->site.store), 0);
        scans += (unsigned)done.scans;
    }
    return scans;
}

/* So many commits of other scans that what was settled has left the log. */
static void age(struct fixture *f)
{
    for (unsigned i = 0; i < 40; i++) {
        append(f, 1);
        deliver(f, 0);
        clock_advance_ms(60000);
    }
}

/* Refused scans wait again, come once, and are delivered; the ledger adds up at each step. */
static void comes_back(struct fixture *f, unsigned dead)
{
    struct ledger_device before = site_total(&f->site);
    assert_int_equal(letters(f), dead);
    assert_int_equal(requeue(f, &all), dead);
    struct ledger_device after = site_total(&f->site);
    assert_int_equal(letters(f), 0);
    assert_int_equal(before.fates[FATE_DEAD] - after.fates[FATE_DEAD], dead * 3);
    assert_int_equal(after.waiting - before.waiting, dead * FIXTURE_POINTS);
    assert_int_equal(deliver(f, 0), 0);
    struct ledger_device end = site_total(&f->site);
    assert_int_equal(end.waiting, before.waiting);
    assert_int_equal(end.fates[FATE_DEAD], after.fates[FATE_DEAD]);
    assert_int_equal(end.fates[FATE_THINNED], before.fates[FATE_THINNED]);
    assert_int_equal(end.fates[FATE_DELIVERED], before.fates[FATE_DELIVERED] + dead * 20);
}

static void test_from_the_log(void **state)
{
    struct fixture *f = *state;
    append(f, SCANS);
    comes_back(f, deliver(f, 7));
}

static void test_from_the_log_while_others_wait_there(void **state)
{
    struct fixture *f = *state;
    append(f, SCANS);
    unsigned dead = deliver(f, 7);
    append(f, SCANS);
    assert_int_equal(requeue(f, &all), dead);
    assert_int_equal(site_total(&f->site).waiting, (dead + DEVICES * SCANS) * FIXTURE_POINTS);
    deliver(f, 0);
    assert_int_equal(site_total(&f->site).waiting, 0);
}

static void test_after_the_log_has_gone(void **state)
{
    struct fixture *f = *state;
    append(f, SCANS);
    unsigned dead = deliver(f, 7);
    age(f);
    assert_true(f->site.store->state.tail >
                1); /* the block of the log is gone, and none came of it */
    assert_int_equal(f->site.store->state.devices[0].flushed[STREAM_RAW], 0);
    comes_back(f, dead);
}

static void test_after_the_log_has_gone_and_a_restart(void **state)
{
    struct fixture *f = *state;
    append(f, SCANS);
    unsigned dead = deliver(f, 3);
    age(f);
    site_shut(&f->site);
    site_open(&f->site, false);
    assert_int_equal(requeue(f, &all), dead);
    site_shut(&f->site); /* a crash behind the commit: they wait in the store, not in memory */
    site_open(&f->site, false);
    assert_int_equal(letters(f), 0);
    assert_int_equal(site_total(&f->site).waiting, dead * FIXTURE_POINTS);
    deliver(f, 0);
    assert_int_equal(site_total(&f->site).waiting, 0);
    age(f);
    assert_int_equal(site_total(&f->site).fates[FATE_THINNED], 0);
}

static void test_without_a_commit_nothing_has_happened(void **state)
{
    struct fixture *f = *state;
    append(f, SCANS);
    unsigned dead = deliver(f, 7);
    struct store_requeued done;
    assert_int_equal(store_requeue(f->site.store, &all, 0, &done), 0);
    assert_int_equal(done.scans, dead);
    assert_int_equal(store_requeue(f->site.store, &all, 0, &done), -EBUSY);
    site_shut(&f->site);
    site_open(&f->site, true);
    assert_int_equal(site_total(&f->site).waiting, 0);
    comes_back(f, dead);
}

static void test_kept_in_large_blocks(void **state)
{
    struct fixture *f = *state;
    f->site.settings.keep_ms = 86400000;
    store_set_settings(f->site.store, &f->site.settings);
    append(f, SCANS);
    unsigned dead = deliver(f, 7);
    for (unsigned i = 0; i < FLUSH_BLOCKS * 2 + 100; i++) {
        append(f, 1);
    }
    assert_true(f->site.store->state.devices[0].flushed[STREAM_RAW] > SCANS);
    deliver(f, 0);
    comes_back(f, dead);
}

/* Refuses each fifth scan of every device and leaves the others in flight. */
static unsigned refuse_some(struct fixture *f)
{
    static const uint16_t refused[] = {0, 3, 7};
    auto_buffer struct buffer arena = {0};
    const struct scan **scans;
    size_t count;
    unsigned dead = 0;
    for (unsigned d = 0; d < DEVICES; d++) {
        assert_int_equal(store_reader_take(f->site.reader, STORE_LANE_LIVE, STREAM_RAW, SCANS,
                                           1 << 20, &arena, &scans, &count),
                         0);
        assert_int_equal(count, SCANS);
        for (size_t i = 2; i < count; i += 5, dead++) {
            struct store_settlement s = {
                .device = scans[i]->device, .first_seq = scans[i]->seq, .last_seq = scans[i]->seq};
            s.fates[FATE_DEAD] = 3;
            s.fates[FATE_NOT_SELECTED] = FIXTURE_POINTS - 3;
            assert_int_equal(
                store_dead_letter(f->site.reader, scans[i], refused, 3, "422 Unit unknown"), 0);
            assert_int_equal(store_reader_settle(f->site.reader, &s), 0);
        }
    }
    assert_int_equal(store_commit(f->site.store), 0);
    return dead;
}

static struct large block_of(struct fixture *f, uint64_t seq)
{
    struct large large;
    auto_buffer struct buffer value = {0};
    assert_int_equal(
        large_copy(f->site.store->env, STREAM_RAW, f->site.devices[0], seq, &large, &value), 0);
    assert_true(large.first_seq <= seq && large.last_seq >= seq);
    return large;
}

/* Only what waited is in the block that spans them: it is written again. */
static void test_between_the_scans_of_a_block(void **state)
{
    struct fixture *f = *state;
    append(f, SCANS);
    unsigned dead = refuse_some(f);
    site_shut(&f->site); /* the others wait */
    site_open(&f->site, true);
    for (unsigned i = 0; i < FLUSH_BLOCKS * 2 + 100; i++) {
        append(f, 1);
    }
    struct large before = block_of(f, 3);
    uint64_t waiting = site_total(&f->site).waiting;
    assert_int_equal(requeue(f, &all), dead);
    assert_int_equal(site_total(&f->site).waiting, waiting + dead * FIXTURE_POINTS);
    struct large after = block_of(f, 3);
    assert_int_equal(after.scans, before.scans + SCANS / 5);
    assert_int_equal(after.first_seq, before.first_seq);
    uint64_t blocks, bad;
    assert_int_equal(store_verify(f->site.store, &blocks, &bad), 0);
    assert_int_equal(bad, 0);
    site_shut(&f->site);
    site_open(&f->site, true);
    deliver(f, 0);
    assert_int_equal(site_total(&f->site).waiting, 0);
    assert_int_equal(site_total(&f->site).fates[FATE_DELIVERED], f->seq * DEVICES * FIXTURE_POINTS);
}

/* A block that is full already becomes two. */
static void test_a_block_becomes_two(void **state)
{
    struct fixture *f = *state;
    enum { MANY = 2200 }; /* 528 bytes of memory each */
    append(f, MANY);
    auto_buffer struct buffer arena = {0};
    const struct scan **scans;
    size_t count;
    unsigned dead = 0;
    for (size_t all_of = 0; all_of < MANY * DEVICES; all_of += count) {
        assert_int_equal(store_reader_take(f->site.reader, STORE_LANE_LIVE, STREAM_RAW, 100,
                                           1 << 20, &arena, &scans, &count),
                         0);
        if (count == 0) {
            break;
        }
        for (size_t i = 0; i < count; i++) {
            if (scans[i]->device != f->site.devices[0] || scans[i]->seq % 2 == 0) {
                continue;
            }
            struct store_settlement s = {
                .device = scans[i]->device, .first_seq = scans[i]->seq, .last_seq = scans[i]->seq};
            s.fates[FATE_DEAD] = scans[i]->count;
            assert_int_equal(store_dead_letter(f->site.reader, scans[i], NULL, 0, "no"), 0);
            assert_int_equal(store_reader_settle(f->site.reader, &s), 0);
            dead++;
        }
        store_reader_return(f->site.reader, STREAM_RAW, f->site.devices[0], 1, MANY);
        store_reader_return(f->site.reader, STREAM_RAW, f->site.devices[1], 1, MANY);
        assert_int_equal(store_commit(f->site.store), 0);
        if (dead >= MANY / 2) {
            break;
        }
    }
    site_shut(&f->site);
    site_open(&f->site, true);
    for (unsigned i = 0; i < FLUSH_BLOCKS * 2 + 100; i++) {
        append(f, 1);
    }
    assert_true(block_of(f, 10).memory > LARGE_MEMORY_MAX / 2);
    assert_int_equal(requeue(f, &all), dead);
    assert_true(block_of(f, 10).memory <= LARGE_MEMORY_MAX);
    site_shut(&f->site);
    site_open(&f->site, false);
    deliver(f, 0);
    assert_int_equal(site_total(&f->site).waiting, 0);
    assert_int_equal(site_total(&f->site).fates[FATE_DELIVERED], f->seq * DEVICES * FIXTURE_POINTS);
}

static void test_filters(void **state)
{
    struct fixture *f = *state;
    append(f, SCANS);
    unsigned dead = deliver(f, 10);
    assert_int_equal(dead, SCANS / 10 * DEVICES);
    const struct store_letter_filter other = {.uplink = "cloud", .reason = "401"};
    const struct store_letter_filter one = {
        .uplink = "cloud", .device = "t1", .reason = "unit UNKNOWN"};
    const struct store_letter_filter nobody = {.uplink = "nobody"};
    struct store_requeued done;
    assert_int_equal(requeue(f, &other), 0);
    assert_int_equal(requeue(f, &one), dead / 2);
    assert_int_equal(letters(f), dead / 2);
    assert_int_equal(store_requeue(f->site.store, &nobody, 0, &done), -ENOENT);
    assert_int_equal(site_total(&f->site).waiting, dead / 2 * FIXTURE_POINTS);
}

/* More than one commit takes, dead again and again. */
static void test_many_and_again(void **state)
{
    struct fixture *f = *state;
    append(f, STORE_REQUEUE_MAX / 2 + 300);
    unsigned dead = deliver(f, 1);
    assert_true(dead > STORE_REQUEUE_MAX);
    assert_int_equal(requeue(f, &all), dead);
    assert_int_equal(deliver(f, 1), dead);
    comes_back(f, dead);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_from_the_log, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_from_the_log_while_others_wait_there, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(test_after_the_log_has_gone, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_after_the_log_has_gone_and_a_restart, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(test_without_a_commit_nothing_has_happened, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(test_kept_in_large_blocks, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_between_the_scans_of_a_block, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_a_block_becomes_two, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_filters, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_many_and_again, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
