#include "drivers/modbus/session.h"

#include "drivers/modbus/resolver.h"
#include "drivers/modbus/rtu.h"
#include "gateway/base/clock.h"

#include <errno.h>
#include <event2/event.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <string.h>
#include <sys/socket.h>

enum session_state { IDLE, RESOLVING, CONNECTING, PAUSING, READY, WAITING, DRAINING, GONE };

enum { HASH_SLOTS = 1024, RECEIVE_SIZE = 2 * MBAP_FRAME_MAX };

struct session_pool {
    struct event_base *base;
    struct schedule *schedule;
    enum session_framing framing;
    struct resolver *resolver;
    struct session *slots[HASH_SLOTS];
    struct session *gone; /* given back, not freed yet */
    struct schedule_timer reaper;
};

struct session {
    struct wire wire; /* first */
    struct session_pool *pool;
    struct session *next; /* in its hash slot */
    uint16_t port;
    uint16_t transaction;
    enum session_state state;
    int fd;
    struct event *event;
    struct schedule_timer timer;    /* a deadline or a pause, by state */
    struct session_request waiting; /* list head */
    unsigned waiting_count;
    struct session_request *active; /* being connected for, or sent */
    struct resolver_query *query;
    struct session_pauses pauses;
    int64_t began_ns; /* of the active request: connecting or sent */
    int64_t sent_ns;
    int64_t free_at_ms; /* the request pause ends */
    int64_t resolved_ms;
    unsigned answered;         /* on this connection */
    unsigned timeouts;         /* in a row */
    unsigned strays;           /* in a row */
    unsigned mismatches;       /* since the last result */
    unsigned generation;       /* of the connection */
    int pending_error;         /* to be told on the next tick */
    enum device_error verdict; /* of the active request, when the line is quiet */
    int64_t drain_end_ms, quiet_ms;
    bool failing; /* all that wait are being failed: no new attempt now */
    struct sockaddr_storage address;
    socklen_t address_len;
    size_t received;
    uint8_t in[RECEIVE_SIZE];
    uint8_t out[MBAP_FRAME_MAX];
    size_t out_len, out_sent;
    char host[256];
};

static void proceed(struct session *session);
static void drain(struct session *session, enum device_error verdict, int64_t quiet_ms);
static void on_timer(struct schedule_timer *timer);
static void reap(struct schedule_timer *timer);
static void on_socket(evutil_socket_t fd, short what, void *user);

/* --- endpoints --- */

int session_pool_create(struct event_base *base, struct schedule *schedule,
                        enum session_framing framing, struct session_pool **ret_pool)
{
    struct session_pool *pool = calloc(1, sizeof(*pool));
    if (pool == NULL) {
        return -ENOMEM;
    }
    pool->base = base;
    pool->schedule = schedule;
    pool->framing = framing;
    pool->reaper.fire = reap;
    int r = resolver_create(base, &pool->resolver);
    if (r != 0) {
        free(pool);
        return r;
    }
    *ret_pool = pool;
    return 0;
}

static int parse_port(const char *digits, uint16_t *ret_port)
{
    char *end = NULL;
    unsigned long port = strtoul(digits, &end, 10);
    if (digits[0] < '0' || digits[0] > '9' || *end != '\0' || port < 1 || port > UINT16_MAX) {
        return -EINVAL;
    }
    *ret_port = (uint16_t)port;
    return 0;
}

int session_split_address(const char *address, char host[256], uint16_t *ret_port)
{
    const char *from = address, *end, *port = NULL;
    if (address[0] == '[') {
        from = address + 1;
        end = strchr(from, ']');
        if (end == NULL || (end[1] != '\0' && end[1] != ':')) {
            return -EINVAL;
        }
        port = end[1] == ':' ? end + 2 : NULL;
    } else {
        const char *colon = strchr(address, ':');
        /* Several colons without brackets: an IPv6 address without a port. */
        bool has_port = colon != NULL && strchr(colon + 1, ':') == NULL;
        port = has_port ? colon + 1 : NULL;
        end = has_port ? colon : address + strlen(address);
    }
    size_t len = (size_t)(end - from);
    uint16_t number = MBAP_PORT;
    if (len < 1 || len > 255 || (port != NULL && parse_port(port, &number) != 0)) {
        return -EINVAL;
    }
    memcpy(host, from, len);
    host[len] = '\0';
    *ret_port = number;
    return 0;
}

