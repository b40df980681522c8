/* What survives: kill -9 in the middle of commits, damaged files, a second writer, a reader beside
 * the daemon. */
#include "gateway/store/env.h"
#include "store_drain.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>

enum { DEVICES = 3, ROUNDS = 60, SEQS_MAX = 200000 };

/* What the child got acknowledged, in memory that outlives it. */
struct shared {
    _Atomic uint64_t committed[DEVICES]; /* seq that store_commit() covered */
    _Atomic uint64_t settled;            /* scans whose settlement a commit covered */
};

static uint32_t devices[DEVICES];

static void begin(struct store *store, unsigned *uplink)
{
    assert_int_equal(store_add_uplink(store, "cloud", 1u << STREAM_RAW, 0, uplink), 0);
    for (unsigned d = 0; d < DEVICES; d++) {
        char name[8];
        snprintf(name, sizeof(name), "t%u", d);
        devices[d] = fixture_device(store, name, FIXTURE_POINTS);
    }
}

/* Appends, commits and delivers until it is killed. */
static void child(const char *dir, struct shared *shared)
{
    struct store *store = fixture_open(dir, &fixture_settings);
    unsigned uplink;
    begin(store, &uplink);
    struct store_reader *reader;
    assert_int_equal(store_reader_create(store, uplink, true, &reader), 0);
    auto_buffer struct buffer arena = {0};
    uint64_t settled = 0, base = shared->settled;
    for (unsigned round = 0;; round++) {
        uint64_t seq[DEVICES];
        for (unsigned d = 0; d < DEVICES; d++) {
            seq[d] = store_last_seq(store, STREAM_RAW, devices[d]) + (round % 17 == d ? 2 : 1);
            assert_int_equal(fixture_append(store, STREAM_RAW, devices[d], seq[d]), 0);
        }
        assert_int_equal(store_commit(store), 0);
        for (unsigned d = 0; d < DEVICES; d++) {
            shared->committed[d] = seq[d];
        }
        shared->settled = base + settled;
        const struct scan **scans;
        size_t count;
        enum store_lane lane = round % 2 == 0 ? STORE_LANE_LIVE : STORE_LANE_BACKFILL;
        assert_int_equal(
            store_reader_take(reader, lane, STREAM_RAW, 4, 1 << 20, &arena, &scans, &count), 0);
        assert_int_equal(fixture_settle(reader, scans, count, FATE_DELIVERED), 0);
        settled += count;
    }
}

/* Every second round is killed after its first commit at the earliest, so that the rounds get
 * somewhere on a slow machine too; the others wherever they are, the opening included. */
static void kill_at_random(const char *dir, struct shared *shared, unsigned round)
{
    uint64_t before = shared->committed[0];
    pid_t pid = fork();
    if (pid == 0) {
        child(dir, shared);
        _exit(1);
    }
    struct timespec pause = {.tv_nsec = 5000000 + (long)(round * 7919 % 40) * 1000000};
    for (unsigned ms = 0; round % 2 == 0 && ms < 60000; ms++) {
        if (shared->committed[0] > before) {
            break;
        }
        nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
    }
    nanosleep(&pause, NULL);
    kill(pid, SIGKILL);
    int status;
    waitpid(pid, &status, 0);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
}

struct seen {
    uint8_t *times[DEVICES];
    uint64_t scans;
};

static int see(void *user, const struct scan *scan)
{
    struct seen *seen = user;
    fixture_check(scan);
    assert_in_range(scan->seq, 1, SEQS_MAX - 1);
    seen->times[scan->device - 1][scan->seq]++;
    seen->scans++;
    return 0;
}

