/* What the sink holds, read back: for people and tests, not for speed. A query runs in the sink's
 * one thread, so its time is bounded. */
#include "gateway/base/clock.h"
#include "uplink/sink/sink_db.h"

#include <errno.h>
#include <sqlite3.h>

enum { PROGRESS_STEPS = 10000 }; /* virtual machine steps between two looks at the clock */

static int past_deadline(void *user)
{
    return clock_mono_ms() > *(const int64_t *)user;
}

static void cleanup_statement(sqlite3_stmt **statement)
{
    sqlite3_finalize(*statement);
}
#define auto_statement __attribute__((cleanup(cleanup_statement)))

static json_t *column_json(sqlite3_stmt *statement, int column)
{
    switch (sqlite3_column_type(statement, column)) {
    case SQLITE_INTEGER:
        return json_integer(sqlite3_column_int64(statement, column));
    case SQLITE_FLOAT:
        return json_real(sqlite3_column_double(statement, column));
    case SQLITE_TEXT:
        return json_stringn((const char *)sqlite3_column_text(statement, column),
                            (size_t)sqlite3_column_bytes(statement, column));
    default:
        return json_null();
    }
}

static json_t *time_json(int64_t time_ms)
{
    char text[CLOCK_TEXT_SIZE];
    clock_format_utc(time_ms, text);
    return json_string(text);
}

/* A row as an object named by its columns; time_ms becomes `time`, as on the wire. */
static json_t *row_json(sqlite3_stmt *statement)
{
    json_t *row = json_object();
    for (int i = 0; i < sqlite3_column_count(statement); i++) {
        const char *name = sqlite3_column_name(statement, i);
        if (sqlite3_stricmp(name, "time_ms") == 0) {
            json_object_set_new(row, "time", time_json(sqlite3_column_int64(statement, i)));
        } else {
            json_object_set_new(row, name, column_json(statement, i));
        }
    }
    return row;
}

static int collect(sqlite3_stmt *statement, json_t *rows)
{
    int rc;
    while ((rc = sqlite3_step(statement)) == SQLITE_ROW) {
        if (json_array_append_new(rows, row_json(statement)) != 0) {
            return -ENOMEM;
        }
    }
    return rc == SQLITE_DONE ? 0 : rc == SQLITE_INTERRUPT ? -ETIMEDOUT : -EIO;
}

static int query_readings(sqlite3 *handle, const struct sink_query *query, json_t *rows)
{
    sqlite3_stmt *statement auto_statement = NULL;
    static const char by_device[] =
        "SELECT gateway, store, stream, device, seq, point, time_ms, value, quality FROM readings"
        " WHERE device = ?1 AND (?2 IS NULL OR point = ?2) AND time_ms >= ?3 AND time_ms < ?4"
        " ORDER BY time_ms, seq, point LIMIT ?5";
    static const char all[] =
        "SELECT gateway, store, stream, device, seq, point, time_ms, value, quality FROM readings"
        " WHERE (?2 IS NULL OR point = ?2) AND time_ms >= ?3 AND time_ms < ?4"
        " ORDER BY time_ms, device, seq, point LIMIT ?5";
    if (sqlite3_prepare_v2(handle, query->device != NULL ? by_device : all, -1, &statement, NULL) !=
        SQLITE_OK) {
        return -EIO;
    }
    if (query->device != NULL) {
        sqlite3_bind_text(statement, 1, query->device, -1, SQLITE_STATIC);
    }
    sqlite3_bind_text(statement, 2, query->point, -1, SQLITE_STATIC);
    sqlite3_bind_int64(statement, 3, query->from_ms);
    sqlite3_bind_int64(statement, 4, query->to_ms);
    sqlite3_bind_int64(statement, 5, query->limit);
    return collect(statement, rows);
}

