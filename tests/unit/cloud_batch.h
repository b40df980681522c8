/* cloud_batch.h - a batch made by hand, for the tests of encoders and judges. */
#pragma once

#include "uplink/uplink.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
// clang-format off
#include <cmocka.h> /* needs those above */
// clang-format on

enum { CLOUD_SCANS = 600, CLOUD_TEXT = 64 };

struct cloud_batch {
    struct scan *scans[CLOUD_SCANS];
    struct batch_record records[CLOUD_SCANS];
    struct batch batch;
    struct uplink_request request;
};

/* A scan of `count` decimals 8.42, 8.43, ...; room for CLOUD_TEXT bytes of text. */
static inline struct scan *cloud_scan(uint32_t device, uint64_t seq, int64_t time_ms,
                                      uint16_t count)
{
    struct scan *s = calloc(1, scan_size_for(count, CLOUD_TEXT));
    assert_non_null(s);
    *s = (struct scan){.seq = seq, .time_ms = time_ms, .device = device, .count = count};
    for (uint16_t i = 0; i < count; i++) {
        s->readings[i] = (struct reading){
            .point = i, .kind = VALUE_DECIMAL, .exponent = -2, .integer = 842 + i};
    }
    return s;
}

static inline struct scan *cloud_add(struct cloud_batch *b, struct scan *scan,
                                     const struct store_names *names)
{
    size_t i = b->batch.count++;
    assert_true(i < CLOUD_SCANS);
    b->scans[i] = scan;
    b->records[i] = (struct batch_record){.scan = scan, .names = names};
    b->batch.records = b->records;
    return scan;
}

static inline void cloud_text(struct scan *scan, uint16_t reading, const char *text)
{
    uint32_t len = (uint32_t)strlen(text);
    assert_true(scan->text_len + len <= CLOUD_TEXT);
    memcpy((char *)&scan->readings[scan->count] + scan->text_len, text, len);
    scan->readings[reading] = (struct reading){
        .point = reading, .kind = VALUE_TEXT, .text = {scan->text_len, len}};
    scan->text_len += len;
}

static inline int cloud_batch_setup(void **state)
{
    struct cloud_batch *b = calloc(1, sizeof *b);
    b->batch.gateway = "borssele-1";
    b->batch.store_id = "9f2c61d07a3b";
    *state = b;
    return 0;
}

static inline int cloud_batch_teardown(void **state)
{
    struct cloud_batch *b = *state;
    for (size_t i = 0; i < b->batch.count; i++) {
        free(b->scans[i]);
    }
    buffer_finish(&b->request.body);
    buffer_finish(&b->request.headers);
    free(b);
    return 0;
}

/* What the type makes of that reply. Free verdict.rejected. */
static inline struct uplink_verdict cloud_judge(const struct uplink *type, const void *settings,
                                                const struct cloud_batch *b, int status,
                                                const char *body)
{
    struct uplink_reply reply = {.status = status,
                                 .body = body,
                                 .len = strlen(body),
                                 .content_type = "",
                                 .retry_after_ms = -1,
                                 .error = "no route"};
    struct uplink_verdict verdict;
    type->judge(settings, &b->batch, &reply, &verdict);
    return verdict;
}
