/* session.h - one TCP connection to one endpoint, shared by all units behind it: Modbus TCP, or
 * RTU frames to a serial server.
 *
 * Field thread only; nothing blocks. A session connects when it has something to ask, sends one
 * request at a time and keeps the others waiting in order. Each reply must match its request in
 * transaction id, protocol id, unit, function and byte count; a frame of another transaction or
 * unit is late or foreign: it is dropped and counted; anything that is not Modbus TCP, or does not
 * answer what it claims to answer, closes the connection. Deadlines and pauses have the schedule's
 * 20 ms. A session never reconnects by itself: the next request does.
 *
 * RTU frames have no transaction id: after a time-out or a damaged reply the session throws away
 * what comes until the line is quiet, and only then fails the request; nothing that comes while no
 * request runs is taken for an answer. */
#pragma once

#include "drivers/modbus/mbap.h"
#include "drivers/modbus/wire.h"
#include "drivers/schedule.h"
#include "gateway/base/clock.h"
#include "gateway/pipeline/device.h"

struct session;
struct session_pool;
struct resolver;

enum {
    SESSION_QUEUE_MAX = 1024,    /* requests waiting on one connection */
    SESSION_STRAY_FRAMES = 16,   /* unasked frames in a row until the peer is given up */
    SESSION_TIMEOUTS_MAX = 3,    /* in a row, of all units, until it connects anew */
    SESSION_DRAIN_MAX_MS = 2000, /* longest wait for a quiet RTU line; then it connects anew */
    SESSION_RESOLVED_MS = 60000  /* how long a name's address is used without asking again */
};

/* What came of a request. */
struct session_result {
    enum device_error error; /* NONE, RESOLVE, CONNECT, TIMEOUT, CLOSED, EXCEPTION, FRAMING */
    int detail;              /* errno, or the exception code */
    const uint8_t *data;     /* of a read: the values on the wire; gone after `done` returns */
    size_t data_len;
    int64_t rtt_us;
    int64_t cost_ms;     /* how long it held the connection */
    unsigned mismatches; /* frames dropped while it waited */
};

/* Belongs to the caller and stays where it is until `done` or session_cancel(). `done` may submit
 * it again, or any other. */
struct session_request {
    struct session_request *next, *previous; /* the session's */
    struct mbap_request ask;
    uint8_t unit;
    bool resent; /* the session's */
    bool sent;   /* the wire's: bytes of it went out, or may have */
    int64_t timeout_ms;
    int64_t not_after_ms; /* CLOCK_MONOTONIC: not sent after that, but failed; 0: any time */
    void (*done)(struct session_request *request, const struct session_result *result);
};

/* Whether it waited too long to be sent any more. */
static inline bool session_is_late(const struct session_request *request)
{
    return request->not_after_ms != 0 && clock_mono_ms() > request->not_after_ms;
}

/* Pauses of one connection; the largest of its users' count. */
struct session_pauses {
    int64_t connect_ms; /* after connecting, before the first request */
    int64_t request_ms; /* between a reply and the next request */
};

enum session_framing { SESSION_MBAP, SESSION_RTU };

/* The sessions of one framing. */
must_check int session_pool_create(struct event_base *base, struct schedule *schedule,
                                   enum session_framing framing, struct session_pool **ret_pool);
void session_pool_destroy(struct session_pool *pool);

/* "HOST", "HOST:PORT", "[V6]:PORT"; without a port 502. -EINVAL when it is none of these. */
must_check int session_split_address(const char *address, char host[256], uint16_t *ret_port);

/* The session of that endpoint, made when it is new; one use of it, given back by session_put(). */
must_check int session_get(struct session_pool *pool, const char *address,
                           struct session_pauses pauses, struct session **ret_session);
void session_put(struct session *session);

/* Queues a request, in front of the others when it goes on with a round. -ENOBUFS: at the bound;
 * -EINVAL: no such request exists, or a read by broadcast (RTU, unit 0; a write by broadcast has
 * no reply and succeeds after its time-out). `done` is never called before this returns. */
must_check int session_submit(struct session *session, struct session_request *request, bool front);

/* Takes a waiting or running request back; `done` is not called. */
void session_cancel(struct session *session, struct session_request *request);

/* Closes the connection when nothing waits (devices that want it closed after each round). */
void session_close_idle(struct session *session);

/* The session as a wire. */
struct wire *session_wire(struct session *session);
