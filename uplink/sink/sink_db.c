#include "uplink/sink/sink_db.h"

#include <errno.h>
#include <sqlite3.h>
#include <string.h>

/* The key begins with device and seq: a record's readings lie side by side, a device's in the order
 * in which they arrive, and a device's history is one range. */
static const char schema[] =
    "PRAGMA journal_mode=WAL;"
    "PRAGMA synchronous=FULL;"
    "PRAGMA cache_size=-32768;"
    "PRAGMA wal_autocheckpoint=4000;"
    "CREATE TABLE IF NOT EXISTS readings(gateway TEXT NOT NULL, store TEXT NOT NULL,"
    " stream TEXT NOT NULL, device TEXT NOT NULL, seq INTEGER NOT NULL, point TEXT NOT NULL,"
    " time_ms INTEGER NOT NULL, value, quality TEXT NOT NULL,"
    " PRIMARY KEY(device, stream, seq, point, store, gateway)) WITHOUT ROWID;"
    "CREATE TABLE IF NOT EXISTS repeats(gateway TEXT NOT NULL, store TEXT NOT NULL,"
    " stream TEXT NOT NULL, device TEXT NOT NULL, seq INTEGER NOT NULL, point TEXT NOT NULL,"
    " count INTEGER NOT NULL,"
    " PRIMARY KEY(device, stream, seq, point, store, gateway)) WITHOUT ROWID;"
    "CREATE TABLE IF NOT EXISTS conflicts(gateway TEXT NOT NULL, store TEXT NOT NULL,"
    " stream TEXT NOT NULL, device TEXT NOT NULL, seq INTEGER NOT NULL, point TEXT NOT NULL,"
    " held, offered);"
    "CREATE TABLE IF NOT EXISTS totals(id INTEGER PRIMARY KEY CHECK(id = 1), records INTEGER,"
    " readings INTEGER, repeats INTEGER, restamped INTEGER, conflicts INTEGER);"
    "INSERT OR IGNORE INTO totals VALUES(1, 0, 0, 0, 0, 0);";

enum statement {
    BEGIN,
    COMMIT,
    ROLLBACK,
    INSERT,
    COMPARE,
    UNDO,
    REPEAT,
    CONFLICT,
    COUNT,
    STATEMENTS
};

#define IDENTITY                                                                                   \
    " WHERE gateway = ?1 AND store = ?2 AND stream = ?3 AND device = ?4 AND seq = ?5"              \
    " AND point = ?6"

/* ?1 to ?9 are the columns of readings in their order, in every statement that has them. */
static const char *const sql[STATEMENTS] = {
    [BEGIN] = "BEGIN IMMEDIATE",
    [COMMIT] = "COMMIT",
    [ROLLBACK] = "ROLLBACK",
    [INSERT] = "INSERT INTO readings VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)"
               " ON CONFLICT DO NOTHING",
    [COMPARE] = "SELECT value IS ?8, time_ms = ?7 AND quality = ?9 FROM readings" IDENTITY,
    [UNDO] = "DELETE FROM readings" IDENTITY,
    [REPEAT] = "INSERT INTO repeats VALUES(?1, ?2, ?3, ?4, ?5, ?6, 1)"
               " ON CONFLICT DO UPDATE SET count = count + 1",
    [CONFLICT] = "INSERT INTO conflicts SELECT ?1, ?2, ?3, ?4, ?5, ?6, value, ?8"
                 " FROM readings" IDENTITY,
    [COUNT] = "UPDATE totals SET records = ?1, readings = ?2, repeats = ?3, restamped = ?4,"
              " conflicts = ?5",
};

enum fate { FATE_NEW, FATE_REPEAT, FATE_RESTAMPED, FATE_CONFLICT };

struct sink_db {
    sqlite3 *handle; /* NULL: only count */
    sqlite3_stmt *statements[STATEMENTS];
    struct sink_counts committed, pending;
    uint8_t fates[SINK_READINGS_MAX];
};

struct sqlite3 *sink_db_handle(struct sink_db *db)
{
    return db->handle;
}

const char *sink_db_error(const struct sink_db *db)
{
    return db->handle == NULL ? "no database" : sqlite3_errmsg(db->handle);
}

struct sink_counts sink_db_counts(const struct sink_db *db)
{
    return db->committed;
}

static int run(struct sink_db *db, enum statement which)
{
    int rc = sqlite3_step(db->statements[which]);
    sqlite3_reset(db->statements[which]);
    return rc == SQLITE_DONE || rc == SQLITE_ROW ? 0 : -EIO;
}

