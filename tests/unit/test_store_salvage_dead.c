/* Dead letters and small records of a store that was set aside: each letter comes back with its
 * words, dead for the uplink that refused it and for no other, and can be sent once more; and what
 * is said where records may be missing. */
#include "gateway/store/dead.h"
#include "gateway/store/salvage_work.h"
#include "gateway/store/store_clock.h"
#include "gateway/store/wreck.h"
#include "store_site.h"

#include <fcntl.h>
#include <time.h>

enum { DEVICES = 2, SCANS = 60, STEPS_MAX = 60000, RECORDS = 9, REFUSED = 3 };
static const char folder[] = "store.damaged-2026-01-02T030405Z";
static const uint16_t refused[REFUSED] = {0, 3, 7};

struct fixture {
    struct site site;
    unsigned other; /* a second uplink, which has refused nothing */
    uint64_t dead, seq;
};

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

static void open_both(struct fixture *f)
{
    site_open(&f->site, false);
    assert_int_equal(store_add_uplink(f->site.store, "other", 1, 0, &f->other), 0);
}

static void append(struct fixture *f, unsigned scans)
{
    for (unsigned i = 0; i < scans; i++) {
        site_append(&f->site, ++f->seq);
        if (i % 5 == 4) {
            assert_int_equal(store_commit(f->site.store), 0);
        }
    }
    assert_int_equal(store_commit(f->site.store), 0);
}

/* Every scan with such a seq is refused for some of its readings, others are delivered. */
static void refuse(struct fixture *f, unsigned every)
{
    auto_buffer struct buffer arena = {0};
    const struct scan **scans;
    size_t count;
    do {
        assert_int_equal(store_reader_take(f->site.reader, STORE_LANE_BACKFILL, STREAM_RAW, 64,
                                           1 << 20, &arena, &scans, &count),
                         0);
        for (size_t i = 0; i < count; i++) {
            struct store_settlement s = {
                .device = scans[i]->device, .first_seq = scans[i]->seq, .last_seq = scans[i]->seq};
            bool bad = scans[i]->seq % every == 0;
            s.fates[bad ? FATE_DEAD : FATE_DELIVERED] = bad ? REFUSED : FIXTURE_POINTS;
            s.fates[FATE_NOT_SELECTED] = bad ? FIXTURE_POINTS - REFUSED : 0;
            f->dead += bad;
            if (bad) {
                assert_int_equal(store_dead_letter(f->site.reader, scans[i], refused, REFUSED,
                                                   "422 unit unknown"),
                                 0);
            }
            assert_int_equal(store_reader_settle(f->site.reader, &s), 0);
        }
    } while (count > 0);
    assert_int_equal(store_commit(f->site.store), 0);
}

static void set_records(struct store *store)
{
    for (uint64_t i = 1; i <= RECORDS + 1; i++) {
        assert_int_equal(store_set_record(store, i, "what was done", 10 + i % 3), 0);
    }
    assert_int_equal(store_commit(store), 0);
    assert_int_equal(store_set_record(store, RECORDS + 1, NULL, 0), 0);
    assert_int_equal(store_set_record(store, 3, "again", 5), 0);
    assert_int_equal(store_commit(store), 0);
}

static void set_aside(struct fixture *f)
{
    char from[300], to[300];
    site_shut(&f->site);
    snprintf(from, sizeof(from), "%s/store", f->site.dir);
    snprintf(to, sizeof(to), "%s/%s", f->site.dir, folder);
    assert_int_equal(rename(from, to), 0);
}

static void write_old(struct fixture *f, off_t at, const void *bytes, size_t len)
{
    char path[300];
    snprintf(path, sizeof(path), "%s/%s/data.mdb", f->site.dir, folder);
    auto_close int fd = open(path, O_RDWR | O_CLOEXEC);
    assert_int_equal(pwrite(fd, bytes, len, at), len);
}

static void no_beat(void *user)
{
    (void)user;
}

