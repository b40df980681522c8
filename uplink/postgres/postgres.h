/* postgres.h - the inside of type `postgres`: rows into a table of PostgreSQL or TimescaleDB.
 *
 * A batch is one transaction: COPY into a temporary table of the session, then INSERT ... ON
 * CONFLICT DO NOTHING into the table, whose key is a reading's identity; so a repeat changes
 * nothing. Encoders, statements and judge are pure; the transport is the sender's thread's. */
#pragma once

#include "uplink/out.h"
#include "uplink/transport/transport.h"

#include <libpq-fe.h>

struct postgres_settings {
    const char *host; /* a name, an address, or the directory of a Unix socket */
    int64_t port;
    const char *database, *user, *table;
    struct transport_settings line; /* TLS files, times, and as its token the password */
};

enum {
    POSTGRES_REQUEST_MAX = 8 * 1024 * 1024, /* bytes of a batch in COPY's text form */
    POSTGRES_ADDRESSES_MAX = 4,             /* of one name that are tried */
    POSTGRES_WORDS = 320,
};

/* One row a reading in COPY's text format, the columns as in postgres_columns. copy.c */
void postgres_encode_rows(const struct batch *batch, struct buffer *out);

/* "name" or "schema"."name", quoted as identifiers. sql.c */
void postgres_write_table(struct buffer *out, const char *table);
/* What a new session runs: makes the table when absent (a hypertable where TimescaleDB is
 * installed) and the session's staging table. Each returns NULL without memory; out is cleared. */
must_check const char *postgres_setup_sql(struct buffer *out, const char *table);
must_check const char *postgres_copy_sql(struct buffer *out);
must_check const char *postgres_insert_sql(struct buffer *out, const char *table);

/* What the SQLSTATE in reply->code means for a batch. judge.c */
void postgres_judge(const void *settings, const struct batch *batch,
                    const struct uplink_reply *reply, struct uplink_verdict *ret_verdict);

/* Whether nothing leaves this machine on the way there. */
bool postgres_is_local(const char *host);

/* The addresses of a host, looked up beside the sender's thread. resolve.c */
struct postgres_addresses {
    char *host;
    int result; /* getaddrinfo()'s */
    char texts[POSTGRES_ADDRESSES_MAX][64];
    size_t count;
};
struct errand;
must_check int postgres_resolve(const char *host, struct errand **ret_errand);
/* Begins to connect without waiting; password may be NULL, addresses is where the host needs no
 * lookup. NULL: no memory. */
must_check PGconn *postgres_connect(const struct postgres_settings *settings, const char *password,
                                    const struct postgres_addresses *addresses);
/* Fails without an SQLSTATE: libpq tells it in the message only. Fills code ("" when there is
 * none) and words with what the connection said, without line ends. */
void postgres_connect_words(PGconn *connection, char code[6], char words[POSTGRES_WORDS]);

/* One session of the `parallel` ones: connecting, then batch after batch. session.c */
struct postgres_session {
    const struct postgres_settings *settings;
    struct trust *trust; /* the transport's */
    unsigned generation; /* of the files that the connection has read */
    struct errand *lookup;
    PGconn *connection;
    int state; /* enum session_state, session.c */
    short events;
    bool ready;          /* `events` came; libpq must not be asked before while it connects */
    int64_t deadline_ms; /* CLOCK_MONOTONIC, of what is waited for */
    size_t sent;         /* bytes of the body handed to libpq */
    char code[6], words[POSTGRES_WORDS]; /* why the batch at hand failed */
    struct buffer sql;
    const struct uplink_request *request;                       /* NULL: nothing to do */
    void (*done)(void *user, const struct uplink_reply *reply); /* of the request */
    void *user;
};
/* Goes on as far as that is possible without waiting. 1: the request ended, *ret_status says how
 * (200, 400 with code and words, 0 with words); 0: wait for `events` or the deadline. */
int postgres_session_step(struct postgres_session *s, int64_t now_ms, int *ret_status);
/* What to wait for, -1: nothing. */
int postgres_session_fd(const struct postgres_session *s);
void postgres_session_close(struct postgres_session *s);

extern const struct transport transport_postgres;
extern const struct uplink_probe postgres_probe;
extern const struct uplink uplink_postgres;
