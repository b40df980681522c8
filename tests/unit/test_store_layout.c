/* Which tree holds what: most commits change one page of the main tree, wherever blocks move to,
 * and stores that were made before there was a barn go on as they are. */
#include "gateway/store/internal.h"
#include "gateway/store/pages.h"
#include "gateway/store/pages_layout.h"
#include "store_drain.h"

#include <fcntl.h>

enum { MAIN_TREE = 1, COMMITS = 300, SMALL = 700, LARGE = 9000, MAP_BYTES = 64 << 20 };

/* An environment as the first versions made it: everything in one tree, the state under 's'. */
static void make_flat(const char *dir)
{
    char path[256];
    struct env *env;
    MDB_txn *txn;
    struct state state = {.id = "0123456789ab", .tail = 1, .next = 1};
    auto_buffer struct buffer record = {0};
    snprintf(path, sizeof(path), "%s/store", dir);
    assert_int_equal(mkdir(path, 0750), 0);
    assert_int_equal(env_open(path, MAP_BYTES, ENV_WRITER, &env), 0);
    assert_true(env_is_flat(env));
    assert_int_equal(state_encode(&state, NULL, &record), 0);
    assert_int_equal(env_write(env, &txn), 0);
    MDB_val name = {.mv_size = 1, .mv_data = (char[]){'s'}};
    MDB_val value = {.mv_size = record.len, .mv_data = record.data};
    assert_int_equal(mdb_put(txn, MAIN_TREE, &name, &value, 0), 0);
    assert_int_equal(mdb_txn_commit(txn), 0);
    env_close(env);
}

static unsigned main_depth(struct env *env, size_t *ret_entries)
{
    MDB_txn *txn;
    MDB_stat stat;
    assert_int_equal(env_read(env, &txn), 0);
    assert_int_equal(mdb_stat(txn, MAIN_TREE, &stat), 0);
    env_read_end(env, txn);
    *ret_entries = stat.ms_entries;
    return stat.ms_depth;
}

/* Appends and commits `count` scans of t0; the uplink is there from the first one on. */
static void live(struct store *store, unsigned count)
{
    uint32_t device = fixture_device(store, "t0", FIXTURE_POINTS);
    uint64_t seq = store_last_seq(store, STREAM_RAW, device);
    for (unsigned i = 0; i < count; i++) {
        assert_int_equal(fixture_append(store, STREAM_RAW, device, ++seq), 0);
        assert_int_equal(store_commit(store), 0);
    }
}

static struct store *open_with_uplink(const char *dir)
{
    unsigned uplink;
    struct store *store = fixture_open(dir, &fixture_settings);
    assert_null(store_quarantined(store));
    assert_int_equal(store_add_uplink(store, "cloud", 1u << STREAM_RAW, 0, &uplink), 0);
    assert_int_equal(uplink, 0);
    return store;
}

static void drain_all(struct store *store, size_t scans)
{
    struct store_reader *reader;
    assert_int_equal(store_reader_create(store, 0, false, &reader), 0);
    assert_int_equal(fixture_drain(reader, STORE_LANE_BACKFILL, STREAM_RAW), scans);
    assert_int_equal(store_commit(store), 0);
    store_reader_destroy(reader);
    fixture_adds_up(store, 0);
}

/* Log, large blocks and dictionary grow; the tree that each commit changes does not. */
static void test_the_main_tree_stays_a_page(void **state)
{
    (void)state;
    char *dir = fixture_dir();
    struct store *store = open_with_uplink(dir);
    uint32_t device = fixture_device(store, "t0", FIXTURE_POINTS);
    size_t entries, most = 0;
    size_t scans = 0;
    for (unsigned i = 0; i < COMMITS; i++) {
        /* Now and then a commit has so much that its block takes pages of its own. */
        size_t more = i % 25 == 24 ? 200 : 0;
        uint64_t seq = store_last_seq(store, STREAM_RAW, device);
        for (size_t n = 1; n <= more; n++) {
            assert_int_equal(fixture_append(store, STREAM_RAW, device, seq + n), 0);
        }
        live(store, 1);
        scans += more + 1;
        assert_int_equal(main_depth(store->env, &entries), 1);
        most = entries > most ? entries : most;
    }
    assert_in_range(most, 5, 60); /* small blocks wait in it, and then leave */
    store_close(store);
    store = open_with_uplink(dir);
    drain_all(store, scans);
    store_close(store);
    fixture_remove(dir);
}

