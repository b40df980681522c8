#include "drivers/coap/peer_private.h"
#include "drivers/coap/peer_tls.h"
#include "gateway/base/clock.h"

#include <errno.h>
#include <string.h>

static void clean_up(struct peer *peer);

static void on_after(void *user)
{
    struct peers *peers = user;
    while (peers->broken != NULL) {
        struct peer *peer = peers->broken;
        peers->broken = peer->next_broken;
        peer->next_broken = NULL;
        clean_up(peer);
    }
}

void peer_fail(struct peer *peer, enum device_error error, int detail)
{
    if (peer->broken) {
        return;
    }
    peer->broken = true;
    peer->error = error;
    peer->detail = detail;
    peer->next_broken = peer->peers->broken;
    peer->peers->broken = peer;
    coap_loop_kick(peer->loop);
}

static void release_session(struct peer *peer)
{
    schedule_cancel(peer->peers->schedule, &peer->ping);
    if (peer->query != NULL) {
        resolver_cancel(peer->query);
        peer->query = NULL;
    }
    if (peer->session != NULL) {
        coap_session_set_app_data(peer->session, NULL);
        coap_session_release(peer->session);
        peer->session = NULL;
    }
    peer->established = peer->refused = false;
    peer->pinged_ms = 0;
}

static void clean_up(struct peer *peer)
{
    enum device_error error = peer->error;
    int detail = peer->detail;
    if (error == DEVICE_ERROR_TIMEOUT && peer->refused) {
        error = DEVICE_ERROR_CONNECT;
        detail = ECONNREFUSED;
    }
    release_session(peer);
    /* Still broken: those that begin again from their callback are not armed, and left alone here.
     */
    struct fetch *fetch = peer->fetches;
    while (fetch != NULL) {
        if (fetch->armed) {
            fetch_fail(fetch, error, detail);
            fetch = peer->fetches;
        } else {
            fetch = fetch->next;
        }
    }
    peer->broken = false;
    peer_pump(peer);
}

static void on_nack(coap_session_t *session, const coap_pdu_t *sent,
                    const coap_nack_reason_t reason, const coap_mid_t mid)
{
    struct peer *peer = coap_session_get_app_data(session);
    (void)mid;
    if (peer == NULL || peer->session != session) {
        return;
    }
    switch (reason) {
    case COAP_NACK_ICMP_ISSUE:
        peer->refused = true;
        break;
    case COAP_NACK_RST:
        /* The answer to a ping (RFC 7252 section 4.3); to a request, a device that lost its mind.
         */
        if (sent != NULL && coap_pdu_get_code(sent) != COAP_EMPTY_CODE) {
            peer_fail(peer, DEVICE_ERROR_CLOSED, 0);
        }
        peer->heard_ms = clock_mono_ms();
        break;
    case COAP_NACK_TLS_FAILED:
        peer_fail(peer, DEVICE_ERROR_SECURITY, 0);
        break;
    case COAP_NACK_TOO_MANY_RETRIES:
        peer_fail(peer, DEVICE_ERROR_TIMEOUT, 0);
        break;
    default:
        peer_fail(peer, DEVICE_ERROR_CLOSED, 0);
        break;
    }
}

static int on_event(coap_session_t *session, const coap_event_t event)
{
    struct peer *peer = coap_session_get_app_data(session);
    if (peer == NULL || peer->session != session) {
        return 0;
    }
    switch (event) {
    case COAP_EVENT_DTLS_CONNECTED:
        peer->established = true;
        peer->heard_ms = clock_mono_ms();
        break;
    case COAP_EVENT_DTLS_CLOSED:
        peer_fail(peer, peer->established ? DEVICE_ERROR_CLOSED : DEVICE_ERROR_SECURITY, 0);
        break;
    case COAP_EVENT_DTLS_ERROR:
        peer_fail(peer, DEVICE_ERROR_SECURITY, 0);
        break;
    default:
        break;
    }
    return 0;
}

static int loop_init(struct peers *peers, struct coap_loop *loop)
{
    int r = coap_loop_init(loop, peers->base, on_after, peers);
    if (r == 0) {
        coap_register_response_handler(loop->context, fetch_on_response);
        coap_register_nack_handler(loop->context, on_nack);
        coap_register_event_handler(loop->context, on_event);
    }
    return r;
}

int peers_init(struct peers *peers, struct event_base *base, struct schedule *schedule)
{
    *peers = (struct peers){.base = base, .schedule = schedule};
    int r = resolver_create(base, &peers->resolver);
    return r != 0 ? r : loop_init(peers, &peers->loop);
}

void peers_finish(struct peers *peers)
{
    coap_loop_finish(&peers->loop);
    resolver_destroy(peers->resolver);
    peers->resolver = NULL;
}

