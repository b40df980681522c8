#include "gateway/base/clock.h"
#include "uplink/transport/compress.h"
#include "uplink/transport/reply_headers.h"
#include "uplink/transport/trust.h"
#include "uplink/transport/words.h"

#include <curl/curl.h>
#include <errno.h>
#include <limits.h>
#include <openssl/evp.h>
#include <openssl/ssl.h>
#include <string.h>

/* The request line, Host, User-Agent, Accept, Content-Length, without the URL. */
enum { HEAD_BYTES = 100 };

/* One request's place: its handle is kept, so that buffers and connections are used again. */
struct slot {
    CURL *easy;
    struct side *side;   /* what the handle is set up for ... */
    unsigned generation; /* ... as its files were then */
    struct curl_slist *lines;
    struct buffer packed, body;
    size_t head_bytes; /* of the request, near enough: libcurl's own count is of its first write */
    struct reply_headers headers;
    size_t heard_bytes; /* of the reply's headers: those of 1xx and trailers as well */
    char detail[CURL_ERROR_SIZE];
    void (*done)(void *user, const struct uplink_reply *reply); /* NULL: the slot is free */
    void *user;
};

/* An endpoint's settings and the files they name. */
struct side {
    const struct transport_settings *settings; /* NULL: free */
    struct trust *trust;
    uint64_t used;
};

/* Besides the settings' own endpoint: those that a type's transport asks on its own behalf. */
enum { SIDES = 4 };

struct http_transport {
    CURLM *multi;
    CURLSH *sessions; /* TLS sessions, which any of the slots resumes */
    struct side sides[SIDES];
    uint64_t uses;
    struct compressor *compressor; /* NULL: bodies go as they are */
    const struct transport_settings *settings;
    uint64_t bytes_sent;
    size_t slot_count;
    struct slot slots[];
};

/* Keeps the body up to its bound; what is beyond is refused, which closes the connection. */
static size_t on_body(char *bytes, size_t size, size_t count, void *user)
{
    struct slot *slot = user;
    size_t room = TRANSPORT_BODY_MAX - slot->body.len, len = size * count;
    buffer_add(&slot->body, bytes, len < room ? len : room);
    return buffer_failed(&slot->body) || len > room ? 0 : len;
}

static size_t on_header(char *bytes, size_t size, size_t count, void *user)
{
    struct slot *slot = user;
    slot->heard_bytes += size * count;
    if (slot->heard_bytes > TRANSPORT_REPLY_HEAD_MAX) {
        return 0; /* libcurl keeps all of them; its own bound does not count trailers */
    }
    reply_headers_line(&slot->headers, bytes, size * count);
    return size * count;
}

static CURLcode set_bytes(CURL *easy, CURLoption blob, const struct buffer *bytes, CURLoption path,
                          const char *name)
{
    struct curl_blob b = {.data = bytes->data, .len = bytes->len, .flags = CURL_BLOB_COPY};
    if (name == NULL) {
        return CURLE_OK;
    }
    /* Not read or not usable yet: by its path it fails in libcurl's own words. */
    return bytes->len > 0 ? curl_easy_setopt(easy, blob, &b) : curl_easy_setopt(easy, path, name);
}

/* The certificate of whoever answers is looked at for its end only: libcurl has checked it. */
static void on_handshake(const SSL *ssl, int where, int ret)
{
    (void)ret;
    X509 *peer = (where & SSL_CB_HANDSHAKE_DONE) != 0 ? SSL_get0_peer_certificate(ssl) : NULL;
    struct side *side = SSL_CTX_get_app_data(SSL_get_SSL_CTX(ssl));
    if (peer != NULL && side != NULL) {
        trust_saw_peer(side->trust, trust_until_ms(peer));
    }
}

/* In the place of libcurl's own list, for a service that knows HTTP by another name. */
static bool set_alpn(SSL_CTX *context, const char *alpn)
{
    uint8_t list[1 + TRANSPORT_ALPN_MAX];
    size_t len = strlen(alpn);
    if (len == 0 || len > TRANSPORT_ALPN_MAX) {
        return false;
    }
    list[0] = (uint8_t)len;
    memcpy(list + 1, alpn, len);
    return SSL_CTX_set_alpn_protos(context, list, (unsigned)len + 1) == 0;
}

