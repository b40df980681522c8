#include "gateway/base/clock.h"
#include "gateway/base/log.h"
#include "uplink/aws/aws.h"
#include "uplink/aws/aws_parts.h"
#include "uplink/aws/sigv4.h"

#include <errno.h>
#include <string.h>

enum { SKEW_MIN_MS = 2000, RETRY_REFRESH_MS = 30000 };

/* A request of the sender's, from send to done. */
struct slot {
    struct aws_transport *t;
    enum { SLOT_FREE, SLOT_WAITING, SLOT_SENT } state;
    const struct uplink_request *request;
    void (*done)(void *user, const struct uplink_reply *reply);
    void *user;
    struct uplink_request signed_request; /* a view of the request, with headers of its own */
    size_t offset, len;                   /* the chunk on its way */
    struct buffer replies;                /* of the chunks before it: "[reply,reply" */
};

struct aws_transport {
    const struct aws_settings *settings;
    const struct aws_service *service;
    void *http;
    struct transport_settings main, found, provider;
    char main_url[AWS_URL_MAX], found_url[AWS_URL_MAX];

    enum aws_source source;
    const char *source_rest;
    struct aws_credentials credentials;
    bool have_credentials;
    int64_t refresh_at_ms;  /* CLOCK_MONOTONIC */
    int64_t found_until_ms; /* CLOCK_MONOTONIC; 0: the endpoint is not known */
    int64_t skew_ms;        /* AWS's clock less ours */

    bool asking; /* the request of our own is on its way */
    struct uplink_request own;
    size_t slot_count;
    struct slot slots[];
};

static size_t waiting(const struct aws_transport *t)
{
    size_t n = 0;
    for (size_t i = 0; i < t->slot_count; i++) {
        n += t->slots[i].state == SLOT_WAITING;
    }
    return n;
}

static void finish(struct slot *slot, const struct uplink_reply *reply)
{
    struct uplink_reply whole = *reply;
    whole.answers = slot->request;
    slot->state = SLOT_FREE;
    slot->done(slot->user, &whole);
}

/* Those that wait for credentials or endpoint get that reply. */
static void fail_waiting(struct aws_transport *t, const struct uplink_reply *reply)
{
    for (size_t i = 0; i < t->slot_count; i++) {
        if (t->slots[i].state == SLOT_WAITING) {
            finish(&t->slots[i], reply);
        }
    }
}

/* A refusal in the form of AWS's own, so that the types need no further case. */
static void refuse_waiting(struct aws_transport *t, int status, int64_t retry_after_ms,
                           const char *words)
{
    auto_buffer struct buffer body = {0};
    buffer_add_text(&body, "{\"__type\":\"CredentialsMissing\",\"message\":");
    json_write_string(&body, words, strlen(words));
    buffer_add_byte(&body, '}');
    const char *text = buffer_text(&body);
    struct uplink_reply reply = {.status = text != NULL ? status : 0,
                                 .body = text != NULL ? text : "",
                                 .len = text != NULL ? body.len : 0,
                                 .content_type = "application/json",
                                 .retry_after_ms = retry_after_ms,
                                 .error = words};
    fail_waiting(t, &reply);
}

static void hear(struct aws_transport *t, const struct uplink_reply *reply)
{
    if (reply->date_ms != 0) {
        int64_t skew_ms = reply->date_ms - clock_wall_ms();
        /* Date is in whole seconds and travels: small differences mean nothing. */
        t->skew_ms = skew_ms > SKEW_MIN_MS || skew_ms < -SKEW_MIN_MS ? skew_ms : 0;
    }
    if (strstr(reply->body, "ExpiredToken") != NULL ||
        strstr(reply->body, "UnrecognizedClient") != NULL ||
        strstr(reply->body, "InvalidClientTokenId") != NULL) {
        t->have_credentials = false;
    }
    if (reply->status == 0 || reply->status == 421 ||
        strstr(reply->body, "InvalidEndpointException") != NULL) {
        t->found_until_ms = 0;
    }
}

/* `to` becomes a view of body, signed; its headers are those of the original and the signature's.
 */
