/* What comes back of a store that was set aside: exactly what had not been delivered, with its
 * times and names, once, whatever is killed or damaged on the way. */
#include "gateway/store/salvage_work.h"
#include "gateway/store/wreck.h"
#include "store_drain.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>

enum { DEVICES = 3, SEQS = 600, SEQS_MAX = 4000, STEPS_MAX = 60000 };
static const int64_t base_ms = 1767225600000; /* 2026-01-01 */
static const char folder[] = "store.damaged-2026-01-02T030405Z";

struct seen {
    uint8_t times[STREAM_COUNT][DEVICES][SEQS_MAX];
    uint64_t scans, readings;
    struct store *store;
};

/* Its time says which scan it is. */
static struct scan *make_scan(enum stream stream, unsigned d, uint32_t id, uint64_t seq)
{
    struct scan *scan = fixture_scan(stream, d + 1, seq, FIXTURE_POINTS);
    scan->device = id;
    scan->time_ms = base_ms + (int64_t)seq * 1000;
    return scan;
}

static void append(struct store *store, enum stream stream, unsigned d, uint32_t id, uint64_t seq)
{
    auto_free struct scan *scan = make_scan(stream, d, id, seq);
    assert_int_equal(store_append(store, scan), 0);
    store_count(store, id, LEDGER_READ, stream == STREAM_RAW ? scan->count : 0);
}

static int see(void *user, const struct scan *scan)
{
    struct seen *seen = user;
    const struct store_names *names = store_names(seen->store, scan->device);
    uint64_t seq = (uint64_t)(scan->time_ms - base_ms) / 1000;
    if (scan->time_ms > base_ms + (int64_t)SEQS_MAX * 1000) {
        return 0; /* read by the new store itself */
    }
    unsigned d = (unsigned)(names->device[1] - '0');
    assert_in_range(d, 0, DEVICES - 1);
    assert_in_range(seq, 1, SEQS_MAX - 1);
    assert_int_equal(scan->count, FIXTURE_POINTS);
    for (unsigned p = 0; p < scan->count; p++) {
        const struct reading *reading = &scan->readings[p];
        unsigned point = (unsigned)strtoul(names->points[reading->point].name + 1, NULL, 10);
        assert_int_equal(reading->integer,
                         fixture_value((enum stream)scan->stream, d + 1, seq, point));
        assert_int_equal(reading->exponent, -2);
        assert_string_equal(names->points[reading->point].unit, "m/s");
    }
    seen->times[scan->stream][d][seq]++;
    seen->scans++;
    seen->readings += scan->count;
    return 0;
}

static void look(struct store *store, struct seen *seen)
{
    *seen = (struct seen){.store = store};
    for (unsigned s = 0; s < STREAM_COUNT; s++) {
        assert_int_equal(store_history(store, (enum stream)s, 0, INT64_MIN, INT64_MAX, see, seen),
                         0);
    }
    for (unsigned s = 0; s < STREAM_COUNT; s++) {
        for (unsigned d = 0; d < DEVICES; d++) {
            for (unsigned q = 0; q < SEQS_MAX; q++) {
                assert_in_range(seen->times[s][d][q], 0, 1);
            }
        }
    }
}

static void deliver(struct store *store, unsigned uplink, size_t scans)
{
    auto_buffer struct buffer arena = {0};
    struct store_reader *reader;
    assert_int_equal(store_reader_create(store, uplink, false, &reader), 0);
    while (scans > 0) {
        const struct scan **list;
        size_t count, most = scans < 50 ? scans : 50;
        assert_int_equal(store_reader_take(reader, STORE_LANE_BACKFILL, STREAM_RAW, most, 1 << 20,
                                           &arena, &list, &count),
                         0);
        assert_true(count > 0);
        assert_int_equal(fixture_settle(reader, list, count, FATE_DELIVERED), 0);
        scans -= count;
    }
    assert_int_equal(store_commit(store), 0);
    store_reader_destroy(reader);
}

static const struct store_settings keeping = {.commit_interval_ms = 1000,
                                              .max_size_bytes = 64 << 20,
                                              .keep_ms = 7 * 86400000ll,
                                              .when_full = STORE_FULL_DROP_OLDEST};

/* So small that what is in the log passes into large blocks early. */
static const struct store_settings small = {.commit_interval_ms = 1000,
                                            .max_size_bytes = 1 << 19,
                                            .keep_ms = 7 * 86400000ll,
                                            .when_full = STORE_FULL_DROP_OLDEST};

