/* sink_records.h - the bodies that gateways post, as records.
 *
 * Pure, any thread. Knows the forms of the contract: batch and columns (with an identity), and
 * telemetry and flat (without: a device's time stands for its seq). Every record goes to the taker
 * as it is met; when the parse fails in the end, the taker forgets what it took. */
#pragma once

#include "uplink/sink/sink_value.h"

enum {
    SINK_NAME_MAX = 255,       /* bytes of a gateway, store, device or point */
    SINK_TEXT_MAX = 65536,     /* bytes of a text value */
    SINK_READINGS_MAX = 4096,  /* of a record; the gateway's own bound on a scan */
    SINK_RECORDS_MAX = 100000, /* of a body */
    SINK_ROWS_MAX = SINK_RECORDS_MAX,
    SINK_CELLS_MAX = 2000000,    /* of a block of columns: 96 MB in memory */
    SINK_LOOKUPS_MAX = 50000000, /* names compared for one body, so that a hostile one ends */
    SINK_WHY_SIZE = 160
};

struct sink_reading {
    struct json_in_text point;
    struct sink_value value;
    struct json_in_text quality; /* "good" where the body says nothing */
};

struct sink_record {
    struct json_in_text gateway, store, stream, device;
    int64_t seq, time_ms;
    const struct sink_reading *readings;
    size_t count;
    const char *refusal; /* why it cannot be kept; NULL: it can */
};

struct sink_taker {
    /* Called for each record, which lives for this call only; its texts live as long as the body
     * and the arena. Non-zero ends the parse with that error. */
    int (*take)(void *user, const struct sink_record *record);
    void *user;
};

enum sink_form { SINK_FORM_READINGS, /* batch, columns, telemetry */ SINK_FORM_FLAT };

/* -EINVAL: no body of that form, ret_why says where and why; other errors are the taker's. */
must_check int sink_records_parse(const char *body, size_t len, enum sink_form form,
                                  struct json_in_arena *arena, const struct sink_taker *taker,
                                  char ret_why[SINK_WHY_SIZE]);

/* ---- between sink_records.c and sink_columns.c ---- */

struct sink_parser {
    struct json_in json;
    const struct sink_taker *taker;
    struct sink_record head; /* gateway, store and stream of the body */
    struct sink_reading *readings;
    size_t capacity, lookups, records;
    int error; /* the taker's */
};

/* Room for one more reading; NULL latches an error in the document's parser. */
struct sink_reading *sink_parser_reading(struct sink_parser *p, size_t index);

/* Hands a record on; latches the taker's error. */
bool sink_parser_take(struct sink_parser *p, const struct sink_record *record);

/* The value of "blocks": an array of columns. */
bool sink_columns_parse(struct sink_parser *p);