static struct session **slot_of(struct session_pool *pool, const char *host, uint16_t port)
{
    uint32_t hash = 2166136261U ^ port; /* FNV-1a */
    for (const char *c = host; *c != '\0'; c++) {
        hash = (hash ^ (uint8_t)*c) * 16777619U;
    }
    return &pool->slots[hash % HASH_SLOTS];
}

static const struct wire_ops session_ops;

static int session_create(struct session_pool *pool, const char *host, uint16_t port,
                          struct session **ret_session)
{
    struct session *session = calloc(1, sizeof(*session));
    if (session == NULL) {
        return -ENOMEM;
    }
    session->event = event_new(pool->base, -1, 0, on_socket, session);
    if (session->event == NULL) {
        free(session);
        return -ENOMEM;
    }
    session->wire.ops = &session_ops;
    session->pool = pool;
    session->port = port;
    session->fd = -1;
    session->timer.fire = on_timer;
    session->waiting.next = session->waiting.previous = &session->waiting;
    memcpy(session->host, host, strlen(host) + 1);
    *ret_session = session;
    return 0;
}

int session_get(struct session_pool *pool, const char *address, struct session_pauses pauses,
                struct session **ret_session)
{
    char host[256];
    uint16_t port;
    int r = session_split_address(address, host, &port);
    if (r != 0) {
        return r;
    }
    struct session **slot = slot_of(pool, host, port), *session = *slot;
    while (session != NULL && (session->port != port || strcmp(session->host, host) != 0)) {
        session = session->next;
    }
    if (session == NULL) {
        r = session_create(pool, host, port, &session);
        if (r != 0) {
            return r;
        }
        session->next = *slot;
        *slot = session;
    }
    session->wire.users++;
    if (pauses.connect_ms > session->pauses.connect_ms) {
        session->pauses.connect_ms = pauses.connect_ms;
    }
    if (pauses.request_ms > session->pauses.request_ms) {
        session->pauses.request_ms = pauses.request_ms;
    }
    *ret_session = session;
    return 0;
}

static void close_connection(struct session *session)
{
    if (session->fd >= 0) {
        event_del(session->event);
        close(session->fd);
        session->fd = -1;
    }
    if (session->query != NULL) {
        resolver_cancel(session->query);
        session->query = NULL;
    }
    schedule_cancel(session->pool->schedule, &session->timer);
    session->state = IDLE;
    session->received = session->out_len = session->out_sent = 0;
    session->answered = session->timeouts = session->strays = 0;
    session->generation++;
}

/* Callbacks may give a session back that is still on the stack: it is freed on the next tick. */
void session_put(struct session *session)
{
    if (session == NULL || --session->wire.users > 0) {
        return;
    }
    struct session_pool *pool = session->pool;
    close_connection(session);
    session->state = GONE;
    struct session **at = slot_of(pool, session->host, session->port);
    while (*at != session) {
        at = &(*at)->next;
    }
    *at = session->next;
    session->next = pool->gone;
    pool->gone = session;
    schedule_set(pool->schedule, &pool->reaper, 0);
}

static void reap(struct schedule_timer *timer)
{
    struct session_pool *pool = (struct session_pool *)((char *)timer -
                                                        offsetof(struct session_pool, reaper));
    while (pool->gone != NULL) {
        struct session *session = pool->gone;
        pool->gone = session->next;
        event_free(session->event);
        free(session);
    }
}

void session_pool_destroy(struct session_pool *pool)
{
    if (pool == NULL) {
        return;
    }
    schedule_cancel(pool->schedule, &pool->reaper);
    reap(&pool->reaper);
    resolver_destroy(pool->resolver);
    free(pool);
}

/* --- requests --- */

static void unlink_request(struct session *session, struct session_request *request)
{
    request->next->previous = request->previous;
    request->previous->next = request->next;
    request->next = request->previous = NULL;
    session->waiting_count--;
}

