#include "gateway/base/clock.h"
#include "uplink/postgres/postgres.h"
#include "uplink/transport/errand.h"
#include "uplink/transport/trust.h"

#include <netdb.h>
#include <openssl/ssl.h>
#include <poll.h>

enum session_state {
    CLOSED,
    LOOKING_UP,
    CONNECTING,
    SETTING_UP,
    READY,
    BEGINNING, /* BEGIN and COPY were sent */
    COPYING,
    ENDING_COPY,
    INSERTING,   /* INSERT and COMMIT were sent */
    ROLLING_BACK /* after a refusal; why is kept in code and words */
};

/* What a step came to: it must wait, it can go on at once, or the request ended. */
enum step { WAIT, GO_ON, ENDED };

enum { COPY_PIECE = 64 * 1024 };

void postgres_session_close(struct postgres_session *s)
{
    PQfinish(s->connection);
    s->connection = NULL;
    s->state = CLOSED;
}

int postgres_session_fd(const struct postgres_session *s)
{
    if (s->state == LOOKING_UP && s->lookup != NULL) {
        return errand_fd(s->lookup);
    }
    return s->connection != NULL ? PQsocket(s->connection) : -1;
}

static enum step fail(struct postgres_session *s, const char *words, int *ret_status)
{
    if (words != NULL) {
        snprintf(s->words, sizeof s->words, "%s", words);
        s->code[0] = '\0';
    }
    postgres_session_close(s);
    *ret_status = s->code[0] != '\0' ? 400 : 0;
    return ENDED;
}

/* The connection broke, or was refused. */
static enum step fail_connection(struct postgres_session *s, int *ret_status)
{
    postgres_connect_words(s->connection, s->code, s->words);
    return fail(s, NULL, ret_status);
}

static enum step connect_now(struct postgres_session *s, const struct postgres_addresses *addresses,
                             int *ret_status)
{
    trust_look_now(s->trust, clock_mono_ms());
    s->generation = trust_generation(s->trust);
    s->connection = postgres_connect(s->settings, trust_token(s->trust), addresses);
    if (s->connection == NULL || PQstatus(s->connection) == CONNECTION_BAD) {
        return fail_connection(s, ret_status);
    }
    s->state = CONNECTING;
    s->events = POLLOUT; /* as PQconnectPoll() wants it for its first call */
    s->ready = false;
    return WAIT;
}

/* A look-up that outlived its request is waited for again, so that there is never a second. */
static enum step look_up(struct postgres_session *s, int64_t now_ms, int *ret_status)
{
    s->state = LOOKING_UP;
    s->deadline_ms = now_ms + s->settings->line.connect_timeout_ms;
    s->events = POLLIN;
    if (s->lookup != NULL) {
        return GO_ON;
    }
    int r = postgres_resolve(s->settings->host, &s->lookup);
    if (r < 0) {
        return fail(s, strerror(-r), ret_status);
    }
    return s->lookup != NULL ? WAIT : connect_now(s, NULL, ret_status);
}

static enum step looked_up(struct postgres_session *s, int *ret_status)
{
    if (!errand_done(s->lookup)) {
        return WAIT;
    }
    const struct postgres_addresses *a = errand_arg(s->lookup);
    enum step step;
    if (a->result != 0 || a->count == 0) {
        char words[POSTGRES_WORDS];
        snprintf(words, sizeof words, "the name %.100s is not found: %s", s->settings->host,
                 gai_strerror(a->result));
        step = fail(s, words, ret_status);
    } else {
        step = connect_now(s, a, ret_status);
    }
    errand_drop(take_ptr(s->lookup));
    return step;
}

/* Sends a statement; its results are awaited in that state. */
static enum step ask(struct postgres_session *s, const char *sql, int state, int *ret_status)
{
    if (sql == NULL) {
        return fail(s, "out of memory", ret_status);
    }
    if (PQsendQuery(s->connection, sql) != 1) {
        return fail_connection(s, ret_status);
    }
    s->state = state;
    s->events = POLLIN | POLLOUT;
    return GO_ON;
}

