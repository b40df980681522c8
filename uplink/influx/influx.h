/* influx.h - the inside of type `influx`: line protocol to InfluxDB 1, 2, 3 (and so Timestream for
 * InfluxDB), VictoriaMetrics and whoever else speaks it.
 *
 * Pure, any thread. One scan is one line: tags device, gateway, store, stream and those of the
 * device, window_s for an aggregate; fields seq (an integer) and one a point; nanoseconds, of which
 * the last six digits tell scans of one millisecond apart (labels.h). Numbers are always floats,
 * because the first value decides a field's type for ever. A reading without a value has no field
 * of its own; every reading that is not good has a text field NAME_quality. The same measurement,
 * tags and time are the same row: a repeat overwrites itself. */
#pragma once

#include "uplink/transport/transport.h"
#include "uplink/uplink.h"

enum influx_version { INFLUX_V1, INFLUX_V2, INFLUX_V3 };

struct influx_settings {
    struct transport_settings transport;
    const char *org, *bucket, *db, *measurement;
    int version;
};
extern const struct config_table influx_config_table;

enum {
    INFLUX_REQUEST_MAX = 8 * 1024 * 1024, /* InfluxDB 3 takes 10 MiB */
    INFLUX_RECORDS_MAX = 10000,           /* lines a request that InfluxDB recommends at most */
};

/* Writes path and query of the write request behind the user's URL: the edition's path where the
 * URL has none. -ENAMETOOLONG: the names are too long together. */
must_check int influx_write_path(const struct influx_settings *settings, char *path, size_t size);

/* How each edition wants its token: Bearer for v3, Token for v2, Basic for v1's "user:password". */
enum uplink_token influx_token(const struct influx_settings *settings);

/* Appends one line a record. 0 or -ENOMEM; over the bound the buffer's `failed` is set. */
must_check int influx_encode_lines(const char *measurement, const struct batch *batch,
                                   struct buffer *out);

/* 204 is the only success; partial writes are read as each edition tells them. */
void influx_judge(const void *settings, const struct batch *batch, const struct uplink_reply *reply,
                  struct uplink_verdict *ret_verdict);

extern const struct uplink_probe influx_probe;
extern const struct uplink uplink_influx;