static int read_totals(struct sink_db *db)
{
    sqlite3_stmt *totals;
    if (sqlite3_prepare_v2(db->handle,
                           "SELECT records, readings, repeats, restamped, conflicts FROM totals",
                           -1, &totals, NULL) != SQLITE_OK) {
        return -EIO;
    }
    int rc = sqlite3_step(totals);
    if (rc == SQLITE_ROW) {
        db->committed = (struct sink_counts){
            .records = (uint64_t)sqlite3_column_int64(totals, 0),
            .readings = (uint64_t)sqlite3_column_int64(totals, 1),
            .repeats = (uint64_t)sqlite3_column_int64(totals, 2),
            .restamped = (uint64_t)sqlite3_column_int64(totals, 3),
            .conflicts = (uint64_t)sqlite3_column_int64(totals, 4),
        };
    }
    sqlite3_finalize(totals);
    return rc == SQLITE_ROW ? 0 : -EIO;
}

static int open_file(struct sink_db *db, const char *path)
{
    int flags = SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX;
    if (sqlite3_open_v2(path, &db->handle, flags, NULL) != SQLITE_OK) {
        return -EIO;
    }
    sqlite3_busy_timeout(db->handle, 5000); /* a test that reads the file beside us */
    if (sqlite3_exec(db->handle, schema, NULL, NULL, NULL) != SQLITE_OK) {
        return -EIO;
    }
    for (int i = 0; i < STATEMENTS; i++) {
        if (sqlite3_prepare_v3(db->handle, sql[i], -1, SQLITE_PREPARE_PERSISTENT,
                               &db->statements[i], NULL) != SQLITE_OK) {
            return -EIO;
        }
    }
    return read_totals(db);
}

int sink_db_open(const char *path, struct sink_db **ret_db)
{
    struct sink_db *db = calloc(1, sizeof *db);
    if (db == NULL) {
        return -ENOMEM;
    }
    int r = path == NULL ? 0 : open_file(db, path);
    if (r < 0) {
        sink_db_close(db);
        return r;
    }
    *ret_db = db;
    return 0;
}

void sink_db_close(struct sink_db *db)
{
    if (db == NULL) {
        return;
    }
    for (int i = 0; i < STATEMENTS; i++) {
        sqlite3_finalize(db->statements[i]);
    }
    sqlite3_close(db->handle);
    free(db);
}

int sink_db_begin(struct sink_db *db)
{
    db->pending = (struct sink_counts){0};
    return db->handle == NULL ? 0 : run(db, BEGIN);
}

void sink_db_rollback(struct sink_db *db)
{
    db->pending = (struct sink_counts){0};
    if (db->handle != NULL && sqlite3_get_autocommit(db->handle) == 0) {
        int r = run(db, ROLLBACK);
        (void)r; /* a transaction that SQLite has ended by itself */
    }
}

static struct sink_counts add_counts(struct sink_counts a, struct sink_counts b)
{
    return (struct sink_counts){
        .records = a.records + b.records,
        .readings = a.readings + b.readings,
        .repeats = a.repeats + b.repeats,
        .restamped = a.restamped + b.restamped,
        .conflicts = a.conflicts + b.conflicts,
    };
}

int sink_db_commit(struct sink_db *db)
{
    struct sink_counts total = add_counts(db->committed, db->pending);
    if (db->handle != NULL) {
        sqlite3_stmt *count = db->statements[COUNT];
        sqlite3_bind_int64(count, 1, (sqlite3_int64)total.records);
        sqlite3_bind_int64(count, 2, (sqlite3_int64)total.readings);
        sqlite3_bind_int64(count, 3, (sqlite3_int64)total.repeats);
        sqlite3_bind_int64(count, 4, (sqlite3_int64)total.restamped);
        sqlite3_bind_int64(count, 5, (sqlite3_int64)total.conflicts);
        int r = run(db, COUNT);
        r = r < 0 ? r : run(db, COMMIT);
        if (r < 0) {
            return r;
        }
    }
    db->committed = total;
    db->pending = (struct sink_counts){0};
    return 0;
}

static void bind_text(sqlite3_stmt *statement, int index, struct json_in_text text)
{
    /* Never NULL: an empty text is a text. The bytes stay where they are until the next bind. */
    sqlite3_bind_text(statement, index, text.at == NULL ? "" : text.at, (int)text.len,
                      SQLITE_STATIC);
}