static void see_peer(struct postgres_session *s)
{
    SSL *ssl = PQsslStruct(s->connection, "OpenSSL");
    X509 *shown = ssl != NULL ? SSL_get0_peer_certificate(ssl) : NULL;
    trust_saw_peer(s->trust, shown != NULL ? trust_until_ms(shown) : 0);
}

static enum step connecting(struct postgres_session *s, int *ret_status)
{
    if (!s->ready) {
        return WAIT;
    }
    s->ready = false;
    switch (PQconnectPoll(s->connection)) {
    case PGRES_POLLING_READING:
        s->events = POLLIN;
        return WAIT;
    case PGRES_POLLING_WRITING:
        s->events = POLLOUT;
        return WAIT;
    case PGRES_POLLING_OK:
        see_peer(s);
        if (PQsetnonblocking(s->connection, 1) != 0) {
            return fail_connection(s, ret_status);
        }
        PQsetErrorVerbosity(s->connection, PQERRORS_DEFAULT);
        return ask(s, postgres_setup_sql(&s->sql, s->settings->table), SETTING_UP, ret_status);
    default:
        return fail_connection(s, ret_status);
    }
}

static void keep_refusal(struct postgres_session *s, const PGresult *result)
{
    const char *code = PQresultErrorField(result, PG_DIAG_SQLSTATE);
    const char *words = PQresultErrorField(result, PG_DIAG_MESSAGE_PRIMARY);
    const char *detail = PQresultErrorField(result, PG_DIAG_MESSAGE_DETAIL);
    if (s->code[0] != '\0') {
        return; /* the first one is the cause */
    }
    snprintf(s->code, sizeof s->code, "%.5s", code != NULL ? code : "");
    snprintf(s->words, sizeof s->words, "%.200s%s%.100s", words != NULL ? words : "no reply",
             detail != NULL ? "; " : "", detail != NULL ? detail : "");
    for (char *at = s->words; *at != '\0'; at++) {
        *at = (unsigned char)*at < ' ' ? ' ' : *at;
    }
}

/* Reads results as far as they are there. True: all of the statement have come, or it waits for
 * COPY's data (*ret_copy). */
static bool take_results(struct postgres_session *s, bool *ret_copy)
{
    *ret_copy = false;
    while (PQisBusy(s->connection) == 0) {
        PGresult *result = PQgetResult(s->connection);
        if (result == NULL) {
            return true;
        }
        ExecStatusType status = PQresultStatus(result);
        if (status == PGRES_FATAL_ERROR) {
            keep_refusal(s, result);
        }
        PQclear(result);
        if (status == PGRES_COPY_IN) {
            *ret_copy = true;
            return true;
        }
    }
    return false;
}

static enum step refused(struct postgres_session *s, int *ret_status)
{
    if (s->state == SETTING_UP || s->state == ROLLING_BACK ||
        PQtransactionStatus(s->connection) != PQTRANS_INERROR) {
        return fail(s, NULL, ret_status);
    }
    return ask(s, "ROLLBACK", ROLLING_BACK, ret_status);
}

static enum step begin(struct postgres_session *s, int *ret_status)
{
    s->sent = 0;
    s->code[0] = s->words[0] = '\0';
    s->deadline_ms = clock_mono_ms() + s->settings->line.timeout_ms;
    return ask(s, postgres_copy_sql(&s->sql), BEGINNING, ret_status);
}

static enum step answered(struct postgres_session *s, bool copy, int *ret_status)
{
    if (s->code[0] != '\0' && s->state != ROLLING_BACK) {
        return refused(s, ret_status);
    }
    switch (s->state) {
    case SETTING_UP:
        s->state = READY;
        return GO_ON;
    case BEGINNING:
        if (!copy) {
            return fail(s, "the database did not begin to copy", ret_status);
        }
        s->state = COPYING;
        return GO_ON;
    case ENDING_COPY:
        return ask(s, postgres_insert_sql(&s->sql, s->settings->table), INSERTING, ret_status);
    case ROLLING_BACK:
        *ret_status = 400;
        break;
    default: /* INSERTING: the commit is confirmed when the session is out of its transaction */
        if (PQtransactionStatus(s->connection) != PQTRANS_IDLE) {
            return fail(s, "the database did not commit", ret_status);
        }
        *ret_status = 200;
    }
    s->state = READY;
    s->events = POLLIN;
    return ENDED;
}

