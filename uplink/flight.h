/* flight.h - scans taken from the store until the endpoint has answered for each of them.
 *
 * A flight holds one take of a lane and stream and offers it part by part: as a whole where that
 * fits, smaller after a split. One part is asked for at a time, so that no device is ever in two
 * requests; its request is encoded once and kept, so that a retry is the same to the byte. The
 * sender's thread only. */
#pragma once

#include "uplink/selector.h"
#include "uplink/uplink.h"

enum flight_state {
    FLIGHT_FREE,
    FLIGHT_READY,   /* its part may be sent */
    FLIGHT_SENDING, /* the transport has it */
    FLIGHT_PAUSED,  /* sent and failed: again at retry_at_ms */
};

/* Bytes of scan memory in a take. With the request and its compressed copy this bounds what one of
 * `parallel` flights can hold. */
enum { FLIGHT_TAKE_BYTES = 2 * 1024 * 1024 };

struct sender; /* of the flight: sender.c's business */

struct flight {
    struct sender *sender;
    enum flight_state state;
    enum store_lane lane;
    enum stream stream;
    bool full;           /* the take was cut off by its bound: more of its devices may wait */
    int64_t retry_at_ms; /* CLOCK_MONOTONIC, as the next */
    int64_t sent_at_ms;

    struct buffer arena; /* the scans lie here */
    const struct scan **scans;
    size_t scan_count;
    int64_t expired_before_ms; /* older scans are not sent */
    struct batch_record *records;
    size_t *scan_of; /* of each record */
    size_t record_count, record_capacity;
    uint16_t *picks; /* what `selected` of the records points at */
    size_t pick_capacity;

    size_t next_scan;  /* those before it are settled */
    uint64_t readings; /* of those that are not */
    size_t from, to;   /* the part asked for: records */
    size_t cap;        /* records in a part, grows again after a success */
    size_t cap_max;    /* largest part this endpoint takes */
    bool encoded;      /* request is that of from..to */
    unsigned put_offs; /* rounds in a row in which nothing of the part was taken */
    struct uplink_request request;
};

void flight_finish(struct flight *f);

/* What came of a part, added up for the sender's own counts. */
struct flight_result {
    uint64_t delivered, dead; /* readings */
    size_t put_off;           /* records to be sent again: they are the part now */
};

/* Takes at most max_scans of that lane and stream. 0: `ret_got` says whether there was anything;
 * scans of which nothing is selected are settled at once. cap_max: records in a request. */
must_check int flight_take(struct flight *f, struct store *store, struct store_reader *reader,
                           struct selector *selector, enum store_lane lane, enum stream stream,
                           size_t max_scans, size_t cap_max, int64_t expired_before_ms,
                           bool *ret_got);

/* Encodes the part at hand, unless that was done; what may not share a request with its first
 * record becomes the next part. -E2BIG: shrink it. */
must_check int flight_encode(struct flight *f, const struct uplink *type, const void *settings,
                             const char *gateway, const char *store_id);

/* The part as a batch, for judge. */
struct batch flight_batch(const struct flight *f, const char *gateway, const char *store_id);

/* Makes the part smaller. too_large: also those that come. False: it is one record already. */
bool flight_shrink(struct flight *f, bool too_large);

/* Settles the part: all delivered but the rejected ones, which become dead letters or, when they
 * are to go again, make up the next part; UPLINK_REJECTED: the whole part is dead for `why`. Goes
 * on to the next part, or becomes free. An error is the store's; what could not be settled then
 * stays as the part. */
must_check int flight_settle(struct flight *f, struct store_reader *reader,
                             const struct uplink_verdict *verdict, struct flight_result *ret);

/* Gives what is left back to the reader. */
void flight_return(struct flight *f, struct store_reader *reader);
