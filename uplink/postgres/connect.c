#include "uplink/postgres/postgres.h"

#include <ctype.h>

/* libpq 15 knows no system store of its own; Debian's list of authorities stands here. */
#define SYSTEM_CA "/etc/ssl/certs/ca-certificates.crt"

enum { PARAMETERS_MAX = 32 };

struct parameters {
    const char *keys[PARAMETERS_MAX + 1], *values[PARAMETERS_MAX + 1];
    size_t count;
};

static void add(struct parameters *p, const char *key, const char *value)
{
    if (value != NULL && p->count < PARAMETERS_MAX) {
        p->keys[p->count] = key;
        p->values[p->count++] = value;
    }
}

/* One host and hostaddr for each address, so that libpq tries them in turn, connects without a
 * look-up of its own, and checks the certificate against the name (libpq's manual, 34.1.2). */
static void write_hosts(const char *host, const struct postgres_addresses *addresses,
                        struct buffer *hosts, struct buffer *numbers)
{
    static const struct postgres_addresses loopback = {.texts = {"127.0.0.1", "::1"}, .count = 2};
    if (strcasecmp(host, "localhost") == 0) {
        addresses = &loopback;
    }
    for (size_t i = 0; addresses != NULL && i < addresses->count; i++) {
        buffer_printf(hosts, "%s%s", i > 0 ? "," : "", host);
        buffer_printf(numbers, "%s%s", i > 0 ? "," : "", addresses->texts[i]);
    }
    if (addresses == NULL) {
        buffer_add_text(hosts, host);
    }
}

/* Everything is said, so that PG* variables and ~/.pgpass of whoever started us say nothing. */
static void add_security(struct parameters *p, const struct postgres_settings *s)
{
    bool strict = s->line.ca_file != NULL || !postgres_is_local(s->host);
    add(p, "sslmode", strict ? "verify-full" : "prefer");
    add(p, "sslrootcert", s->line.ca_file != NULL ? s->line.ca_file : SYSTEM_CA);
    add(p, "sslcrl", s->line.crl_file != NULL ? s->line.crl_file : "");
    add(p, "sslcert", s->line.cert_file != NULL ? s->line.cert_file : "/dev/null/none");
    add(p, "sslkey", s->line.key_file != NULL ? s->line.key_file : "/dev/null/none");
    add(p, "ssl_min_protocol_version", "TLSv1.2");
    add(p, "gssencmode", "disable");
    add(p, "passfile", "/dev/null/none");
}

PGconn *postgres_connect(const struct postgres_settings *settings, const char *password,
                         const struct postgres_addresses *addresses)
{
    auto_buffer struct buffer hosts = {0};
    auto_buffer struct buffer numbers = {0};
    char port[24], options[64];
    write_hosts(settings->host, addresses, &hosts, &numbers);
    snprintf(port, sizeof port, "%lld", (long long)settings->port);
    /* The server gives up a little later than we do, and frees its locks. */
    snprintf(options, sizeof options, "-c statement_timeout=%lld",
             (long long)settings->line.timeout_ms + 1000);
    const char *host_list = buffer_text(&hosts), *number_list = buffer_text(&numbers);
    if (host_list == NULL || number_list == NULL) {
        return NULL;
    }
    struct parameters p = {0};
    add(&p, "host", host_list);
    add(&p, "hostaddr", number_list[0] != '\0' ? number_list : NULL);
    add(&p, "port", port);
    add(&p, "dbname", settings->database);
    add(&p, "user", settings->user);
    add(&p, "options", options);
    add(&p, "client_encoding", "UTF8");
    add(&p, "application_name", "windrow");
    add(&p, "keepalives_idle", "30");
    add(&p, "password", password != NULL ? password : "");
    add_security(&p, settings);
    PGconn *connection = PQconnectStartParams(p.keys, p.values, 0);
    if (connection != NULL) {
        /* The one way to learn the SQLSTATE of a refused login: it stands in the message then. */
        PQsetErrorVerbosity(connection, PQERRORS_VERBOSE);
    }
    return connection;
}

/* "FATAL:  28P01: password ..." */
static void find_code(const char *message, char code[6])
{
    code[0] = '\0';
    for (const char *at = strstr(message, ":  "); at != NULL; at = strstr(at + 1, ":  ")) {
        const char *word = at + 3;
        size_t n = 0;
        while (n < 5 && (isupper((unsigned char)word[n]) || isdigit((unsigned char)word[n]))) {
            n++;
        }
        if (n == 5 && word[5] == ':') {
            memcpy(code, word, 5);
            code[5] = '\0';
        }
    }
}

void postgres_connect_words(PGconn *connection, char code[6], char words[POSTGRES_WORDS])
{
    const char *message = connection != NULL ? PQerrorMessage(connection) : "out of memory";
    find_code(message, code);
    if (connection != NULL && PQconnectionNeedsPassword(connection) != 0) {
        memcpy(code, "28P01", 6);
    }
    size_t n = 0;
    const char *location = strstr(message, "\nLOCATION:");
    for (const char *at = message; *at != '\0' && at != location && n + 1 < POSTGRES_WORDS; at++) {
        words[n++] = (unsigned char)*at < ' ' ? ' ' : *at;
    }
    while (n > 0 && words[n - 1] == ' ') {
        n--;
    }
    words[n] = '\0';
}