static CURLcode on_context(CURL *easy, void *context, void *user)
{
    (void)easy;
    struct side *side = user;
    const char *alpn = side->settings->alpn;
    SSL_CTX_set_app_data((SSL_CTX *)context, side);
    SSL_CTX_set_info_callback(context, on_handshake);
    return alpn == NULL || set_alpn(context, alpn) ? CURLE_OK : CURLE_SSL_CONNECT_ERROR;
}

static CURLcode set_files(CURL *easy, const struct side *side)
{
    const struct transport_settings *s = side->settings;
    CURLcode c = CURLE_OK;
    if (s->ca_file != NULL) {
        c = curl_easy_setopt(easy, CURLOPT_CAPATH, NULL);
        c = c != CURLE_OK ? c : curl_easy_setopt(easy, CURLOPT_CAINFO, NULL);
    }
    c = c != CURLE_OK ? c
                      : set_bytes(easy, CURLOPT_CAINFO_BLOB, trust_ca(side->trust), CURLOPT_CAINFO,
                                  s->ca_file);
    c = c != CURLE_OK ? c
                      : set_bytes(easy, CURLOPT_SSLCERT_BLOB, trust_cert(side->trust),
                                  CURLOPT_SSLCERT, s->cert_file);
    c = c != CURLE_OK ? c
                      : set_bytes(easy, CURLOPT_SSLKEY_BLOB, trust_key(side->trust), CURLOPT_SSLKEY,
                                  s->key_file);
    if (c == CURLE_OK && s->crl_file != NULL) {
        c = curl_easy_setopt(easy, CURLOPT_CRLFILE, s->crl_file);
    }
    return c;
}

/* setopt's result matters for what guards the data: a build of libcurl without it must not send. */
static CURLcode set_security(CURL *easy, struct side *side)
{
    CURLcode c = curl_easy_setopt(easy, CURLOPT_SSL_VERIFYPEER, 1L);
    c = c != CURLE_OK ? c : curl_easy_setopt(easy, CURLOPT_SSL_VERIFYHOST, 2L);
    c = c != CURLE_OK ? c
                      : curl_easy_setopt(easy, CURLOPT_SSLVERSION, (long)CURL_SSLVERSION_TLSv1_2);
    c = c != CURLE_OK ? c : curl_easy_setopt(easy, CURLOPT_PROTOCOLS_STR, "http,https");
    c = c != CURLE_OK ? c : curl_easy_setopt(easy, CURLOPT_FOLLOWLOCATION, 0L);
    c = c != CURLE_OK ? c : set_files(easy, side);
    curl_easy_setopt(easy, CURLOPT_SSL_CTX_FUNCTION, on_context);
    curl_easy_setopt(easy, CURLOPT_SSL_CTX_DATA, side);
    /* An encrypted key must fail; without this OpenSSL asks on the terminal. */
    return c != CURLE_OK ? c : curl_easy_setopt(easy, CURLOPT_KEYPASSWD, "");
}

static void set_proxy(CURL *easy, const struct side *side)
{
    const struct transport_settings *s = side->settings;
    /* What never leaves this machine must not take the way through a proxy. */
    if (strncasecmp(s->url, "http:", 5) == 0) {
        curl_easy_setopt(easy, CURLOPT_PROXY, "");
    } else if (s->proxy != NULL) {
        curl_easy_setopt(easy, CURLOPT_PROXY, s->proxy);
        curl_easy_setopt(easy, CURLOPT_NOPROXY, "");
        curl_easy_setopt(easy, CURLOPT_PROXYUSERPWD, trust_proxy_login(side->trust));
        curl_easy_setopt(easy, CURLOPT_PROXYAUTH, (long)CURLAUTH_BASIC);
    }
}

