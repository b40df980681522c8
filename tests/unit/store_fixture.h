/* store_fixture.h - a store in a temporary folder, scans that say what they are, and ways to drain
 * it. Static functions for the test_store_*.c programs, single-threaded. */
#pragma once

#include "gateway/base/clock.h"
#include "gateway/store/reader.h"
#include "tests/unit/scratch.h"

#include <errno.h>
#include <ftw.h>
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/stat.h>
/* clang-format off */
#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>
/* clang-format on */

#define UNUSED __attribute__((unused))

static const struct store_settings fixture_settings = {.commit_interval_ms = 1000,
                                                       .max_size_bytes = 64 << 20,
                                                       .keep_ms = 0,
                                                       .when_full = STORE_FULL_DROP_OLDEST};

UNUSED static int remove_entry(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    (void)st, (void)type, (void)ftw;
    return remove(path);
}

UNUSED static char *fixture_dir(void)
{
    char dir[64];
    assert_non_null(scratch_dir(dir, sizeof(dir), "test_store"));
    return strdup(dir);
}

UNUSED static void fixture_remove(char *dir)
{
    nftw(dir, remove_entry, 16, FTW_DEPTH | FTW_PHYS);
    free(dir);
}

UNUSED static struct store *fixture_open(const char *dir, const struct store_settings *settings)
{
    struct store *store = NULL;
    assert_int_equal(store_open(dir, settings, &store), 0);
    return store;
}

UNUSED static uint32_t fixture_device(struct store *store, const char *name, unsigned points)
{
    uint32_t device;
    assert_int_equal(store_device(store, name, "{\"type\":\"V90\"}", &device), 0);
    for (unsigned p = 0; p < points; p++) {
        char point[32];
        uint16_t id;
        snprintf(point, sizeof(point), "p%u", p);
        assert_int_equal(store_point(store, device, point, "m/s", &id), 0);
        assert_int_equal(id, p);
    }
    return device;
}

enum { FIXTURE_POINTS = 20 };

/* The value that a reading of this identity must have. */
UNUSED static int64_t fixture_value(enum stream stream, uint32_t device, uint64_t seq, unsigned p)
{
    uint64_t x = seq * 0x9E3779B97F4A7C15ull + device * 131u + p * 7u + (unsigned)stream;
    return 1000 + (int64_t)(p * 100) + (int64_t)(x >> 58);
}

UNUSED static struct scan *fixture_scan(enum stream stream, uint32_t device, uint64_t seq,
                                        unsigned points)
{
    struct scan *scan = calloc(1, scan_size_for(points, 0));
    assert_non_null(scan);
    scan->seq = seq;
    scan->time_ms = clock_wall_ms();
    scan->boot_ms = clock_boot_ms();
    scan->device = device;
    scan->stream = (uint16_t)stream;
    scan->count = (uint16_t)points;
    for (unsigned p = 0; p < points; p++) {
        scan->readings[p] = (struct reading){.point = (uint16_t)p,
                                             .kind = VALUE_DECIMAL,
                                             .exponent = -2,
                                             .integer = fixture_value(stream, device, seq, p)};
    }
    return scan;
}

UNUSED static int fixture_append(struct store *store, enum stream stream, uint32_t device,
                                 uint64_t seq)
{
    auto_free struct scan *scan = fixture_scan(stream, device, seq, FIXTURE_POINTS);
    int rc = store_append(store, scan);
    if (rc == 0 && stream == STREAM_RAW) {
        store_count(store, device, LEDGER_READ, FIXTURE_POINTS);
    }
    return rc;
}

UNUSED static void fixture_check(const struct scan *scan)
{
    for (unsigned p = 0; p < scan->count; p++) {
        assert_int_equal(scan->readings[p].integer,
                         fixture_value((enum stream)scan->stream, scan->device, scan->seq, p));
    }
}
