#include "store_drain.h"

static void test_append_take_settle(void **unused)
{
    (void)unused;
    char *dir = fixture_dir();
    struct store *store = fixture_open(dir, &fixture_settings);
    assert_int_equal(strlen(store_id(store)), 12);
    assert_null(store_quarantined(store));
    char id[13];
    memcpy(id, store_id(store), sizeof(id));
    unsigned uplink;
    assert_int_equal(store_add_uplink(store, "cloud", 1u << STREAM_RAW, 0, &uplink), 0);
    uint32_t devices[5];
    for (unsigned d = 0; d < 5; d++) {
        char name[8];
        snprintf(name, sizeof(name), "t%u", d);
        devices[d] = fixture_device(store, name, FIXTURE_POINTS);
    }
    struct store_reader *reader;
    assert_int_equal(store_reader_create(store, uplink, true, &reader), 0);
    for (uint64_t seq = 1; seq <= 30; seq++) {
        for (unsigned d = 0; d < 5; d++) {
            assert_int_equal(fixture_append(store, STREAM_RAW, devices[d], seq), 0);
        }
        if (seq % 3 == 0) {
            assert_int_equal(store_commit(store), 0);
        }
    }
    assert_int_equal(fixture_drain(reader, STORE_LANE_BACKFILL, STREAM_RAW), 0);
    assert_int_equal(fixture_drain(reader, STORE_LANE_LIVE, STREAM_RAW), 150);
    assert_true(store_has_pending(store));
    assert_int_equal(store_commit(store), 0);
    assert_false(store_has_pending(store));
    fixture_adds_up(store, (int)uplink);
    struct ledger_device total;
    assert_int_equal(store_ledger_total(store, (int)uplink, &total), 0);
    assert_int_equal(total.counts[LEDGER_STORED], 150 * FIXTURE_POINTS);
    assert_int_equal(total.fates[FATE_DELIVERED], 150 * FIXTURE_POINTS);
    assert_int_equal(total.waiting, 0);
    struct store_stat stat;
    store_stat(store, &stat);
    assert_int_equal(stat.blocks, 0);
    assert_int_equal(stat.waiting, 0);
    store_reader_destroy(reader);
    store_close(store);

    store = fixture_open(dir, &fixture_settings);
    assert_string_equal(store_id(store), id);
    assert_int_equal(store_last_seq(store, STREAM_RAW, devices[4]), 30);
    assert_string_equal(store_names(store, devices[1])->device, "t1");
    assert_string_equal(store_names(store, devices[1])->points[19].name, "p19");
    assert_string_equal(store_uplink_name(store, uplink), "cloud");
    assert_int_equal(store_uplinks(store), uplink + 1);
    store_close(store);
    fixture_remove(dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_append_take_settle),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