static CURLcode set_limits(CURL *easy, const struct side *side)
{
    const struct transport_settings *s = side->settings;
    curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(easy, CURLOPT_TIMEOUT_MS, (long)s->timeout_ms);
    curl_easy_setopt(easy, CURLOPT_CONNECTTIMEOUT_MS, (long)s->connect_timeout_ms);
    curl_easy_setopt(easy, CURLOPT_LOW_SPEED_LIMIT, (long)TRANSPORT_LOW_SPEED);
    curl_easy_setopt(easy, CURLOPT_LOW_SPEED_TIME, (long)TRANSPORT_LOW_SPEED_S);
    curl_easy_setopt(easy, CURLOPT_TCP_KEEPALIVE, 1L);
    curl_easy_setopt(easy, CURLOPT_USERAGENT, "windrow/" WINDROW_VERSION);
    set_proxy(easy, side);
    /* The first request shows whether the others can go beside it. */
    curl_easy_setopt(easy, CURLOPT_PIPEWAIT, s->http2 ? 1L : 0L);
    return curl_easy_setopt(easy, CURLOPT_HTTP_VERSION,
                            (long)(s->http2 ? CURL_HTTP_VERSION_2TLS : CURL_HTTP_VERSION_1_1));
}

static bool is_busy(const struct http_transport *t, const struct side *side)
{
    for (size_t i = 0; i < t->slot_count; i++) {
        if (t->slots[i].done != NULL && t->slots[i].side == side) {
            return true;
        }
    }
    return false;
}

/* The files of these settings, read anew when it is time to; NULL: no memory. */
static struct side *find_side(struct http_transport *t, const struct transport_settings *s)
{
    struct side *oldest = NULL;
    for (size_t i = 0; i < SIDES; i++) {
        struct side *side = &t->sides[i];
        if (side->settings == s) {
            side->used = ++t->uses;
            trust_look(side->trust, clock_mono_ms());
            return side;
        }
        if (!is_busy(t, side) && (oldest == NULL || side->used < oldest->used)) {
            oldest = side;
        }
    }
    struct trust *trust = NULL;
    if (oldest == NULL || trust_create(s, "token_file", &trust) < 0) {
        return NULL;
    }
    for (size_t i = 0; i < t->slot_count; i++) {
        t->slots[i].side = t->slots[i].side == oldest ? NULL : t->slots[i].side;
    }
    trust_destroy(oldest->trust);
    *oldest = (struct side){.settings = s, .trust = trust, .used = ++t->uses};
    return oldest;
}

static int set_up(struct http_transport *t, struct slot *slot, const struct transport_settings *s)
{
    struct side *side = find_side(t, s);
    if (side == NULL) {
        return -ENOMEM;
    }
    if (slot->side == side && slot->generation == trust_generation(side->trust)) {
        return 0;
    }
    curl_easy_reset(slot->easy);
    slot->side = NULL;
    curl_easy_setopt(slot->easy, CURLOPT_SHARE, t->sessions);
    curl_easy_setopt(slot->easy, CURLOPT_WRITEFUNCTION, on_body);
    curl_easy_setopt(slot->easy, CURLOPT_WRITEDATA, slot);
    curl_easy_setopt(slot->easy, CURLOPT_HEADERFUNCTION, on_header);
    curl_easy_setopt(slot->easy, CURLOPT_HEADERDATA, slot);
    curl_easy_setopt(slot->easy, CURLOPT_PRIVATE, slot);
    curl_easy_setopt(slot->easy, CURLOPT_ERRORBUFFER, slot->detail);
    if (set_security(slot->easy, side) != CURLE_OK || set_limits(slot->easy, side) != CURLE_OK) {
        return -EINVAL;
    }
    slot->side = side;
    slot->generation = trust_generation(side->trust);
    return 0;
}

static int slot_init(struct http_transport *t, struct slot *slot)
{
    slot->easy = curl_easy_init();
    if (slot->easy == NULL) {
        return -ENOMEM;
    }
    slot->body.max = TRANSPORT_BODY_MAX + 1;
    return set_up(t, slot, t->settings);
}

static void slot_finish(struct slot *slot)
{
    curl_easy_cleanup(slot->easy);
    curl_slist_free_all(slot->lines);
    buffer_finish(&slot->packed);
    buffer_finish(&slot->body);
}

