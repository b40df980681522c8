#include "drivers/coap/peer_private.h"
#include "gateway/base/clock.h"

#include <errno.h>
#include <string.h>

enum {
    ORDER_HALF = 1 << 23, /* RFC 7641 section 3.4 */
    ORDER_STALE_MS = 128 * 1000,
    SEGMENTS_MAX = 512
};

void fetch_detach(struct fetch *fetch)
{
    struct peer *peer = fetch->peer;
    struct fetch **at = &peer->fetches;
    while (*at != fetch) {
        at = &(*at)->next;
    }
    *at = fetch->next;
    peer->fetch_count--;
    schedule_cancel(peer->peers->schedule, &fetch->deadline);
    fetch->peer = NULL;
    fetch->next = NULL;
    fetch->armed = fetch->sent = fetch->answered = fetch->in_blocks = fetch->observed = false;
}

void fetch_cancel(struct fetch *fetch)
{
    if (fetch->peer != NULL) {
        fetch_detach(fetch);
    }
}

void fetch_finish(struct fetch *fetch)
{
    buffer_finish(&fetch->body);
}

void fetch_fail(struct fetch *fetch, enum device_error error, int detail)
{
    const struct fetch_result result = {.error = error, .detail = detail};
    fetch_detach(fetch);
    fetch->done(fetch, &result);
}

static void on_deadline(struct schedule_timer *timer)
{
    struct fetch *fetch = (struct fetch *)((char *)timer - offsetof(struct fetch, deadline));
    struct peer *peer = fetch->peer;
    bool shaking = peer->target.secure && peer->session != NULL && !peer->established;
    fetch->armed = true;
    peer_fail(peer, shaking && !peer->refused ? DEVICE_ERROR_SECURITY : DEVICE_ERROR_TIMEOUT, 0);
}

int peer_begin(struct peer *peer, struct fetch *fetch)
{
    if (peer->fetch_count >= PEER_FETCHES_MAX) {
        return -EBUSY;
    }
    fetch->peer = peer;
    fetch->begun_us = clock_mono_ns() / 1000;
    fetch->rtt_us = 0;
    fetch->order = 0;
    fetch->order_ms = 0;
    fetch->body.max = FETCH_BODY_MAX;
    fetch->deadline.fire = on_deadline;
    fetch->next = peer->fetches;
    peer->fetches = fetch;
    peer->fetch_count++;
    int64_t allowance_ms = peer->target.secure && !peer->established ? PEER_HANDSHAKE_MS : 0;
    schedule_set(peer->peers->schedule, &fetch->deadline, fetch->timeout_ms + allowance_ms);
    peer_pump(peer);
    return 0;
}

/* ---- asking ---- */

static void new_token(struct peer *peer, uint8_t token[FETCH_TOKEN_SIZE])
{
    uint64_t next = peer->next_token++ * 0x9e3779b97f4a7c15u;
    memcpy(token, &next, FETCH_TOKEN_SIZE);
}

static bool add_number(coap_pdu_t *pdu, uint16_t option, unsigned number)
{
    uint8_t bytes[4];
    unsigned len = coap_encode_var_safe(bytes, sizeof(bytes), number);
    return coap_add_option(pdu, option, len, bytes) > 0;
}

/* "a/b" or "x=1&y" as options, unescaped. */
static bool add_segments(coap_pdu_t *pdu, uint16_t option, const char *text,
                         int (*split)(const uint8_t *text, size_t len, unsigned char *buffer,
                                      size_t *buffer_len))
{
    unsigned char segments[SEGMENTS_MAX];
    size_t len = sizeof(segments);
    int count = *text == '\0' ? 0 : split((const uint8_t *)text, strlen(text), segments, &len);
    const uint8_t *at = segments;
    for (int i = 0; i < count; i++) {
        if (coap_add_option(pdu, option, coap_opt_length(at), coap_opt_value(at)) == 0) {
            return false;
        }
        at += coap_opt_size(at);
    }
    return count >= 0;
}

/* Options stand in the order of their numbers. */
static bool add_options(coap_pdu_t *pdu, const struct fetch *fetch, bool observe,
                        const coap_block_t *block)
{
    const struct target *target = &fetch->peer->target;
    const struct target *path = &fetch->path;
    struct sockaddr_storage numeric;
    socklen_t numeric_len;
    bool by_name = resolver_numeric(target->host, 0, &numeric, &numeric_len) != 0;
    if (by_name && coap_add_option(pdu, COAP_OPTION_URI_HOST, strlen(target->host),
                                   (const uint8_t *)target->host) == 0) {
        return false;
    }
    return (!observe || add_number(pdu, COAP_OPTION_OBSERVE, COAP_OBSERVE_ESTABLISH)) &&
           add_segments(pdu, COAP_OPTION_URI_PATH, path->path, coap_split_path) &&
           add_segments(pdu, COAP_OPTION_URI_QUERY, path->query, coap_split_query) &&
           (block == NULL || add_number(pdu, COAP_OPTION_BLOCK2, block->num << 4 | block->szx));
}

