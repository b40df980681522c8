/* peer.h - the session to one CoAP device, and the requests that run over it.
 *
 * Field thread only; nothing blocks. A session is made when a request needs one: the name is looked
 * up anew, the port is a new one, a DTLS handshake follows. Any request that gets no answer costs
 * the session (its address, its keys or its NAT binding may be stale), and all other requests on
 * it fail with the same error, so that whoever observes registers on a new one. An ICMP error is
 * not final: the device may be about to come up. Answers in blocks (RFC 7959) are put together up
 * to FETCH_BODY_MAX. */
#pragma once

#include "drivers/coap/coap_loop.h"
#include "drivers/coap/settings.h"
#include "drivers/coap/target.h"
#include "drivers/modbus/resolver.h"
#include "drivers/schedule.h"
#include "gateway/pipeline/device.h"

enum {
    FETCH_BODY_MAX = 65536,
    FETCH_TOKEN_SIZE = 8,
    PEER_FETCHES_MAX = 4096 + 16, /* a resource a point, and questions from outside */
    PEER_HANDSHAKE_MS = 5000,     /* a DTLS handshake may take so much longer than an answer */
    PEER_PONG_MS = 5000,          /* two repeats of a ping fit in */
    PEER_MAX_AGE_S = 60           /* RFC 7252 section 5.10.5 */
};

/* What the peers of one event base share. */
struct peers {
    struct event_base *base;
    struct schedule *schedule;
    struct resolver *resolver;
    struct coap_loop loop; /* of all but those with certificates, which libcoap keeps a context */
    struct peer *broken;   /* to be cleaned up after the turn */
};

struct fetch_result {
    enum device_error error; /* DEVICE_ERROR_NONE: the rest is filled */
    int detail;              /* of an exception 404, 503, ...; of CONNECT an errno */
    unsigned format;         /* content format */
    const uint8_t *body;
    size_t len;
    int64_t max_age_s;
    int64_t rtt_us; /* of the first answer, 0 for what came by itself */
    bool observed;  /* more will come by itself */
};

struct peer;

/* One GET, or one observation: embedded in what asks. Zero-initialised is idle. */
struct fetch {
    struct target path; /* path and query only */
    bool observe;
    int64_t timeout_ms;
    /* Called once, or for an observation with each representation until it fails. A fetch that is
     * over may be begun again from here. */
    void (*done)(struct fetch *fetch, const struct fetch_result *result);

    /* The peer's own: */
    struct peer *peer; /* NULL: idle */
    struct fetch *next;
    struct schedule_timer deadline;
    uint8_t token[FETCH_TOKEN_SIZE], block_token[FETCH_TOKEN_SIZE];
    bool armed, sent, answered, in_blocks, observed; /* armed: fails when the session does */
    unsigned next_block, format;
    uint8_t etag[8];
    size_t etag_len;
    int64_t max_age_s, begun_us, rtt_us;
    uint32_t order; /* of the last notification, and when it came */
    int64_t order_ms;
    struct buffer body;
};

must_check int peers_init(struct peers *peers, struct event_base *base, struct schedule *schedule);
void peers_finish(struct peers *peers);

must_check int peer_create(struct peers *peers, const struct device *device,
                           struct peer **ret_peer);
/* All fetches must be over or cancelled. */
void peer_destroy(struct peer *peer);

/* Begins a fetch; `done` is never called before this returns. -EBUSY: PEER_FETCHES_MAX. */
must_check int peer_begin(struct peer *peer, struct fetch *fetch);
/* Ends it without `done`; a device that observes notices by our reset. Takes an idle one. */
void fetch_cancel(struct fetch *fetch);
/* Frees what the fetch holds; it must be idle. */
void fetch_finish(struct fetch *fetch);

/* Gives the session up: all that runs over it fails with this error, after the present turn. */
void peer_fail(struct peer *peer, enum device_error error, int detail);
