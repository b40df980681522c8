#include "uplink/mqtt/link.h"

#include "gateway/base/clock.h"
#include "uplink/transport/errand.h"
#include "uplink/transport/trust.h"

#include <errno.h>
#include <mosquitto.h>
#include <mqtt_protocol.h>
#include <openssl/ssl.h>
#include <poll.h>

#define SYSTEM_CA "/etc/ssl/certs/ca-certificates.crt"

/* A connection that ends sooner than this after it was accepted was most likely taken over. */
enum { SHORT_LIFE_MS = 3000, DETAIL = 160, QOS = 1 };

/* What the dialling thread works on: it owns the handle until it is done, and libmosquitto's
 * look-up and TCP connect (which block) happen there. Afterwards the link does. */
struct dial {
    struct mosquitto *handle;
    struct mqtt_target target;
    int keep_alive_s, version;
    int result, error;   /* MOSQ_ERR_*, errno */
    char detail[DETAIL]; /* the first error that the library logged */
};

struct mqtt_link {
    const struct mqtt_settings *settings;
    const struct mqtt_link_events *events;
    void *user;
    struct errand *errand; /* holds the dial */
    struct dial *dial;
    struct mosquitto *handle; /* the dial's, once that is done; destroyed with it */
    enum mqtt_link_state state;
    int64_t deadline_ms, up_since_ms;
    char *status_topic, *gateway_json;
    int reason;
    bool contested;
    size_t packet_bytes; /* read over TLS since the last packet was whole */
    char why[MQTT_WORDS];
};

/* Bytes of TLS around those of MQTT_INCOMING_MAX, and what is read ahead. */
enum { READ_AHEAD = 64 * 1024 };

static void release_dial(void *arg)
{
    struct dial *d = arg;
    mosquitto_destroy(d->handle);
    free(d);
}

static void run_dial(void *arg)
{
    struct dial *d = arg;
    mosquitto_property *limits = NULL;
    d->result = d->version == MQTT_5
                    ? mosquitto_property_add_int32(&limits, MQTT_PROP_MAXIMUM_PACKET_SIZE,
                                                   MQTT_INCOMING_MAX)
                    : MOSQ_ERR_SUCCESS;
    if (d->result == MOSQ_ERR_SUCCESS) {
        d->result = mosquitto_connect_bind_v5(d->handle, d->target.host, d->target.port,
                                              d->keep_alive_s, NULL, limits);
        d->error = errno;
    }
    mosquitto_property_free_all(&limits);
}

static void on_log(struct mosquitto *handle, void *user, int level, const char *text)
{
    (void)handle;
    struct dial *d = user;
    if (level == MOSQ_LOG_ERR && d->detail[0] == '\0') {
        snprintf(d->detail, sizeof d->detail, "%s",
                 strncmp(text, "Error: ", 7) == 0 ? text + 7 : text);
    }
}

const char *mqtt_reason_words(int reason)
{
    switch (reason) {
    case MQTT_RC_UNSUPPORTED_PROTOCOL_VERSION:
        return "the broker does not speak this version of MQTT: protocol";
    case MQTT_RC_CLIENTID_NOT_VALID:
        return "the broker does not take this client_id";
    case MQTT_RC_BAD_USERNAME_OR_PASSWORD:
        return "the broker does not take the user or password: user, password_file";
    case MQTT_RC_NOT_AUTHORIZED:
        return "the broker does not allow this to us: rights of the certificate or user on the "
               "topic";
    case MQTT_RC_SESSION_TAKEN_OVER:
        return "another client came with the same client_id and took our place";
    case MQTT_RC_TOPIC_NAME_INVALID:
        return "the broker does not take the topic: topic";
    case MQTT_RC_QUOTA_EXCEEDED:
    case MQTT_RC_MESSAGE_RATE_TOO_HIGH:
    case MQTT_RC_CONNECTION_RATE_EXCEEDED:
        return "the broker asks us to slow down: publish_rate";
    case MQTT_RC_SERVER_SHUTTING_DOWN:
        return "the broker is shutting down";
    default:
        return mosquitto_reason_string(reason);
    }
}

/* The broker was told how large a packet may be, but the library would fill 256 MB: beyond the
 * bound its connection ends for it, within whatever it reads. Without TLS (this machine only) there
 * is no place to do so. */
