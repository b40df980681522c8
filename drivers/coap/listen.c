#include "drivers/coap/listen.h"

#include "drivers/coap/payload.h"
#include "drivers/coap/push.h"
#include "drivers/coap/route.h"
#include "drivers/coap/target.h"
#include "drivers/coap/transfer.h"
#include "gateway/base/address.h"
#include "gateway/base/clock.h"
#include "gateway/base/log.h"

#include <errno.h>
#include <netinet/in.h>
#include <string.h>

struct poster {
    struct device *device;
    struct harvest *harvest;
    struct poster *next;
};

struct listener {
    struct coap_loop loop;
    struct recent *recent;
    struct push_desk *desk;
    struct transfers *transfers;
    struct coap_psk *psks;
    size_t psk_count;
    coap_bin_const_t key; /* the last one that was asked for */
    struct route_names names;
    struct poster *posters;
};

/* ---- who is who ---- */

static struct poster *find_poster(const struct listener *listener, const char *name, size_t len)
{
    for (struct poster *poster = listener->posters; poster != NULL; poster = poster->next) {
        const char *device = poster->device->config->name;
        if (strlen(device) == len && memcmp(device, name, len) == 0) {
            return poster;
        }
    }
    return NULL;
}

static bool listens(void *user, const char *name, size_t len)
{
    return find_poster(user, name, len) != NULL;
}

static bool has_key(void *user, const char *name, size_t len)
{
    const struct listener *listener = user;
    for (size_t i = 0; i < listener->psk_count; i++) {
        const char *device = listener->psks[i].device;
        if (strlen(device) == len && memcmp(device, name, len) == 0) {
            return true;
        }
    }
    return false;
}

static const struct coap_psk *find_psk(const struct listener *listener,
                                       const coap_bin_const_t *identity)
{
    for (size_t i = 0; identity != NULL && i < listener->psk_count; i++) {
        const char *own = listener->psks[i].identity;
        if (strlen(own) == identity->length && memcmp(own, identity->s, identity->length) == 0) {
            return &listener->psks[i];
        }
    }
    return NULL;
}

static const coap_bin_const_t *on_identity(coap_bin_const_t *identity, coap_session_t *session,
                                           void *user)
{
    struct listener *listener = user;
    const struct coap_psk *psk = find_psk(listener, identity);
    (void)session;
    if (psk == NULL) {
        return NULL;
    }
    listener->key = (coap_bin_const_t){psk->key_len, psk->key};
    return &listener->key;
}

/* ---- a post ---- */

struct post {
    struct listener *listener;
    coap_session_t *session;
    const coap_pdu_t *request;
    coap_pdu_t *response;
    char path[TARGET_PATH_MAX + 1];
    const char *key_device;
    struct route route;
    unsigned format;
    struct senml_pack pack;
    uint64_t key;
};

static void refuse(struct post *post, coap_pdu_code_t code)
{
    coap_pdu_set_code(post->response, code);
}

static coap_pdu_code_t code_of(int error)
{
    switch (error) {
    case -EACCES:
        return COAP_RESPONSE_CODE_FORBIDDEN;
    case -ENOENT:
        return COAP_RESPONSE_CODE_NOT_FOUND;
    case -EMSGSIZE:
        return COAP_RESPONSE_CODE_REQUEST_TOO_LARGE;
    case -ENOMEM:
        return COAP_RESPONSE_CODE_SERVICE_UNAVAILABLE;
    default:
        return COAP_RESPONSE_CODE_BAD_REQUEST;
    }
}

static unsigned option_number(const coap_pdu_t *pdu, uint16_t option)
{
    coap_opt_iterator_t iterator;
    const coap_opt_t *found = coap_check_option(pdu, option, &iterator);
    return found == NULL ? 0 : coap_decode_var_bytes(coap_opt_value(found), coap_opt_length(found));
}

