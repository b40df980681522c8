#include "drivers/coap/discover.h"

#include "drivers/coap/links.h"
#include "drivers/coap/payload.h"
#include "drivers/coap/peer.h"
#include "gateway/base/clock.h"

#include <arpa/inet.h>
#include <errno.h>
#include <event2/event.h>
#include <string.h>

enum {
    NAMES_MAX = 256,
    URI_MAX = 512,
    LEISURE_MS = 6000 /* servers take up to 5 s to answer a multicast (RFC 7252 section 8.2) */
};

struct discover {
    struct event_base *base;
    struct schedule *schedule;
    struct peers peers;
    const struct discover_options *options;
    json_t *answers; /* of a multicast: {"coap://HOST:PORT": true} */
};

/* ---- one host ---- */

struct asked {
    struct fetch fetch; /* first */
    struct event_base *base;
    enum device_error error;
    int detail;
    unsigned format;
    struct buffer body;
};

static void on_answer(struct fetch *fetch, const struct fetch_result *result)
{
    struct asked *asked = (struct asked *)fetch;
    asked->error = result->error;
    asked->detail = result->detail;
    asked->format = result->format;
    buffer_clear(&asked->body);
    buffer_add(&asked->body, result->body, result->error == DEVICE_ERROR_NONE ? result->len : 0);
    event_base_loopbreak(asked->base);
}

static enum device_error ask(const struct discover *discover, struct peer *peer,
                             struct asked *asked, const char *path)
{
    asked->fetch.done = on_answer;
    asked->fetch.timeout_ms = discover->options->timeout_ms;
    asked->base = discover->base;
    if (target_parse_path(path, &asked->fetch.path) != 0 || peer_begin(peer, &asked->fetch) != 0) {
        return DEVICE_ERROR_PAYLOAD;
    }
    event_base_dispatch(discover->base);
    return asked->error;
}

/* The names in a SenML answer, each once; text gets none. */
static json_t *names_of(const struct asked *asked)
{
    struct senml_pack pack;
    json_t *names = json_array(), *seen = json_object();
    if (payload_parse(asked->format, asked->body.data, asked->body.len, clock_wall_ms(), &pack) !=
        0) {
        json_decref(seen);
        return names;
    }
    for (size_t i = 0; i < pack.count && json_array_size(names) < NAMES_MAX; i++) {
        const struct senml_record *record = &pack.records[i];
        if (record->name_len == 0) {
            continue;
        }
        bool local = record->base_len < record->name_len;
        size_t skip = local ? record->base_len : 0;
        json_t *name = json_stringn(senml_name(&pack, record) + skip, record->name_len - skip);
        if (name != NULL && json_object_get(seen, json_string_value(name)) == NULL) {
            json_object_set_new(seen, json_string_value(name), json_true());
            json_array_append(names, name);
        }
        json_decref(name);
    }
    senml_finish(&pack);
    json_decref(seen);
    return names;
}

static json_t *describe(const struct discover *discover, struct peer *peer, struct asked *asked,
                        const struct link *link)
{
    json_t *formats = json_array();
    for (size_t i = 0; i < link->format_count; i++) {
        json_array_append_new(formats, json_integer(link->formats[i]));
    }
    json_t *shown = json_pack("{s:s, s:b, s:o, s:s}", "path", link->path, "observable",
                              link->observable, "formats", formats, "type", link->type);
    bool senml = link_has_format(link, PAYLOAD_SENML_JSON) ||
                 link_has_format(link, PAYLOAD_SENML_CBOR);
    if (shown != NULL && senml && ask(discover, peer, asked, link->path) == DEVICE_ERROR_NONE) {
        json_object_set_new(shown, "names", names_of(asked));
    }
    return shown;
}

static void say_error(const struct asked *asked, const char *address, const char *key,
                      char ret_error[DISCOVER_ERROR_SIZE])
{
    const char *why = device_error_name(asked->error);
    if (asked->error == DEVICE_ERROR_EXCEPTION) {
        snprintf(ret_error, DISCOVER_ERROR_SIZE, "%s: answers %d.%02d at /.well-known/core",
                 address, asked->detail / 100, asked->detail % 100);
    } else if (asked->error == DEVICE_ERROR_SECURITY) {
        snprintf(ret_error, DISCOVER_ERROR_SIZE, "%s: %s", address,
                 key == NULL ? "coaps:// needs --psk ID:KEY" : "the key is not accepted");
    } else {
        snprintf(ret_error, DISCOVER_ERROR_SIZE, "%s: no answer (%s)", address, why);
    }
}

