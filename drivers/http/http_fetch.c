#include "drivers/http/http_fetch.h"

#include "gateway/base/clock.h"
#include "uplink/transport/reply_headers.h"
#include "uplink/transport/words.h"

#include <curl/curl.h>
#include <errno.h>
#include <event2/event.h>
#include <string.h>

struct http_fetcher {
    struct event_base *base;
    CURLM *multi;
    struct event *timer;
};

struct http_fetch {
    struct http_fetcher *fetcher;
    CURL *easy;
    struct curl_slist *lines;
    struct buffer body;
    struct reply_headers headers;
    char etag[HTTP_FETCH_TAG_MAX], last_modified[HTTP_FETCH_TAG_MAX];
    char detail[CURL_ERROR_SIZE];
    const struct http_device_settings *settings;
    bool running, too_large;
    int64_t started_ns;
    void (*done)(void *user, const struct http_answer *answer);
    void *user;
};

static void complete_finished(struct http_fetcher *fetcher);

static void act(struct http_fetcher *fetcher, curl_socket_t fd, int what)
{
    int running;
    curl_multi_socket_action(fetcher->multi, fd, what, &running);
    complete_finished(fetcher);
}

static void on_ready(evutil_socket_t fd, short what, void *user)
{
    int action = ((what & EV_READ) != 0 ? CURL_CSELECT_IN : 0) |
                 ((what & EV_WRITE) != 0 ? CURL_CSELECT_OUT : 0);
    act(user, fd, action);
}

static void on_timer(evutil_socket_t fd, short what, void *user)
{
    (void)fd;
    (void)what;
    act(user, CURL_SOCKET_TIMEOUT, 0);
}

/* libcurl says which socket it waits for, and how; `known` is the event that it has so far. */
static int on_socket(CURL *easy, curl_socket_t fd, int what, void *user, void *known)
{
    (void)easy;
    struct http_fetcher *fetcher = user;
    if (known != NULL) {
        event_free(known);
        curl_multi_assign(fetcher->multi, fd, NULL);
    }
    if (what == CURL_POLL_REMOVE) {
        return 0;
    }
    short wanted = (short)(((what & CURL_POLL_IN) != 0 ? EV_READ : 0) |
                           ((what & CURL_POLL_OUT) != 0 ? EV_WRITE : 0) | EV_PERSIST);
    struct event *event = event_new(fetcher->base, fd, wanted, on_ready, fetcher);
    if (event == NULL || event_add(event, NULL) < 0) {
        if (event != NULL) {
            event_free(event);
        }
        return -1;
    }
    curl_multi_assign(fetcher->multi, fd, event);
    return 0;
}

static int on_timeout_wish(CURLM *multi, long timeout_ms, void *user)
{
    (void)multi;
    struct http_fetcher *fetcher = user;
    if (timeout_ms < 0) {
        return event_del(fetcher->timer);
    }
    const struct timeval wait = {.tv_sec = timeout_ms / 1000, .tv_usec = timeout_ms % 1000 * 1000};
    return event_add(fetcher->timer, &wait);
}

int http_fetcher_create(struct event_base *base, struct http_fetcher **ret_fetcher)
{
    /* Counted and thread-safe by itself since 7.84. */
    if (curl_global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK) {
        return -ENOMEM;
    }
    struct http_fetcher *fetcher = calloc(1, sizeof *fetcher);
    if (fetcher == NULL) {
        curl_global_cleanup();
        return -ENOMEM;
    }
    fetcher->base = base;
    fetcher->timer = evtimer_new(base, on_timer, fetcher);
    fetcher->multi = curl_multi_init();
    if (fetcher->timer == NULL || fetcher->multi == NULL) {
        http_fetcher_destroy(fetcher);
        return -ENOMEM;
    }
    curl_multi_setopt(fetcher->multi, CURLMOPT_SOCKETFUNCTION, on_socket);
    curl_multi_setopt(fetcher->multi, CURLMOPT_SOCKETDATA, fetcher);
    curl_multi_setopt(fetcher->multi, CURLMOPT_TIMERFUNCTION, on_timeout_wish);
    curl_multi_setopt(fetcher->multi, CURLMOPT_TIMERDATA, fetcher);
    curl_multi_setopt(fetcher->multi, CURLMOPT_MAX_HOST_CONNECTIONS,
                      (long)HTTP_FETCH_HOST_CONNECTIONS);
    curl_multi_setopt(fetcher->multi, CURLMOPT_MAXCONNECTS, (long)HTTP_FETCH_CONNECTIONS_KEPT);
    *ret_fetcher = fetcher;
    return 0;
}