/* Path segments as they are, joined by '/': names of devices need no escapes. */
static int take_path(const coap_pdu_t *request, char path[TARGET_PATH_MAX + 1])
{
    coap_opt_iterator_t iterator;
    coap_opt_t *option;
    size_t len = 0;
    coap_option_iterator_init(request, &iterator, COAP_OPT_ALL);
    while ((option = coap_option_next(&iterator)) != NULL) {
        if (iterator.number != COAP_OPTION_URI_PATH) {
            continue;
        }
        size_t segment = coap_opt_length(option);
        if (len + segment + 1 > TARGET_PATH_MAX ||
            (segment > 0 && memchr(coap_opt_value(option), '\0', segment) != NULL)) {
            return -ENOENT;
        }
        if (len > 0) {
            path[len++] = '/';
        }
        memcpy(path + len, coap_opt_value(option), segment);
        len += segment;
    }
    path[len] = '\0';
    return 0;
}

static int take_sender(struct post *post)
{
    if (coap_session_get_proto(post->session) != COAP_PROTO_DTLS) {
        return 0;
    }
    const struct coap_psk *psk = find_psk(post->listener,
                                          coap_session_get_psk_identity(post->session));
    post->key_device = psk == NULL ? NULL : psk->device;
    return psk == NULL ? -EACCES : 0;
}

static uint64_t key_of(coap_session_t *session, const coap_pdu_t *request)
{
    const coap_address_t *remote = coap_session_get_addr_remote(session);
    struct {
        struct in6_addr address;
        uint16_t port, secure;
    } sender = {.port = coap_address_get_port(remote),
                .secure = coap_session_get_proto(session) == COAP_PROTO_DTLS};
    if (remote->addr.sa.sa_family == AF_INET6) {
        sender.address = remote->addr.sin6.sin6_addr;
    } else {
        memcpy(&sender.address, &remote->addr.sin.sin_addr, sizeof(struct in_addr));
    }
    coap_bin_const_t token = coap_pdu_get_token(request);
    return recent_key(&sender, sizeof(sender), coap_pdu_get_mid(request), token.s, token.length);
}

static int route(struct post *post)
{
    const struct route_names *names = &post->listener->names;
    const struct senml_pack *pack = &post->pack;
    const char *base = "";
    size_t base_len = 0;
    if (pack->count > 0 && pack->records[0].base_len > 0) {
        base = senml_name(pack, &pack->records[0]);
        base_len = pack->records[0].base_len;
    }
    int r = route_path(names, post->key_device, post->path, &post->route);
    return r != 0 ? r : route_base_name(names, post->key_device, base, base_len, &post->route);
}

/* The device's point with that path, or SIZE_MAX. */
static size_t point_of_path(const struct config_device *config, const char *path)
{
    for (size_t i = 0; i < config->points.count; i++) {
        if (coap_point(config, i)->by_path && strcmp(coap_point_text(config, i) + 1, path) == 0) {
            return i;
        }
    }
    return SIZE_MAX;
}

static int collect(const struct post *post, struct poster *poster)
{
    size_t point = point_of_path(poster->device->config, post->route.rest);
    harvest_clear(poster->harvest);
    if (point != SIZE_MAX) {
        return harvest_add_value(poster->harvest, point, &post->pack);
    }
    int r = harvest_add(poster->harvest, &post->pack);
    bool nameless = post->pack.count == 1 && post->pack.records[0].name_len == 0;
    return r < 0 ? r : r > 0 ? 0 : nameless ? -ENOENT : -EINVAL;
}

static void hand_over(struct post *post, struct poster *poster)
{
    struct device *device = poster->device;
    int r = push_begin(post->listener->desk, device, poster->harvest, post->session, post->request,
                       post->key);
    if (r == -ENOBUFS) {
        push_busy(post->response);
        device_report_error(device, DEVICE_ERROR_OVERRUN, 0, false);
    } else if (r != 0) {
        refuse(post, code_of(r));
    } else {
        /* No code: libcoap acknowledges the request empty, the answer comes by itself. */
        atomic_fetch_add_explicit(&device->health.polls, 1, memory_order_relaxed);
        device_report_good(device, 0);
    }
}

