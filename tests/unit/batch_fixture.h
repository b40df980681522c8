/* batch_fixture.h - a batch made by hand, for tests of encoders. */
#pragma once

#include "uplink/uplink.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
// clang-format off
#include <cmocka.h> /* needs those above */
// clang-format on

enum { BATCH_SCANS_MAX = 64 };

static const struct store_point_name batch_points[] = {
    {"wind_speed", "m/s", 10}, {"power", "kW", 5}, {"grid_ok", "", 7}, {"odd,\"name\"", "", 10}};
static const struct store_names batch_t01 = {"t01", "{\"type\":\"V90\"}", 4, batch_points};
static const struct store_names batch_t02 = {"t\t0/2", "", 4, batch_points};

struct batch_fixture {
    struct scan *scans[BATCH_SCANS_MAX];
    struct batch_record records[BATCH_SCANS_MAX];
    struct batch batch;
    struct uplink_request request;
};

/* A scan of `count` readings 8.42, 8.43, ... */
__attribute__((unused)) static struct scan *batch_add(struct batch_fixture *f,
                                                      const struct store_names *names,
                                                      uint32_t device, uint64_t seq, uint16_t count)
{
    size_t i = f->batch.count++;
    assert_true(i < BATCH_SCANS_MAX);
    struct scan *s = calloc(1, scan_size_for(count, 16));
    assert_non_null(s);
    *s = (struct scan){
        .seq = seq, .time_ms = 1769855400000 + (int64_t)seq, .device = device, .count = count};
    for (uint16_t r = 0; r < count; r++) {
        s->readings[r] = (struct reading){
            .point = r, .kind = VALUE_DECIMAL, .exponent = -2, .integer = 842 + r};
    }
    f->scans[i] = s;
    f->records[i] = (struct batch_record){.scan = s, .names = names};
    f->batch.records = f->records;
    return s;
}

__attribute__((unused)) static int batch_setup(void **state)
{
    struct batch_fixture *f = calloc(1, sizeof *f);
    assert_non_null(f);
    f->batch.gateway = "borssele-1";
    f->batch.store_id = "9f2c61d07a3b";
    *state = f;
    return 0;
}

__attribute__((unused)) static int batch_teardown(void **state)
{
    struct batch_fixture *f = *state;
    for (size_t i = 0; i < f->batch.count; i++) {
        free(f->scans[i]);
    }
    buffer_finish(&f->request.body);
    buffer_finish(&f->request.headers);
    free(f);
    return 0;
}
