/* sink_db.h - the sink's memory: every reading once, in SQLite.
 *
 * One thread. Table `readings` is keyed by identity and point. A repeat with the same value is
 * counted in table `repeats`; one with another value is refused, and kept in table `conflicts` with
 * both values. A repeat whose time or quality differs (the gateway's clock was synchronised in
 * between) keeps what was there first and is counted as restamped. Without a file (`--discard`) it
 * only counts. What a transaction took is counted when it is committed, and forgotten otherwise. */
#pragma once

#include "uplink/sink/sink_records.h"

#include <jansson.h>

struct sink_db;

struct sink_counts {
    uint64_t records, readings, repeats, restamped, conflicts;
};

enum sink_put {
    SINK_PUT_KEPT,    /* all of it is in the table, now or already */
    SINK_PUT_REFUSED, /* none of it: another value is held under its identity */
};

/* path NULL: only count. The file is created when it is absent; totals go on from it. */
must_check int sink_db_open(const char *path, struct sink_db **ret_db);
void sink_db_close(struct sink_db *db);

must_check int sink_db_begin(struct sink_db *db);
must_check int sink_db_put(struct sink_db *db, const struct sink_record *record,
                           enum sink_put *ret_put);
must_check int sink_db_commit(struct sink_db *db);
void sink_db_rollback(struct sink_db *db);

/* Committed totals, since the file was made. */
struct sink_counts sink_db_counts(const struct sink_db *db);

/* SQLite's words for the last error. */
const char *sink_db_error(const struct sink_db *db);

struct sink_query {
    const char *device, *point; /* NULL: any */
    int64_t from_ms, to_ms;     /* from <= time < to */
    int64_t limit;
};
enum { SINK_QUERY_LIMIT_MAX = 10000, SINK_QUERY_TIME_MS = 2000 };

/* {"readings":[...]} in the order of time; -ETIMEDOUT when it takes too long. New reference. */
must_check int sink_db_query(struct sink_db *db, const struct sink_query *query, json_t **ret_json);

/* The latest five records, newest first, as flat objects in an array. */
enum { SINK_LATEST = 5 };
must_check int sink_db_latest(struct sink_db *db, json_t **ret_json);

/* ---- between sink_db.c and sink_query.c ---- */
struct sqlite3;
struct sqlite3 *sink_db_handle(struct sink_db *db); /* NULL when it only counts */