static bool is_rtu(const struct session *session)
{
    return session->pool->framing == SESSION_RTU;
}

static bool is_broadcast(const struct session *session, const struct session_request *request)
{
    return is_rtu(session) && request->unit == RTU_BROADCAST;
}

int session_submit(struct session *session, struct session_request *request, bool front)
{
    uint8_t pdu[MBAP_PDU_MAX];
    if (mbap_encode_request(&request->ask, pdu) < 0 ||
        (is_broadcast(session, request) && request->ask.function <= MBAP_READ_INPUT)) {
        return -EINVAL;
    }
    if (session->waiting_count >= SESSION_QUEUE_MAX) {
        return -ENOBUFS;
    }
    struct session_request *after = front ? &session->waiting : session->waiting.previous;
    request->resent = request->sent = false;
    request->previous = after;
    request->next = after->next;
    after->next->previous = request;
    after->next = request;
    session->waiting_count++;
    proceed(session);
    return 0;
}

void session_cancel(struct session *session, struct session_request *request)
{
    if (session->active == request) {
        session->active = NULL;
        /* Its reply may still come: the transaction id tells it from the next one's, in RTU only
         * its time does. */
        if (session->state == WAITING && is_rtu(session)) {
            drain(session, DEVICE_ERROR_TIMEOUT, RTU_QUIET_MAX_MS);
        } else if (session->state == WAITING) {
            session->state = READY;
            schedule_cancel(session->pool->schedule, &session->timer);
        }
        if (session->out_sent < session->out_len) {
            close_connection(session);
        }
        proceed(session);
    } else if (request->next != NULL) {
        unlink_request(session, request);
    }
}

void session_close_idle(struct session *session)
{
    if (session->active == NULL && session->waiting_count == 0) {
        close_connection(session);
    }
}

/* Ends the active request and goes on with the next one. */
static void conclude(struct session *session, struct session_result *result)
{
    struct session_request *request = session->active;
    int64_t now_ns = clock_mono_ns();
    session->active = NULL;
    result->rtt_us = (now_ns - session->sent_ns) / 1000;
    result->cost_ms = (now_ns - session->began_ns) / 1000000;
    if (request != NULL) {
        result->mismatches = session->mismatches;
        session->mismatches = 0;
        request->done(request, result);
    }
    proceed(session);
}

static void fail(struct session *session, enum device_error error, int detail)
{
    struct session_result result = {.error = error, .detail = detail};
    conclude(session, &result);
}

/* The connection is of no use any more: closes it and fails the active request. */
static void give_up(struct session *session, enum device_error error, int detail)
{
    close_connection(session);
    fail(session, error, detail);
}

/* There is no way to the endpoint: all that wait for it hear so now, instead of one time-out each.
 */
static void fail_all(struct session *session, enum device_error error, int detail)
{
    struct session_request failed = {.next = &failed, .previous = &failed};
    close_connection(session);
    session->resolved_ms = 0;
    session->failing = true;
    while (session->waiting.next != &session->waiting) {
        struct session_request *request = session->waiting.next;
        unlink_request(session, request);
        request->next = &failed;
        request->previous = failed.previous;
        failed.previous->next = request;
        failed.previous = request;
        session->waiting_count++; /* still ours: session_cancel() unlinks it from here too */
    }
    fail(session, error, detail);
    while (failed.next != &failed) {
        session->active = failed.next;
        unlink_request(session, session->active);
        session->began_ns = clock_mono_ns(); /* only the first one's wait is a cost */
        fail(session, error, detail);
    }
    session->failing = false;
    proceed(session);
}

/* The peer closed. A connection that had been idle may just have been too old for the peer: what
 * was asked on it, if it changes nothing, is asked once more on a new one. */
static void on_closed(struct session *session, int error)
{
    struct session_request *request = session->active;
    bool again = request != NULL && session->answered > 0 && session->received == 0 &&
                 !request->resent && request->ask.function <= MBAP_READ_INPUT;
    close_connection(session);
    if (again) {
        request->resent = true;
        proceed(session);
    } else if (request != NULL) {
        fail(session, DEVICE_ERROR_CLOSED, error);
    }
}

/* --- connecting --- */

