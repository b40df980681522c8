/* uplink.h - what a cloud is: two pure functions, a transport and a table of keys.
 *
 * The sender (one for all types, one thread an uplink) cuts batches, keeps them in flight, retries
 * and settles. A type only says how a batch looks on the wire and what a reply means. encode and
 * judge are pure and may be called from any thread; they keep no state outside their arguments. */
#pragma once

#include "config/config.h"
#include "gateway/base/scan.h"
#include "gateway/store/reader.h"
#include "uplink/outcome.h"

enum uplink_replay { UPLINK_LIVE_AND_BACKFILL, UPLINK_OLDEST_FIRST };

/* Keys that every [uplink] has (table uplink_config_table, in sender_config.c). */
struct uplink_settings {
    struct config_list send;   /* raw aggregates events */
    struct config_list points; /* globs DEVICE.POINT; none: all */
    int64_t batch_records, batch_interval_ms, parallel;
    int64_t max_age_ms; /* 0: none */
    int replay;
    int64_t backfill_rate; /* bytes a minute, 0: no limit */
};
extern const struct config_table uplink_config_table;
enum { UPLINK_BATCH_RECORDS_MAX = 10000, UPLINK_PARALLEL_MAX = 16 };

/* The streams of `send`, as bits 1 << enum stream (for store_add_uplink). */
unsigned uplink_streams(const struct uplink_settings *settings);

/* One scan of a batch: its readings that are selected, with the names to show them by. */
struct batch_record {
    const struct scan *scan;
    const struct store_names *names;
    const uint16_t *selected; /* indexes in scan->readings; NULL: all of them */
    uint16_t selected_count;
};

struct transport_settings;

struct batch {
    const char *gateway, *store_id;
    enum stream stream;
    const struct batch_record *records; /* at least one reading in each */
    size_t count;
};

/* How the token of the transport's settings is shown (RFC 9110 section 11.6.2); LOGIN: as Basic
 * where it is USER:PASSWORD, otherwise as Token. */
enum uplink_token { UPLINK_TOKEN_BEARER, UPLINK_TOKEN_TOKEN, UPLINK_TOKEN_LOGIN };

struct uplink_request {
    struct buffer body;
    const char *content_type;
    char path[1024];       /* appended to the endpoint's URL, "" for none */
    struct buffer headers; /* further header lines, NUL-terminated each: "Name: value" */
    enum uplink_token token;
    bool compressible;
    bool dense; /* a few bytes a reading already: worth a longer search when compressed */

    /* For transports that ask on their own behalf; encode leaves them NULL. */
    const char *method; /* NULL: POST */
    /* Another endpoint, with its TLS files, than that of the settings; valid until `done`. */
    const struct transport_settings *elsewhere;
};

struct uplink_reply {
    int status;       /* HTTP status, 0: no reply (see error); 200 is success on other ways, too */
    const char *code; /* NULL over HTTP; otherwise why it was refused: an SQLSTATE, MQTT's reason */
    const char *body; /* NUL-terminated behind len */
    size_t len;
    const char *content_type; /* "" when absent */
    int64_t retry_after_ms;   /* -1: not given */
    int64_t date_ms;          /* UTC from the Date header, 0: not given */
    const char *error;        /* the transport's words when status is 0, or with a code */

    /* Only where a service proves by them what it has taken; NULL: not told. */
    const char *etag, *checksum_sha256;   /* header fields of those names, "" when absent */
    const struct uplink_request *answers; /* what was asked */
};

struct transport;

struct uplink {
    const char *name;                 /* required: the value of `type =` */
    const struct config_table *table; /* required */
    size_t max_records, max_bytes;    /* required: the service's own bounds on a request */

    /* Optional, pure: a smaller bound than max_records that these settings bring. */
    size_t (*records_limit)(const void *settings);

    /* Optional, pure: how many of the first records may share a request (at least one), where that
     * depends on what they are. */
    size_t (*together)(const void *settings, const struct batch *batch);

    /* Required, pure. -E2BIG: the batch does not fit, cut it smaller. */
    int (*encode)(const void *settings, const struct batch *batch, struct uplink_request *request);

    /* Required, pure: reads a reply (any bytes at all) to that batch. */
    void (*judge)(const void *settings, const struct batch *batch, const struct uplink_reply *reply,
                  struct uplink_verdict *ret_verdict);

    /* Required: how requests travel; &transport_http for everything over HTTPS. */
    const struct transport *transport;

    /* Required with transport_http: URL, TLS files, token, compression out of the settings. NULL:
     * the transport is of this type alone and is made from the type's own settings. */
    const struct transport_settings *(*transport_settings)(const void *settings);

    const struct uplink_probe *probe; /* optional: what `uplink test` asks of it, probe/probe.h */
};

extern const struct uplink *const uplinks[];
extern const size_t uplinks_count;
const struct uplink *uplink_find(const char *type);