static bool ask(struct fetch *fetch, const uint8_t *token, bool observe, const coap_block_t *block)
{
    coap_session_t *session = fetch->peer->session;
    coap_pdu_t *pdu = coap_pdu_init(COAP_MESSAGE_CON, COAP_REQUEST_CODE_GET,
                                    coap_new_message_id(session),
                                    coap_session_max_pdu_size(session));
    if (pdu == NULL) {
        return false;
    }
    if (coap_add_token(pdu, FETCH_TOKEN_SIZE, token) == 0 ||
        !add_options(pdu, fetch, observe, block)) {
        coap_delete_pdu(pdu);
        return false;
    }
    bool fine = coap_send(session, pdu) != COAP_INVALID_MID;
    coap_loop_kick(fetch->peer->loop);
    return fine;
}

void fetch_send(struct fetch *fetch)
{
    fetch->sent = true;
    new_token(fetch->peer, fetch->token);
    if (!ask(fetch, fetch->token, fetch->observe, NULL)) {
        peer_fail(fetch->peer, DEVICE_ERROR_CONNECT, 0);
    }
}

/* ---- answers ---- */

static unsigned option_number(const coap_pdu_t *pdu, uint16_t option, unsigned fallback)
{
    coap_opt_iterator_t iterator;
    const coap_opt_t *found = coap_check_option(pdu, option, &iterator);
    return found == NULL ? fallback
                         : coap_decode_var_bytes(coap_opt_value(found), coap_opt_length(found));
}

static bool has_option(const coap_pdu_t *pdu, uint16_t option)
{
    coap_opt_iterator_t iterator;
    return coap_check_option(pdu, option, &iterator) != NULL;
}

/* Over with an error of this resource alone; the session stays. */
static void refuse(struct fetch *fetch, enum device_error error, int detail)
{
    fetch_fail(fetch, error, detail);
}

static void finish(struct fetch *fetch)
{
    const struct fetch_result result = {
        .format = fetch->format,
        .body = fetch->body.data,
        .len = fetch->body.len,
        .max_age_s = fetch->max_age_s,
        .rtt_us = fetch->rtt_us,
        .observed = fetch->observed,
    };
    fetch->rtt_us = 0;
    fetch->in_blocks = false;
    if (fetch->observed) {
        schedule_cancel(fetch->peer->peers->schedule, &fetch->deadline);
    } else {
        fetch_detach(fetch);
    }
    fetch->done(fetch, &result);
}

/* RFC 7641 section 3.4: notifications may overtake each other. */
static bool is_fresh(struct fetch *fetch, const coap_pdu_t *received)
{
    uint32_t order = option_number(received, COAP_OPTION_OBSERVE, 0) & 0xffffff;
    int64_t now_ms = clock_mono_ms();
    bool fresh = fetch->order_ms == 0 || now_ms > fetch->order_ms + ORDER_STALE_MS ||
                 (order > fetch->order && order - fetch->order < ORDER_HALF) ||
                 (order < fetch->order && fetch->order - order > ORDER_HALF);
    if (fresh) {
        fetch->order = order;
        fetch->order_ms = now_ms;
    }
    return fresh;
}

static void take_etag(struct fetch *fetch, const coap_pdu_t *received)
{
    coap_opt_iterator_t iterator;
    const coap_opt_t *etag = coap_check_option(received, COAP_OPTION_ETAG, &iterator);
    size_t len = etag == NULL ? 0 : coap_opt_length(etag);
    fetch->etag_len = len <= sizeof(fetch->etag) ? len : 0;
    memcpy(fetch->etag, etag == NULL ? fetch->etag : coap_opt_value(etag), fetch->etag_len);
}

static bool same_etag(const struct fetch *fetch, const coap_pdu_t *received)
{
    coap_opt_iterator_t iterator;
    const coap_opt_t *etag = coap_check_option(received, COAP_OPTION_ETAG, &iterator);
    size_t len = etag == NULL ? 0 : coap_opt_length(etag);
    return len == fetch->etag_len &&
           (len == 0 || memcmp(coap_opt_value(etag), fetch->etag, len) == 0);
}