static void watch(struct session *session, short what)
{
    event_del(session->event);
    event_assign(session->event, session->pool->base, session->fd, (short)(what | EV_PERSIST),
                 on_socket, session);
    event_add(session->event, NULL);
}

static void connected(struct session *session)
{
    int error = 0;
    socklen_t len = sizeof(error);
    if (getsockopt(session->fd, SOL_SOCKET, SO_ERROR, &error, &len) != 0) {
        error = errno;
    }
    if (error != 0) {
        fail_all(session, DEVICE_ERROR_CONNECT, error);
        return;
    }
    watch(session, EV_READ);
    session->state = READY;
    schedule_cancel(session->pool->schedule, &session->timer);
    if (session->pauses.connect_ms > 0) {
        session->state = PAUSING;
        schedule_set(session->pool->schedule, &session->timer, session->pauses.connect_ms);
    }
    proceed(session);
}

static int open_socket(struct session *session)
{
    int one = 1;
    auto_close int fd = socket(session->address.ss_family,
                               SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0) {
        return -errno;
    }
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
    if (connect(fd, (struct sockaddr *)&session->address, session->address_len) != 0 &&
        errno != EINPROGRESS) {
        return -errno;
    }
    session->fd = take_fd(fd);
    session->state = CONNECTING;
    watch(session, EV_WRITE);
    return 0;
}

static void on_resolved(void *user, const struct sockaddr *address, socklen_t len)
{
    struct session *session = user;
    session->query = NULL;
    if (address == NULL) {
        fail_all(session, DEVICE_ERROR_RESOLVE, 0);
        return;
    }
    memcpy(&session->address, address, len);
    session->address_len = len;
    session->resolved_ms = clock_mono_ms();
    int r = open_socket(session);
    if (r != 0) {
        fail_all(session, DEVICE_ERROR_CONNECT, -r);
    }
}

/* Fails on the next tick: session_submit() has promised not to call back at once. */
static void fail_soon(struct session *session, int error)
{
    session->state = CONNECTING;
    session->pending_error = error;
    schedule_set(session->pool->schedule, &session->timer, 0);
}

static void start_connecting(struct session *session)
{
    struct session_pool *pool = session->pool;
    session->began_ns = session->sent_ns = clock_mono_ns();
    session->pending_error = 0;
    schedule_set(pool->schedule, &session->timer, session->active->timeout_ms);
    bool known = session->address_len > 0 && session->resolved_ms != 0 &&
                 clock_mono_ms() - session->resolved_ms < SESSION_RESOLVED_MS;
    if (!known && resolver_numeric(session->host, session->port, &session->address,
                                   &session->address_len) != 0) {
        session->state = RESOLVING;
        session->query = resolver_ask(pool->resolver, session->host, session->port, on_resolved,
                                      session);
        if (session->query == NULL) {
            fail_soon(session, ENOMEM);
        }
        return;
    }
    session->resolved_ms = known ? session->resolved_ms : clock_mono_ms();
    int r = open_socket(session);
    if (r != 0) {
        fail_soon(session, -r);
    }
}

/* --- asking and answers --- */

/* An error of send() is left to recv(), which tells it again from the loop: `done` is never called
 * from here. */
static void send_rest(struct session *session)
{
    ssize_t n = send(session->fd, session->out + session->out_sent,
                     session->out_len - session->out_sent, MSG_NOSIGNAL);
    if (n > 0) {
        session->out_sent += (size_t)n;
    }
    if (session->out_sent == session->out_len) {
        session->out_len = session->out_sent = 0;
    } else if (n >= 0 || errno == EAGAIN) {
        watch(session, EV_READ | EV_WRITE);
    }
}

static void send_request(struct session *session)
{
    struct session_request *request = session->active;
    size_t head = is_rtu(session) ? 1 : MBAP_HEADER_SIZE;
    int len = mbap_encode_request(&request->ask, session->out + head);
    session->transaction++;
    if (is_rtu(session)) {
        session->out_len = rtu_write_frame(session->out, request->unit, session->out + 1,
                                           (size_t)len);
    } else {
        mbap_write_header(session->out, session->transaction, request->unit, (size_t)len);
        session->out_len = MBAP_HEADER_SIZE + (size_t)len;
    }
    session->out_sent = 0;
    request->sent = true;
    session->state = WAITING;
    session->began_ns = session->sent_ns = clock_mono_ns();
    schedule_set(session->pool->schedule, &session->timer, request->timeout_ms);
    send_rest(session);
}

