/* What readers hand out: order, lanes, flight, gaps, several uplinks, restarts. */
#include "store_drain.h"

#include <poll.h>

struct fixture {
    char *dir;
    struct store *store;
    unsigned uplink;
    struct store_reader *reader;
    uint32_t devices[4];
    uint64_t seq[4];
};

static void open_again(struct fixture *f, bool split)
{
    struct store_settings settings = fixture_settings;
    settings.keep_ms = 3600000;
    f->store = fixture_open(f->dir, &settings);
    assert_int_equal(
        store_add_uplink(f->store, "cloud", 1u << STREAM_RAW | 1u << STREAM_EVENT, 0, &f->uplink),
        0);
    for (unsigned d = 0; d < 4; d++) {
        char name[8];
        snprintf(name, sizeof(name), "t%u", d);
        f->devices[d] = fixture_device(f->store, name, FIXTURE_POINTS);
    }
    assert_int_equal(store_reader_create(f->store, f->uplink, split, &f->reader), 0);
}

static void shut(struct fixture *f)
{
    store_reader_destroy(f->reader);
    store_close(f->store);
}

static int set_up(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));
    f->dir = fixture_dir();
    open_again(f, true);
    *state = f;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *f = *state;
    shut(f);
    fixture_remove(f->dir);
    free(f);
    return 0;
}

static void append_round(struct fixture *f, unsigned rounds)
{
    for (unsigned r = 0; r < rounds; r++) {
        for (unsigned d = 0; d < 4; d++) {
            assert_int_equal(fixture_append(f->store, STREAM_RAW, f->devices[d], ++f->seq[d]), 0);
        }
    }
    assert_int_equal(store_commit(f->store), 0);
}

static size_t take(struct fixture *f, enum store_lane lane, size_t max, struct buffer *arena,
                   const struct scan ***scans)
{
    size_t count = 0;
    assert_int_equal(
        store_reader_take(f->reader, lane, STREAM_RAW, max, 1 << 20, arena, scans, &count), 0);
    return count;
}

static void test_batches_come_by_device_and_exclude_flight(void **state)
{
    struct fixture *f = *state;
    append_round(f, 10);
    append_round(f, 10);
    auto_buffer struct buffer a = {0}, b = {0}, c = {0};
    const struct scan **first, **second, **none;
    assert_int_equal(take(f, STORE_LANE_LIVE, 25, &a, &first), 25);
    for (size_t i = 1; i < 25; i++) {
        bool same = first[i]->device == first[i - 1]->device;
        assert_true(same ? first[i]->seq == first[i - 1]->seq + 1 : first[i]->seq == 1);
    }
    /* The rest of the second device waits for its flight. */
    assert_int_equal(take(f, STORE_LANE_LIVE, 100, &b, &second), 40);
    for (size_t i = 0; i < 40; i++) {
        assert_true(second[i]->device != first[0]->device &&
                    second[i]->device != first[24]->device);
    }
    assert_int_equal(take(f, STORE_LANE_LIVE, 100, &c, &none), 0);
    assert_int_equal(fixture_settle(f->reader, second, 40, FATE_DELIVERED), 0);
    assert_int_equal(fixture_settle(f->reader, first, 25, FATE_DELIVERED), 0);
    assert_int_equal(take(f, STORE_LANE_LIVE, 100, &c, &none), 15);
    assert_int_equal(none[0]->seq, 6);
    assert_int_equal(fixture_settle(f->reader, none, 15, FATE_DEAD), 0);
    assert_int_equal(store_commit(f->store), 0);
    struct ledger_device total;
    assert_int_equal(store_ledger_total(f->store, (int)f->uplink, &total), 0);
    assert_int_equal(total.waiting, 0);
    assert_int_equal(total.fates[FATE_DEAD], 15 * FIXTURE_POINTS);
    fixture_adds_up(f->store, (int)f->uplink);
}

static void test_a_settlement_must_add_up(void **state)
{
    struct fixture *f = *state;
    append_round(f, 2);
    auto_buffer struct buffer arena = {0};
    const struct scan **scans;
    assert_int_equal(take(f, STORE_LANE_LIVE, 2, &arena, &scans), 2);
    struct store_settlement s = {.device = scans[0]->device, .first_seq = 1, .last_seq = 2};
    s.fates[FATE_DELIVERED] = 2 * FIXTURE_POINTS - 1;
    assert_int_equal(store_reader_settle(f->reader, &s), -EINVAL);
    s.fates[FATE_NOT_SELECTED] = 1;
    assert_int_equal(store_reader_settle(f->reader, &s), 0);
    assert_int_equal(store_reader_settle(f->reader, &s), -ENOENT);
}