/* A store with two uplinks, closed: `cloud` has `delivered` of the raw scans, `local` has none. */
static void make_old(const char *dir, uint64_t seqs, size_t delivered, unsigned a_commit)
{
    struct store *store = fixture_open(dir, a_commit == 1 ? &small : &keeping);
    unsigned cloud, local;
    uint32_t ids[DEVICES];
    assert_int_equal(store_add_uplink(store, "cloud", 7, 0, &cloud), 0);
    assert_int_equal(store_add_uplink(store, "local", 1u << STREAM_AGGREGATE, 0, &local), 0);
    for (unsigned d = 0; d < DEVICES; d++) {
        char name[8];
        snprintf(name, sizeof(name), "t%u", d);
        ids[d] = fixture_device(store, name, FIXTURE_POINTS);
    }
    for (uint64_t seq = 1; seq <= seqs; seq++) {
        for (unsigned d = 0; d < DEVICES; d++) {
            append(store, STREAM_RAW, d, ids[d], seq);
            if (seq % 10 == 0) {
                append(store, STREAM_AGGREGATE, d, ids[d], seq);
            }
        }
        if (seq % a_commit == 0) {
            assert_int_equal(store_commit(store), 0);
        }
    }
    assert_int_equal(store_commit(store), 0);
    deliver(store, cloud, delivered);
    assert_true(a_commit != 1 || store->state.devices[0].flushed[STREAM_RAW] > 0);
    store_close(store);
}

static void set_aside(const char *dir)
{
    char from[300], to[300];
    snprintf(from, sizeof(from), "%s/store", dir);
    snprintf(to, sizeof(to), "%s/%s", dir, folder);
    assert_int_equal(rename(from, to), 0);
}

/* The devices come in another order than in the old store, with points of their own. */
static struct store *open_new(const char *dir, unsigned *cloud, unsigned *local)
{
    struct store *store = fixture_open(dir, &fixture_settings);
    uint32_t device;
    uint16_t point;
    assert_int_equal(store_add_uplink(store, "local", 1u << STREAM_AGGREGATE, 0, local), 0);
    assert_int_equal(store_add_uplink(store, "cloud", 7, 0, cloud), 0);
    assert_int_equal(store_device(store, "t2", "{}", &device), 0);
    assert_int_equal(store_point(store, device, "p7", "m/s", &point), 0);
    return store;
}

/* Until there is nothing more to do. */
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

static struct ledger_device total_of(struct store *store, int uplink)
{
    struct ledger_device total;
    assert_int_equal(store_ledger_total(store, uplink, &total), 0);
    fixture_adds_up(store, uplink);
    return total;
}

enum { AGGREGATES = DEVICES * SEQS / 10, ALL = DEVICES * SEQS };

static void test_what_was_not_delivered_comes_back(void **state)
{
    (void)state;
    enum { DELIVERED = 700 };
    char *dir = fixture_dir();
    unsigned cloud, local;
    make_old(dir, SEQS, DELIVERED, 5);
    set_aside(dir);
    struct store *store = open_new(dir, &cloud, &local);
    salvage_all(store);
    struct seen *seen = calloc(1, sizeof(*seen));
    look(store, seen);
    assert_int_equal(seen->scans, ALL - DELIVERED + AGGREGATES);
    struct ledger_device total = total_of(store, (int)cloud);
    assert_int_equal(total.waiting, seen->readings);
    assert_int_equal(total.counts[LEDGER_SALVAGED], seen->readings);
    assert_int_equal(total.counts[LEDGER_STORED], (ALL - DELIVERED) * FIXTURE_POINTS);
    assert_int_equal(total.counts[LEDGER_LOST], 0);
    assert_int_equal(total_of(store, (int)local).waiting, AGGREGATES * FIXTURE_POINTS);
    struct store_salvage salvage;
    store_salvage(store, &salvage);
    assert_int_equal(salvage.state, SALVAGE_DONE);
    assert_int_equal(salvage.readings, seen->readings);
    assert_int_equal(salvage.bad, 0);
    assert_string_equal(salvage.from, folder);
    store_close(store);
    /* Not a second time, neither in this store nor in the next one. */
    store = open_new(dir, &cloud, &local);
    assert_int_equal(store_salvage_start(store, NULL), 0);
    assert_false(store_salvage_busy(store));
    store_close(store);
    char path[300];
    snprintf(path, sizeof(path), "%s/%s/salvaged", dir, folder);
    assert_int_equal(access(path, F_OK), 0);
    free(seen);
    fixture_remove(dir);
}