static void proceed(struct session *session)
{
    if (session->failing || session->state == DRAINING) {
        return;
    }
    if (session->active == NULL) {
        if (session->waiting_count == 0) {
            return;
        }
        session->active = session->waiting.next;
        unlink_request(session, session->active);
    }
    if (session->state == IDLE) {
        start_connecting(session);
    } else if (session->state == READY) {
        int64_t pause_ms = session->free_at_ms != 0 ? session->free_at_ms - clock_mono_ms() : 0;
        if (pause_ms > 0) {
            session->state = PAUSING;
            schedule_set(session->pool->schedule, &session->timer, pause_ms);
        } else if (session_is_late(session->active)) {
            session->began_ns = session->sent_ns = clock_mono_ns();
            fail(session, DEVICE_ERROR_TIMEOUT, 0);
        } else {
            send_request(session);
        }
    }
}

/* RTU: the active request has failed, but its reply may still come. */
static void drain(struct session *session, enum device_error verdict, int64_t quiet_ms)
{
    session->verdict = verdict;
    session->state = DRAINING;
    session->received = 0;
    session->generation++;
    session->drain_end_ms = clock_mono_ms() + SESSION_DRAIN_MAX_MS;
    session->quiet_ms = quiet_ms;
    schedule_set(session->pool->schedule, &session->timer, quiet_ms);
}

/* More of what nobody waits for. */
static void on_drained_bytes(struct session *session)
{
    session->received = 0;
    session->mismatches++;
    if (clock_mono_ms() < session->drain_end_ms) {
        schedule_set(session->pool->schedule, &session->timer, session->quiet_ms);
    } else {
        give_up(session, DEVICE_ERROR_FRAMING, 0);
    }
}

static void on_timeout(struct session *session)
{
    session->timeouts++;
    session->state = READY;
    if (is_broadcast(session, session->active)) {
        fail(session, DEVICE_ERROR_NONE, 0);
        return;
    }
    if (is_rtu(session) && session->timeouts < SESSION_TIMEOUTS_MAX && session->out_len == 0) {
        drain(session, session->received > 0 ? DEVICE_ERROR_FRAMING : DEVICE_ERROR_TIMEOUT,
              rtu_quiet_ms(session->active->timeout_ms));
        return;
    }
    /* Half a reply, or nothing from anyone for long: only a new connection is surely in step. */
    if (session->received > 0 || session->out_len > 0 ||
        session->timeouts >= SESSION_TIMEOUTS_MAX) {
        close_connection(session);
    }
    fail(session, DEVICE_ERROR_TIMEOUT, 0);
}

static void on_timer(struct schedule_timer *timer)
{
    struct session *session = (struct session *)((char *)timer - offsetof(struct session, timer));
    switch (session->state) {
    case RESOLVING:
        fail_all(session, DEVICE_ERROR_RESOLVE, ETIMEDOUT);
        break;
    case CONNECTING:
        fail_all(session, DEVICE_ERROR_CONNECT,
                 session->pending_error != 0 ? session->pending_error : ETIMEDOUT);
        break;
    case PAUSING:
        session->state = READY;
        proceed(session);
        break;
    case WAITING:
        on_timeout(session);
        break;
    case DRAINING:
        session->state = READY;
        fail(session, session->verdict, 0);
        break;
    default:
        break;
    }
}

/* What came is no answer: only a new connection, or silence on an RTU line, gives a new start. */
static void out_of_step(struct session *session)
{
    if (is_rtu(session)) {
        drain(session, DEVICE_ERROR_FRAMING, RTU_QUIET_MIN_MS);
    } else {
        give_up(session, DEVICE_ERROR_FRAMING, 0);
    }
}