/* The values of all entries of that kind are overwritten, also those on pages that are free. */
static void ruin(struct fixture *f, enum wreck_kind kind)
{
    char path[300];
    struct wreck *wreck;
    unsigned ruined = 0;
    auto_buffer struct buffer value = {.max = WRECK_VALUE_MAX + 1}, page = {0};
    uint8_t *bytes = buffer_reserve(&page, 4096);
    snprintf(path, sizeof(path), "%s/%s/data.mdb", f->site.dir, folder);
    assert_int_equal(wreck_open(path, no_beat, NULL, &wreck), 0);
    assert_int_equal(wreck_add_orphans(wreck), 0);
    auto_close int fd = open(path, O_RDWR | O_CLOEXEC);
    struct stat st;
    assert_int_equal(fstat(fd, &st), 0);
    for (size_t i = 0; i < wreck_count(wreck); i++) {
        if (wreck_kind(wreck_at(wreck, i)) != kind) {
            continue;
        }
        assert_int_equal(wreck_read(wreck, wreck_at(wreck, i), &value), 0);
        for (off_t at = 0; at < st.st_size; at += 4096) {
            assert_int_equal(pread(fd, bytes, 4096, at), 4096);
            uint8_t *found = memmem(bytes, 4096, value.data, value.len < 60 ? value.len : 60);
            if (found != NULL) {
                memset(found, 0xa5, 12);
                assert_int_equal(pwrite(fd, bytes, 4096, at), 4096);
                ruined++;
            }
        }
    }
    assert_true(ruined > 0);
    wreck_close(wreck);
}

static void salvage_all(struct store *store)
{
    assert_int_equal(store_salvage_start(store, NULL), 0);
    for (unsigned i = 0; store_salvage_busy(store); i++) {
        assert_in_range(i, 0, STEPS_MAX);
        assert_true(store_salvage_step(store) >= 0);
        assert_int_equal(store_commit(store), 0);
        struct timespec pause = {.tv_nsec = 1000000};
        nanosleep(&pause, NULL);
    }
}

struct seen {
    uint64_t letters, scans;
    int64_t before_ms;
};

/* The time says which scan it was. */
static uint64_t old_seq(const struct scan *scan)
{
    return (uint64_t)(scan->time_ms - SITE_START_MS) / 1000 + 1;
}

static void check_values(const struct scan *scan)
{
    for (unsigned p = 0; p < scan->count; p++) {
        assert_int_equal(scan->readings[p].integer,
                         fixture_value(STREAM_RAW, scan->device, old_seq(scan), p));
    }
}

static int see_letter(void *user, const struct store_letter *letter)
{
    struct seen *seen = user;
    assert_string_equal(letter->uplink, "cloud");
    assert_string_equal(letter->why, "422 unit unknown");
    assert_int_equal(letter->refused_count, REFUSED);
    for (unsigned i = 0; i < REFUSED; i++) {
        assert_int_equal(letter->scan->readings[letter->refused[i]].point, refused[i]);
    }
    assert_in_range(letter->refused_ms, SITE_START_MS, seen->before_ms);
    check_values(letter->scan);
    seen->letters++;
    return 0;
}

static int see_scan(void *user, const struct scan *scan)
{
    check_values(scan);
    ((struct seen *)user)->scans++;
    return 0;
}

static struct seen look(struct fixture *f)
{
    struct seen seen = {.before_ms = clock_wall_ms()};
    assert_int_equal(store_letters(f->site.store, see_letter, &seen), 0);
    assert_int_equal(
        store_history(f->site.store, STREAM_RAW, 0, INT64_MIN, INT64_MAX, see_scan, &seen), 0);
    return seen;
}

/* A store with letters and scans that wait, set aside as it was. */
static void make_old(struct fixture *f, bool with_other)
{
    f->site.settings.keep_ms = 86400000;
    if (with_other) {
        open_both(f);
    } else {
        site_open(&f->site, false);
    }
    append(f, SCANS);
    refuse(f, 4);
    set_records(f->site.store);
    append(f, 10);
    set_aside(f);
}

static void requeue_all(struct fixture *f)
{
    const struct store_letter_filter all = {.uplink = "cloud"};
    struct store_requeued done;
    assert_int_equal(store_requeue(f->site.store, &all, 0, &done), 0);
    assert_int_equal(store_commit(f->site.store), 0);
    assert_int_equal(done.scans, f->dead);
    assert_int_equal(look(f).letters, 0);
    struct ledger_device total = site_total(&f->site);
    assert_int_equal(total.fates[FATE_DEAD], 0);
    assert_int_equal(total.waiting, (f->dead + 10 * DEVICES) * FIXTURE_POINTS);
}