/* An uplink that has a scan does not get it again because another one has not. */
static void test_each_uplink_gets_what_it_lacks(void **state)
{
    (void)state;
    char *dir = fixture_dir();
    struct store *store = fixture_open(dir, &keeping);
    unsigned a, b;
    uint32_t id = 0;
    assert_int_equal(store_add_uplink(store, "a", 1, 0, &a), 0);
    assert_int_equal(store_add_uplink(store, "b", 1, 0, &b), 0);
    id = fixture_device(store, "t0", FIXTURE_POINTS);
    for (uint64_t seq = 1; seq <= 100; seq++) {
        append(store, STREAM_RAW, 0, id, seq);
    }
    assert_int_equal(store_commit(store), 0);
    deliver(store, a, 60);
    deliver(store, b, 20);
    store_close(store);
    set_aside(dir);
    store = fixture_open(dir, &fixture_settings);
    assert_int_equal(store_add_uplink(store, "b", 1, 0, &b), 0);
    assert_int_equal(store_add_uplink(store, "a", 1, 0, &a), 0);
    salvage_all(store);
    assert_int_equal(total_of(store, (int)a).waiting, 40 * FIXTURE_POINTS);
    assert_int_equal(total_of(store, (int)b).waiting, 80 * FIXTURE_POINTS);
    struct ledger_device total = total_of(store, (int)a);
    assert_int_equal(total.fates[FATE_NOT_SELECTED], 40 * FIXTURE_POINTS);
    struct store_reader *reader;
    assert_int_equal(store_reader_create(store, a, true, &reader), 0);
    auto_buffer struct buffer arena = {0};
    const struct scan **scans;
    size_t count;
    assert_int_equal(store_reader_take(reader, STORE_LANE_BACKFILL, STREAM_RAW, 500, 1 << 20,
                                       &arena, &scans, &count),
                     0);
    assert_int_equal(count, 40);
    assert_int_equal(scans[0]->time_ms, base_ms + 61 * 1000);
    store_reader_destroy(reader);
    store_close(store);
    fixture_remove(dir);
}

/* What is read now does not wait behind what came back. */
static void test_what_comes_back_is_backfill(void **state)
{
    (void)state;
    char *dir = fixture_dir();
    unsigned cloud, local;
    make_old(dir, SEQS, 0, 5);
    set_aside(dir);
    struct store *store = open_new(dir, &cloud, &local);
    struct store_reader *reader;
    assert_int_equal(store_reader_create(store, cloud, true, &reader), 0);
    salvage_all(store);
    auto_buffer struct buffer arena = {0};
    const struct scan **scans;
    size_t count;
    assert_int_equal(store_reader_take(reader, STORE_LANE_LIVE, STREAM_RAW, 500, 1 << 20, &arena,
                                       &scans, &count),
                     0);
    assert_int_equal(count, 0);
    uint32_t id;
    assert_int_equal(store_device(store, "t1", "", &id), 0);
    append(store, STREAM_RAW, 1, id, store_last_seq(store, STREAM_RAW, id) + 1);
    assert_int_equal(store_commit(store), 0);
    assert_int_equal(store_reader_take(reader, STORE_LANE_LIVE, STREAM_RAW, 500, 1 << 20, &arena,
                                       &scans, &count),
                     0);
    assert_int_equal(count, 1);
    auto_buffer struct buffer others = {0};
    assert_int_equal(store_reader_take(reader, STORE_LANE_BACKFILL, STREAM_RAW, 500, 1 << 20,
                                       &others, &scans, &count),
                     0);
    assert_true(count > 100);
    store_reader_destroy(reader);
    store_close(store);
    fixture_remove(dir);
}

static void ruin(const char *dir, unsigned kind, uint64_t seed)
{
    char path[300];
    snprintf(path, sizeof(path), "%s/%s/data.mdb", dir, folder);
    auto_close int fd = open(path, O_RDWR);
    struct stat st;
    assert_int_equal(fstat(fd, &st), 0);
    static const char zeros[4096];
    for (unsigned i = 0; i < 6; i++) {
        seed = seed * 6364136223846793005ull + 1442695040888963407ull;
        off_t page = 2 + (off_t)((seed >> 33) % (uint64_t)(st.st_size / 4096 - 2));
        if (kind == 0) { /* pages anywhere, in trees and blocks */
            assert_int_equal(pwrite(fd, zeros, sizeof(zeros), page * 4096), sizeof(zeros));
        } else if (kind == 1) { /* bytes in the middle of blocks */
            assert_int_equal(pwrite(fd, "damage", 6, page * 4096 + 1000), 6);
        } else if (kind == 2) { /* no meta pages */
            assert_int_equal(pwrite(fd, zeros, sizeof(zeros), (off_t)(i % 2) * 4096), 4096);
        } else { /* cut off */
            assert_int_equal(ftruncate(fd, st.st_size / 4 * 3 / 4096 * 4096), 0);
        }
    }
}

