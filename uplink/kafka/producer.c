#include "gateway/base/clock.h"
#include "gateway/base/log.h"
#include "uplink/kafka/kafka.h"
#include "uplink/transport/errand.h"
#include "uplink/transport/trust.h"
#include "uplink/transport/words.h"

#include <errno.h>
#include <jansson.h>
#include <librdkafka/rdkafka.h>
#include <netinet/in.h>
#include <openssl/x509_vfy.h>
#include <stdatomic.h>
#include <sys/eventfd.h>
#include <sys/socket.h>

enum { STATISTICS_MS = 1000, SYSLOG_WARNING = 4 };

struct kafka_producer {
    rd_kafka_t *handle;
    const struct kafka_producer_events *events;
    void *user;
    int fd; /* readable when librdkafka has something to tell */
    bool single, buried;
    int64_t down_since_ms, dead_since_ms;
    _Atomic int verify_error; /* X509_V_ERR_*, by librdkafka's threads */
    _Atomic int64_t peer_until_ms;
    int code;
    char why[KAFKA_WORDS];
    uint64_t bytes_sent;
};

/* -- what librdkafka tells; all of it in kafka_producer_step() -- */

static void on_delivery(rd_kafka_t *handle, const rd_kafka_message_t *message, void *opaque)
{
    (void)handle;
    struct kafka_producer *p = opaque;
    if (!p->buried) {
        p->down_since_ms = message->err == RD_KAFKA_RESP_ERR_NO_ERROR ? 0 : p->down_since_ms;
        p->events->answered(p->user, message->_private, message->err);
    }
}

static const char *verify_words(int error)
{
    const char *words = transport_certificate_words(error);
    if (error == X509_V_ERR_HOSTNAME_MISMATCH || error == X509_V_ERR_IP_ADDRESS_MISMATCH) {
        words = "its certificate is for another host name";
    }
    return words != NULL ? words : "";
}

static void look_at(struct kafka_producer *p, const char *der, size_t size)
{
    const unsigned char *at = (const unsigned char *)der;
    X509 *shown = d2i_X509(NULL, &at, (long)size);
    int64_t until_ms = shown != NULL ? trust_until_ms(shown) : 0;
    int64_t first_ms = atomic_load(&p->peer_until_ms);
    if (until_ms != 0 && (first_ms == 0 || until_ms < first_ms)) {
        atomic_store(&p->peer_until_ms, until_ms);
    }
    X509_free(shown);
}

/* Called by librdkafka's threads; changes nothing about what OpenSSL has found. */
static int on_certificate(rd_kafka_t *handle, const char *broker, int32_t id, int *error, int depth,
                          const char *der, size_t size, char *words, size_t words_size,
                          void *opaque)
{
    (void)handle;
    (void)broker;
    (void)id;
    struct kafka_producer *p = opaque;
    if (*error == X509_V_OK) {
        if (depth == 0) {
            look_at(p, der, size);
        }
        return 1;
    }
    atomic_store(&p->verify_error, *error);
    snprintf(words, words_size, "%s", X509_verify_cert_error_string(*error));
    return 0;
}

static bool is_final(int code)
{
    return code == RD_KAFKA_RESP_ERR__FATAL || code == RD_KAFKA_RESP_ERR__AUTHENTICATION ||
           code == RD_KAFKA_RESP_ERR_SASL_AUTHENTICATION_FAILED ||
           code == RD_KAFKA_RESP_ERR_UNSUPPORTED_SASL_MECHANISM ||
           code == RD_KAFKA_RESP_ERR__UNSUPPORTED_FEATURE;
}

static void on_error(rd_kafka_t *handle, int code, const char *reason, void *opaque)
{
    struct kafka_producer *p = opaque;
    if (p->buried || p->dead_since_ms != 0) {
        return;
    }
    log_debug("kafka: %s: %s", rd_kafka_err2name((rd_kafka_resp_err_t)code), reason);
    if (code == RD_KAFKA_RESP_ERR__ALL_BROKERS_DOWN) {
        p->down_since_ms = p->down_since_ms != 0 ? p->down_since_ms : clock_mono_ms();
        /* Which brokers, and why, was told before. */
        if (p->why[0] != '\0') {
            return;
        }
    }
    p->code = code;
    p->dead_since_ms = is_final(code) ? clock_mono_ms() : 0;
    /* Of a certificate librdkafka only says that it does not verify. */
    int verify_error = code == RD_KAFKA_RESP_ERR__SSL ? atomic_exchange(&p->verify_error, 0) : 0;
    const char *words = verify_words(verify_error);
    snprintf(p->why, sizeof p->why, "%s%s%s", words, words[0] != '\0' ? ": " : "", reason);
    if (code == RD_KAFKA_RESP_ERR__FATAL) {
        p->code = rd_kafka_fatal_error(handle, p->why, sizeof p->why);
    }
}

