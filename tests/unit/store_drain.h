/* store_drain.h - delivers what a reader hands out and holds the ledger to its sums. Static
 * functions for the test_store_*.c programs. */
#pragma once

#include "store_fixture.h"

UNUSED static int fixture_settle(struct store_reader *reader, const struct scan *const *scans,
                                 size_t count, enum ledger_fate fate)
{
    for (size_t i = 0; i < count;) {
        struct store_settlement settlement = {.stream = (enum stream)scans[i]->stream,
                                              .device = scans[i]->device,
                                              .first_seq = scans[i]->seq};
        for (; i < count && scans[i]->device == settlement.device; i++) {
            settlement.last_seq = scans[i]->seq;
            settlement.fates[fate] += scans[i]->count;
        }
        int rc = store_reader_settle(reader, &settlement);
        if (rc < 0) {
            return rc;
        }
    }
    return 0;
}

/* Takes, checks and settles until nothing comes; returns the scans. */
UNUSED static size_t fixture_drain(struct store_reader *reader, enum store_lane lane,
                                   enum stream stream)
{
    auto_buffer struct buffer arena = {0};
    size_t total = 0;
    for (;;) {
        const struct scan **scans;
        size_t count;
        assert_int_equal(
            store_reader_take(reader, lane, stream, 500, 1 << 20, &arena, &scans, &count), 0);
        if (count == 0) {
            return total;
        }
        for (size_t i = 0; i < count; i++) {
            fixture_check(scans[i]);
        }
        assert_int_equal(fixture_settle(reader, scans, count, FATE_DELIVERED), 0);
        total += count;
    }
}

/* read = stored + suppressed + dropped, and offered = fates + waiting, for every device. */
UNUSED static void fixture_adds_up(struct store *store, int uplink)
{
    struct ledger_device *devices;
    size_t count;
    assert_int_equal(store_ledger(store, uplink, &devices, &count), 0);
    for (size_t i = 0; i < count; i++) {
        const uint64_t *c = devices[i].counts;
        assert_int_equal(c[LEDGER_READ], c[LEDGER_STORED] + c[LEDGER_SUPPRESSED] +
                                             c[LEDGER_DROPPED_OVERRUN] + c[LEDGER_DROPPED_DISK]);
        uint64_t sum = devices[i].waiting;
        for (unsigned f = 0; f < FATE_COUNTS; f++) {
            sum += devices[i].fates[f];
        }
        assert_int_equal(devices[i].offered, sum);
    }
    free(devices);
}