static int sign(struct aws_transport *t, struct uplink_request *to,
                const struct uplink_request *from, const char *body, size_t len)
{
    struct buffer headers = to->headers;
    *to = *from;
    buffer_clear(&headers);
    to->headers = headers;
    to->body = (struct buffer){.data = (uint8_t *)body, .len = len, .capacity = len};
    buffer_add(&to->headers, from->headers.data, from->headers.len);
    struct aws_signing signing = {.credentials = &t->credentials,
                                  .region = t->settings->region,
                                  .service = t->service->signing_name,
                                  .url = to->elsewhere != NULL ? to->elsewhere->url : t->main.url,
                                  .time_ms = clock_wall_ms() + t->skew_ms,
                                  .path_as_is = t->service->path_as_is};
    return aws_sign_request(&signing, to);
}

static void chunk_answered(void *user, const struct uplink_reply *reply);

/* Signs and sends the chunk from slot->offset on. */
static int launch(struct slot *slot)
{
    struct aws_transport *t = slot->t;
    const struct buffer *body = &slot->request->body;
    const char *from = (const char *)body->data + slot->offset;
    slot->len = body->len - slot->offset;
    if (t->service->chunked) {
        const char *end = memchr(from, '\n', slot->len);
        slot->len = end != NULL ? (size_t)(end - from) : slot->len;
    }
    struct uplink_request request = *slot->request;
    request.elsewhere = t->service->discovery_target != NULL ? &t->found : NULL;
    int r = sign(t, &slot->signed_request, &request, from, slot->len);
    r = r < 0 ? r : transport_http.send(t->http, &slot->signed_request, chunk_answered, slot);
    if (r == 0) {
        slot->state = SLOT_SENT;
    }
    return r;
}

/* What the chunks so far were answered, as one array; last: the reply to the one that ended it, of
 * which a failure becomes {"failed":STATUS,"body":"..."}. */
static void finish_chunks(struct slot *slot, const struct uplink_reply *last)
{
    struct uplink_reply all = *last;
    if (last->status != 200) {
        buffer_printf(&slot->replies, ",{\"failed\":%d,\"body\":", last->status);
        const char *said = last->status == 0 ? last->error : last->body;
        json_write_string(&slot->replies, said, strlen(said));
        buffer_add_byte(&slot->replies, '}');
    }
    buffer_add_byte(&slot->replies, ']');
    const char *text = buffer_text(&slot->replies);
    all.status = text != NULL ? 200 : 0;
    all.body = text != NULL ? text : "";
    all.len = text != NULL ? slot->replies.len : 0;
    all.error = text != NULL ? "" : "the replies are too large together";
    finish(slot, &all);
}

static void chunk_answered(void *user, const struct uplink_reply *reply)
{
    struct slot *slot = user;
    hear(slot->t, reply);
    if (!slot->t->service->chunked || (reply->status != 200 && slot->replies.len == 0)) {
        finish(slot, reply);
        return;
    }
    if (reply->status != 200) {
        finish_chunks(slot, reply);
        return;
    }
    buffer_add_byte(&slot->replies, slot->replies.len == 0 ? '[' : ',');
    buffer_add(&slot->replies, reply->body, reply->len);
    slot->offset += slot->len + 1;
    bool more = slot->offset < slot->request->body.len && slot->replies.len < AWS_REPLIES_MAX &&
                !buffer_failed(&slot->replies);
    if (!more || launch(slot) < 0) {
        finish_chunks(slot, reply);
    }
}

static void launch_waiting(struct aws_transport *t)
{
    for (size_t i = 0; i < t->slot_count; i++) {
        struct slot *slot = &t->slots[i];
        int r = slot->state == SLOT_WAITING ? launch(slot) : 0;
        if (r < 0) {
            char words[100];
            snprintf(words, sizeof words, "making a request: %s", strerror(-r));
            finish(slot, &(struct uplink_reply){
                             .body = "", .content_type = "", .error = words, .retry_after_ms = -1});
        }
    }
}

/* -- credentials -- */