static void test_returned_scans_come_again_in_order(void **state)
{
    struct fixture *f = *state;
    append_round(f, 6);
    auto_buffer struct buffer arena = {0};
    const struct scan **scans;
    assert_int_equal(take(f, STORE_LANE_LIVE, 4, &arena, &scans), 4);
    uint32_t device = scans[0]->device;
    assert_int_equal(fixture_settle(f->reader, scans, 2, FATE_DELIVERED), 0);
    store_reader_return(f->reader, STREAM_RAW, device, 3, 4);
    size_t seen = 0;
    assert_int_equal(take(f, STORE_LANE_LIVE, 100, &arena, &scans), 22);
    for (size_t i = 0; i < 22; i++) {
        if (scans[i]->device == device) {
            assert_int_equal(scans[i]->seq, 3 + seen++);
        }
    }
    assert_int_equal(seen, 4);
    assert_int_equal(fixture_settle(f->reader, scans, 22, FATE_DELIVERED), 0);
    assert_int_equal(fixture_drain(f->reader, STORE_LANE_LIVE, STREAM_RAW), 0);
}

static void test_what_was_returned_is_not_settled_by_its_neighbours(void **state)
{
    struct fixture *f = *state;
    append_round(f, 10);
    auto_buffer struct buffer arena = {0};
    const struct scan **scans;
    assert_int_equal(take(f, STORE_LANE_LIVE, 10, &arena, &scans), 10);
    uint32_t device = scans[0]->device;
    store_reader_return(f->reader, STREAM_RAW, device, 4, 5);
    struct store_settlement s = {.device = device, .first_seq = 1, .last_seq = 10};
    s.fates[FATE_DELIVERED] = 8 * FIXTURE_POINTS;
    assert_int_equal(store_reader_settle(f->reader, &s), 0);
    assert_int_equal(fixture_drain(f->reader, STORE_LANE_LIVE, STREAM_RAW), 32);
    assert_int_equal(store_commit(f->store), 0);
    fixture_adds_up(f->store, (int)f->uplink);
}

static void test_gaps_settle_with_their_neighbours(void **state)
{
    struct fixture *f = *state;
    for (unsigned r = 0; r < 40; r++) {
        f->seq[0] += r % 3 == 0 ? 5 : 0;
        append_round(f, 1);
    }
    assert_int_equal(fixture_drain(f->reader, STORE_LANE_LIVE, STREAM_RAW), 160);
    assert_int_equal(store_commit(f->store), 0);
    shut(f);
    open_again(f, true);
    assert_int_equal(fixture_drain(f->reader, STORE_LANE_BACKFILL, STREAM_RAW), 0);
    struct store_settings settings = fixture_settings;
    store_set_settings(f->store, &settings); /* keeps nothing: all blocks may go */
    append_round(f, 1);
    struct store_stat stat;
    store_stat(f->store, &stat);
    assert_int_equal(stat.blocks, 1);
}

static void test_halves_settled_out_of_order_leave_nothing(void **state)
{
    struct fixture *f = *state;
    for (unsigned r = 0; r < 8; r++) {
        f->seq[0] += 3;
        append_round(f, 1);
    }
    auto_buffer struct buffer arena = {0};
    const struct scan **scans;
    size_t count = take(f, STORE_LANE_LIVE, 100, &arena, &scans);
    assert_int_equal(count, 32);
    for (size_t i = count; i-- > 0;) {
        assert_int_equal(fixture_settle(f->reader, scans + i, 1, FATE_DELIVERED), 0);
        if (i % 7 == 0) {
            assert_int_equal(store_commit(f->store), 0);
        }
    }
    assert_int_equal(store_commit(f->store), 0);
    shut(f);
    open_again(f, false);
    assert_int_equal(fixture_drain(f->reader, STORE_LANE_BACKFILL, STREAM_RAW), 0);
    fixture_adds_up(f->store, (int)f->uplink);
}