static void take_post(struct post *post, const uint8_t *body, size_t len)
{
    post->format = option_number(post->request, COAP_OPTION_CONTENT_FORMAT);
    int r = payload_parse(post->format, body, len, clock_wall_ms(), &post->pack);
    if (r != 0) {
        refuse(post, payload_known(post->format) ? code_of(r)
                                                 : COAP_RESPONSE_CODE_UNSUPPORTED_CONTENT_FORMAT);
        return;
    }
    r = route(post);
    struct poster *poster = r != 0 ? NULL
                                   : find_poster(post->listener, post->route.device,
                                                 post->route.device_len);
    if (poster == NULL) {
        refuse(post, code_of(r != 0 ? r : -ENOENT));
    } else {
        r = collect(post, poster);
        if (r != 0) {
            device_report_error(poster->device, DEVICE_ERROR_PAYLOAD, 0, false);
            refuse(post, code_of(r));
        } else {
            hand_over(post, poster);
        }
        harvest_clear(poster->harvest);
    }
    senml_finish(&post->pack);
}

static void on_post(coap_resource_t *resource, coap_session_t *session, const coap_pdu_t *request,
                    const coap_string_t *query, coap_pdu_t *response)
{
    struct listener *listener = coap_get_app_data(coap_session_get_context(session));
    struct post post = {.listener = listener,
                        .session = session,
                        .request = request,
                        .response = response,
                        .key = key_of(session, request)};
    (void)resource;
    (void)query;
    switch (recent_find(listener->recent, post.key, clock_boot_ms())) {
    case RECENT_STORED:
        refuse(&post, COAP_RESPONSE_CODE_CHANGED);
        return;
    case RECENT_PENDING:
        return; /* acknowledged empty once more */
    default:
        break;
    }
    int r = take_sender(&post);
    r = r != 0 ? r : take_path(request, post.path);
    if (r != 0) {
        refuse(&post, code_of(r));
        return;
    }
    const uint8_t *body;
    size_t len;
    if (transfers_take(listener->transfers, session, request, response, &body, &len) != 0) {
        take_post(&post, body, len);
    }
}

static int on_event(coap_session_t *session, const coap_event_t event)
{
    struct listener *listener = coap_get_app_data(coap_session_get_context(session));
    if (event == COAP_EVENT_SERVER_SESSION_DEL && listener->transfers != NULL) {
        transfers_drop(listener->transfers, session);
    }
    return 0;
}

/* ---- the server ---- */

static int load_psks(struct listener *listener, const char *text)
{
    struct coap_psk psk;
    unsigned line = 0;
    int r;
    listener->psks = calloc(LISTEN_PSKS_MAX, sizeof(*listener->psks));
    if (listener->psks == NULL) {
        return -ENOMEM;
    }
    while ((r = coap_next_psk(&text, &line, &psk)) != -ENOENT) {
        if (r == 0 && listener->psk_count < LISTEN_PSKS_MAX) {
            listener->psks[listener->psk_count++] = psk;
        }
    }
    explicit_bzero(&psk, sizeof(psk));
    coap_dtls_spsk_t setup = {
        .version = COAP_DTLS_SPSK_SETUP_VERSION,
        .validate_id_call_back = on_identity,
        .id_call_back_arg = listener,
        .psk_info = {.hint = {0, (const uint8_t *)""}, .key = {0, NULL}},
    };
    return coap_context_set_psk2(listener->loop.context, &setup) != 0 ? 0 : -ENOMEM;
}

static int open_endpoint(struct listener *listener, struct sockaddr_storage *address, socklen_t len,
                         coap_proto_t proto)
{
    coap_address_t at = coap_loop_address((struct sockaddr *)address, len);
    errno = 0;
    if (coap_new_endpoint(listener->loop.context, &at, proto) == NULL) {
        return errno != 0 ? -errno : -EADDRINUSE;
    }
    return 0;
}

