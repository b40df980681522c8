/* Every block is read again after a start, by a child, slowly; what it finds is kept. */
#include "gateway/store/internal.h"
#include "gateway/store/verify.h"
#include "gateway/store/verify_work.h"
#include "store_drain.h"

#include <poll.h>
#include <signal.h>
#include <time.h>

enum { BLOCKS = 150, TURNS_MAX = 5000 };

static void fill(const char *dir)
{
    struct store *store = fixture_open(dir, &fixture_settings);
    unsigned uplink;
    assert_int_equal(store_add_uplink(store, "cloud", 1u << STREAM_RAW, 0, &uplink), 0);
    uint32_t device = fixture_device(store, "t0", FIXTURE_POINTS);
    for (uint64_t seq = 1; seq <= BLOCKS; seq++) {
        assert_int_equal(fixture_append(store, STREAM_RAW, device, seq), 0);
        assert_int_equal(store_commit(store), 0);
    }
    store_close(store);
}

static void damage(const char *dir, uint64_t number)
{
    char path[256];
    struct env *env;
    MDB_txn *txn;
    MDB_val value;
    snprintf(path, sizeof(path), "%s/store", dir);
    assert_int_equal(env_open(path, 256 << 20, ENV_WRITER, &env), 0);
    assert_int_equal(env_write(env, &txn), 0);
    assert_int_equal(env_seek(txn, KEY_WAL, number, &number, &value), 0);
    auto_buffer struct buffer block = {0};
    buffer_add(&block, value.mv_data, value.mv_size);
    block.data[block.len / 2] ^= 0x20;
    struct key key = key_number(KEY_WAL, number);
    assert_int_equal(env_put(txn, &key, block.data, block.len, 0), 0);
    assert_int_equal(mdb_txn_commit(txn), 0);
    env_close(env);
}

/* The first step makes it, the next ones would wait: it begins now, at that rate. */
static void begin(struct store *store, uint64_t bytes_s)
{
    store_verify_step(store);
    assert_non_null(store->verify);
    store_verify_step(store);
    assert_int_equal(store->verify->child.pid, 0); /* not at once after a start */
    store->verify->due_ms = 0;
    store->verify->bytes_s = bytes_s;
    store_verify_step(store);
    assert_true(store->verify->child.pid > 0);
}

static void turn(struct store *store)
{
    struct timespec pause = {.tv_nsec = 1000000};
    store_verify_step(store);
    assert_int_equal(store_commit(store), 0);
    nanosleep(&pause, NULL);
}

static void test_it_finds_what_is_damaged(void **state)
{
    (void)state;
    for (unsigned bad = 0; bad < 2; bad++) {
        char *dir = fixture_dir();
        fill(dir);
        if (bad > 0) {
            damage(dir, BLOCKS / 2);
        }
        struct store *store = fixture_open(dir, &fixture_settings);
        struct store_verified verified;
        begin(store, 1 << 30);
        for (unsigned i = 0; store->verify->child.pid != 0; i++) {
            assert_in_range(i, 0, TURNS_MAX);
            turn(store);
        }
        store_verified(store, &verified);
        assert_int_equal(verified.blocks, BLOCKS);
        assert_int_equal(verified.bad, bad);
        assert_true(verified.time_ms > 0);
        turn(store);
        assert_int_equal(store->verify->child.pid, 0); /* once a start */
        store_close(store);
        /* It is known also to who only looks, and after a start. */
        assert_int_equal(store_open_readonly(dir, &store), 0);
        store_verified(store, &verified);
        assert_int_equal(verified.blocks, BLOCKS);
        store_close(store);
        fixture_remove(dir);
    }
}

static void test_a_crash_of_it_is_no_verdict(void **state)
{
    (void)state;
    char *dir = fixture_dir();
    fill(dir);
    struct store *store = fixture_open(dir, &fixture_settings);
    struct store_verified verified;
    begin(store, 1); /* it sleeps for hours after its first blocks */
    struct pollfd report = {.fd = store->verify->child.fd, .events = POLLIN};
    assert_int_equal(poll(&report, 1, 10000), 1);
    kill(store->verify->child.pid, SIGBUS);
    for (unsigned i = 0; store->verify->child.pid != 0; i++) {
        assert_in_range(i, 0, TURNS_MAX);
        turn(store);
    }
    store_verified(store, &verified);
    assert_int_equal(verified.time_ms, 0);
    store_close(store);
    fixture_remove(dir);
}

static void test_it_ends_with_the_store(void **state)
{
    (void)state;
    char *dir = fixture_dir();
    fill(dir);
    struct store *store = fixture_open(dir, &fixture_settings);
    begin(store, 1);
    pid_t pid = store->verify->child.pid;
    store_close(store);
    assert_int_equal(kill(pid, 0), -1);
    fixture_remove(dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_it_finds_what_is_damaged),
        cmocka_unit_test(test_a_crash_of_it_is_no_verdict),
        cmocka_unit_test(test_it_ends_with_the_store),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