void http_fetcher_destroy(struct http_fetcher *fetcher)
{
    if (fetcher == NULL) {
        return;
    }
    curl_multi_cleanup(fetcher->multi);
    if (fetcher->timer != NULL) {
        event_free(fetcher->timer);
    }
    free(fetcher);
    curl_global_cleanup();
}

static size_t on_body(char *bytes, size_t size, size_t count, void *user)
{
    struct http_fetch *fetch = user;
    size_t len = size * count;
    if (len > HTTP_FETCH_BODY_MAX - fetch->body.len) {
        fetch->too_large = true;
        return 0;
    }
    buffer_add(&fetch->body, bytes, len);
    return buffer_failed(&fetch->body) ? 0 : len;
}

/* The value of a header line of that name, where it is printable and fits. */
static void take_field(const char *line, size_t len, const char *name, char *ret_value)
{
    size_t n = strlen(name);
    if (len <= n || strncasecmp(line, name, n) != 0 || line[n] != ':') {
        return;
    }
    const char *from = line + n + 1, *end = line + len;
    while (from < end && (*from == ' ' || *from == '\t')) {
        from++;
    }
    while (end > from && (unsigned char)end[-1] <= ' ') {
        end--;
    }
    size_t count = (size_t)(end - from);
    for (size_t i = 0; i < count; i++) {
        if ((unsigned char)from[i] < ' ') {
            return;
        }
    }
    if (count < HTTP_FETCH_TAG_MAX) {
        memcpy(ret_value, from, count);
        ret_value[count] = '\0';
    }
}

static size_t on_header(char *bytes, size_t size, size_t count, void *user)
{
    struct http_fetch *fetch = user;
    size_t len = size * count;
    if (len >= 5 && memcmp(bytes, "HTTP/", 5) == 0) {
        fetch->etag[0] = fetch->last_modified[0] = '\0';
    }
    take_field(bytes, len, "ETag", fetch->etag);
    take_field(bytes, len, "Last-Modified", fetch->last_modified);
    reply_headers_line(&fetch->headers, bytes, len);
    return len;
}

/* What guards the data: a libcurl that lacks one of these must not ask. */
static CURLcode set_security(CURL *easy, const struct http_device_settings *s)
{
    CURLcode c = curl_easy_setopt(easy, CURLOPT_SSL_VERIFYPEER, 1L);
    c = c != CURLE_OK ? c : curl_easy_setopt(easy, CURLOPT_SSL_VERIFYHOST, 2L);
    c = c != CURLE_OK ? c
                      : curl_easy_setopt(easy, CURLOPT_SSLVERSION, (long)CURL_SSLVERSION_TLSv1_2);
    c = c != CURLE_OK ? c : curl_easy_setopt(easy, CURLOPT_PROTOCOLS_STR, "http,https");
    c = c != CURLE_OK ? c : curl_easy_setopt(easy, CURLOPT_FOLLOWLOCATION, 0L);
    if (c == CURLE_OK && s->ca_file != NULL) {
        c = curl_easy_setopt(easy, CURLOPT_CAINFO, s->ca_file);
        c = c != CURLE_OK ? c : curl_easy_setopt(easy, CURLOPT_CAPATH, NULL);
    }
    if (c == CURLE_OK && s->cert_file != NULL) {
        c = curl_easy_setopt(easy, CURLOPT_SSLCERT, s->cert_file);
        c = c != CURLE_OK ? c : curl_easy_setopt(easy, CURLOPT_SSLKEY, s->key_file);
    }
    if (c == CURLE_OK && s->token.text != NULL) {
        c = curl_easy_setopt(easy, CURLOPT_HTTPAUTH, (long)CURLAUTH_BEARER);
        c = c != CURLE_OK ? c : curl_easy_setopt(easy, CURLOPT_XOAUTH2_BEARER, s->token.text);
    }
    /* An encrypted key must fail; without this OpenSSL asks on the terminal. */
    return c != CURLE_OK ? c : curl_easy_setopt(easy, CURLOPT_KEYPASSWD, "");
}

