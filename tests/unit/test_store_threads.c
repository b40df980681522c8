/* Readers in their own threads while the writer appends, commits and changes the store. */
#include "store_drain.h"

#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>

enum { UPLINKS = 3, DEVICES = 6, COMMITS = 150 };

struct uplink_thread {
    struct store *store;
    unsigned uplink;
    _Atomic bool *done;
    _Atomic uint64_t delivered; /* scans */
    uint64_t wrong;
};

static bool right(const struct scan *scan)
{
    for (unsigned p = 0; p < scan->count; p++) {
        if (scan->readings[p].integer !=
            fixture_value((enum stream)scan->stream, scan->device, scan->seq, p)) {
            return false;
        }
    }
    return true;
}

static size_t deliver(struct uplink_thread *t, struct store_reader *reader, enum store_lane lane,
                      struct buffer *arena)
{
    const struct scan **scans;
    size_t count = 0;
    t->wrong += store_reader_take(reader, lane, STREAM_RAW, 50, 1 << 20, arena, &scans, &count) < 0;
    for (size_t i = 0; i < count; i++) {
        const struct store_names *names = store_names(t->store, scans[i]->device);
        t->wrong += !right(scans[i]) || names == NULL || names->point_count < FIXTURE_POINTS;
    }
    if (count > 0 && t->delivered % 7 == 3) {
        store_reader_return(reader, STREAM_RAW, scans[0]->device, 1, UINT64_MAX);
        size_t kept = 0;
        while (kept < count && scans[kept]->device == scans[0]->device) {
            kept++;
        }
        scans += kept;
        count -= kept;
        t->delivered++;
    }
    t->wrong += fixture_settle(reader, scans, count, FATE_DELIVERED) < 0;
    t->delivered += count;
    return count;
}

static void *run_uplink(void *arg)
{
    struct uplink_thread *t = arg;
    struct store_reader *reader;
    if (store_reader_create(t->store, t->uplink, t->uplink != 1, &reader) < 0) {
        t->wrong++;
        return NULL;
    }
    auto_buffer struct buffer arena = {0};
    for (unsigned idle = 0; idle < 3;) {
        struct pollfd fd = {.fd = store_reader_eventfd(reader), .events = POLLIN};
        bool last = *t->done;
        poll(&fd, 1, last ? 0 : 5);
        store_reader_seen(reader);
        struct store_backlog backlog;
        store_reader_backlog(reader, &backlog);
        size_t count = deliver(t, reader, STORE_LANE_LIVE, &arena) +
                       deliver(t, reader, STORE_LANE_BACKFILL, &arena);
        if (t->uplink == 2 && t->delivered % 5 == 0) {
            store_reader_split(reader);
        }
        idle = last && count == 0 ? idle + 1 : 0;
    }
    store_reader_destroy(reader);
    return NULL;
}

static void *look(void *arg)
{
    struct uplink_thread *t = arg;
    while (!*t->done) {
        struct store_stat stat;
        struct ledger_device total;
        store_stat(t->store, &stat);
        t->wrong += store_ledger_total(t->store, 0, &total) < 0;
        t->wrong += store_uplinks(t->store) < UPLINKS;
        poll(NULL, 0, 1);
    }
    return NULL;
}

static void write_all(struct store *store)
{
    uint32_t devices[DEVICES];
    for (uint64_t seq = 1; seq <= COMMITS; seq++) {
        for (unsigned d = 0; d < DEVICES && d <= seq; d++) {
            char name[8];
            snprintf(name, sizeof(name), "t%u", d);
            devices[d] = fixture_device(store, name, FIXTURE_POINTS);
            assert_int_equal(fixture_append(store, STREAM_RAW, devices[d], seq), 0);
        }
        uint16_t point;
        char extra[16];
        snprintf(extra, sizeof(extra), "extra%u", (unsigned)seq);
        assert_int_equal(store_point(store, devices[0], extra, "", &point), 0);
        assert_int_equal(store_commit(store), 0);
    }
}

static void test_readers_beside_the_writer(void **state)
{
    (void)state;
    char *dir = fixture_dir();
    struct store *store = fixture_open(dir, &fixture_settings);
    _Atomic bool done = false;
    pthread_t threads[UPLINKS + 1];
    struct uplink_thread uplinks[UPLINKS + 1] = {0};
    for (unsigned u = 0; u < UPLINKS; u++) {
        char name[8];
        snprintf(name, sizeof(name), "u%u", u);
        uplinks[u] = (struct uplink_thread){.store = store, .done = &done};
        assert_int_equal(store_add_uplink(store, name, 1u << STREAM_RAW, 0, &uplinks[u].uplink), 0);
    }
    uplinks[UPLINKS] = (struct uplink_thread){.store = store, .done = &done};
    for (unsigned u = 0; u <= UPLINKS; u++) {
        assert_int_equal(
            pthread_create(&threads[u], NULL, u < UPLINKS ? run_uplink : look, &uplinks[u]), 0);
    }
    write_all(store);
    done = true;
    for (unsigned u = 0; u <= UPLINKS; u++) {
        pthread_join(threads[u], NULL);
        assert_int_equal(uplinks[u].wrong, 0);
    }
    assert_int_equal(store_commit(store), 0);
    for (unsigned u = 0; u < UPLINKS; u++) {
        struct ledger_device total;
        fixture_adds_up(store, (int)u);
        assert_int_equal(store_ledger_total(store, (int)u, &total), 0);
        assert_int_equal(total.waiting, 0);
        assert_int_equal(total.fates[FATE_DELIVERED], total.counts[LEDGER_STORED]);
    }
    store_close(store);
    fixture_remove(dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_readers_beside_the_writer),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