/* Waiting for an answer, in any state that does. */
static enum step hear(struct postgres_session *s, int *ret_status)
{
    int unsent = PQflush(s->connection);
    if (unsent < 0 || PQconsumeInput(s->connection) != 1) {
        return fail_connection(s, ret_status);
    }
    s->events = (short)(POLLIN | (unsent > 0 ? POLLOUT : 0));
    bool copy;
    if (!take_results(s, &copy)) {
        return WAIT;
    }
    if (PQstatus(s->connection) == CONNECTION_BAD) {
        return s->words[0] != '\0' ? fail(s, NULL, ret_status) : fail_connection(s, ret_status);
    }
    return answered(s, copy, ret_status);
}

static enum step copy_on(struct postgres_session *s, int *ret_status)
{
    const struct buffer *body = &s->request->body;
    while (s->sent < body->len) {
        size_t left = body->len - s->sent, n = left < COPY_PIECE ? left : COPY_PIECE;
        int r = PQputCopyData(s->connection, (const char *)body->data + s->sent, (int)n);
        if (r < 0) {
            return fail_connection(s, ret_status);
        }
        s->sent += r > 0 ? n : 0;
        int unsent = PQflush(s->connection);
        if (unsent < 0) {
            return fail_connection(s, ret_status);
        }
        if (r == 0 || unsent > 0) { /* libpq would keep all of it in memory otherwise */
            s->events = POLLIN | POLLOUT;
            return PQconsumeInput(s->connection) == 1 ? WAIT : fail_connection(s, ret_status);
        }
    }
    int r = PQputCopyEnd(s->connection, NULL);
    if (r < 0) {
        return fail_connection(s, ret_status);
    }
    s->state = r > 0 ? ENDING_COPY : COPYING;
    s->events = POLLIN | POLLOUT;
    return r > 0 ? GO_ON : WAIT;
}

/* It was made with a password or certificates that have changed since. */
static bool is_outdated(const struct postgres_session *s)
{
    return s->connection != NULL && s->generation != trust_generation(s->trust);
}

/* An idle session whose server has gone is noticed here and not by the next batch. */
static enum step idle(struct postgres_session *s)
{
    if (s->connection != NULL && (is_outdated(s) || PQconsumeInput(s->connection) != 1 ||
                                  PQstatus(s->connection) == CONNECTION_BAD)) {
        postgres_session_close(s);
    }
    s->events = POLLIN;
    s->deadline_ms = INT64_MAX;
    return WAIT;
}

static enum step step_once(struct postgres_session *s, int64_t now_ms, int *ret_status)
{
    bool at_rest = s->state == CLOSED || s->state == READY;
    if (s->request == NULL) { /* then it is at rest */
        return idle(s);
    }
    if (!at_rest && now_ms >= s->deadline_ms) {
        bool connecting_still = s->state == LOOKING_UP || s->state == CONNECTING;
        return fail(s,
                    connecting_still ? "no connection to the database within connect_timeout"
                                     : "no answer from the database within timeout",
                    ret_status);
    }
    if (s->state == READY && is_outdated(s)) {
        postgres_session_close(s);
    }
    switch (s->state) {
    case CLOSED:
        s->code[0] = s->words[0] = '\0';
        return look_up(s, now_ms, ret_status);
    case LOOKING_UP:
        return looked_up(s, ret_status);
    case CONNECTING:
        return connecting(s, ret_status);
    case READY:
        return begin(s, ret_status);
    case COPYING:
        return copy_on(s, ret_status);
    default:
        return hear(s, ret_status);
    }
}

int postgres_session_step(struct postgres_session *s, int64_t now_ms, int *ret_status)
{
    enum step step;
    do {
        step = step_once(s, now_ms, ret_status);
    } while (step == GO_ON);
    return step == ENDED ? 1 : 0;
}
