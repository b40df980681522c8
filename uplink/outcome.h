/* outcome.h - what judge makes of a reply: whether a batch, or which of its records, has arrived.
 *
 * Plain data; uplink.h includes it. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum uplink_outcome {
    UPLINK_DELIVERED, /* all records but the rejected ones are confirmed */
    UPLINK_RETRY,     /* later, the same batch */
    UPLINK_SPLIT,     /* too large: halves; a single record that is too large is rejected */
    UPLINK_REJECTED,  /* refused for good, all of it; `why` says it */
    UPLINK_HOLD,      /* credentials or configuration: keep everything, try slowly, say so */
};

struct uplink_verdict {
    enum uplink_outcome outcome;
    int64_t retry_after_ms; /* -1: the sender's own backoff */
    size_t rejected_count;  /* with UPLINK_DELIVERED: these records go to the dead letters ... */
    struct uplink_rejected {
        size_t record; /* index in the batch */
        bool again;    /* ... but not this one: it is sent again, later */
        char why[96];
    } * rejected;  /* malloc'd, the sender frees it */
    char why[200]; /* in words, for status and log */
};