/* Bodies still referenced by their senders are cut off here: no `done` is called. */
static void destroy(void *state)
{
    struct http_transport *t = state;
    if (t == NULL) {
        return;
    }
    for (size_t i = 0; i < t->slot_count; i++) {
        if (t->slots[i].done != NULL) {
            curl_multi_remove_handle(t->multi, t->slots[i].easy);
        }
        slot_finish(&t->slots[i]);
    }
    curl_multi_cleanup(t->multi);
    curl_share_cleanup(t->sessions);
    for (size_t i = 0; i < SIDES; i++) {
        trust_destroy(t->sides[i].trust);
    }
    compressor_destroy(t->compressor);
    free(t);
    curl_global_cleanup();
}

static int init(struct http_transport *t, size_t parallel)
{
    t->multi = curl_multi_init();
    t->sessions = curl_share_init();
    if (t->multi == NULL || t->sessions == NULL) {
        return -ENOMEM;
    }
    curl_share_setopt(t->sessions, CURLSHOPT_SHARE, CURL_LOCK_DATA_SSL_SESSION);
    curl_multi_setopt(t->multi, CURLMOPT_MAX_HOST_CONNECTIONS, (long)parallel);
    curl_multi_setopt(t->multi, CURLMOPT_MAXCONNECTS, (long)parallel);
    if (t->settings->compress != COMPRESS_NONE) {
        int r = compressor_create(t->settings->compress, &t->compressor);
        if (r < 0) {
            return r;
        }
    }
    for (; t->slot_count < parallel; t->slot_count++) {
        int r = slot_init(t, &t->slots[t->slot_count]);
        if (r < 0) {
            slot_finish(&t->slots[t->slot_count]);
            return r;
        }
    }
    return 0;
}

static int create(const void *own, const char *gateway, size_t parallel, void **ret_state)
{
    (void)gateway; /* every batch names it */
    const struct transport_settings *settings = own;
    int r = transport_url_check(settings->url);
    if (r < 0) {
        return r;
    }
    /* Counted and thread-safe by itself since 7.84 ("threadsafe" in curl --version). */
    if (curl_global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK) {
        return -ENOMEM;
    }
    struct http_transport *t = calloc(1, sizeof *t + parallel * sizeof t->slots[0]);
    if (t == NULL) {
        curl_global_cleanup();
        return -ENOMEM;
    }
    t->settings = settings;
    r = init(t, parallel);
    if (r < 0) {
        destroy(t);
        return r;
    }
    *ret_state = t;
    return 0;
}

static int add_line(struct slot *slot, const char *line)
{
    struct curl_slist *lines = curl_slist_append(slot->lines, line);
    if (lines == NULL) {
        return -ENOMEM;
    }
    slot->lines = lines;
    slot->head_bytes += strlen(line) + 2;
    return 0;
}

static int add_field(struct slot *slot, const char *name, const char *value)
{
    auto_buffer struct buffer line = {0};
    buffer_printf(&line, "%s: %s", name, value);
    const char *text = buffer_text(&line);
    return text != NULL ? add_line(slot, text) : -ENOMEM;
}

static int add_token(struct slot *slot, enum uplink_token how)
{
    const char *token = trust_token(slot->side->trust);
    if (token == NULL) {
        return 0;
    }
    auto_buffer struct buffer value = {0};
    size_t len = strlen(token);
    if (how == UPLINK_TOKEN_LOGIN && strchr(token, ':') != NULL) {
        buffer_add_text(&value, "Basic ");
        uint8_t *at = buffer_reserve(&value, len * 4 / 3 + 8);
        value.len += at != NULL ? (size_t)EVP_EncodeBlock(at, (const uint8_t *)token, (int)len) : 0;
    } else {
        buffer_printf(&value, "%s %s", how == UPLINK_TOKEN_BEARER ? "Bearer" : "Token", token);
    }
    const char *text = buffer_text(&value);
    return text != NULL ? add_field(slot, "Authorization", text) : -ENOMEM;
}