/* What comes back of a ruined file is what was put in, once; with what is lost it makes up all. */
static void test_a_ruined_file_gives_what_it_has(void **state)
{
    (void)state;
    struct seen *seen = calloc(1, sizeof(*seen));
    for (unsigned round = 0; round < 16; round++) {
        char *dir = fixture_dir();
        unsigned cloud, local;
        make_old(dir, SEQS, 0, 5);
        set_aside(dir);
        ruin(dir, round % 4, round * 7919 + 1);
        struct store *store = open_new(dir, &cloud, &local);
        salvage_all(store);
        look(store, seen);
        struct store_salvage salvage;
        store_salvage(store, &salvage);
        assert_int_equal(salvage.state, SALVAGE_DONE);
        assert_int_equal(salvage.readings, seen->readings);
        uint64_t blocks, bad;
        assert_int_equal(salvage_inspect(dir, folder, &blocks, &bad), 0);
        assert_int_equal(bad, salvage.bad);
        assert_int_equal(blocks, salvage.blocks + salvage.bad);
        struct ledger_device total = total_of(store, (int)cloud);
        assert_int_equal(total.waiting, seen->readings);
        assert_true(seen->scans > (ALL + AGGREGATES) / 4);
        uint64_t all = (uint64_t)(ALL + AGGREGATES) * FIXTURE_POINTS;
        assert_true(salvage.readings + salvage.lost <= all);
        if (round % 4 == 1) {
            assert_int_equal(salvage.readings + salvage.lost, all);
        }
        if (round % 4 == 2) {
            assert_int_equal(salvage.readings, all);
        }
        store_close(store);
        fixture_remove(dir);
    }
    free(seen);
}

static void live_and_salvage(const char *dir, unsigned kills, _Atomic uint64_t *committed)
{
    unsigned cloud, local;
    struct store *store = open_new(dir, &cloud, &local);
    uint32_t id;
    assert_int_equal(store_device(store, "t1", "", &id), 0);
    assert_int_equal(store_salvage_start(store, NULL), 0);
    store->salvage->step_bytes = 150000 / (kills + 1); /* so that it takes many commits */
    for (;;) {
        auto_free struct scan *scan = fixture_scan(STREAM_RAW, id, 0, 0);
        scan->seq = store_last_seq(store, STREAM_RAW, id) + 1;
        assert_int_equal(store_append(store, scan), 0);
        assert_true(store_salvage_step(store) >= 0);
        assert_int_equal(store_commit(store), 0);
        ++*committed;
        if (!store_salvage_busy(store)) {
            store_close(store);
            return;
        }
    }
}