static void test_a_store_of_an_earlier_version_goes_on(void **state)
{
    (void)state;
    char *dir = fixture_dir();
    make_flat(dir);
    for (unsigned round = 1; round <= 3; round++) {
        struct store *store = open_with_uplink(dir);
        assert_true(env_is_flat(store->env));
        assert_string_equal(store_id(store), "0123456789ab");
        live(store, COMMITS);
        store_close(store);
        assert_int_equal(store_open_readonly(dir, &store), 0);
        assert_int_equal(store_last_seq(store, STREAM_RAW, 1), round * COMMITS);
        store_close(store);
    }
    struct store *store = open_with_uplink(dir);
    drain_all(store, 3 * COMMITS);
    store_close(store);
    fixture_remove(dir);
}

struct made {
    char *dir;
    struct env *env;
    uint8_t bytes[LARGE];
};

static void make_env(struct made *made)
{
    made->dir = fixture_dir();
    assert_int_equal(env_open(made->dir, MAP_BYTES, ENV_NEW, &made->env), 0);
    assert_false(env_is_flat(made->env));
}

static void finish_env(struct made *made)
{
    env_close(made->env);
    fixture_remove(made->dir);
}

static int append(struct made *made, uint64_t number, size_t len)
{
    MDB_txn *txn;
    struct key key = key_plain(KEY_STATE);
    memset(made->bytes, (int)(number % 251), len);
    assert_int_equal(env_write(made->env, &txn), 0);
    int rc = env_append(txn, number, made->bytes, len);
    rc = rc < 0 ? rc : env_put(txn, &key, made->bytes, 100, 0);
    if (rc < 0) {
        mdb_txn_abort(txn);
        return rc;
    }
    return env_error(mdb_txn_commit(txn));
}

static size_t len_of(uint64_t number)
{
    return number % 7 == 3 || number % 100 > 80 ? LARGE : number % 3 == 0 ? SMALL : SMALL / 3;
}

/* Every block from `first` on, in order, with its bytes. */
static void expect_log(struct made *made, uint64_t first, uint64_t last)
{
    MDB_txn *txn;
    uint64_t number = 0;
    assert_int_equal(env_read(made->env, &txn), 0);
    for (uint64_t expected = first; expected <= last; expected++) {
        MDB_val value;
        assert_int_equal(env_seek(txn, KEY_WAL, number, &number, &value), 0);
        assert_int_equal(number, expected);
        assert_int_equal(value.mv_size, len_of(expected));
        assert_int_equal(((const uint8_t *)value.mv_data)[value.mv_size - 1], expected % 251);
        number++;
    }
    MDB_val value;
    assert_int_equal(env_seek(txn, KEY_WAL, number, &number, &value), -ENOENT);
    env_read_end(made->env, txn);
}

static int count_entry(void *user, const MDB_val *name, const MDB_val *value)
{
    (void)name, (void)value;
    ++*(size_t *)user;
    return 0;
}