static CURLcode set_up(struct http_fetch *fetch, int64_t timeout_ms)
{
    CURL *easy = fetch->easy;
    curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, on_body);
    curl_easy_setopt(easy, CURLOPT_WRITEDATA, fetch);
    curl_easy_setopt(easy, CURLOPT_HEADERFUNCTION, on_header);
    curl_easy_setopt(easy, CURLOPT_HEADERDATA, fetch);
    curl_easy_setopt(easy, CURLOPT_PRIVATE, fetch);
    curl_easy_setopt(easy, CURLOPT_ERRORBUFFER, fetch->detail);
    curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(easy, CURLOPT_TIMEOUT_MS, (long)timeout_ms);
    curl_easy_setopt(easy, CURLOPT_USERAGENT, "windrow/" WINDROW_VERSION);
    curl_easy_setopt(easy, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
    /* Every packing that this libcurl knows; the bound counts unpacked bytes. */
    curl_easy_setopt(easy, CURLOPT_ACCEPT_ENCODING, "");
    /* Giving up on a name must not wait for the thread that looks it up. */
    curl_easy_setopt(easy, CURLOPT_QUICK_EXIT, 1L);
    /* What never leaves this machine must not take the way through a proxy. */
    if (strncasecmp(fetch->settings->url, "http:", 5) == 0) {
        curl_easy_setopt(easy, CURLOPT_PROXY, "");
    }
    CURLcode c = curl_easy_setopt(easy, CURLOPT_URL, fetch->settings->url);
    return c != CURLE_OK ? c : set_security(easy, fetch->settings);
}

int http_fetch_create(struct http_fetcher *fetcher, const struct http_device_settings *settings,
                      int64_t timeout_ms,
                      void (*done)(void *user, const struct http_answer *answer), void *user,
                      struct http_fetch **ret_fetch)
{
    struct http_fetch *fetch = calloc(1, sizeof *fetch);
    if (fetch == NULL) {
        return -ENOMEM;
    }
    *fetch = (struct http_fetch){.fetcher = fetcher,
                                 .easy = curl_easy_init(),
                                 .body = {.max = HTTP_FETCH_BODY_MAX + 1},
                                 .settings = settings,
                                 .done = done,
                                 .user = user};
    int r = fetch->easy == NULL ? -ENOMEM : set_up(fetch, timeout_ms) == CURLE_OK ? 0 : -EINVAL;
    if (r < 0) {
        http_fetch_destroy(fetch);
        return r;
    }
    *ret_fetch = fetch;
    return 0;
}

void http_fetch_destroy(struct http_fetch *fetch)
{
    if (fetch == NULL) {
        return;
    }
    if (fetch->running) {
        curl_multi_remove_handle(fetch->fetcher->multi, fetch->easy);
    }
    curl_easy_cleanup(fetch->easy);
    curl_slist_free_all(fetch->lines);
    buffer_finish(&fetch->body);
    free(fetch);
}

static int add_line(struct http_fetch *fetch, const char *name, const char *value)
{
    if (value[0] == '\0') {
        return 0;
    }
    char line[HTTP_FETCH_TAG_MAX + 32];
    snprintf(line, sizeof line, "%s: %s", name, value);
    struct curl_slist *lines = curl_slist_append(fetch->lines, line);
    if (lines == NULL) {
        return -ENOMEM;
    }
    fetch->lines = lines;
    return 0;
}