/* The first block, or all there is. */
static void begin_body(struct fetch *fetch, const coap_pdu_t *received)
{
    buffer_clear(&fetch->body);
    fetch->next_block = 0;
    fetch->format = option_number(received, COAP_OPTION_CONTENT_FORMAT, 0);
    fetch->max_age_s = option_number(received, COAP_OPTION_MAXAGE, PEER_MAX_AGE_S);
    take_etag(fetch, received);
}

/* Takes one answer's payload. A device that changes while it is read, skips blocks or never ends is
 * refused. */
static void take_payload(struct fetch *fetch, const coap_pdu_t *received)
{
    coap_block_t block = {0};
    const uint8_t *data = NULL;
    size_t len = 0;
    bool in_blocks = coap_get_block(received, COAP_OPTION_BLOCK2, &block) != 0;
    coap_get_data(received, &len, &data);
    if (!fetch->in_blocks) {
        begin_body(fetch, received);
    } else if (!in_blocks || !same_etag(fetch, received)) {
        refuse(fetch, DEVICE_ERROR_PAYLOAD, 0);
        return;
    }
    if (in_blocks && block.num != fetch->next_block) {
        refuse(fetch, DEVICE_ERROR_PAYLOAD, 0);
        return;
    }
    buffer_add(&fetch->body, data, len);
    if (buffer_failed(&fetch->body) || (block.m != 0 && len != (size_t)16 << block.szx)) {
        refuse(fetch, DEVICE_ERROR_PAYLOAD, 0);
        return;
    }
    if (block.m == 0) {
        finish(fetch);
        return;
    }
    fetch->in_blocks = true;
    block.num = ++fetch->next_block;
    new_token(fetch->peer, fetch->block_token);
    schedule_set(fetch->peer->peers->schedule, &fetch->deadline, fetch->timeout_ms);
    if (!ask(fetch, fetch->block_token, false, &block)) {
        peer_fail(fetch->peer, DEVICE_ERROR_CLOSED, 0);
    }
}

static void take_answer(struct fetch *fetch, const coap_pdu_t *received, bool follow_up)
{
    coap_pdu_code_t code = coap_pdu_get_code(received);
    if (COAP_RESPONSE_CLASS(code) != 2) {
        int detail = (int)(COAP_RESPONSE_CLASS(code) * 100u + (code & 0x1fu));
        refuse(fetch, DEVICE_ERROR_EXCEPTION, detail);
        return;
    }
    if (code != COAP_RESPONSE_CODE_CONTENT) {
        refuse(fetch, DEVICE_ERROR_PAYLOAD, 0);
        return;
    }
    if (!fetch->answered) {
        fetch->answered = true;
        fetch->rtt_us = clock_mono_ns() / 1000 - fetch->begun_us;
    }
    if (!follow_up) {
        bool observed = fetch->observe && has_option(received, COAP_OPTION_OBSERVE);
        if (observed && !is_fresh(fetch, received)) {
            return;
        }
        fetch->observed = observed;
        fetch->in_blocks = false; /* a new representation, whatever was on its way */
    }
    take_payload(fetch, received);
}

static struct fetch *find(const struct peer *peer, const coap_pdu_t *pdu, bool *ret_follow_up)
{
    coap_bin_const_t token = coap_pdu_get_token(pdu);
    if (token.length != FETCH_TOKEN_SIZE) {
        return NULL;
    }
    for (struct fetch *fetch = peer->fetches; fetch != NULL; fetch = fetch->next) {
        *ret_follow_up = fetch->in_blocks &&
                         memcmp(fetch->block_token, token.s, FETCH_TOKEN_SIZE) == 0;
        if (fetch->sent &&
            (*ret_follow_up || memcmp(fetch->token, token.s, FETCH_TOKEN_SIZE) == 0)) {
            return fetch;
        }
    }
    return NULL;
}

coap_response_t fetch_on_response(coap_session_t *session, const coap_pdu_t *sent,
                                  const coap_pdu_t *received, const coap_mid_t mid)
{
    struct peer *peer = coap_session_get_app_data(session);
    bool follow_up;
    (void)sent;
    (void)mid;
    if (peer == NULL || peer->session != session || peer->broken) {
        return COAP_RESPONSE_OK;
    }
    peer->heard_ms = clock_mono_ms();
    peer->refused = false;
    struct fetch *fetch = find(peer, received, &follow_up);
    if (fetch == NULL) {
        /* A notification that nobody wants: a reset ends it (RFC 7641 section 3.6). */
        return has_option(received, COAP_OPTION_OBSERVE) ? COAP_RESPONSE_FAIL : COAP_RESPONSE_OK;
    }
    take_answer(fetch, received, follow_up);
    return COAP_RESPONSE_OK;
}