static void keep_credentials(struct aws_transport *t, const struct aws_credentials *fresh)
{
    t->credentials = *fresh;
    t->have_credentials = true;
    int64_t now_ms = clock_mono_ms();
    t->refresh_at_ms = now_ms + AWS_CREDENTIALS_REREAD_MS;
    if (fresh->expires_ms != 0) {
        int64_t life_ms = fresh->expires_ms - (clock_wall_ms() + t->skew_ms);
        int64_t early_ms = life_ms / 4 < AWS_REFRESH_BEFORE_MS ? life_ms / 4
                                                               : AWS_REFRESH_BEFORE_MS;
        t->refresh_at_ms = now_ms + (life_ms > 0 ? life_ms - early_ms : 0);
    } else if (t->source == AWS_FROM_ENVIRONMENT) {
        t->refresh_at_ms = INT64_MAX;
    }
}

/* Whether the present ones may still be used after a refresh that failed. */
static bool still_good(struct aws_transport *t)
{
    bool good = t->have_credentials && (t->credentials.expires_ms == 0 ||
                                        t->credentials.expires_ms > clock_wall_ms() + t->skew_ms);
    if (good) {
        t->refresh_at_ms = clock_mono_ms() + RETRY_REFRESH_MS;
    }
    return good;
}

static void provider_answered(void *user, const struct uplink_reply *reply)
{
    struct aws_transport *t = user;
    t->asking = false;
    struct aws_credentials fresh;
    char words[AWS_WORDS_MAX] = "";
    char text[300];
    if (reply->status == 200 &&
        aws_credentials_parse_iot(reply->body, reply->len, &fresh, words) == 0) {
        keep_credentials(t, &fresh);
        explicit_bzero(&fresh, sizeof fresh);
        return;
    }
    if (still_good(t)) {
        return;
    }
    if (reply->status == 200) {
        snprintf(text, sizeof text, "%s: a captive portal?", words);
        refuse_waiting(t, 0, -1, text);
    } else if (reply->status == 0) {
        snprintf(text, sizeof text, "credential provider: %s", reply->error);
        refuse_waiting(t, 0, -1, text);
    } else {
        snprintf(text, sizeof text, "the credential provider answered %d: %.120s", reply->status,
                 reply->body);
        bool passing = reply->status == 429 || reply->status >= 500;
        refuse_waiting(t, passing ? 0 : 403, reply->retry_after_ms, text);
    }
}

static void ask_provider(struct aws_transport *t)
{
    buffer_clear(&t->own.headers);
    if (t->settings->thing != NULL) {
        buffer_printf(&t->own.headers, "x-amzn-iot-thingname: %s", t->settings->thing);
        buffer_add_byte(&t->own.headers, 0);
    }
    struct buffer headers = t->own.headers;
    t->own = (struct uplink_request){
        .headers = headers, .method = "GET", .elsewhere = &t->provider};
    t->asking = transport_http.send(t->http, &t->own, provider_answered, t) == 0;
    if (!t->asking) {
        refuse_waiting(t, 0, -1, "the credential provider cannot be asked: check credentials");
    }
}

/* True: there are credentials to sign with. */
static bool get_credentials(struct aws_transport *t)
{
    if (t->have_credentials && clock_mono_ms() < t->refresh_at_ms) {
        return true;
    }
    if (t->source == AWS_FROM_IOT) {
        ask_provider(t);
        return false;
    }
    struct aws_credentials fresh;
    char words[AWS_WORDS_MAX] = "";
    int r = aws_credentials_load(t->source, t->source_rest, &fresh, words);
    if (r == 0) {
        keep_credentials(t, &fresh);
        explicit_bzero(&fresh, sizeof fresh);
        return true;
    }
    if (still_good(t)) {
        return true;
    }
    refuse_waiting(t, 403, -1, words);
    return false;
}

/* -- endpoint discovery -- */

static void discovery_answered(void *user, const struct uplink_reply *reply)
{
    struct aws_transport *t = user;
    t->asking = false;
    hear(t, reply);
    int64_t minutes = 0;
    if (reply->status != 200) {
        fail_waiting(t, reply);
        return;
    }
    if (aws_parse_endpoints(reply->body, reply->len, t->found_url, &minutes) < 0) {
        refuse_waiting(t, 0, -1, "DescribeEndpoints names no endpoint: a captive portal?");
        return;
    }
    int64_t keep_s = minutes * 60 > AWS_DISCOVERY_MIN_S ? minutes * 60 : AWS_DISCOVERY_MIN_S;
    t->found_until_ms = clock_mono_ms() + keep_s * 1000;
}