int http_fetch_start(struct http_fetch *fetch, const char *etag, const char *last_modified)
{
    if (fetch->running) {
        return -EBUSY;
    }
    curl_slist_free_all(fetch->lines);
    fetch->lines = NULL;
    int r = add_line(fetch, "Accept", "application/json");
    r = r < 0 ? r : add_line(fetch, "If-None-Match", etag);
    r = r < 0 ? r : add_line(fetch, "If-Modified-Since", last_modified);
    if (r < 0) {
        return r;
    }
    curl_easy_setopt(fetch->easy, CURLOPT_HTTPHEADER, fetch->lines);
    buffer_clear(&fetch->body);
    fetch->headers = (struct reply_headers){0};
    fetch->etag[0] = fetch->last_modified[0] = fetch->detail[0] = '\0';
    fetch->too_large = false;
    fetch->started_ns = clock_mono_ns();
    /* The timer it asks for makes it begin on the next turn of the loop. */
    if (curl_multi_add_handle(fetch->fetcher->multi, fetch->easy) != CURLM_OK) {
        return -ENOMEM;
    }
    fetch->running = true;
    return 0;
}

static enum device_error error_of(CURLcode code)
{
    switch (code) {
    case CURLE_COULDNT_RESOLVE_HOST:
    case CURLE_COULDNT_RESOLVE_PROXY:
        return DEVICE_ERROR_RESOLVE;
    case CURLE_OPERATION_TIMEDOUT:
        return DEVICE_ERROR_TIMEOUT;
    case CURLE_COULDNT_CONNECT:
        return DEVICE_ERROR_CONNECT;
    case CURLE_GOT_NOTHING:
    case CURLE_RECV_ERROR:
    case CURLE_SEND_ERROR:
    case CURLE_PARTIAL_FILE:
        return DEVICE_ERROR_CLOSED;
    case CURLE_PEER_FAILED_VERIFICATION:
    case CURLE_SSL_CONNECT_ERROR:
    case CURLE_SSL_CERTPROBLEM:
    case CURLE_SSL_CIPHER:
    case CURLE_SSL_CACERT_BADFILE:
    case CURLE_SSL_ISSUER_ERROR:
        return DEVICE_ERROR_SECURITY;
    case CURLE_WRITE_ERROR:
    case CURLE_BAD_CONTENT_ENCODING:
        return DEVICE_ERROR_PAYLOAD;
    default:
        return DEVICE_ERROR_FRAMING;
    }
}

/* Turns what libcurl knows into an answer; `words` and the fetch outlive it. */
static void make_answer(struct http_fetch *fetch, CURLcode code, char words[WORDS_MAX],
                        struct http_answer *ret_answer)
{
    long status = 0, os_error = 0;
    curl_easy_getinfo(fetch->easy, CURLINFO_RESPONSE_CODE, &status);
    curl_easy_getinfo(fetch->easy, CURLINFO_OS_ERRNO, &os_error);
    const char *body = buffer_text(&fetch->body);
    *ret_answer = (struct http_answer){
        .status = code == CURLE_OK && body != NULL ? (int)status : 0,
        .body = body,
        .len = fetch->body.len,
        .etag = fetch->etag,
        .last_modified = fetch->last_modified,
        .retry_after_ms = reply_retry_after_ms(&fetch->headers, clock_wall_ms()),
        .rtt_us = (clock_mono_ns() - fetch->started_ns) / 1000,
        .why = words,
    };
    if (ret_answer->status != 0) {
        return;
    }
    ret_answer->error = error_of(code);
    ret_answer->detail = ret_answer->error == DEVICE_ERROR_CONNECT ? (int)os_error : 0;
    if (fetch->too_large || body == NULL) {
        snprintf(words, WORDS_MAX, "the answer is larger than %d KiB", HTTP_FETCH_BODY_MAX / 1024);
    } else {
        transport_words(fetch->easy, code, fetch->detail, words);
    }
}

static void complete_finished(struct http_fetcher *fetcher)
{
    int left;
    for (CURLMsg *m; (m = curl_multi_info_read(fetcher->multi, &left)) != NULL;) {
        if (m->msg != CURLMSG_DONE) {
            continue;
        }
        struct http_fetch *fetch = NULL;
        CURLcode code = m->data.result;
        curl_easy_getinfo(m->easy_handle, CURLINFO_PRIVATE, (char **)&fetch);
        char words[WORDS_MAX] = "";
        struct http_answer answer;
        make_answer(fetch, code, words, &answer);
        curl_multi_remove_handle(fetcher->multi, fetch->easy);
        fetch->running = false;
        fetch->done(fetch->user, &answer);
    }
}