int sink_db_query(struct sink_db *db, const struct sink_query *query, json_t **ret_json)
{
    sqlite3 *handle = sink_db_handle(db);
    json_t *rows = json_array();
    int r = 0;
    if (handle != NULL) {
        int64_t deadline = clock_mono_ms() + SINK_QUERY_TIME_MS;
        sqlite3_progress_handler(handle, PROGRESS_STEPS, past_deadline, &deadline);
        r = query_readings(handle, query, rows);
        sqlite3_progress_handler(handle, 0, NULL, NULL);
    }
    if (r < 0) {
        json_decref(rows);
        return r;
    }
    *ret_json = json_pack("{s:o}", "readings", rows);
    return *ret_json == NULL ? -ENOMEM : 0;
}

/* Adds the record's points to its flat object. */
static int add_points(sqlite3_stmt *points, sqlite3_stmt *record, json_t *flat)
{
    sqlite3_reset(points);
    for (int i = 0; i < 5; i++) {
        sqlite3_bind_value(points, i + 1, sqlite3_column_value(record, i));
    }
    int rc;
    while ((rc = sqlite3_step(points)) == SQLITE_ROW) {
        json_object_set_new(flat, (const char *)sqlite3_column_text(points, 0),
                            column_json(points, 1));
    }
    return rc == SQLITE_DONE ? 0 : rc == SQLITE_INTERRUPT ? -ETIMEDOUT : -EIO;
}

/* By a jump from device to device and to each one's last five records: the cost does not grow with
 * the history. */
static const char latest_sql[] =
    "WITH RECURSIVE devices(x) AS (SELECT min(device) FROM readings UNION ALL"
    " SELECT (SELECT min(device) FROM readings WHERE device > x) FROM devices WHERE x IS NOT NULL),"
    " lanes(x, s, since) AS MATERIALIZED (SELECT x, streams.column1, coalesce((SELECT DISTINCT seq"
    " FROM readings WHERE device = x AND stream = streams.column1 ORDER BY seq DESC LIMIT 1"
    " OFFSET 4), 0)"
    " FROM devices, (VALUES('raw'), ('aggregate'), ('event'), ('')) AS streams"
    " WHERE x IS NOT NULL)"
    " SELECT gateway, store, stream, device, seq, max(time_ms) FROM lanes CROSS JOIN readings"
    " ON device = x AND stream = s AND seq >= since"
    " GROUP BY device, stream, seq, store, gateway ORDER BY 6 DESC, device LIMIT 5";

static int query_latest(sqlite3 *handle, json_t *rows)
{
    sqlite3_stmt *records auto_statement = NULL;
    sqlite3_stmt *points auto_statement = NULL;
    if (sqlite3_prepare_v2(handle, latest_sql, -1, &records, NULL) != SQLITE_OK ||
        sqlite3_prepare_v2(handle,
                           "SELECT point, value FROM readings WHERE gateway = ?1 AND store = ?2"
                           " AND stream = ?3 AND device = ?4 AND seq = ?5",
                           -1, &points, NULL) != SQLITE_OK) {
        return -EIO;
    }
    int rc;
    while ((rc = sqlite3_step(records)) == SQLITE_ROW) {
        json_t *flat = json_object();
        json_object_set_new(flat, "location", column_json(records, 3));
        json_object_set_new(flat, "time", time_json(sqlite3_column_int64(records, 5)));
        int r = add_points(points, records, flat);
        json_array_append_new(rows, flat);
        if (r < 0) {
            return r;
        }
    }
    return rc == SQLITE_DONE ? 0 : rc == SQLITE_INTERRUPT ? -ETIMEDOUT : -EIO;
}

int sink_db_latest(struct sink_db *db, json_t **ret_json)
{
    sqlite3 *handle = sink_db_handle(db);
    json_t *rows = json_array();
    int r = 0;
    if (handle != NULL) {
        int64_t deadline = clock_mono_ms() + SINK_QUERY_TIME_MS;
        sqlite3_progress_handler(handle, PROGRESS_STEPS, past_deadline, &deadline);
        r = query_latest(handle, rows);
        sqlite3_progress_handler(handle, 0, NULL, NULL);
    }
    if (r < 0) {
        json_decref(rows);
        return r;
    }
    *ret_json = rows;
    return rows == NULL ? -ENOMEM : 0;
}
