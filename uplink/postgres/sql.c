#include "uplink/postgres/postgres.h"

/* In the order of copy.c's fields. */
#define COLUMNS "gateway, store, stream, device, seq, time, window_s, point, value, text, quality"
#define COLUMN_TYPES                                                                               \
    "gateway text, store text, stream text, device text, seq bigint, time timestamptz, "           \
    "window_s integer, point text, value double precision, text text, quality text"

static void quoted(struct buffer *out, const char *text, size_t len, char quote)
{
    buffer_add_byte(out, (uint8_t)quote);
    for (size_t i = 0; i < len; i++) {
        if (text[i] == quote) {
            buffer_add_byte(out, (uint8_t)quote);
        }
        buffer_add_byte(out, (uint8_t)text[i]);
    }
    buffer_add_byte(out, (uint8_t)quote);
}

void postgres_write_table(struct buffer *out, const char *table)
{
    const char *dot = strchr(table, '.');
    if (dot != NULL) {
        quoted(out, table, (size_t)(dot - table), '"');
        buffer_add_text(out, ".");
        table = dot + 1;
    }
    quoted(out, table, strlen(table), '"');
}

/* A hypertable's unique keys must hold its time (TimescaleDB's manual, "Hypertables and unique
 * indexes"); without it the identity alone is the key. The lock keeps sessions that find no table
 * at the same time from making it twice. */
const char *postgres_setup_sql(struct buffer *out, const char *table)
{
    auto_buffer struct buffer name = {0};
    auto_buffer struct buffer literal = {0};
    buffer_clear(out);
    postgres_write_table(&name, table);
    quoted(&literal, (const char *)name.data, name.len, '\'');
    const char *t = buffer_text(&name), *l = buffer_text(&literal);
    if (t == NULL || l == NULL) {
        return NULL;
    }
    /* The body in a string that its own quotes cannot end, whatever the table is called. */
    auto_buffer struct buffer body = {0};
    buffer_printf(
        &body,
        "BEGIN IF to_regclass(%s) IS NULL THEN PERFORM pg_advisory_xact_lock(hashtext(%s)); "
        "IF to_regclass(%s) IS NULL THEN CREATE TABLE %s (" COLUMN_TYPES "); "
        "IF EXISTS (SELECT FROM pg_extension WHERE extname = 'timescaledb') THEN "
        "ALTER TABLE %s ADD PRIMARY KEY (store, stream, device, seq, point, time); "
        "PERFORM create_hypertable(%s, 'time'); "
        "ELSE ALTER TABLE %s ADD PRIMARY KEY (store, stream, device, seq, point); "
        "END IF; END IF; END IF; END",
        l, l, l, t, t, l, t);
    buffer_add_text(out, "SET client_min_messages = warning; "
                         "SELECT set_config('synchronous_commit', 'on', false) WHERE "
                         "current_setting('synchronous_commit') = 'off'; DO ");
    quoted(out, (const char *)body.data, body.len, '\'');
    buffer_add_text(out, "; CREATE TEMPORARY TABLE windrow_staging (" COLUMN_TYPES
                         ") ON COMMIT DELETE ROWS");
    return buffer_failed(&body) ? NULL : buffer_text(out);
}

const char *postgres_copy_sql(struct buffer *out)
{
    buffer_clear(out);
    buffer_add_text(out, "BEGIN; COPY pg_temp.windrow_staging (" COLUMNS ") FROM STDIN");
    return buffer_text(out);
}

const char *postgres_insert_sql(struct buffer *out, const char *table)
{
    buffer_clear(out);
    buffer_add_text(out, "INSERT INTO ");
    postgres_write_table(out, table);
    buffer_add_text(out, " (" COLUMNS ") SELECT " COLUMNS
                         " FROM pg_temp.windrow_staging ON CONFLICT DO NOTHING; COMMIT");
    return buffer_text(out);
}