static bool is_too_large(const struct mqtt_link *link)
{
    return link->packet_bytes > MQTT_INCOMING_MAX + READ_AHEAD;
}

static void down(struct mqtt_link *link, int reason, const char *words)
{
    if (link->state == MQTT_DOWN) {
        return;
    }
    words = is_too_large(link) ? "the broker sends a message that is larger than we take" : words;
    bool brief = !is_too_large(link) && link->state == MQTT_UP && reason == 0 &&
                 clock_mono_ms() - link->up_since_ms < SHORT_LIFE_MS;
    link->state = MQTT_DOWN;
    link->reason = reason;
    link->contested = brief || reason == MQTT_RC_SESSION_TAKEN_OVER;
    const char *detail = link->dial->detail;
    snprintf(link->why, sizeof link->why, "%.100s%s%.90s%s", words, detail[0] != '\0' ? ": " : "",
             detail, brief ? " (soon after it began: does another client use our client_id?)" : "");
}

/* What CONNACK says in 3.1.1 (its table 3.1), as reason codes of MQTT 5. */
static int reason_of_connack(int code)
{
    static const int reasons[] = {0,
                                  MQTT_RC_UNSUPPORTED_PROTOCOL_VERSION,
                                  MQTT_RC_CLIENTID_NOT_VALID,
                                  MQTT_RC_SERVER_UNAVAILABLE,
                                  MQTT_RC_BAD_USERNAME_OR_PASSWORD,
                                  MQTT_RC_NOT_AUTHORIZED};
    return code >= 0 && (size_t)code < ARRAY_SIZE(reasons) ? reasons[code] : code;
}

static void say_status(struct mqtt_link *link, const char *status, struct buffer *payload)
{
    buffer_clear(payload);
    buffer_printf(payload, "{\"gateway\":%s,\"status\":\"%s\"}", link->gateway_json, status);
}

static void on_connect(struct mosquitto *handle, void *user, int code, int flags,
                       const mosquitto_property *properties)
{
    (void)flags;
    (void)properties;
    struct mqtt_link *link = user;
    int reason = reason_of_connack(code);
    if (reason != 0) {
        down(link, reason, mqtt_reason_words(reason));
        return;
    }
    link->state = MQTT_UP;
    link->up_since_ms = clock_mono_ms();
    link->dial->detail[0] = '\0';
    auto_buffer struct buffer payload = {0};
    if (link->status_topic != NULL) {
        say_status(link, "online", &payload);
        mosquitto_publish(handle, NULL, link->status_topic, (int)payload.len, payload.data, QOS,
                          true);
    }
}

/* A reason of the broker's is 0x80 or more; below stand the library's own MOSQ_ERR_*. */
static void on_disconnect(struct mosquitto *handle, void *user, int code,
                          const mosquitto_property *properties)
{
    (void)handle;
    (void)properties;
    struct mqtt_link *link = user;
    if (code >= 0x80) {
        down(link, code, mqtt_reason_words(code));
    } else {
        down(link, 0, code == 0 ? "the broker closed the connection" : mosquitto_strerror(code));
    }
}

static void on_publish(struct mosquitto *handle, void *user, int message, int reason,
                       const mosquitto_property *properties)
{
    (void)handle;
    (void)properties;
    struct mqtt_link *link = user;
    link->events->acknowledged(link->user, message, reason);
}

static void on_subscribe(struct mosquitto *handle, void *user, int message, int count,
                         const int *granted, const mosquitto_property *properties)
{
    (void)handle;
    (void)properties;
    struct mqtt_link *link = user;
    link->events->subscribed(link->user, message, count > 0 ? granted[0] : 0x80);
}

static void on_message(struct mosquitto *handle, void *user, const struct mosquitto_message *m,
                       const mosquitto_property *properties)
{
    (void)handle;
    (void)properties;
    struct mqtt_link *link = user;
    link->events->received(link->user, m->topic, m->payload, (size_t)m->payloadlen, m->retain);
}

