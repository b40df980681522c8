/* store_site.h - the store of a site with some devices and one uplink, opened, shut and opened
 * again, under a clock that the test holds. Static functions for the test_store_*.c programs. */
#pragma once

#include "store_drain.h"

#define SITE_START_MS INT64_C(1769855400000) /* 2026-01-31 10:30 */

enum { SITE_DEVICES_MAX = 4 };

/* The first member of a test's own fixture. */
struct site {
    char *dir;
    struct store_settings settings;
    const char *uplink_name; /* "cloud" */
    unsigned streams;        /* of the uplink: raw */
    unsigned device_count;
    struct store *store;
    unsigned uplink;
    struct store_reader *reader;
    uint32_t devices[SITE_DEVICES_MAX]; /* "t0", "t1", ... */
};

/* Nothing is opened yet. */
UNUSED static void site_begin(struct site *site, unsigned device_count)
{
    clock_hold(SITE_START_MS, 1000000000);
    *site = (struct site){.dir = fixture_dir(),
                          .settings = fixture_settings,
                          .uplink_name = "cloud",
                          .streams = 1u << STREAM_RAW,
                          .device_count = device_count};
}

UNUSED static void site_open_aging(struct site *site, bool split, int64_t max_age_ms)
{
    site->store = fixture_open(site->dir, &site->settings);
    assert_int_equal(
        store_add_uplink(site->store, site->uplink_name, site->streams, max_age_ms, &site->uplink),
        0);
    for (unsigned d = 0; d < site->device_count; d++) {
        char name[16];
        snprintf(name, sizeof(name), "t%u", d);
        site->devices[d] = fixture_device(site->store, name, FIXTURE_POINTS);
    }
    assert_int_equal(store_reader_create(site->store, site->uplink, split, &site->reader), 0);
}

UNUSED static void site_open(struct site *site, bool split)
{
    site_open_aging(site, split, 0);
}

UNUSED static void site_shut(struct site *site)
{
    store_reader_destroy(site->reader);
    store_close(site->store);
    site->reader = NULL;
    site->store = NULL;
}

/* One scan of each device under that seq; a second passes. */
UNUSED static void site_append(struct site *site, uint64_t seq)
{
    for (unsigned d = 0; d < site->device_count; d++) {
        assert_int_equal(fixture_append(site->store, STREAM_RAW, site->devices[d], seq), 0);
    }
    clock_advance_ms(1000);
}

UNUSED static struct ledger_device site_total(struct site *site)
{
    struct ledger_device total;
    assert_int_equal(store_ledger_total(site->store, (int)site->uplink, &total), 0);
    fixture_adds_up(site->store, (int)site->uplink);
    return total;
}

UNUSED static void site_end(struct site *site)
{
    site_shut(site);
    fixture_remove(site->dir);
    clock_release();
}