static void on_reply(struct session *session, const struct mbap_frame *frame)
{
    struct mbap_reply reply;
    int64_t pause_ms = session->pauses.request_ms;
    if (mbap_parse_reply(&session->active->ask, frame->pdu, frame->pdu_len, &reply) != 0) {
        out_of_step(session);
        return;
    }
    if (is_rtu(session)) {
        /* What stands behind the reply is nobody's. */
        session->received = 0;
        session->generation++;
    }
    session->state = READY;
    session->timeouts = session->strays = 0;
    session->answered++;
    session->free_at_ms = pause_ms > 0 ? clock_mono_ms() + pause_ms : 0;
    schedule_cancel(session->pool->schedule, &session->timer);
    struct session_result result = {
        .error = reply.exception != 0 ? DEVICE_ERROR_EXCEPTION : DEVICE_ERROR_NONE,
        .detail = (int)reply.exception,
        .data = reply.data,
        .data_len = reply.data_len,
    };
    conclude(session, &result);
}

/* A frame that nobody waits for is late, a duplicate, or of another unit. */
static void on_frame(struct session *session, const struct mbap_frame *frame)
{
    if (session->state == WAITING && session->active != NULL &&
        frame->transaction == session->transaction && frame->unit == session->active->unit) {
        on_reply(session, frame);
        return;
    }
    session->mismatches++;
    session->strays++;
    if (session->strays > SESSION_STRAY_FRAMES) {
        session->strays = 0;
        out_of_step(session);
    }
}

static int parse_frame(const struct session *session, size_t at, struct mbap_frame *ret_frame)
{
    const uint8_t *data = session->in + at;
    size_t len = session->received - at;
    if (!is_rtu(session)) {
        return mbap_parse_frame(data, len, ret_frame);
    }
    struct rtu_frame frame;
    int size = rtu_parse_reply(data, len, &frame);
    if (size > 0) {
        *ret_frame = (struct mbap_frame){session->transaction, frame.unit, frame.pdu,
                                         frame.pdu_len};
    }
    return size;
}

static void take_frames(struct session *session)
{
    unsigned generation = session->generation;
    size_t at = 0;
    struct mbap_frame frame;
    int size;
    while ((size = parse_frame(session, at, &frame)) > 0) {
        at += (size_t)size;
        /* Whole frames behind the one that is handed over count as nothing received. */
        on_frame(session, &frame);
        if (session->generation != generation) {
            return;
        }
    }
    if (size < 0) {
        out_of_step(session);
        return;
    }
    session->received -= at;
    if (session->received > 0 && at > 0) {
        memmove(session->in, session->in + at, session->received);
    }
}

static void receive(struct session *session)
{
    ssize_t n = recv(session->fd, session->in + session->received,
                     sizeof(session->in) - session->received, 0);
    if (n > 0) {
        session->received += (size_t)n;
        if (session->state == DRAINING) {
            on_drained_bytes(session);
        } else if (is_rtu(session) && session->state != WAITING) {
            session->received = 0;
            session->mismatches++;
        } else {
            take_frames(session);
        }
    } else if (n == 0 || (errno != EAGAIN && errno != EINTR)) {
        on_closed(session, n == 0 ? 0 : errno);
    }
}

static void on_socket(evutil_socket_t fd, short what, void *user)
{
    (void)fd;
    struct session *session = user;
    if (session->state == CONNECTING) {
        connected(session);
    } else {
        if ((what & EV_WRITE) != 0) {
            watch(session, EV_READ);
            send_rest(session);
        }
        if ((what & EV_READ) != 0 && session->fd >= 0) {
            receive(session);
        }
    }
}

/* --- as a wire --- */

struct wire *session_wire(struct session *session)
{
    return &session->wire;
}

static int submit_op(struct wire *wire, struct session_request *request, bool front)
{
    return session_submit((struct session *)wire, request, front);
}

static void cancel_op(struct wire *wire, struct session_request *request)
{
    session_cancel((struct session *)wire, request);
}

static void put_op(struct wire *wire)
{
    session_put((struct session *)wire);
}

static void close_idle_op(struct wire *wire)
{
    session_close_idle((struct session *)wire);
}

static const struct wire_ops session_ops = {
    .submit = submit_op,
    .cancel = cancel_op,
    .put = put_op,
    .close_idle = close_idle_op,
};