/* Everything acknowledged is there, once; what waits and what was settled make up the rest. */
static void check_after(const char *dir, const struct shared *shared)
{
    struct store *store = fixture_open(dir, &fixture_settings);
    assert_null(store_quarantined(store));
    unsigned uplink;
    begin(store, &uplink);
    uint64_t blocks, bad;
    assert_int_equal(store_verify(store, &blocks, &bad), 0);
    assert_int_equal(bad, 0);
    struct seen seen = {.scans = 0};
    for (unsigned d = 0; d < DEVICES; d++) {
        seen.times[d] = calloc(SEQS_MAX, 1);
        assert_true(store_last_seq(store, STREAM_RAW, devices[d]) >= shared->committed[d]);
    }
    assert_int_equal(store_history(store, STREAM_RAW, 0, INT64_MIN, INT64_MAX, see, &seen), 0);
    struct ledger_device total;
    assert_int_equal(store_ledger_total(store, (int)uplink, &total), 0);
    fixture_adds_up(store, (int)uplink);
    /* keep = 0: a block is gone once all of it was settled; so what waits is there. */
    assert_true(seen.scans * FIXTURE_POINTS >= total.waiting);
    assert_true(total.fates[FATE_DELIVERED] >= shared->settled * FIXTURE_POINTS);
    for (unsigned d = 0; d < DEVICES; d++) {
        for (uint64_t seq = 0; seq < SEQS_MAX; seq++) {
            assert_in_range(seen.times[d][seq], 0, 1);
        }
        free(seen.times[d]);
    }
    store_close(store);
}

static void test_kill_loses_nothing_acknowledged(void **state)
{
    (void)state;
    char *dir = fixture_dir();
    struct shared *shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE,
                                 MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    assert_true(shared != MAP_FAILED);
    for (unsigned round = 0; round < ROUNDS; round++) {
        kill_at_random(dir, shared, round);
        check_after(dir, shared);
    }
    assert_true(shared->committed[0] >= ROUNDS / 2); /* it did get somewhere */
    /* All that waits can be delivered, exactly. */
    struct store *store = fixture_open(dir, &fixture_settings);
    unsigned uplink;
    begin(store, &uplink);
    struct ledger_device total;
    assert_int_equal(store_ledger_total(store, (int)uplink, &total), 0);
    struct store_reader *reader;
    assert_int_equal(store_reader_create(store, uplink, false, &reader), 0);
    assert_int_equal(fixture_drain(reader, STORE_LANE_BACKFILL, STREAM_RAW) * FIXTURE_POINTS,
                     total.waiting);
    assert_int_equal(store_commit(store), 0);
    assert_int_equal(store_ledger_total(store, (int)uplink, &total), 0);
    assert_int_equal(total.waiting, 0);
    assert_int_equal(total.fates[FATE_DELIVERED], total.counts[LEDGER_STORED]);
    store_reader_destroy(reader);
    store_close(store);
    munmap(shared, sizeof(*shared));
    fixture_remove(dir);
}

static void fill_store(const char *dir)
{
    struct store *store = fixture_open(dir, &fixture_settings);
    unsigned uplink;
    begin(store, &uplink);
    for (uint64_t seq = 1; seq <= 300; seq++) {
        for (unsigned d = 0; d < DEVICES; d++) {
            assert_int_equal(fixture_append(store, STREAM_RAW, devices[d], seq), 0);
        }
        if (seq % 10 == 0) {
            assert_int_equal(store_commit(store), 0);
        }
    }
    store_close(store);
}

/* Ruins the file, opens it, and expects a fresh store beside the damaged one. */
static void expect_quarantine(void (*ruin)(int fd, off_t size))
{
    char *dir = fixture_dir();
    fill_store(dir);
    char path[256];
    snprintf(path, sizeof(path), "%s/store/data.mdb", dir);
    auto_close int fd = open(path, O_RDWR);
    struct stat st;
    assert_int_equal(fstat(fd, &st), 0);
    ruin(fd, st.st_size);
    struct store *readonly;
    assert_int_equal(store_open_readonly(dir, &readonly), -EBADMSG);
    struct store *store = fixture_open(dir, &fixture_settings);
    assert_non_null(store_quarantined(store));
    snprintf(path, sizeof(path), "%s/%s/data.mdb", dir, store_quarantined(store));
    assert_int_equal(access(path, R_OK), 0);
    unsigned uplink;
    begin(store, &uplink);
    assert_int_equal(fixture_append(store, STREAM_RAW, devices[0], 1), 0);
    assert_int_equal(store_commit(store), 0);
    store_close(store);
    fixture_remove(dir);
}

static void zero_all(int fd, off_t size)
{
    assert_int_equal(ftruncate(fd, 0), 0);
    assert_int_equal(ftruncate(fd, size), 0);
}