static int open_endpoints(struct listener *listener, const struct coap_section *section)
{
    struct sockaddr_storage address;
    socklen_t len;
    int r = address_parse(section->listen, &address, &len);
    r = r != 0 ? r : open_endpoint(listener, &address, len, COAP_PROTO_UDP);
    if (r == 0 && section->psks.text != NULL) {
        r = load_psks(listener, section->psks.text);
        address_set_port(&address, (uint16_t)(address_port(&address) + 1));
        r = r != 0 ? r : open_endpoint(listener, &address, len, COAP_PROTO_DTLS);
    }
    return r;
}

static int add_resource(struct listener *listener)
{
    coap_resource_t *any = coap_resource_unknown_init2(on_post, 0);
    if (any == NULL) {
        return -ENOMEM;
    }
    coap_register_request_handler(any, COAP_REQUEST_POST, on_post);
    coap_add_resource(listener->loop.context, any);
    return 0;
}

static int start(struct listener *listener, struct event_base *base,
                 const struct coap_section *section, const char *data_dir)
{
    char path[512];
    snprintf(path, sizeof(path), "%s/coap-posts", data_dir == NULL ? "" : data_dir);
    int r = coap_loop_init(&listener->loop, base, NULL, NULL);
    if (r != 0) {
        return r;
    }
    coap_context_t *context = listener->loop.context;
    coap_set_app_data(context, listener);
    coap_register_event_handler(context, on_event);
    coap_context_set_max_idle_sessions(context, LISTEN_SESSIONS_MAX);
    coap_context_set_max_handshake_sessions(context, LISTEN_HANDSHAKES_MAX);
    coap_context_set_session_timeout(context, LISTEN_SESSION_S);
    r = recent_create(data_dir == NULL ? NULL : path, &listener->recent);
    r = r != 0 ? r : transfers_create(&listener->transfers);
    r = r != 0 ? r : push_desk_create(base, &listener->loop, listener->recent, &listener->desk);
    r = r != 0 ? r : add_resource(listener);
    return r != 0 ? r : open_endpoints(listener, section);
}

int listener_create(struct event_base *base, const struct coap_section *section,
                    const char *data_dir, struct listener **ret_listener)
{
    struct listener *listener = calloc(1, sizeof(*listener));
    if (listener == NULL) {
        return -ENOMEM;
    }
    listener->names = (struct route_names){listens, has_key, listener};
    int r = start(listener, base, section, data_dir);
    if (r != 0) {
        log_error("[coap] listen %s: %s", section->listen, strerror(-r));
        listener_destroy(listener);
        return r;
    }
    coap_loop_kick(&listener->loop);
    *ret_listener = listener;
    return 0;
}

void listener_destroy(struct listener *listener)
{
    if (listener == NULL) {
        return;
    }
    push_desk_destroy(listener->desk);
    if (listener->loop.context != NULL) {
        coap_loop_finish(&listener->loop);
    }
    transfers_destroy(listener->transfers);
    recent_destroy(listener->recent);
    if (listener->psks != NULL) {
        explicit_bzero(listener->psks, LISTEN_PSKS_MAX * sizeof(*listener->psks));
    }
    free(listener->psks);
    free(listener);
}

int listener_add(struct listener *listener, struct device *device)
{
    struct poster *poster = calloc(1, sizeof(*poster));
    if (poster == NULL) {
        return -ENOMEM;
    }
    *poster = (struct poster){.device = device, .next = listener->posters};
    int r = harvest_create(device->config, &poster->harvest);
    if (r != 0) {
        free(poster);
        return r;
    }
    harvest_clear(poster->harvest);
    recent_resolve(listener->recent, device->config->name,
                   atomic_load_explicit(&device->seq[STREAM_RAW], memory_order_relaxed));
    listener->posters = poster;
    return 0;
}

void listener_remove(struct listener *listener, struct device *device)
{
    struct poster **at = &listener->posters;
    while (*at != NULL && (*at)->device != device) {
        at = &(*at)->next;
    }
    struct poster *poster = *at;
    if (poster != NULL) {
        *at = poster->next;
        harvest_destroy(poster->harvest);
        free(poster);
    }
}