static long on_read(BIO *bio, int what, const char *to, size_t size, int number, long more,
                    int result, size_t *count)
{
    (void)to, (void)size, (void)number, (void)more;
    struct mqtt_link *link = (struct mqtt_link *)BIO_get_callback_arg(bio);
    if (what == (BIO_CB_READ | BIO_CB_RETURN) && result > 0 && count != NULL) {
        link->packet_bytes += *count;
    }
    return what == BIO_CB_READ && is_too_large(link) ? 0 : result;
}

static void watch_size(struct mqtt_link *link)
{
    SSL *ssl = mosquitto_ssl_get(link->handle);
    BIO *bio = ssl != NULL ? SSL_get_rbio(ssl) : NULL;
    if (bio != NULL) {
        BIO_set_callback_arg(bio, (char *)link);
        BIO_set_callback_ex(bio, on_read);
    }
}

/* The log callback gets the link from then on, whose first user was the dial. Of each packet that
 * has come the library says "Client ID received PUBACK (...)". */
static void on_log_up(struct mosquitto *handle, void *user, int level, const char *text)
{
    struct mqtt_link *link = user;
    if (level == MOSQ_LOG_DEBUG && strstr(text, " received ") != NULL) {
        link->packet_bytes = 0;
    }
    on_log(handle, link->dial, level, text);
}

/* An encrypted key must fail; without this OpenSSL asks on the terminal. */
static int no_passphrase(char *buf, int size, int rwflag, void *user)
{
    (void)buf;
    (void)size;
    (void)rwflag;
    (void)user;
    return 0;
}

static int set_tls(struct mosquitto *handle, const struct mqtt_settings *s,
                   const struct mqtt_target *target)
{
    const char *ca = s->line.ca_file != NULL ? s->line.ca_file : SYSTEM_CA;
    int rc = mosquitto_tls_set(handle, ca, NULL, s->line.cert_file, s->line.key_file,
                               no_passphrase);
    /* "tlsv1.2" is the oldest one taken, 1: certificate and name are verified. */
    rc = rc != MOSQ_ERR_SUCCESS ? rc : mosquitto_tls_opts_set(handle, 1, "tlsv1.2", NULL);
    const char *alpn = s->alpn != NULL                      ? s->alpn
                       : target->aws && target->port == 443 ? "x-amzn-mqtt-ca"
                                                            : NULL;
    if (rc == MOSQ_ERR_SUCCESS && alpn != NULL) {
        rc = mosquitto_string_option(handle, MOSQ_OPT_TLS_ALPN, alpn);
    }
    return rc;
}

static int set_will(struct mqtt_link *link, struct mosquitto *handle)
{
    if (link->status_topic == NULL) {
        return MOSQ_ERR_SUCCESS;
    }
    auto_buffer struct buffer payload = {0};
    say_status(link, "offline", &payload);
    return mosquitto_will_set(handle, link->status_topic, (int)payload.len, payload.data, QOS,
                              true);
}

static int set_options(struct mqtt_link *link, const struct mqtt_target *target,
                       const char *password)
{
    const struct mqtt_settings *s = link->settings;
    struct mosquitto *handle = link->dial->handle;
    int version = s->protocol == MQTT_5 ? MQTT_PROTOCOL_V5 : MQTT_PROTOCOL_V311;
    int rc = mosquitto_int_option(handle, MOSQ_OPT_PROTOCOL_VERSION, version);
    rc = rc != 0 ? rc : mosquitto_int_option(handle, MOSQ_OPT_TCP_NODELAY, 1);
    /* More than a batch's: notes, and the status message. */
    int inflight = (int)s->inflight + MQTT_NOTES_INFLIGHT + 1;
    rc = rc != 0 ? rc : mosquitto_int_option(handle, MOSQ_OPT_SEND_MAXIMUM, inflight);
    rc = rc != 0 ? rc : mosquitto_max_inflight_messages_set(handle, (unsigned)inflight);
    rc = rc != 0 || s->user == NULL ? rc : mosquitto_username_pw_set(handle, s->user, password);
    rc = rc != 0 || !target->tls ? rc : set_tls(handle, s, target);
    return rc != 0 ? rc : set_will(link, handle);
}