static void empty(int fd, off_t size)
{
    (void)size;
    assert_int_equal(ftruncate(fd, 0), 0);
}

static void truncate_half(int fd, off_t size)
{
    assert_int_equal(ftruncate(fd, size / 2 / 4096 * 4096), 0);
}

static void zero_pages(int fd, off_t size)
{
    static const char zeros[4096];
    for (off_t at = 3 * 4096; at < size; at += 2 * 4096) {
        assert_int_equal(pwrite(fd, zeros, sizeof(zeros), at), sizeof(zeros));
    }
}

static void flip_bits(int fd, off_t size)
{
    for (off_t at = 2 * 4096 + 100; at < size; at += 1021) {
        uint8_t byte;
        assert_int_equal(pread(fd, &byte, 1, at), 1);
        byte ^= 0x10;
        assert_int_equal(pwrite(fd, &byte, 1, at), 1);
    }
}

static void other_version(int fd, off_t size)
{
    (void)size;
    uint8_t both[] = {0x77};
    assert_int_equal(pwrite(fd, both, 1, 20), 1);
    assert_int_equal(pwrite(fd, both, 1, 4096 + 20), 1);
}

static void test_damaged_files_are_set_aside(void **state)
{
    (void)state;
    expect_quarantine(zero_all);
    expect_quarantine(empty);
    expect_quarantine(truncate_half);
    expect_quarantine(zero_pages);
    expect_quarantine(flip_bits);
    expect_quarantine(other_version);
}

/* Flips a byte of one block, as a worn flash would, behind the store's back. */
static void damage_block(const char *dir, uint64_t number)
{
    char path[256];
    snprintf(path, sizeof(path), "%s/store", dir);
    struct env *env;
    MDB_txn *txn;
    assert_int_equal(env_open(path, 256 << 20, ENV_WRITER, &env), 0);
    assert_int_equal(env_write(env, &txn), 0);
    MDB_val value;
    uint64_t found;
    assert_int_equal(env_seek(txn, KEY_WAL, number, &found, &value), 0);
    assert_int_equal(found, number);
    auto_buffer struct buffer block = {0};
    buffer_add(&block, value.mv_data, value.mv_size);
    block.data[block.len / 2] ^= 0x20;
    struct key key = key_number(KEY_WAL, number);
    assert_int_equal(env_put(txn, &key, block.data, block.len, 0), 0);
    assert_int_equal(mdb_txn_commit(txn), 0);
    env_close(env);
}

static void test_one_damaged_block_blocks_nothing(void **state)
{
    (void)state;
    enum { BLOCKS = 200 };
    char *dir = fixture_dir();
    struct store *store = fixture_open(dir, &fixture_settings);
    unsigned uplink;
    begin(store, &uplink);
    for (uint64_t seq = 1; seq <= BLOCKS; seq++) {
        for (unsigned d = 0; d < DEVICES; d++) {
            assert_int_equal(fixture_append(store, STREAM_RAW, devices[d], seq), 0);
        }
        assert_int_equal(store_commit(store), 0);
    }
    store_close(store);
    damage_block(dir, BLOCKS / 2);
    store = fixture_open(dir, &fixture_settings);
    assert_null(store_quarantined(store));
    uint64_t blocks, bad;
    assert_int_equal(store_verify(store, &blocks, &bad), 0);
    assert_int_equal(blocks, BLOCKS);
    assert_int_equal(bad, 1);
    struct store_reader *reader;
    assert_int_equal(store_reader_create(store, uplink, true, &reader), 0);
    auto_buffer struct buffer arena = {0};
    const struct scan **scans;
    size_t count, total = 0;
    unsigned refused = 0;
    for (unsigned i = 0; i < 100; i++) {
        int rc = store_reader_take(reader, STORE_LANE_BACKFILL, STREAM_RAW, 50, 1 << 20, &arena,
                                   &scans, &count);
        refused += rc == -EBADMSG;
        assert_true(rc == 0 || rc == -EBADMSG);
        if (rc == 0) {
            assert_int_equal(fixture_settle(reader, scans, count, FATE_DELIVERED), 0);
            total += count;
        }
    }
    assert_int_equal(total, (BLOCKS - 1) * DEVICES);
    assert_in_range(refused, 0, 1);
    for (unsigned i = 0; i < 4; i++) {
        store_set_note(store, "round", i);
        assert_int_equal(store_commit(store), 0);
    }
    struct ledger_device ledger;
    struct store_stat stat;
    store_stat(store, &stat);
    assert_int_equal(stat.blocks, 0);
    fixture_adds_up(store, (int)uplink);
    assert_int_equal(store_ledger_total(store, (int)uplink, &ledger), 0);
    assert_int_equal(ledger.waiting, 0);
    assert_int_equal(ledger.fates[FATE_THINNED], DEVICES * FIXTURE_POINTS);
    store_reader_destroy(reader);
    store_close(store);
    fixture_remove(dir);
}