static int set_headers(struct http_transport *t, struct slot *slot,
                       const struct uplink_request *request)
{
    curl_slist_free_all(slot->lines);
    slot->lines = NULL;
    slot->head_bytes = HEAD_BYTES;
    /* libcurl would wait a second for "100 Continue" from servers that never say it. */
    int r = add_line(slot, "Expect:");
    r = r < 0 ? r : add_line(slot, "Accept:"); /* anything, as it would be without */
    if (r == 0 && request->content_type != NULL) {
        r = add_field(slot, "Content-Type", request->content_type);
    }
    if (r == 0 && slot->packed.len > 0) {
        r = add_field(slot, "Content-Encoding", compressor_name(t->compressor));
    }
    r = r < 0 ? r : add_token(slot, request->token);
    const char *at = (const char *)request->headers.data;
    const char *end = at + request->headers.len;
    for (size_t n = 0; r == 0 && at < end; n++) {
        r = n < TRANSPORT_HEADERS_MAX ? add_line(slot, at) : -E2BIG;
        at += strlen(at) + 1;
    }
    curl_easy_setopt(slot->easy, CURLOPT_HTTPHEADER, slot->lines);
    return r;
}

static int set_body(struct http_transport *t, struct slot *slot,
                    const struct uplink_request *request)
{
    const struct buffer *body = &request->body;
    buffer_clear(&slot->packed);
    if (t->compressor != NULL && request->compressible && body->len > 0) {
        int r = compressor_run(t->compressor, body, request->dense, &slot->packed);
        if (r < 0) {
            return r;
        }
        body = &slot->packed;
    }
    if (request->method != NULL && strcmp(request->method, "GET") == 0) {
        curl_easy_setopt(slot->easy, CURLOPT_HTTPGET, 1L);
    } else {
        curl_easy_setopt(slot->easy, CURLOPT_POST, 1L);
        curl_easy_setopt(slot->easy, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)body->len);
        curl_easy_setopt(slot->easy, CURLOPT_POSTFIELDS, body->len > 0 ? (char *)body->data : "");
    }
    curl_easy_setopt(slot->easy, CURLOPT_CUSTOMREQUEST, request->method);
    return 0;
}

static int set_url(struct slot *slot, const struct uplink_request *request)
{
    auto_buffer struct buffer url = {0};
    buffer_add_text(&url, slot->side->settings->url);
    buffer_add_text(&url, request->path);
    const char *text = buffer_text(&url);
    if (text == NULL || curl_easy_setopt(slot->easy, CURLOPT_URL, text) != CURLE_OK) {
        return -ENOMEM;
    }
    slot->head_bytes += strlen(text);
    return 0;
}

static struct slot *free_slot(struct http_transport *t)
{
    for (size_t i = 0; i < t->slot_count; i++) {
        if (t->slots[i].done == NULL) {
            return &t->slots[i];
        }
    }
    return NULL;
}

static int send_request(void *state, const struct uplink_request *request,
                        void (*done)(void *user, const struct uplink_reply *reply), void *user)
{
    struct http_transport *t = state;
    struct slot *slot = free_slot(t);
    if (slot == NULL) {
        return -EBUSY;
    }
    int r = set_up(t, slot, request->elsewhere != NULL ? request->elsewhere : t->settings);
    r = r < 0 ? r : set_body(t, slot, request);
    r = r < 0 ? r : set_headers(t, slot, request);
    r = r < 0 ? r : set_url(slot, request);
    if (r < 0) {
        return r;
    }
    buffer_clear(&slot->body);
    slot->headers = (struct reply_headers){0};
    slot->heard_bytes = 0;
    slot->detail[0] = '\0';
    if (curl_multi_add_handle(t->multi, slot->easy) != CURLM_OK) {
        return -ENOMEM;
    }
    slot->done = done;
    slot->user = user;
    return 0;
}