static void test_lanes_split_what_waits_from_what_comes(void **state)
{
    struct fixture *f = *state;
    append_round(f, 3);
    shut(f);
    open_again(f, true);
    append_round(f, 2);
    struct store_backlog backlog;
    store_reader_backlog(f->reader, &backlog);
    assert_int_equal(backlog.readings[STORE_LANE_BACKFILL], 12 * FIXTURE_POINTS);
    assert_int_equal(backlog.readings[STORE_LANE_LIVE], 8 * FIXTURE_POINTS);
    assert_true(backlog.oldest_ms > 0);
    auto_buffer struct buffer arena = {0};
    const struct scan **scans;
    assert_int_equal(take(f, STORE_LANE_LIVE, 3, &arena, &scans), 3);
    assert_int_equal(scans[0]->seq, 4);
    store_reader_split(f->reader); /* 3 in flight stay there */
    append_round(f, 1);
    assert_int_equal(fixture_settle(f->reader, scans, 3, FATE_DELIVERED), 0);
    assert_int_equal(fixture_drain(f->reader, STORE_LANE_LIVE, STREAM_RAW), 4);
    assert_int_equal(fixture_drain(f->reader, STORE_LANE_BACKFILL, STREAM_RAW), 17);
    store_reader_backlog(f->reader, &backlog);
    assert_int_equal(backlog.readings[STORE_LANE_BACKFILL], 0);
    assert_int_equal(backlog.oldest_ms, 0);
    assert_int_equal(store_commit(f->store), 0);
    shut(f);
    open_again(f, false);
    assert_int_equal(fixture_drain(f->reader, STORE_LANE_BACKFILL, STREAM_RAW), 0);
}

/* What is appended, and counted for the uplinks already, is no backlog: it comes with the live
 * ones. A count that stayed would hide from the sender that live scans wait. */
static void test_what_is_not_committed_is_no_backlog(void **state)
{
    struct fixture *f = *state;
    append_round(f, 2);
    for (int again = 0; again < 2; again++) {
        for (unsigned d = 0; d < 4; d++) {
            assert_int_equal(fixture_append(f->store, STREAM_RAW, f->devices[d], ++f->seq[d]), 0);
        }
        unsigned uplink, streams = 1u << STREAM_RAW | 1u << STREAM_EVENT;
        assert_int_equal(store_add_uplink(f->store, "cloud", streams, 0, &uplink), 0); /* reload */
        if (again == 0) {
            store_reader_split(f->reader);
        } else {
            store_reader_destroy(f->reader);
            assert_int_equal(store_reader_create(f->store, uplink, true, &f->reader), 0);
        }
        assert_int_equal(store_commit(f->store), 0);
        struct store_backlog backlog;
        store_reader_backlog(f->reader, &backlog);
        assert_int_equal(backlog.readings[STORE_LANE_BACKFILL], (8 - 4 * again) * FIXTURE_POINTS);
        assert_int_equal(backlog.readings[STORE_LANE_LIVE], 4 * FIXTURE_POINTS);
        assert_int_equal(fixture_drain(f->reader, STORE_LANE_BACKFILL, STREAM_RAW), 8 - 4 * again);
        store_reader_backlog(f->reader, &backlog);
        assert_int_equal(backlog.readings[STORE_LANE_BACKFILL], 0);
        assert_int_equal(backlog.readings[STORE_LANE_LIVE], 4 * FIXTURE_POINTS);
    }
    assert_int_equal(fixture_drain(f->reader, STORE_LANE_LIVE, STREAM_RAW), 4);
}

static void test_only_what_was_not_settled_is_sent_again(void **state)
{
    struct fixture *f = *state;
    append_round(f, 20);
    auto_buffer struct buffer arena = {0};
    const struct scan **scans;
    size_t count = take(f, STORE_LANE_LIVE, 33, &arena, &scans);
    assert_int_equal(fixture_settle(f->reader, scans, count, FATE_DELIVERED), 0);
    assert_int_equal(store_commit(f->store), 0);
    count = take(f, STORE_LANE_LIVE, 10, &arena, &scans); /* in flight at the end */
    assert_true(count > 0);
    shut(f);
    open_again(f, true);
    assert_int_equal(fixture_drain(f->reader, STORE_LANE_BACKFILL, STREAM_RAW), 80 - 33);
}

static bool readable(struct store_reader *reader)
{
    struct pollfd fd = {.fd = store_reader_eventfd(reader), .events = POLLIN};
    return poll(&fd, 1, 0) == 1;
}