static int set_names(struct mqtt_link *link, const char *gateway)
{
    auto_buffer struct buffer text = {0};
    json_write_string(&text, gateway, strlen(gateway));
    const char *json = buffer_text(&text);
    link->gateway_json = json != NULL ? strdup(json) : NULL;
    if (link->gateway_json == NULL || link->settings->status_topic == NULL) {
        return link->gateway_json == NULL ? -ENOMEM : 0;
    }
    buffer_clear(&text);
    mqtt_write_topic(&text, link->settings->status_topic, gateway, NULL, NULL);
    const char *topic = buffer_text(&text);
    link->status_topic = topic != NULL ? strdup(topic) : NULL;
    return link->status_topic == NULL ? -ENOMEM : 0;
}

static int dial(struct mqtt_link *link, const char *gateway, const char *password)
{
    const struct mqtt_settings *s = link->settings;
    struct mqtt_target target;
    int r = set_names(link, gateway);
    if (r < 0 || !mqtt_target_parse(s->url, &target)) {
        return r < 0 ? r : -EINVAL;
    }
    struct dial *d = link->dial = calloc(1, sizeof *d);
    if (d == NULL) {
        return -ENOMEM;
    }
    d->target = target;
    d->version = s->protocol;
    d->keep_alive_s = (int)(s->keep_alive_ms / 1000);
    d->handle = mosquitto_new(s->client_id != NULL ? s->client_id : gateway, true, d);
    if (d->handle == NULL) {
        free(take_ptr(link->dial));
        return -ENOMEM;
    }
    mosquitto_log_callback_set(d->handle, on_log);
    int rc = set_options(link, &target, password);
    if (rc != MOSQ_ERR_SUCCESS) {
        snprintf(link->why, sizeof link->why, "ca_file, cert_file or key_file: %s",
                 mosquitto_strerror(rc));
    }
    r = rc != MOSQ_ERR_SUCCESS ? -EINVAL : errand_start(run_dial, release_dial, d, &link->errand);
    if (r < 0) {
        release_dial(take_ptr(link->dial));
    }
    return r;
}

int mqtt_link_create(const struct mqtt_settings *settings, const char *gateway,
                     const char *password, const struct mqtt_link_events *events, void *user,
                     struct mqtt_link **ret_link)
{
    struct mqtt_link *link = calloc(1, sizeof *link);
    if (link == NULL) {
        return -ENOMEM;
    }
    link->settings = settings;
    link->events = events;
    link->user = user;
    link->deadline_ms = clock_mono_ms() + settings->line.connect_timeout_ms;
    int r = dial(link, gateway, password);
    if (r < 0) {
        mqtt_link_destroy(link);
        return r;
    }
    *ret_link = link;
    return 0;
}

struct errand *mqtt_link_take_dial(struct mqtt_link *link)
{
    return link->errand != NULL && !errand_done(link->errand) ? take_ptr(link->errand) : NULL;
}

void mqtt_link_destroy(struct mqtt_link *link)
{
    if (link == NULL) {
        return;
    }
    /* The will says that we left: MQTT 5 can ask for it, 3.1.1 sends it when there is no goodbye.
     */
    if (link->state == MQTT_UP && link->settings->protocol == MQTT_5) {
        mosquitto_disconnect_v5(link->handle, MQTT_RC_DISCONNECT_WITH_WILL_MSG, NULL);
    }
    errand_drop(link->errand);
    free(link->status_topic);
    free(link->gateway_json);
    free(link);
}

int64_t mqtt_link_peer_until_ms(const struct mqtt_link *link)
{
    SSL *ssl = link->state == MQTT_UP ? mosquitto_ssl_get(link->handle) : NULL;
    X509 *shown = ssl != NULL ? SSL_get0_peer_certificate(ssl) : NULL;
    return shown != NULL ? trust_until_ms(shown) : 0;
}

enum mqtt_link_state mqtt_link_state(const struct mqtt_link *link)
{
    return link->state;
}

int mqtt_link_fd(const struct mqtt_link *link)
{
    if (link->state == MQTT_DIALLING) {
        return errand_fd(link->errand);
    }
    return link->state != MQTT_DOWN ? mosquitto_socket(link->handle) : -1;
}

short mqtt_link_wants(const struct mqtt_link *link)
{
    bool connected = link->state == MQTT_GREETING || link->state == MQTT_UP;
    return (short)(POLLIN | (connected && mosquitto_want_write(link->handle) ? POLLOUT : 0));
}