static void bind_identity(sqlite3_stmt *statement, const struct sink_record *record)
{
    bind_text(statement, 1, record->gateway);
    bind_text(statement, 2, record->store);
    bind_text(statement, 3, record->stream);
    bind_text(statement, 4, record->device);
    sqlite3_bind_int64(statement, 5, record->seq);
}

static void bind_value(sqlite3_stmt *statement, int index, const struct sink_value *value)
{
    switch (value->kind) {
    case SINK_VALUE_INTEGER:
        sqlite3_bind_int64(statement, index, value->integer);
        break;
    case SINK_VALUE_REAL:
        sqlite3_bind_double(statement, index, value->real);
        break;
    case SINK_VALUE_TEXT:
        bind_text(statement, index, value->text);
        break;
    case SINK_VALUE_NULL:
        sqlite3_bind_null(statement, index);
        break;
    }
}

static int run_for(struct sink_db *db, enum statement which, const struct sink_record *record,
                   const struct sink_reading *reading)
{
    sqlite3_stmt *statement = db->statements[which];
    bind_identity(statement, record);
    bind_text(statement, 6, reading->point);
    if (which == CONFLICT) {
        bind_value(statement, 8, &reading->value);
    }
    return run(db, which);
}

static int compare(struct sink_db *db, const struct sink_record *record,
                   const struct sink_reading *reading, enum fate *ret_fate)
{
    sqlite3_stmt *statement = db->statements[COMPARE];
    bind_identity(statement, record);
    bind_text(statement, 6, reading->point);
    sqlite3_bind_int64(statement, 7, record->time_ms);
    bind_value(statement, 8, &reading->value);
    bind_text(statement, 9, reading->quality);
    int rc = sqlite3_step(statement);
    bool same_value = sqlite3_column_int(statement, 0) != 0;
    bool same_stamp = sqlite3_column_int(statement, 1) != 0;
    sqlite3_reset(statement);
    if (rc != SQLITE_ROW) {
        return -EIO;
    }
    *ret_fate = !same_value ? FATE_CONFLICT : same_stamp ? FATE_REPEAT : FATE_RESTAMPED;
    return 0;
}

static int insert(struct sink_db *db, const struct sink_record *record,
                  const struct sink_reading *reading, enum fate *ret_fate)
{
    sqlite3_stmt *statement = db->statements[INSERT];
    bind_text(statement, 6, reading->point);
    bind_value(statement, 8, &reading->value);
    bind_text(statement, 9, reading->quality);
    int r = run(db, INSERT);
    if (r < 0) {
        return r;
    }
    if (sqlite3_changes(db->handle) == 0) {
        return compare(db, record, reading, ret_fate);
    }
    *ret_fate = FATE_NEW;
    return 0;
}

/* Takes a refused record's new readings out again: it is kept whole or not at all. */
static int undo(struct sink_db *db, const struct sink_record *record, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        if (db->fates[i] == FATE_NEW) {
            int r = run_for(db, UNDO, record, &record->readings[i]);
            if (r < 0) {
                return r;
            }
        }
    }
    return 0;
}

static int count_fates(struct sink_db *db, const struct sink_record *record)
{
    bool any_new = false;
    for (size_t i = 0; i < record->count; i++) {
        if (db->fates[i] == FATE_NEW) {
            db->pending.readings++;
            any_new = true;
            continue;
        }
        int r = run_for(db, REPEAT, record, &record->readings[i]);
        if (r < 0) {
            return r;
        }
        db->pending.repeats++;
        db->pending.restamped += db->fates[i] == FATE_RESTAMPED ? 1 : 0;
    }
    db->pending.records += any_new ? 1 : 0;
    return 0;
}

int sink_db_put(struct sink_db *db, const struct sink_record *record, enum sink_put *ret_put)
{
    *ret_put = SINK_PUT_KEPT;
    if (db->handle == NULL) {
        db->pending.records++;
        db->pending.readings += record->count;
        return 0;
    }
    bind_identity(db->statements[INSERT], record);
    sqlite3_bind_int64(db->statements[INSERT], 7, record->time_ms);
    for (size_t i = 0; i < record->count; i++) {
        enum fate fate;
        int r = insert(db, record, &record->readings[i], &fate);
        if (r < 0) {
            return r;
        }
        if (fate == FATE_CONFLICT) {
            r = run_for(db, CONFLICT, record, &record->readings[i]);
            db->pending.conflicts++;
            *ret_put = SINK_PUT_REFUSED;
            return r < 0 ? r : undo(db, record, i);
        }
        db->fates[i] = (uint8_t)fate;
    }
    return count_fates(db, record);
}