static int look_at(const struct discover *discover, struct peer *peer, const char *address,
                   json_t *hosts, char ret_error[DISCOVER_ERROR_SIZE])
{
    struct asked asked = {0};
    struct link link;
    auto_buffer struct buffer links = {0};
    int r = 0;
    if (ask(discover, peer, &asked, "/.well-known/core") != DEVICE_ERROR_NONE) {
        say_error(&asked, address, discover->options->psk_key, ret_error);
        r = asked.error == DEVICE_ERROR_TIMEOUT ? -ETIMEDOUT : -EIO;
    }
    buffer_add(&links, asked.body.data, asked.body.len);
    const char *text = (const char *)links.data;
    size_t len = links.len, count = 0;
    json_t *resources = json_array();
    while (r == 0 && len > 0 && count++ < LINKS_MAX && link_next(&text, &len, &link) == 0) {
        if (strcmp(link.path, "/.well-known/core") != 0) {
            json_array_append_new(resources, describe(discover, peer, &asked, &link));
        }
    }
    if (r == 0) {
        json_array_append_new(hosts,
                              json_pack("{s:s, s:O}", "address", address, "resources", resources));
    }
    json_decref(resources);
    fetch_cancel(&asked.fetch);
    fetch_finish(&asked.fetch);
    buffer_finish(&asked.body);
    return r;
}

static int look_at_host(struct discover *discover, const char *address, json_t *hosts,
                        char ret_error[DISCOVER_ERROR_SIZE])
{
    const struct discover_options *options = discover->options;
    const struct coap_settings settings = {
        .address = address,
        .psk_identity = options->psk_identity,
        .psk = {.text = options->psk_key},
    };
    const struct config_device config = {
        .name = "scan", .timeout_ms = options->timeout_ms, .settings = &settings};
    const struct device device = {.config = &config};
    struct target target;
    struct peer *peer;
    int r = target_parse(address, &target);
    if (r == 0 && target.secure && options->psk_key == NULL) {
        snprintf(ret_error, DISCOVER_ERROR_SIZE, "coaps:// needs --psk ID:KEY");
        return -EINVAL;
    }
    r = r != 0 ? r : peer_create(&discover->peers, &device, &peer);
    if (r != 0) {
        snprintf(ret_error, DISCOVER_ERROR_SIZE, "%s: %s", address, strerror(-r));
        return r;
    }
    r = look_at(discover, peer, address, hosts, ret_error);
    peer_destroy(peer);
    return r;
}

/* ---- all of them ---- */

static coap_response_t on_multicast(coap_session_t *session, const coap_pdu_t *sent,
                                    const coap_pdu_t *received, const coap_mid_t mid)
{
    json_t *answers = coap_get_app_data(coap_session_get_context(session));
    const coap_address_t *from = coap_session_get_addr_remote(session);
    char host[INET6_ADDRSTRLEN] = "", uri[URI_MAX];
    bool six = from->addr.sa.sa_family == AF_INET6;
    const void *address = six ? (const void *)&from->addr.sin6.sin6_addr
                              : (const void *)&from->addr.sin.sin_addr;
    (void)sent;
    (void)mid;
    if (COAP_RESPONSE_CLASS(coap_pdu_get_code(received)) == 2 &&
        inet_ntop(from->addr.sa.sa_family, address, host, sizeof(host)) != NULL &&
        json_object_size(answers) < DISCOVER_HOSTS_MAX) {
        snprintf(uri, sizeof(uri), six ? "coap://[%s]:%u" : "coap://%s:%u", host,
                 coap_address_get_port(from));
        json_object_set_new(answers, uri, json_true());
    }
    return COAP_RESPONSE_OK;
}

static bool add_path(coap_pdu_t *pdu)
{
    return coap_add_option(pdu, COAP_OPTION_URI_PATH, 11, (const uint8_t *)".well-known") > 0 &&
           coap_add_option(pdu, COAP_OPTION_URI_PATH, 4, (const uint8_t *)"core") > 0;
}