static void test_commits_wake_those_who_selected(void **state)
{
    struct fixture *f = *state;
    unsigned other;
    struct store_reader *deaf;
    assert_int_equal(store_add_uplink(f->store, "aggregates", 1u << STREAM_AGGREGATE, 0, &other),
                     0);
    assert_int_equal(store_reader_create(f->store, other, true, &deaf), 0);
    append_round(f, 1);
    assert_true(readable(f->reader));
    assert_false(readable(deaf));
    store_reader_seen(f->reader);
    assert_false(readable(f->reader));
    struct ledger_device total;
    assert_int_equal(store_ledger_total(f->store, (int)other, &total), 0);
    assert_int_equal(total.fates[FATE_NOT_SELECTED], 4 * FIXTURE_POINTS);
    assert_int_equal(fixture_append(f->store, STREAM_AGGREGATE, f->devices[0], 1), 0);
    assert_int_equal(store_commit(f->store), 0);
    assert_true(readable(deaf));
    assert_int_equal(fixture_drain(deaf, STORE_LANE_LIVE, STREAM_AGGREGATE), 1);
    assert_int_equal(fixture_drain(f->reader, STORE_LANE_LIVE, STREAM_AGGREGATE), 0);
    assert_int_equal(store_commit(f->store), 0);
    fixture_adds_up(f->store, (int)f->uplink);
    fixture_adds_up(f->store, (int)other);
    store_reader_destroy(deaf);
}

static void test_uplinks_come_and_go(void **state)
{
    struct fixture *f = *state;
    append_round(f, 5);
    shut(f);
    struct store_settings settings = fixture_settings;
    settings.keep_ms = 3600000;
    f->store = fixture_open(f->dir, &settings);
    assert_string_equal(store_uplink_name(f->store, f->uplink), "cloud");
    unsigned second;
    assert_int_equal(store_add_uplink(f->store, "second", 1u << STREAM_RAW, 0, &second), 0);
    assert_true(second != f->uplink);
    append_round(f, 2);
    assert_int_equal(store_reader_create(f->store, second, false, &f->reader), 0);
    assert_int_equal(fixture_drain(f->reader, STORE_LANE_BACKFILL, STREAM_RAW), 8);
    store_reader_destroy(f->reader);
    store_drop_uplink(f->store, f->uplink);
    assert_string_equal(store_uplink_name(f->store, f->uplink), "");
    store_set_settings(f->store, &fixture_settings);
    assert_int_equal(store_commit(f->store), 0);
    struct store_stat stat;
    store_stat(f->store, &stat);
    assert_int_equal(stat.blocks, 0); /* nothing is kept for the dropped one */
    store_close(f->store);
    open_again(f, true);
    assert_int_equal(fixture_drain(f->reader, STORE_LANE_BACKFILL, STREAM_RAW), 0);
}

static void test_too_many_uplinks_and_letters_are_refused(void **state)
{
    struct fixture *f = *state;
    unsigned uplink;
    for (unsigned i = 1; i < STORE_UPLINKS_MAX; i++) {
        char name[8];
        snprintf(name, sizeof(name), "u%u", i);
        assert_int_equal(store_add_uplink(f->store, name, 1, 0, &uplink), 0);
    }
    assert_int_equal(store_add_uplink(f->store, "more", 1, 0, &uplink), -ENOBUFS);
    auto_free struct scan *scan = fixture_scan(STREAM_RAW, f->devices[0], 1, 4000);
    int rc = 0;
    unsigned letters = 0;
    for (; rc == 0 && letters < 1000000; letters++) {
        rc = store_dead_letter(f->reader, scan, NULL, 0, "refused: schema");
    }
    assert_int_equal(rc, -ENOBUFS);
    assert_int_equal(store_commit(f->store), 0);
    assert_int_equal(store_dead_letter(f->reader, scan, NULL, 0, "refused: schema"), 0);
    assert_int_equal(store_commit(f->store), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_batches_come_by_device_and_exclude_flight, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(test_a_settlement_must_add_up, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_returned_scans_come_again_in_order, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_what_was_returned_is_not_settled_by_its_neighbours,
                                        set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_gaps_settle_with_their_neighbours, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_halves_settled_out_of_order_leave_nothing, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(test_lanes_split_what_waits_from_what_comes, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(test_what_is_not_committed_is_no_backlog, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(test_only_what_was_not_settled_is_sent_again, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(test_commits_wake_those_who_selected, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_uplinks_come_and_go, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_too_many_uplinks_and_letters_are_refused, set_up,
                                        tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