static void on_log(const rd_kafka_t *handle, int level, const char *facility, const char *text)
{
    (void)handle;
    (void)level; /* what matters comes as an error, too */
    log_debug("kafka: %s: %s", facility, text);
}

static int on_statistics(rd_kafka_t *handle, char *text, size_t len, void *opaque)
{
    (void)handle;
    struct kafka_producer *p = opaque;
    json_t *root = json_loadb(text, len, 0, NULL);
    const json_t *sent = json_object_get(root, "tx_bytes");
    if (json_is_integer(sent) && json_integer_value(sent) > 0) {
        p->bytes_sent = (uint64_t)json_integer_value(sent);
    }
    json_decref(root);
    return 0; /* the text stays librdkafka's */
}

/* Without TLS, brokers of which the cluster tells us must be on this machine as well. Called by
 * librdkafka's threads. */
static int connect_locally(int fd, const struct sockaddr *address, int len, const char *id,
                           void *opaque)
{
    (void)id;
    (void)opaque;
    const struct sockaddr_in *v4 = (const void *)address;
    const struct sockaddr_in6 *v6 = (const void *)address;
    bool local = address->sa_family == AF_INET    ? ntohl(v4->sin_addr.s_addr) >> 24 == 127
                 : address->sa_family == AF_INET6 ? IN6_IS_ADDR_LOOPBACK(&v6->sin6_addr)
                                                  : false;
    if (!local) {
        return EPERM;
    }
    return connect(fd, address, (socklen_t)len) == 0 || errno == EINPROGRESS ? 0 : errno;
}

/* -- settings -- */

struct option {
    const char *name, *value; /* value NULL: left as it is */
};

static int set_options(rd_kafka_conf_t *conf, const struct option *options, size_t count,
                       char words[KAFKA_WORDS])
{
    for (size_t i = 0; i < count; i++) {
        if (options[i].value != NULL && rd_kafka_conf_set(conf, options[i].name, options[i].value,
                                                          words, KAFKA_WORDS) != RD_KAFKA_CONF_OK) {
            return -EINVAL;
        }
    }
    return 0;
}

static int set_numbers(rd_kafka_conf_t *conf, const struct kafka_settings *s, bool single,
                       char words[KAFKA_WORDS])
{
    int64_t setup_ms = s->line.connect_timeout_ms > 1000 ? s->line.connect_timeout_ms : 1000;
    int64_t socket_ms = s->line.timeout_ms < 60000 ? s->line.timeout_ms : 60000;
    const struct {
        const char *name;
        int64_t value;
    } numbers[] = {
        {"message.max.bytes", s->max_message},
        {"queue.buffering.max.messages", s->inflight},
        {"queue.buffering.max.kbytes", KAFKA_QUEUE_KIB},
        {"batch.num.messages", single ? 1 : 10000},
        /* With several requests on their way librdkafka takes the acknowledgement of a later one
         * for that of an earlier one that has failed, trusting that brokers check the order. */
        {"max.in.flight.requests.per.connection", 1},
        /* Messages wait as long as it takes: the transport gives all of them up together, so that
         * none overtakes another of its device. */
        {"message.timeout.ms", 0},
        {"request.timeout.ms", socket_ms < 30000 ? socket_ms : 30000},
        {"socket.timeout.ms", socket_ms},
        {"socket.connection.setup.timeout.ms", setup_ms},
        {"reconnect.backoff.ms", 100},
        {"reconnect.backoff.max.ms", 3000},
        {"topic.metadata.propagation.max.ms", socket_ms < 20000 ? socket_ms / 2 : 10000},
        {"statistics.interval.ms", STATISTICS_MS},
        {"log_level", SYSLOG_WARNING},
    };
    int r = 0;
    for (size_t i = 0; i < ARRAY_SIZE(numbers) && r == 0; i++) {
        char text[24];
        snprintf(text, sizeof text, "%lld", (long long)numbers[i].value);
        r = set_options(conf, &(struct option){numbers[i].name, text}, 1, words);
    }
    return r;
}

static int set_brokers(rd_kafka_conf_t *conf, const struct kafka_settings *s,
                       char words[KAFKA_WORDS])
{
    auto_buffer struct buffer list = {0};
    for (size_t i = 0; i < s->brokers.count; i++) {
        buffer_add_text(&list, i > 0 ? "," : "");
        buffer_add_text(&list, s->brokers.items[i]);
    }
    const char *text = buffer_text(&list);
    if (text == NULL) {
        snprintf(words, KAFKA_WORDS, "no memory");
        return -ENOMEM;
    }
    return set_options(conf, &(struct option){"bootstrap.servers", text}, 1, words);
}