static void test_one_writer(void **state)
{
    (void)state;
    char *dir = fixture_dir();
    struct store *store = fixture_open(dir, &fixture_settings), *second;
    assert_int_equal(store_open(dir, &fixture_settings, &second), -EBUSY);
    store_close(store);
    assert_int_equal(store_open(dir, &fixture_settings, &second), 0);
    store_close(second);
    fixture_remove(dir);
}

static void test_a_half_made_store_is_made_anew(void **state)
{
    (void)state;
    char *dir = fixture_dir();
    char path[256];
    snprintf(path, sizeof(path), "%s/store.new", dir);
    assert_int_equal(mkdir(path, 0750), 0);
    snprintf(path, sizeof(path), "%s/store.new/data.mdb", dir);
    auto_close int fd = open(path, O_CREAT | O_RDWR, 0640);
    assert_int_equal(write(fd, "half", 4), 4);
    struct store *store = fixture_open(dir, &fixture_settings);
    assert_null(store_quarantined(store));
    store_close(store);
    fixture_remove(dir);
}

static int count_scan(void *user, const struct scan *scan)
{
    (void)scan;
    ++*(unsigned *)user;
    return 0;
}

/* In a process of its own, as `windrow history` is. */
static int look(const char *dir, uint64_t expected)
{
    struct store *store;
    if (store_open_readonly(dir, &store) < 0) {
        return 1;
    }
    unsigned scans = 0;
    struct ledger_device total;
    struct store_stat stat;
    int rc = store_history(store, STREAM_RAW, 0, INT64_MIN, INT64_MAX, count_scan, &scans);
    rc |= store_ledger_total(store, 0, &total);
    store_stat(store, &stat);
    bool good = rc == 0 && scans == expected && total.waiting == expected * FIXTURE_POINTS &&
                stat.waiting == total.waiting && store_commit(store) == -EROFS &&
                strcmp(store_names(store, 2)->device, "t1") == 0;
    store_close(store);
    return good ? 0 : 2;
}

static int look_from_child(const char *dir, uint64_t expected)
{
    pid_t pid = fork();
    if (pid == 0) {
        _exit(look(dir, expected));
    }
    int status;
    waitpid(pid, &status, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static void test_read_beside_the_daemon_and_without_it(void **state)
{
    (void)state;
    char *dir = fixture_dir();
    assert_int_equal(look_from_child(dir, 0), 1); /* no store there */
    fill_store(dir);
    assert_int_equal(look_from_child(dir, 900), 0);
    struct store *store = fixture_open(dir, &fixture_settings);
    unsigned uplink;
    begin(store, &uplink);
    assert_int_equal(look_from_child(dir, 900), 0);
    assert_int_equal(fixture_append(store, STREAM_RAW, devices[0], 301), 0);
    assert_int_equal(store_commit(store), 0);
    assert_int_equal(look_from_child(dir, 901), 0);
    store_close(store);
    fixture_remove(dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_kill_loses_nothing_acknowledged),
        cmocka_unit_test(test_damaged_files_are_set_aside),
        cmocka_unit_test(test_one_damaged_block_blocks_nothing),
        cmocka_unit_test(test_one_writer),
        cmocka_unit_test(test_a_half_made_store_is_made_anew),
        cmocka_unit_test(test_read_beside_the_daemon_and_without_it),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