static void test_letters_are_dead_again(void **state)
{
    struct fixture *f = *state;
    make_old(f, true);
    open_both(f);
    salvage_all(f->site.store);
    struct seen seen = look(f);
    assert_int_equal(seen.letters, f->dead);
    /* All of them for the other uplink, each once. */
    assert_int_equal(seen.scans, (SCANS + 10) * DEVICES);
    struct ledger_device total = site_total(&f->site);
    assert_int_equal(total.fates[FATE_DEAD], f->dead * REFUSED);
    assert_int_equal(total.waiting, 10 * DEVICES * FIXTURE_POINTS);
    assert_int_equal(total.counts[LEDGER_SALVAGED], seen.scans * FIXTURE_POINTS);
    assert_int_equal(total.counts[LEDGER_LOST], 0);
    fixture_adds_up(f->site.store, (int)f->other);
    assert_int_equal(store_ledger_total(f->site.store, (int)f->other, &total), 0);
    assert_int_equal(total.waiting, (SCANS + 10) * DEVICES * FIXTURE_POINTS);
    struct store_salvage salvage;
    store_salvage(f->site.store, &salvage);
    assert_int_equal(salvage.letters, f->dead);
    site_shut(&f->site);
    open_both(f);
    salvage_all(f->site.store);
    assert_int_equal(look(f).letters, f->dead);
    requeue_all(f);
}

/* Nobody waits for their scans, and the blocks have gone: the letters alone have them. */
static void test_only_the_letters_are_left(void **state)
{
    struct fixture *f = *state;
    site_open(&f->site, false);
    append(f, SCANS);
    refuse(f, 4);
    for (unsigned i = 0; i < 40; i++) { /* nothing is kept: the log goes */
        append(f, 5);
        refuse(f, 100000);
    }
    append(f, 10);
    set_aside(f);
    site_open(&f->site, false);
    salvage_all(f->site.store);
    struct seen seen = look(f);
    assert_int_equal(seen.letters, f->dead);
    assert_int_equal(seen.scans, f->dead + 10 * DEVICES);
    assert_int_equal(site_total(&f->site).fates[FATE_DEAD], f->dead * REFUSED);
    requeue_all(f);
    assert_int_equal(fixture_drain(f->site.reader, STORE_LANE_BACKFILL, STREAM_AGGREGATE), 0);
}

/* Nobody can say what was delivered: what is in a block waits again instead of being dead. */
static void test_without_its_state(void **state)
{
    struct fixture *f = *state;
    make_old(f, false);
    ruin(f, WRECK_STATE);
    site_open(&f->site, false);
    salvage_all(f->site.store);
    struct seen seen = look(f);
    assert_int_equal(seen.letters, 0);
    assert_int_equal(seen.scans, (SCANS + 10) * DEVICES);
    struct ledger_device total = site_total(&f->site);
    assert_int_equal(total.waiting, seen.scans * FIXTURE_POINTS);
    assert_int_equal(total.fates[FATE_DEAD], 0);
    assert_true(store_salvage_doubt_ms(f->site.store) == SALVAGE_DOUBT_UNDATED);
}

/* The same where the blocks cannot be read: the letters stand. */
static void test_without_state_and_blocks(void **state)
{
    struct fixture *f = *state;
    make_old(f, false);
    ruin(f, WRECK_LOG);
    ruin(f, WRECK_STATE);
    site_open(&f->site, false);
    salvage_all(f->site.store);
    struct seen seen = look(f);
    assert_int_equal(seen.letters, f->dead);
    assert_int_equal(site_total(&f->site).fates[FATE_DEAD], f->dead * REFUSED);
}