/* TLS is 1.2 or newer by OpenSSL itself: older versions need its security level 0. */
static int set_texts(rd_kafka_conf_t *conf, const struct kafka_settings *s, const char *gateway,
                     const char *password, char words[KAFKA_WORDS])
{
    static const char *const protocols[2][2] = {{"plaintext", "sasl_plaintext"},
                                                {"ssl", "sasl_ssl"}};
    static const char *const mechanisms[] = {NULL, "PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"};
    static const char *const codecs[] = {"none", "gzip", "zstd"};
    bool sasl = s->sasl != KAFKA_NO_SASL;
    const struct option options[] = {
        {"client.id", s->client_id != NULL ? s->client_id : gateway},
        {"security.protocol", protocols[s->tls][sasl]},
        {"sasl.mechanisms", mechanisms[s->sasl]},
        {"sasl.username", sasl ? s->user : NULL},
        {"sasl.password", sasl ? password : NULL},
        {"ssl.ca.location", s->line.ca_file},
        {"ssl.crl.location", s->line.crl_file},
        {"ssl.certificate.location", s->line.cert_file},
        {"ssl.key.location", s->line.key_file},
        {"enable.ssl.certificate.verification", "true"},
        {"ssl.endpoint.identification.algorithm", "https"},
        {"compression.codec", codecs[s->compress]},
        {"enable.idempotence", "true"}, /* this means acks=all */
        /* A batch that fails for good stops the producer, so that nothing overtakes it. */
        {"enable.gapless.guarantee", "true"},
        /* As Java's clients do it: a device's partition is the same for all who write. */
        {"partitioner", "murmur2_random"},
        {"socket.keepalive.enable", "true"},
        {"socket.nagle.disable", "true"},
        {"log.queue", "true"},
    };
    return set_options(conf, options, ARRAY_SIZE(options), words);
}

/* Takes conf in any case. */
static int start(struct kafka_producer *p, rd_kafka_conf_t *conf, char words[KAFKA_WORDS])
{
    p->handle = rd_kafka_new(RD_KAFKA_PRODUCER, conf, words, KAFKA_WORDS);
    if (p->handle == NULL) {
        rd_kafka_conf_destroy(conf);
        return -EINVAL;
    }
    rd_kafka_queue_t *queue = rd_kafka_queue_get_main(p->handle);
    static const uint64_t one = 1;
    rd_kafka_queue_io_event_enable(queue, p->fd, &one, sizeof one);
    rd_kafka_resp_err_t code = rd_kafka_set_log_queue(p->handle, queue);
    rd_kafka_queue_destroy(queue);
    if (code != RD_KAFKA_RESP_ERR_NO_ERROR) {
        snprintf(words, KAFKA_WORDS, "%s", rd_kafka_err2str(code));
        return -EINVAL;
    }
    return 0;
}

static void release(void *arg)
{
    struct kafka_producer *p = arg;
    cleanup_close(&p->fd);
    free(p);
}

int kafka_producer_create(const struct kafka_settings *settings, const char *gateway,
                          const char *password, bool single,
                          const struct kafka_producer_events *events, void *user,
                          char ret_words[KAFKA_WORDS], struct kafka_producer **ret_producer)
{
    struct kafka_producer *p = calloc(1, sizeof *p);
    rd_kafka_conf_t *conf = rd_kafka_conf_new();
    if (p == NULL || conf == NULL) {
        free(p);
        return -ENOMEM;
    }
    *p = (struct kafka_producer){.events = events, .user = user, .single = single};
    p->fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    rd_kafka_conf_set_opaque(conf, p);
    rd_kafka_conf_set_dr_msg_cb(conf, on_delivery);
    rd_kafka_conf_set_error_cb(conf, on_error);
    rd_kafka_conf_set_log_cb(conf, on_log);
    rd_kafka_conf_set_stats_cb(conf, on_statistics);
    rd_kafka_conf_res_t c = rd_kafka_conf_set_ssl_cert_verify_cb(conf, on_certificate);
    (void)c; /* without TLS in the library there is no connection with it */
    if (!settings->tls) {
        rd_kafka_conf_set_connect_cb(conf, connect_locally);
    }
    int r = p->fd < 0 ? -errno : set_brokers(conf, settings, ret_words);
    r = r < 0 ? r : set_numbers(conf, settings, single, ret_words);
    r = r < 0 ? r : set_texts(conf, settings, gateway, password, ret_words);
    if (r < 0) {
        rd_kafka_conf_destroy(conf);
    } else {
        r = start(p, conf, ret_words);
    }
    if (r < 0) {
        if (p->handle != NULL) {
            rd_kafka_destroy(p->handle);
        }
        release(p);
        return r;
    }
    *ret_producer = p;
    return 0;
}