static void dialled(struct mqtt_link *link)
{
    struct dial *d = link->dial;
    if (d->result == MOSQ_ERR_SUCCESS) {
        link->handle = d->handle;
        mosquitto_user_data_set(d->handle, link);
        mosquitto_log_callback_set(d->handle, on_log_up);
        mosquitto_connect_v5_callback_set(d->handle, on_connect);
        mosquitto_disconnect_v5_callback_set(d->handle, on_disconnect);
        mosquitto_publish_v5_callback_set(d->handle, on_publish);
        mosquitto_subscribe_v5_callback_set(d->handle, on_subscribe);
        mosquitto_message_v5_callback_set(d->handle, on_message);
        link->state = MQTT_GREETING;
        watch_size(link);
        return;
    }
    char words[MQTT_WORDS];
    snprintf(words, sizeof words, "connecting to %.60s: %s", d->target.host,
             d->result == MOSQ_ERR_ERRNO ? strerror(d->error) : mosquitto_strerror(d->result));
    down(link, 0, words);
}

void mqtt_link_step(struct mqtt_link *link, short revents)
{
    if (link->state == MQTT_DIALLING && errand_done(link->errand)) {
        dialled(link);
    }
    int rc = MOSQ_ERR_SUCCESS;
    bool connected = link->state == MQTT_GREETING || link->state == MQTT_UP;
    if (connected && (revents & (POLLIN | POLLERR | POLLHUP)) != 0) {
        rc = mosquitto_loop_read(link->handle, 1);
    }
    if (connected && rc == MOSQ_ERR_SUCCESS && mosquitto_want_write(link->handle)) {
        rc = mosquitto_loop_write(link->handle, 1);
    }
    if (connected && rc == MOSQ_ERR_SUCCESS) {
        rc = mosquitto_loop_misc(link->handle);
    }
    if (rc != MOSQ_ERR_SUCCESS) {
        down(link, 0, mosquitto_strerror(rc));
    }
    bool hoping = link->state == MQTT_DIALLING || link->state == MQTT_GREETING;
    if (hoping && clock_mono_ms() >= link->deadline_ms) {
        down(link, 0, "no connection to the broker within connect_timeout");
    }
}

int mqtt_link_publish(struct mqtt_link *link, const struct mqtt_frame *frame, int *ret_message)
{
    if (link->state != MQTT_UP) {
        return -ENOTCONN;
    }
    int rc = mosquitto_publish(link->handle, ret_message, frame->topic, (int)frame->len,
                               frame->payload, QOS, frame->retain);
    switch (rc) {
    case MOSQ_ERR_SUCCESS:
        return 0;
    case MOSQ_ERR_PAYLOAD_SIZE:
    case MOSQ_ERR_OVERSIZE_PACKET:
        return -E2BIG;
    case MOSQ_ERR_INVAL:
    case MOSQ_ERR_MALFORMED_UTF8:
        return -EINVAL;
    default:
        down(link, 0, mosquitto_strerror(rc));
        return -ENOTCONN;
    }
}

int mqtt_link_subscribe(struct mqtt_link *link, const char *filter, bool live_only,
                        int *ret_message)
{
    if (link->state != MQTT_UP) {
        return -ENOTCONN;
    }
    /* Before MQTT 5 these bits must be 0; IoT Core is not known to take them. */
    bool plain = link->settings->protocol != MQTT_5 || link->dial->target.aws || !live_only;
    int options = plain ? 0
                        : MQTT_SUB_OPT_NO_LOCAL | MQTT_SUB_OPT_RETAIN_AS_PUBLISHED |
                              MQTT_SUB_OPT_SEND_RETAIN_NEVER;
    int rc = mosquitto_subscribe_v5(link->handle, ret_message, filter, QOS, options, NULL);
    if (rc == MOSQ_ERR_SUCCESS) {
        return 0;
    }
    if (rc == MOSQ_ERR_INVAL || rc == MOSQ_ERR_MALFORMED_UTF8) {
        return -EINVAL;
    }
    down(link, 0, mosquitto_strerror(rc));
    return -ENOTCONN;
}

const char *mqtt_link_why(const struct mqtt_link *link, int *ret_reason, bool *ret_contested)
{
    *ret_contested = link->contested;
    *ret_reason = link->reason;
    return link->why;
}