/* Hands the slot's outcome to its owner; the slot is free again when `done` runs. */
static void complete(struct http_transport *t, struct slot *slot, CURLcode code)
{
    char words[WORDS_MAX] = "";
    long status = 0;
    curl_easy_getinfo(slot->easy, CURLINFO_RESPONSE_CODE, &status);
    /* Stopped by our own bound on the body: the status stands. Anything else that broke within
     * the answer proves nothing. */
    bool endless = slot->heard_bytes > TRANSPORT_REPLY_HEAD_MAX;
    bool answered = code == CURLE_OK ||
                    (code == CURLE_WRITE_ERROR && !endless && slot->body.len >= TRANSPORT_BODY_MAX);
    if (endless) {
        snprintf(slot->detail, sizeof slot->detail, "its answer has more than %d KiB of headers",
                 TRANSPORT_REPLY_HEAD_MAX / 1024);
    }
    if (!answered) {
        const char *proxy = slot->side->settings->proxy;
        if (proxy == NULL || !transport_proxy_words(slot->easy, code, proxy, words)) {
            transport_words(slot->easy, code, slot->detail, words);
        }
    }
    curl_off_t up = 0;
    curl_easy_getinfo(slot->easy, CURLINFO_SIZE_UPLOAD_T, &up);
    t->bytes_sent += (uint64_t)up + (code == CURLE_COULDNT_CONNECT ? 0 : slot->head_bytes);
    const char *body = buffer_text(&slot->body);
    struct uplink_reply reply = {
        .status = answered ? (int)status : 0,
        .body = body != NULL ? body : "",
        .len = body != NULL ? slot->body.len : 0,
        .content_type = slot->headers.content_type,
        .retry_after_ms = reply_retry_after_ms(&slot->headers, clock_wall_ms()),
        .date_ms = slot->headers.date_ms,
        .etag = slot->headers.etag,
        .checksum_sha256 = slot->headers.checksum_sha256,
        .error = words,
    };
    void (*done)(void *, const struct uplink_reply *) = slot->done;
    curl_multi_remove_handle(t->multi, slot->easy);
    slot->done = NULL;
    done(slot->user, &reply);
}

static size_t complete_finished(struct http_transport *t)
{
    size_t ended = 0;
    int left;
    for (CURLMsg *m; (m = curl_multi_info_read(t->multi, &left)) != NULL;) {
        if (m->msg == CURLMSG_DONE) {
            struct slot *slot = NULL;
            CURLcode code = m->data.result;
            curl_easy_getinfo(m->easy_handle, CURLINFO_PRIVATE, (char **)&slot);
            complete(t, slot, code);
            ended++;
        }
    }
    return ended;
}

/* 1: wake_fd is readable. */
static int wait_for_events(struct http_transport *t, int wake_fd, int timeout_ms)
{
    struct curl_waitfd wake = {.fd = wake_fd, .events = CURL_WAIT_POLLIN};
    int64_t began_ns = clock_mono_ns();
    CURLMcode c = curl_multi_poll(t->multi, &wake, wake_fd >= 0 ? 1 : 0, timeout_ms, NULL);
    if (t->compressor != NULL) {
        compressor_waited(t->compressor, clock_mono_ns() - began_ns);
    }
    return c != CURLM_OK ? -EIO : (wake.revents & CURL_WAIT_POLLIN) != 0;
}

static int run(void *state, int wake_fd, int64_t timeout_ms)
{
    struct http_transport *t = state;
    int64_t deadline_ms = timeout_ms < 0 ? INT64_MAX : clock_mono_ms() + timeout_ms;
    for (;;) {
        int running;
        if (curl_multi_perform(t->multi, &running) != CURLM_OK) {
            return -EIO;
        }
        if (complete_finished(t) > 0) {
            return 0;
        }
        int64_t left_ms = deadline_ms - clock_mono_ms();
        if (left_ms <= 0 && timeout_ms >= 0) {
            return 0;
        }
        int r = wait_for_events(t, wake_fd, left_ms > INT_MAX ? INT_MAX : (int)left_ms);
        if (r != 0) {
            return r < 0 ? r : 0;
        }
    }
}

static uint64_t bytes_sent(const void *state)
{
    return ((const struct http_transport *)state)->bytes_sent;
}

static void warning(const void *state, char *words, size_t size)
{
    const struct http_transport *t = state;
    int64_t now_ms = clock_wall_ms();
    char text[TRUST_WORDS_MAX] = "";
    for (size_t i = 0; i < SIDES && text[0] == '\0'; i++) {
        const struct side *side = &t->sides[i];
        if (side->settings == NULL) {
            continue;
        }
        trust_warning(side->trust, now_ms, text);
    }
    snprintf(words, size, "%s", text);
}

const struct transport transport_http = {
    .name = "http",
    .create = create,
    .destroy = destroy,
    .send = send_request,
    .run = run,
    .bytes_sent = bytes_sent,
    .warning = warning,
};