static void destroy_handle(void *arg)
{
    rd_kafka_destroy(((struct kafka_producer *)arg)->handle);
}

/* librdkafka waits for its threads, of which one may be looking up a name. */
struct errand *kafka_producer_bury(struct kafka_producer *p)
{
    struct errand *errand = NULL;
    p->buried = true;
    if (errand_start(destroy_handle, release, p, &errand) < 0) {
        destroy_handle(p);
        release(p);
    }
    return errand;
}

int kafka_producer_fd(const struct kafka_producer *p)
{
    return p->fd;
}

void kafka_producer_step(struct kafka_producer *p)
{
    uint64_t count;
    ssize_t n = read(p->fd, &count, sizeof count);
    (void)n; /* librdkafka writes again when something comes behind what is served here */
    while (rd_kafka_poll(p->handle, 0) > 0) {
    }
}

int kafka_producer_send(struct kafka_producer *p, const struct kafka_settings *settings,
                        const struct kafka_frame *frame, void *message, int *ret_code)
{
    bool scan_time = settings->stamp == KAFKA_STAMP_SCAN;
    rd_kafka_resp_err_t code = rd_kafka_producev(
        p->handle, RD_KAFKA_V_TOPIC(frame->topic), RD_KAFKA_V_MSGFLAGS(RD_KAFKA_MSG_F_COPY),
        RD_KAFKA_V_KEY((void *)frame->key, frame->key_len),
        RD_KAFKA_V_VALUE((void *)frame->payload, frame->len),
        RD_KAFKA_V_TIMESTAMP(scan_time ? frame->time_ms : 0), RD_KAFKA_V_OPAQUE(message),
        RD_KAFKA_V_END);
    if (code == RD_KAFKA_RESP_ERR__QUEUE_FULL) {
        return -EAGAIN;
    }
    *ret_code = code;
    return code == RD_KAFKA_RESP_ERR_NO_ERROR ? 0 : -EINVAL;
}

int64_t kafka_producer_dead_since_ms(const struct kafka_producer *p)
{
    return p->dead_since_ms;
}

int64_t kafka_producer_down_since_ms(const struct kafka_producer *p)
{
    return p->down_since_ms;
}

bool kafka_producer_single(const struct kafka_producer *p)
{
    return p->single;
}

uint64_t kafka_producer_bytes_sent(const struct kafka_producer *p)
{
    return p->bytes_sent;
}

int64_t kafka_producer_peer_until_ms(const struct kafka_producer *p)
{
    return atomic_load(&p->peer_until_ms);
}

const char *kafka_producer_why(const struct kafka_producer *p, int *ret_code)
{
    *ret_code = p->code;
    return p->why;
}

int kafka_producer_describe(struct kafka_producer *p, const char *topic, int64_t timeout_ms,
                            struct kafka_description *ret)
{
    enum { STEP_MS = 500 };
    const struct rd_kafka_metadata *all = NULL;
    int64_t until_ms = clock_mono_ms() + timeout_ms;
    rd_kafka_topic_t *handle = rd_kafka_topic_new(p->handle, topic, NULL);
    rd_kafka_resp_err_t code = RD_KAFKA_RESP_ERR__TRANSPORT;
    while (handle != NULL && code != RD_KAFKA_RESP_ERR_NO_ERROR && p->dead_since_ms == 0 &&
           p->down_since_ms == 0 && clock_mono_ms() < until_ms) {
        code = rd_kafka_metadata(p->handle, 0, handle, &all, STEP_MS);
        kafka_producer_step(p);
    }
    if (code == RD_KAFKA_RESP_ERR_NO_ERROR) {
        *ret = (struct kafka_description){.brokers = all->broker_cnt};
        ret->partitions = all->topic_cnt > 0 ? all->topics[0].partition_cnt : 0;
        ret->topic_code = all->topic_cnt > 0 ? all->topics[0].err
                                             : RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART;
        rd_kafka_metadata_destroy(all);
    }
    if (handle != NULL) {
        rd_kafka_topic_destroy(handle);
    }
    return code == RD_KAFKA_RESP_ERR_NO_ERROR ? 0 : -EIO;
}