/* Small blocks move, large ones do not: the log is in order all the same, and loses its oldest. */
static void test_blocks_of_all_sizes_stay_in_order(void **state)
{
    (void)state;
    struct made made;
    char file[256];
    make_env(&made);
    for (uint64_t number = 1; number <= COMMITS; number++) {
        assert_int_equal(append(&made, number, len_of(number)), 0);
    }
    expect_log(&made, 1, COMMITS);
    assert_int_equal(append(&made, COMMITS, SMALL), -EEXIST);
    assert_int_equal(append(&made, COMMITS / 2, SMALL), -EEXIST);
    for (uint64_t number = 1; number < COMMITS; number++) {
        MDB_txn *txn;
        struct key key = key_number(KEY_WAL, number);
        assert_int_equal(env_write(made.env, &txn), 0);
        assert_int_equal(env_delete(txn, &key), 0);
        assert_int_equal(mdb_txn_commit(txn), 0);
        if (number % 50 == 0) {
            expect_log(&made, number + 1, COMMITS);
        }
    }
    MDB_txn *txn;
    size_t entries = 0;
    assert_int_equal(env_read(made.env, &txn), 0);
    assert_int_equal(env_walk(txn, count_entry, &entries), 0);
    env_read_end(made.env, txn);
    assert_int_equal(entries, 2); /* the last block and the state */
    snprintf(file, sizeof(file), "%s/data.mdb", made.dir);
    assert_int_equal(pages_check(file), 0);
    finish_env(&made);
}

static size_t names_beside(struct store *store)
{
    size_t count;
    (void)main_depth(store->env, &count);
    return count;
}

/* A few names are kept twice, many are not. */
static void test_names_lie_beside_the_state_while_they_are_few(void **state)
{
    (void)state;
    char *dir = fixture_dir();
    struct store *store = open_with_uplink(dir);
    (void)fixture_device(store, "first", 3);
    (void)fixture_device(store, "second", 3);
    store->counted = true;
    assert_int_equal(store_commit(store), 0);
    assert_int_equal(names_beside(store), 2 + 2); /* the state, the barn */
    for (unsigned d = 0; d < 60; d++) {
        char name[16];
        snprintf(name, sizeof(name), "t%u", d);
        (void)fixture_device(store, name, 3);
        store->counted = true;
        assert_int_equal(store_commit(store), 0);
    }
    assert_int_equal(names_beside(store), 2);
    store_close(store);
    store = open_with_uplink(dir);
    assert_int_equal(fixture_device(store, "t59", 3), 62);
    store_close(store);
    fixture_remove(dir);
}

/* The record of the barn leads LMDB to any page: one that is wrong is found before it is used. */
static void test_a_wrong_barn_is_set_aside(void **state)
{
    (void)state;
    static const size_t fields[] = {
        offsetof(struct lmdb_tree, flags), offsetof(struct lmdb_tree, depth),
        offsetof(struct lmdb_tree, entries), offsetof(struct lmdb_tree, root)};
    for (size_t i = 0; i < ARRAY_SIZE(fields); i++) {
        char *dir = fixture_dir(), path[256];
        struct store *store = open_with_uplink(dir);
        live(store, 40);
        store_close(store);
        snprintf(path, sizeof(path), "%s/store/data.mdb", dir);
        auto_close int fd = open(path, O_RDWR | O_CLOEXEC);
        struct stat st;
        assert_int_equal(fstat(fd, &st), 0);
        auto_free uint8_t *file = malloc((size_t)st.st_size);
        assert_int_equal(pread(fd, file, (size_t)st.st_size, 0), st.st_size);
        unsigned found = 0;
        for (size_t at = 0; at + sizeof(struct lmdb_tree) < (size_t)st.st_size; at++) {
            if (memcmp(file + at, ENV_BARN, strlen(ENV_BARN)) == 0) {
                size_t field = at + strlen(ENV_BARN) + fields[i];
                uint8_t wrong = file[field] ^ 0x55;
                assert_int_equal(pwrite(fd, &wrong, 1, (off_t)field), 1);
                found++;
            }
        }
        assert_true(found > 0);
        store = fixture_open(dir, &fixture_settings);
        assert_non_null(store_quarantined(store));
        store_close(store);
        fixture_remove(dir);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_main_tree_stays_a_page),
        cmocka_unit_test(test_a_store_of_an_earlier_version_goes_on),
        cmocka_unit_test(test_blocks_of_all_sizes_stay_in_order),
        cmocka_unit_test(test_names_lie_beside_the_state_while_they_are_few),
        cmocka_unit_test(test_a_wrong_barn_is_set_aside),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
