/* peer_private.h - what peer.c (sessions) and fetch.c (requests) share. Field thread only. */
#pragma once

#include "drivers/coap/peer.h"

struct peer {
    struct peers *peers;
    const struct device *device;
    const struct coap_settings *settings;
    struct target target;
    struct coap_loop own_loop, *loop;
    coap_session_t *session;
    struct resolver_query *query;
    struct fetch *fetches;
    size_t fetch_count;
    bool established, refused;
    bool broken;
    enum device_error error; /* why it is broken */
    int detail;
    struct peer *next_broken;
    struct schedule_timer ping;
    int64_t heard_ms, pinged_ms; /* CLOCK_MONOTONIC; pinged 0: no ping is on its way */
    uint8_t key[COAP_KEY_MAX];
    size_t key_len;
    uint64_t next_token;
};

/* Sends what has not been sent, making a session first where there is none. */
void peer_pump(struct peer *peer);

/* fetch.c */
void fetch_send(struct fetch *fetch);
/* Takes it off its peer: idle then. */
void fetch_detach(struct fetch *fetch);
void fetch_fail(struct fetch *fetch, enum device_error error, int detail);
coap_response_t fetch_on_response(coap_session_t *session, const coap_pdu_t *sent,
                                  const coap_pdu_t *received, const coap_mid_t mid);