/* kill -9 at random moments: in the end everything is there, once. */
static void test_kills_neither_lose_nor_repeat(void **state)
{
    (void)state;
    const char *asked = getenv("WINDROW_SALVAGE_KILLS");
    unsigned kills = asked != NULL ? (unsigned)strtoul(asked, NULL, 10) : 25, killed = 0;
    char *dir = fixture_dir();
    unsigned cloud, local;
    _Atomic uint64_t *committed = mmap(NULL, sizeof(*committed), PROT_READ | PROT_WRITE,
                                       MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    assert_true(committed != MAP_FAILED);
    make_old(dir, SEQS, 100, 1);
    set_aside(dir);
    bool over = false; /* nothing is left to be killed at */
    for (unsigned i = 0; i < kills && !over; i++) {
        pid_t pid = fork();
        if (pid == 0) {
            live_and_salvage(dir, kills, committed);
            _exit(0);
        }
        uint64_t until = *committed + 1 + i * 7919 % 13;
        struct timespec pause = {.tv_nsec = (long)(i * 7919 % 10 + 1) * 100000};
        int status;
        for (unsigned k = 0; k < 20000 && *committed < until && !over; k++) {
            nanosleep(&pause, NULL);
            over = waitpid(pid, &status, WNOHANG) == pid;
        }
        if (!over) {
            kill(pid, SIGKILL);
            waitpid(pid, &status, 0);
        }
        killed += WIFSIGNALED(status);
    }
    assert_true(killed > kills / 4);
    struct store *store = open_new(dir, &cloud, &local);
    assert_null(store_quarantined(store));
    salvage_all(store);
    struct seen *seen = calloc(1, sizeof(*seen));
    look(store, seen);
    assert_int_equal(seen->scans, ALL + AGGREGATES - 100);
    struct ledger_device total = total_of(store, (int)cloud);
    assert_int_equal(total.waiting, seen->readings);
    assert_int_equal(total.counts[LEDGER_SALVAGED], seen->readings);
    free(seen);
    store_close(store);
    munmap(committed, sizeof(*committed));
    fixture_remove(dir);
}

static void no_beat(void *user)
{
    (void)user;
}

/* Says, as an earlier run would have, that the last block crashed its reader. */
static void note_crash(struct store *store, const char *dir)
{
    char file[300], note[100];
    struct wreck *wreck;
    snprintf(file, sizeof(file), "%s/%s/data.mdb", dir, folder);
    snprintf(note, sizeof(note), "salvage.crash0 %s", folder);
    assert_int_equal(wreck_open(file, no_beat, NULL, &wreck), 0);
    assert_false(wreck_is_broken(wreck));
    const struct wreck_entry *entry = wreck_at(wreck, wreck_count(wreck) - 1);
    assert_in_range(wreck_kind(entry), WRECK_LARGE, WRECK_LOG);
    store_set_note(store, note, (int64_t)entry->leaf);
    assert_int_equal(store_commit(store), 0);
    wreck_close(wreck);
}

/* A block at which the child crashes costs that block and no more. */
static void test_a_crashing_child_is_passed_over(void **state)
{
    (void)state;
    char *dir = fixture_dir();
    unsigned cloud, local, crashes = 0;
    enum { MANY = 3000 }; /* more than a pipe holds */
    make_old(dir, MANY, 0, 5);
    set_aside(dir);
    struct store *store = open_new(dir, &cloud, &local);
    note_crash(store, dir);
    assert_int_equal(store_salvage_start(store, NULL), 0);
    for (unsigned i = 0; store_salvage_busy(store); i++) {
        assert_in_range(i, 0, STEPS_MAX);
        struct salvage *s = store->salvage;
        s->step_bytes = 40000;
        if (s->working.leaf != 0 && i % 5 == 4 && crashes < 3) {
            kill(s->child.pid, SIGSEGV);
            crashes++;
        }
        assert_int_equal(store_salvage_step(store) >= 0, 1);
        assert_int_equal(store_commit(store), 0);
        struct timespec pause = {.tv_nsec = 2000000};
        nanosleep(&pause, NULL);
    }
    struct seen *seen = calloc(1, sizeof(*seen));
    look(store, seen);
    struct store_salvage salvage;
    store_salvage(store, &salvage);
    assert_int_equal(crashes, 3);
    assert_int_equal(salvage.state, SALVAGE_DONE);
    assert_in_range(salvage.bad, 1, 4);
    assert_true(salvage.lost > 0);
    assert_int_equal(salvage.readings, seen->readings);
    assert_int_equal(salvage.readings + salvage.lost,
                     (uint64_t)DEVICES * (MANY + MANY / 10) * FIXTURE_POINTS);
    (void)total_of(store, (int)cloud);
    free(seen);
    store_close(store);
    fixture_remove(dir);
}

static void test_a_hopeless_file_is_given_up(void **state)
{
    (void)state;
    char *dir = fixture_dir(), path[300];
    unsigned cloud, local;
    snprintf(path, sizeof(path), "%s/%s", dir, folder);
    assert_int_equal(mkdir(path, 0700), 0); /* without a file in it */
    struct store *store = open_new(dir, &cloud, &local);
    assert_int_equal(store_salvage_start(store, NULL), 0);
    for (unsigned i = 0; store_salvage_busy(store); i++) {
        assert_in_range(i, 0, STEPS_MAX);
        store->salvage->wait_ms = 0; /* what would take minutes */
        assert_true(store_salvage_step(store) >= 0);
        assert_int_equal(store_commit(store), 0);
        struct timespec pause = {.tv_nsec = 2000000};
        nanosleep(&pause, NULL);
    }
    struct store_salvage salvage;
    uint64_t blocks, bad;
    store_salvage(store, &salvage);
    assert_int_equal(salvage.state, SALVAGE_GIVEN_UP);
    assert_int_equal(salvage_inspect(dir, folder, &blocks, &bad), -ENOENT);
    store_close(store);
    fixture_remove(dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_was_not_delivered_comes_back),
        cmocka_unit_test(test_each_uplink_gets_what_it_lacks),
        cmocka_unit_test(test_what_comes_back_is_backfill),
        cmocka_unit_test(test_a_ruined_file_gives_what_it_has),
        cmocka_unit_test(test_kills_neither_lose_nor_repeat),
        cmocka_unit_test(test_a_crashing_child_is_passed_over),
        cmocka_unit_test(test_a_hopeless_file_is_given_up),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
