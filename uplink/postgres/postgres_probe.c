#include "gateway/base/clock.h"
#include "uplink/postgres/postgres.h"
#include "uplink/probe/probe.h"
#include "uplink/transport/errand.h"

#include <arpa/inet.h>
#include <errno.h>
#include <poll.h>
#include <sys/socket.h>

static void before(struct probe *probe)
{
    probe_secret(probe, "password",
                 &((const struct postgres_settings *)probe->settings)->line.token);
}

/* SSLRequest of the frontend protocol (PostgreSQL's manual, 55.2.10). */
static int ask_for_tls(int fd, char *words, size_t size)
{
    const uint32_t request[2] = {htonl(8), htonl(80877103)};
    char answer = 0;
    if (send(fd, request, sizeof request, MSG_NOSIGNAL) != sizeof request ||
        recv(fd, &answer, 1, 0) != 1) {
        snprintf(words, size, "no answer to the request for TLS: is it PostgreSQL?");
        return -EPROTO;
    }
    if (answer != 'S') {
        snprintf(words, size, "%s",
                 answer == 'N' ? "the server offers no TLS: ssl = on in its postgresql.conf"
                               : "what answers there is no PostgreSQL");
        return -EPROTO;
    }
    return 0;
}

static bool target(const void *settings, struct probe_target *ret_target)
{
    const struct postgres_settings *s = settings;
    if (s->host[0] == '/') {
        return false; /* a Unix socket */
    }
    *ret_target = (struct probe_target){.port = (int)s->port,
                                        .tls = s->line.ca_file != NULL ||
                                               !postgres_is_local(s->host),
                                        .ca_file = s->line.ca_file,
                                        .crl_file = s->line.crl_file,
                                        .cert_file = s->line.cert_file,
                                        .key_file = s->line.key_file,
                                        .timeout_ms = s->line.connect_timeout_ms,
                                        .greet = ask_for_tls};
    snprintf(ret_target->host, sizeof ret_target->host, "%s", s->host);
    return true;
}

static PGconn *begin(const struct postgres_settings *s, int64_t deadline_ms)
{
    struct errand *look_up = NULL;
    if (postgres_resolve(s->host, &look_up) < 0) {
        return NULL;
    }
    while (look_up != NULL && !errand_done(look_up) && clock_mono_ms() < deadline_ms) {
        struct pollfd wait = {.fd = errand_fd(look_up), .events = POLLIN};
        poll(&wait, 1, (int)(deadline_ms - clock_mono_ms()));
    }
    bool found = look_up == NULL || errand_done(look_up);
    PGconn *connection = found ? postgres_connect(s, s->line.token.text,
                                                  look_up != NULL ? errand_arg(look_up) : NULL)
                               : NULL;
    errand_drop(look_up);
    return connection;
}

/* Waits until the login has come to its end. */
static bool log_in(PGconn *connection, int64_t deadline_ms)
{
    PostgresPollingStatusType state = PGRES_POLLING_WRITING;
    while (state != PGRES_POLLING_OK && state != PGRES_POLLING_FAILED) {
        int64_t left_ms = deadline_ms - clock_mono_ms();
        short events = state == PGRES_POLLING_READING ? POLLIN : POLLOUT;
        struct pollfd wait = {.fd = PQsocket(connection), .events = events};
        if (left_ms <= 0 || poll(&wait, 1, (int)left_ms) <= 0) {
            return false;
        }
        state = PQconnectPoll(connection);
    }
    return state == PGRES_POLLING_OK;
}

static const char *login_mend(const char *code)
{
    static const struct {
        const char *code, *mend;
    } mends[] = {
        {"28P01", "compare user and password_file with the server's"},
        {"28000", "pg_hba.conf of the server must let this user in from here, with TLS"},
        {"3D000", "compare `database` with the server's: psql -l"},
        {"53300", "the server has no connection left for us: max_connections"},
    };
    for (size_t i = 0; i < ARRAY_SIZE(mends); i++) {
        if (strcmp(mends[i].code, code) == 0) {
            return mends[i].mend;
        }
    }
    return NULL;
}