static void test_letters_that_do_not_read(void **state)
{
    struct fixture *f = *state;
    make_old(f, false);
    ruin(f, WRECK_LETTER);
    site_open(&f->site, false);
    salvage_all(f->site.store);
    struct seen seen = look(f);
    assert_in_range(seen.letters, 0, f->dead - 1);
    assert_int_equal(seen.scans, seen.letters + 10 * DEVICES);
    assert_int_equal(site_total(&f->site).fates[FATE_DEAD], seen.letters * REFUSED);
    struct store_salvage salvage;
    store_salvage(f->site.store, &salvage);
    assert_int_equal(salvage.state, SALVAGE_DONE);
}

static uint64_t records(struct store *store)
{
    auto_buffer struct buffer bytes = {0};
    uint64_t count = 0, number = 0;
    while (store_copy_record(store, number + 1, &number, &bytes) == 0) {
        assert_true(bytes.len == (number == 3 ? 5 : 10 + number % 3));
        count++;
    }
    return count;
}

static void vouch(struct store *store, bool vouched)
{
    int64_t moved_ms;
    const struct anchors_look look = {.vouched = vouched,
                                      .offset_ms = clock_wall_ms() - clock_boot_ms(),
                                      .boot_ms = clock_boot_ms(),
                                      .boot = {1}};
    assert_int_equal(store_clock_mind(store, &look, 86400000, &moved_ms), 0);
}

static void test_records_of_a_sound_tree_are_all(void **state)
{
    struct fixture *f = *state;
    make_old(f, false);
    site_open(&f->site, false);
    assert_true(store_salvage_doubt_ms(f->site.store) == SALVAGE_DOUBT_NEW);
    salvage_all(f->site.store);
    assert_int_equal(records(f->site.store), RECORDS);
    assert_true(store_salvage_doubt_ms(f->site.store) == 0);
    site_shut(&f->site);
    site_open(&f->site, false);
    assert_true(store_salvage_doubt_ms(f->site.store) == 0);
}

/* With one meta page the other may be the older one: what came after it is in doubt, from when the
 * clock is right on, and that is kept. */
static void test_records_may_be_missing(void **state)
{
    struct fixture *f = *state;
    static const uint8_t zeros[4096];
    make_old(f, false);
    write_old(f, 0, zeros, sizeof(zeros));
    site_open(&f->site, false);
    vouch(f->site.store, false);
    salvage_all(f->site.store);
    assert_true(records(f->site.store) > 0);
    assert_true(store_salvage_doubt_ms(f->site.store) == SALVAGE_DOUBT_UNDATED);
    site_shut(&f->site);
    site_open(&f->site, false);
    assert_true(store_salvage_doubt_ms(f->site.store) == SALVAGE_DOUBT_UNDATED);
    clock_advance_ms(5000);
    vouch(f->site.store, true);
    store_count(f->site.store, f->site.devices[0], LEDGER_DERIVED, 0);
    assert_int_equal(store_commit(f->site.store), 0);
    int64_t doubt_ms = store_salvage_doubt_ms(f->site.store);
    assert_true(doubt_ms == clock_wall_ms());
    site_shut(&f->site);
    clock_advance_ms(5000);
    site_open(&f->site, false);
    vouch(f->site.store, true);
    assert_true(store_salvage_doubt_ms(f->site.store) == doubt_ms);
}

static int take_none(void *user, const void *bytes, size_t len)
{
    (void)bytes, (void)len;
    unsigned *times = user;
    return ++*times < 3 ? -EAGAIN : -EBADMSG;
}

static void test_records_that_nobody_takes_are_missing(void **state)
{
    struct fixture *f = *state;
    unsigned times = 0;
    const struct salvage_takers takers = {.record = take_none, .record_user = &times};
    make_old(f, false);
    site_open(&f->site, false);
    assert_int_equal(store_salvage_start(f->site.store, &takers), 0);
    salvage_all(f->site.store);
    assert_int_equal(times, RECORDS + 2);
    assert_int_equal(records(f->site.store), 0);
    assert_true(store_salvage_doubt_ms(f->site.store) == SALVAGE_DOUBT_UNDATED);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_letters_are_dead_again, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_only_the_letters_are_left, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_without_its_state, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_without_state_and_blocks, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_letters_that_do_not_read, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_records_of_a_sound_tree_are_all, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_records_may_be_missing, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_records_that_nobody_takes_are_missing, set_up,
                                        tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