/* A device that is silent, or gone, is found out, and a NAT binding on the way stays open. */
static void on_ping(struct schedule_timer *timer)
{
    struct peer *peer = (struct peer *)((char *)timer - offsetof(struct peer, ping));
    int64_t now_ms = clock_mono_ms();
    int64_t left_ms = peer->heard_ms + peer->settings->keepalive_ms - now_ms;
    if (peer->pinged_ms > 0 && peer->heard_ms < peer->pinged_ms) {
        peer_fail(peer, DEVICE_ERROR_TIMEOUT, 0);
        return;
    }
    peer->pinged_ms = 0;
    if (left_ms <= 0 && peer->session != NULL && !peer->broken) {
        if (coap_session_send_ping(peer->session) == COAP_INVALID_MID) {
            peer_fail(peer, DEVICE_ERROR_CLOSED, 0);
            return;
        }
        coap_loop_kick(peer->loop);
        peer->pinged_ms = now_ms;
        left_ms = PEER_PONG_MS;
    }
    schedule_set(peer->peers->schedule, &peer->ping, left_ms);
}

static void open_session(struct peer *peer, const coap_address_t *address)
{
    const struct coap_settings *settings = peer->settings;
    coap_context_t *context = peer->loop->context;
    if (!peer->target.secure) {
        peer->session = coap_new_client_session(context, NULL, address, COAP_PROTO_UDP);
    } else if (settings->psk.text != NULL) {
        peer->session = peer_tls_open_psk(context, address, &peer->target, settings->psk_identity,
                                          peer->key, peer->key_len);
    } else {
        peer->session = peer_tls_open_pki(context, address, &peer->target, settings);
    }
    if (peer->session == NULL) {
        peer_fail(peer, peer->target.secure ? DEVICE_ERROR_SECURITY : DEVICE_ERROR_CONNECT, 0);
        return;
    }
    coap_session_set_app_data(peer->session, peer);
    /* Quick first repeats, as RFC 7252 section 4.8 allows in one's own network. */
    coap_session_set_ack_timeout(peer->session, (coap_fixed_point_t){1, 0});
    peer->established = !peer->target.secure;
    peer->heard_ms = clock_mono_ms();
    if (settings->mode == COAP_MODE_OBSERVE && settings->keepalive_ms > 0) {
        schedule_set(peer->peers->schedule, &peer->ping, settings->keepalive_ms);
    }
}

static void on_address(void *user, const struct sockaddr *address, socklen_t len)
{
    struct peer *peer = user;
    peer->query = NULL;
    if (address == NULL) {
        peer_fail(peer, DEVICE_ERROR_RESOLVE, 0);
        return;
    }
    coap_address_t to = coap_loop_address(address, len);
    open_session(peer, &to);
    peer_pump(peer);
}

static void connect_peer(struct peer *peer)
{
    struct sockaddr_storage address;
    socklen_t len;
    if (resolver_numeric(peer->target.host, peer->target.port, &address, &len) == 0) {
        coap_address_t to = coap_loop_address((struct sockaddr *)&address, len);
        open_session(peer, &to);
        return;
    }
    peer->query = resolver_ask(peer->peers->resolver, peer->target.host, peer->target.port,
                               on_address, peer);
    if (peer->query == NULL) {
        peer_fail(peer, DEVICE_ERROR_RESOLVE, 0);
    }
}

void peer_pump(struct peer *peer)
{
    if (peer->broken || peer->fetches == NULL) {
        return;
    }
    if (peer->session == NULL && peer->query == NULL) {
        connect_peer(peer);
    }
    for (struct fetch *fetch = peer->fetches; fetch != NULL; fetch = fetch->next) {
        if (!fetch->sent && peer->session != NULL && !peer->broken) {
            fetch_send(fetch);
        }
        fetch->armed = true;
    }
    coap_loop_kick(peer->loop);
}

int peer_create(struct peers *peers, const struct device *device, struct peer **ret_peer)
{
    const struct coap_settings *settings = device->config->settings;
    struct peer *peer = calloc(1, sizeof(*peer));
    if (peer == NULL) {
        return -ENOMEM;
    }
    *peer = (struct peer){
        .peers = peers, .device = device, .settings = settings, .loop = &peers->loop};
    peer->ping.fire = on_ping;
    peer->next_token = (uint64_t)clock_mono_ns() ^ (uintptr_t)peer;
    int r = target_parse(settings->address, &peer->target);
    if (r == 0 && settings->psk.text != NULL) {
        r = coap_parse_key(settings->psk.text, peer->key, &peer->key_len);
    }
    if (r == 0 && settings->ca_file != NULL) {
        peer->loop = &peer->own_loop;
        r = loop_init(peers, &peer->own_loop);
    }
    if (r != 0) {
        peer_destroy(peer);
        return r;
    }
    *ret_peer = peer;
    return 0;
}

void peer_destroy(struct peer *peer)
{
    if (peer == NULL) {
        return;
    }
    for (struct peer **at = &peer->peers->broken; *at != NULL; at = &(*at)->next_broken) {
        if (*at == peer) {
            *at = peer->next_broken;
            break;
        }
    }
    release_session(peer);
    if (peer->own_loop.context != NULL) {
        coap_loop_finish(&peer->own_loop);
    }
    explicit_bzero(peer->key, sizeof(peer->key));
    free(peer);
}