static const char *privileges_sql(struct buffer *out, const char *table)
{
    auto_buffer struct buffer name = {0};
    postgres_write_table(&name, table);
    const char *quoted = buffer_text(&name);
    char *literal = quoted != NULL ? malloc(strlen(quoted) * 2 + 3) : NULL;
    if (literal == NULL) {
        return NULL;
    }
    char *to = literal;
    *to++ = '\'';
    for (const char *at = quoted; *at != '\0'; at++) {
        *to++ = *at;
        if (*at == '\'') {
            *to++ = '\'';
        }
    }
    memcpy(to, "'", 2);
    buffer_printf(
        out,
        "SELECT t IS NOT NULL, has_table_privilege(t, 'INSERT'), has_table_privilege(t, 'SELECT'), "
        "EXISTS (SELECT FROM pg_index WHERE indrelid = t AND indisunique), "
        "has_schema_privilege(current_schema(), 'CREATE'), "
        "has_database_privilege(current_database(), 'TEMPORARY'), "
        "EXISTS (SELECT FROM pg_extension WHERE extname = 'timescaledb') "
        "FROM (SELECT to_regclass(%s)::oid AS t) AS one",
        literal);
    free(literal);
    return buffer_text(out);
}

static void say_privileges(struct probe *probe, const PGresult *result, const char *table)
{
    const char *const yes = "t";
    bool has[7];
    for (int i = 0; i < 7; i++) {
        has[i] = strcmp(PQgetvalue(result, 0, i), yes) == 0;
    }
    const char *kind = has[6] ? "; TimescaleDB is installed" : "; no TimescaleDB, a plain table";
    if (!has[5]) {
        probe_say(probe, "table", PROBE_BAD, "GRANT TEMPORARY ON DATABASE ... TO the user",
                  "this user may make no temporary table, through which batches go");
    } else if (!has[0] && !has[4]) {
        probe_say(probe, "table", PROBE_BAD,
                  "GRANT CREATE ON SCHEMA ... TO the user, or make the table by hand",
                  "%s is not there, and this user may not make it", table);
    } else if (!has[0]) {
        probe_say(probe, "table", PROBE_GOOD, NULL, "%s is not there yet and will be made%s", table,
                  kind);
    } else if (!has[1] || !has[2]) {
        probe_say(probe, "table", PROBE_BAD, "GRANT INSERT, SELECT ON the table TO the user",
                  "%s is there, but this user may not %s it", table, has[1] ? "read" : "write");
    } else if (!has[3]) {
        probe_say(probe, "table", PROBE_WARN,
                  "without a unique key a repeat is a second row: let the gateway make the table, "
                  "or add PRIMARY KEY (store, stream, device, seq, point)",
                  "%s is there, but has no unique key%s", table, kind);
    } else {
        probe_say(probe, "table", PROBE_GOOD, NULL, "%s is there, we may write and read it%s",
                  table, kind);
    }
}

static void ask_table(struct probe *probe, PGconn *connection)
{
    const struct postgres_settings *s = probe->settings;
    auto_buffer struct buffer sql = {0};
    const char *text = privileges_sql(&sql, s->table);
    probe_begin(probe);
    PGresult *result = text != NULL ? PQexec(connection, text) : NULL;
    if (PQresultStatus(result) == PGRES_TUPLES_OK && PQntuples(result) == 1) {
        say_privileges(probe, result, s->table);
    } else {
        char code[6], words[POSTGRES_WORDS];
        postgres_connect_words(connection, code, words);
        probe_say(probe, "table", PROBE_BAD, NULL, "%s", words);
    }
    PQclear(result);
}

static void ask(struct probe *probe)
{
    const struct postgres_settings *s = probe->settings;
    int64_t deadline_ms = clock_mono_ms() + s->line.connect_timeout_ms;
    probe_begin(probe);
    PGconn *connection = begin(s, deadline_ms);
    if (connection != NULL && log_in(connection, deadline_ms)) {
        const char *version = PQparameterStatus(connection, "server_version");
        probe_say(probe, "login", PROBE_GOOD, NULL, "PostgreSQL %s, as %s in %s, %s",
                  version != NULL ? version : "?", s->user, s->database,
                  PQsslInUse(connection) == 1 ? "over TLS" : "without TLS (this machine only)");
        ask_table(probe, connection);
    } else {
        char code[6], words[POSTGRES_WORDS];
        postgres_connect_words(connection, code, words);
        probe_say(probe, "login", PROBE_BAD, login_mend(code), "%s",
                  words[0] != '\0' ? words : "no answer within connect_timeout");
    }
    PQfinish(connection);
}

const struct uplink_probe postgres_probe = {.before = before, .target = target, .ask = ask};