static int send_multicast(struct coap_loop *loop, const coap_address_t *to)
{
    coap_session_t *session = coap_new_client_session(loop->context, NULL, to, COAP_PROTO_UDP);
    if (session == NULL) {
        return -EIO;
    }
    coap_pdu_t *pdu = coap_pdu_init(COAP_MESSAGE_NON, COAP_REQUEST_CODE_GET,
                                    coap_new_message_id(session),
                                    coap_session_max_pdu_size(session));
    const uint8_t token[] = {'s', 'c', 'a', 'n'};
    if (pdu == NULL || coap_add_token(pdu, sizeof(token), token) == 0 || !add_path(pdu)) {
        coap_delete_pdu(pdu);
        return -ENOMEM;
    }
    return coap_send(session, pdu) == COAP_INVALID_MID ? -EIO : 0;
}

/* Who answers. The session goes with the context. */
static int ask_all(struct discover *discover, const coap_address_t *to)
{
    struct coap_loop loop;
    int r = coap_loop_init(&loop, discover->base, NULL, NULL);
    if (r != 0) {
        return r;
    }
    coap_set_app_data(loop.context, discover->answers);
    coap_register_response_handler(loop.context, on_multicast);
    r = send_multicast(&loop, to);
    int64_t wait_ms = discover->options->timeout_ms;
    wait_ms = wait_ms < LEISURE_MS ? LEISURE_MS : wait_ms;
    const struct timeval patience = {wait_ms / 1000, wait_ms % 1000 * 1000};
    if (r == 0) {
        coap_loop_kick(&loop);
        event_base_loopexit(discover->base, &patience);
        event_base_dispatch(discover->base);
    }
    coap_loop_finish(&loop);
    return r;
}

static int look_at_all(struct discover *discover, const coap_address_t *to, json_t *hosts,
                       char ret_error[DISCOVER_ERROR_SIZE])
{
    const char *address;
    json_t *unused;
    discover->answers = json_object();
    int r = ask_all(discover, to);
    if (r == 0 && json_object_size(discover->answers) == 0) {
        r = -ETIMEDOUT;
    }
    if (r != 0) {
        snprintf(ret_error, DISCOVER_ERROR_SIZE, "%s: nobody answers", discover->options->address);
    }
    json_object_foreach(discover->answers, address, unused)
    {
        char ignored[DISCOVER_ERROR_SIZE];
        if (r == 0 && look_at_host(discover, address, hosts, ignored) != 0) {
            /* It answered to the multicast: shown without what it has. */
            json_array_append_new(hosts, json_pack("{s:s, s:[]}", "address", address, "resources"));
        }
    }
    json_decref(discover->answers);
    return r;
}

static int start(struct discover *discover)
{
    discover->base = event_base_new();
    if (discover->base == NULL) {
        return -ENOMEM;
    }
    int r = schedule_create(discover->base, &discover->schedule);
    return r != 0 ? r : peers_init(&discover->peers, discover->base, discover->schedule);
}

int discover_run(const struct discover_options *options, json_t **ret_hosts,
                 char ret_error[DISCOVER_ERROR_SIZE])
{
    struct discover discover = {.options = options};
    struct target target;
    struct sockaddr_storage address;
    socklen_t len;
    if (target_parse(options->address, &target) != 0) {
        snprintf(ret_error, DISCOVER_ERROR_SIZE, "'%.80s' is not coap://HOST[:PORT]",
                 options->address);
        return -EINVAL;
    }
    json_t *hosts = json_array();
    int r = start(&discover);
    bool numeric = resolver_numeric(target.host, target.port, &address, &len) == 0;
    coap_address_t to = {0};
    if (numeric) {
        to = coap_loop_address((struct sockaddr *)&address, len);
    }
    if (r != 0) {
        snprintf(ret_error, DISCOVER_ERROR_SIZE, "%s", strerror(-r));
    } else if (numeric && coap_is_mcast(&to)) {
        r = look_at_all(&discover, &to, hosts, ret_error);
    } else {
        r = look_at_host(&discover, options->address, hosts, ret_error);
    }
    if (discover.peers.base != NULL) {
        peers_finish(&discover.peers);
    }
    schedule_destroy(discover.schedule);
    if (discover.base != NULL) {
        event_base_free(discover.base);
    }
    if (r != 0) {
        json_decref(hosts);
        return r;
    }
    *ret_hosts = hosts;
    return 0;
}