static bool get_endpoint(struct aws_transport *t)
{
    if (t->service->discovery_target == NULL || clock_mono_ms() < t->found_until_ms) {
        return true;
    }
    auto_buffer struct buffer headers = {0};
    buffer_add(&headers, t->service->discovery_target, strlen(t->service->discovery_target) + 1);
    struct uplink_request ask = {.content_type = t->service->content_type, .headers = headers};
    int r = buffer_failed(&headers) ? -ENOMEM : sign(t, &t->own, &ask, "{}", 2);
    r = r < 0 ? r : transport_http.send(t->http, &t->own, discovery_answered, t);
    t->asking = r == 0;
    if (r < 0) {
        refuse_waiting(t, 0, -1, "the endpoint cannot be asked for");
    }
    return false;
}

static void advance(struct aws_transport *t)
{
    if (!t->asking && waiting(t) > 0 && get_credentials(t) && get_endpoint(t)) {
        launch_waiting(t);
    }
}

/* -- as a transport -- */

void aws_transport_destroy(void *state)
{
    struct aws_transport *t = state;
    if (t == NULL) {
        return;
    }
    if (t->http != NULL) {
        transport_http.destroy(t->http);
    }
    for (size_t i = 0; i < t->slot_count; i++) {
        buffer_finish(&t->slots[i].signed_request.headers);
        buffer_finish(&t->slots[i].replies);
    }
    buffer_finish(&t->own.headers);
    explicit_bzero(&t->credentials, sizeof t->credentials);
    free(t);
}

static int set_up(struct aws_transport *t, const char *gateway, size_t parallel)
{
    const struct aws_settings *s = t->settings;
    int r = aws_source_parse(s->credentials, &t->source, &t->source_rest);
    if (r == 0 && s->transport.url == NULL) {
        r = aws_service_url(t->service->host, s->region, t->main_url);
    }
    t->main = t->found = t->provider = s->transport;
    t->main.url = s->transport.url != NULL ? s->transport.url : t->main_url;
    t->found.url = t->found_url;
    t->provider.url = t->source == AWS_FROM_IOT ? t->source_rest : NULL;
    /* One more for our own request. */
    return r < 0 ? r : transport_http.create(&t->main, gateway, parallel + 1, &t->http);
}

int aws_transport_create(const struct aws_service *service, const struct aws_settings *settings,
                         const char *gateway, size_t parallel, void **ret_state)
{
    struct aws_transport *t = calloc(1, sizeof *t + parallel * sizeof t->slots[0]);
    if (t == NULL) {
        return -ENOMEM;
    }
    t->settings = settings;
    t->service = service;
    t->slot_count = parallel;
    for (size_t i = 0; i < parallel; i++) {
        t->slots[i].t = t;
        t->slots[i].replies.max = AWS_REPLIES_MAX + TRANSPORT_BODY_MAX + 16;
    }
    int r = set_up(t, gateway, parallel);
    if (r < 0) {
        aws_transport_destroy(t);
        return r;
    }
    *ret_state = t;
    return 0;
}

int aws_transport_send(void *state, const struct uplink_request *request,
                       void (*done)(void *user, const struct uplink_reply *reply), void *user)
{
    struct aws_transport *t = state;
    for (size_t i = 0; i < t->slot_count; i++) {
        struct slot *slot = &t->slots[i];
        if (slot->state == SLOT_FREE) {
            slot->state = SLOT_WAITING;
            slot->request = request;
            slot->done = done;
            slot->user = user;
            slot->offset = 0;
            buffer_clear(&slot->replies);
            return 0;
        }
    }
    return -EBUSY;
}

int aws_transport_run(void *state, int wake_fd, int64_t timeout_ms)
{
    struct aws_transport *t = state;
    size_t before = waiting(t);
    advance(t);
    if (!t->asking && before > 0 && waiting(t) == 0) {
        timeout_ms = 0; /* they are on their way or have failed: the sender may know more to do */
    }
    return transport_http.run(t->http, wake_fd, timeout_ms);
}

uint64_t aws_transport_bytes_sent(const void *state)
{
    return transport_http.bytes_sent(((const struct aws_transport *)state)->http);
}

void aws_transport_warning(const void *state, char *words, size_t size)
{
    transport_http.warning(((const struct aws_transport *)state)->http, words, size);
}
