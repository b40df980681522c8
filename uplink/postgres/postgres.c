#include "uplink/postgres/postgres.h"

#include "uplink/transport/keys.h"

#include <errno.h>

#define KEY(field) offsetof(struct postgres_settings, field)

static const struct config_key keys[] = {
    {
        .name = "host",
        .type = CONFIG_TEXT,
        .offset = KEY(host),
        .required = true,
        .example = "db.example.com",
        .help = "name or address of the server, or the directory of its Unix socket",
    },
    {
        .name = "port",
        .type = CONFIG_INT,
        .offset = KEY(port),
        .fallback = "5432",
        .min = 1,
        .max = 65535,
        .help = "where it listens",
    },
    {
        .name = "database",
        .type = CONFIG_TEXT,
        .offset = KEY(database),
        .required = true,
        .example = "wind",
        .help = "the database on it",
    },
    {
        .name = "user",
        .type = CONFIG_TEXT,
        .offset = KEY(user),
        .required = true,
        .example = "windrow",
        .help = "as whom to come; may insert and read the table, and make it when it is absent",
    },
    TRANSPORT_PASSWORD_KEY(struct postgres_settings, line, "/etc/windrow/postgres"),
    {
        .name = "table",
        .type = CONFIG_TEXT,
        .offset = KEY(table),
        .fallback = "readings",
        .help = "TABLE or SCHEMA.TABLE, made when absent; a hypertable where TimescaleDB is",
    },
    TRANSPORT_TLS_KEYS(struct postgres_settings, line),
    TRANSPORT_TIME_KEYS(struct postgres_settings, line),
};

static void check_table(const char *table, struct config_errors *errors)
{
    enum { NAME_MAX_BYTES = 63 }; /* NAMEDATALEN - 1: longer names would be cut by the server */
    const char *dot = strchr(table, '.');
    const char *name = dot != NULL ? dot + 1 : table;
    size_t schema = dot != NULL ? (size_t)(dot - table) : 1;
    if (name[0] == '\0' || schema == 0 || strchr(name, '.') != NULL ||
        strlen(name) > NAME_MAX_BYTES || schema > NAME_MAX_BYTES) {
        config_complain(errors, "table", "'%.80s' is neither TABLE nor SCHEMA.TABLE", table);
    }
}

static void check(const void *settings, struct config_errors *errors)
{
    const struct postgres_settings *s = settings;
    if (s->host != NULL && strpbrk(s->host, ", ") != NULL) {
        config_complain(errors, "host", "one host is wanted");
    }
    if (s->table != NULL) {
        check_table(s->table, errors);
    }
    transport_files_check(s->line.ca_file, s->line.cert_file, s->line.key_file, errors);
}

static const struct config_table table = {
    .section = "uplink",
    .variant = "postgres",
    .size = sizeof(struct postgres_settings),
    .keys = keys,
    .key_count = ARRAY_SIZE(keys),
    .check = check,
};

static int encode(const void *settings, const struct batch *batch, struct uplink_request *request)
{
    (void)settings;
    request->body.max = POSTGRES_REQUEST_MAX;
    buffer_clear(&request->body);
    postgres_encode_rows(batch, &request->body);
    return buffer_failed(&request->body) || request->body.len > POSTGRES_REQUEST_MAX ? -E2BIG : 0;
}

const struct uplink uplink_postgres = {
    .name = "postgres",
    .table = &table,
    .max_records = UPLINK_BATCH_RECORDS_MAX,
    .max_bytes = POSTGRES_REQUEST_MAX,
    .encode = encode,
    .judge = postgres_judge,
    .transport = &transport_postgres,
    .probe = &postgres_probe,
};
