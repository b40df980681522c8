#include "gateway/api/server.h"

#include "gateway/base/clock.h"

#include <errno.h>
#include <event2/bufferevent.h>
#include <event2/bufferevent_ssl.h>
#include <event2/listener.h>
#include <sys/socket.h>

/* evhttp tells nobody that a connection ended. So each bufferevent is held by one reference of
 * ours: once evhttp has freed its own, the callbacks are gone from it, and the sweep lets go. */
struct place {
    struct bufferevent *bev; /* NULL: free */
    int64_t since_ms;        /* begin of the present phase */
    bool answering, stream;
};

struct server {
    struct event_base *base;
    struct evhttp *http;
    struct evconnlistener *listener;
    struct event *sweep;
    struct server_options options;
    struct place places[SERVER_CONNECTIONS_MAX];
    size_t taken;
    bool resting;
};

static bool is_freed(struct bufferevent *bev)
{
    bufferevent_data_cb on_read, on_write;
    bufferevent_event_cb on_event;
    void *arg;
    bufferevent_getcb(bev, &on_read, &on_write, &on_event, &arg);
    return on_event == NULL;
}

static bool is_overdue(const struct server *server, const struct place *place, int64_t now_ms)
{
    int64_t limit_ms = place->answering ? server->options.answer_ms : server->options.idle_ms;
    return !place->stream && now_ms - place->since_ms > limit_ms;
}

static void release(struct server *server, struct place *place)
{
    bufferevent_decref(place->bev);
    *place = (struct place){0};
    server->taken--;
    if (server->resting) {
        server->resting = false;
        evconnlistener_enable(server->listener);
    }
}

static void sweep(struct server *server)
{
    int64_t now_ms = clock_mono_ms();
    for (size_t i = 0; i < server->options.connections_max; i++) {
        struct place *place = &server->places[i];
        if (place->bev == NULL) {
            continue;
        }
        if (is_freed(place->bev)) {
            release(server, place);
        } else if (is_overdue(server, place, now_ms)) {
            /* evhttp sees the end of the connection and frees it by itself. */
            shutdown(bufferevent_getfd(place->bev), SHUT_RDWR);
        }
    }
}

static void arm_sweep(struct server *server)
{
    const struct timeval soon = {.tv_usec = SERVER_SWEEP_MS * 1000};
    if (server->taken > 0) {
        evtimer_add(server->sweep, &soon);
    }
}

static void on_sweep(evutil_socket_t fd, short what, void *user)
{
    (void)fd;
    (void)what;
    struct server *server = user;
    sweep(server);
    arm_sweep(server);
}

static struct bufferevent *make_bufferevent(struct server *server)
{
    if (server->options.tls == NULL) {
        return bufferevent_socket_new(server->base, -1, BEV_OPT_CLOSE_ON_FREE);
    }
    SSL *ssl = SSL_new(server->options.tls);
    if (ssl == NULL) {
        return NULL;
    }
    struct bufferevent *bev = bufferevent_openssl_socket_new(
        server->base, -1, ssl, BUFFEREVENT_SSL_ACCEPTING, BEV_OPT_CLOSE_ON_FREE);
    if (bev == NULL) {
        SSL_free(ssl);
        return NULL;
    }
    /* Browsers and curl often end without close_notify; that is no error of theirs. */
    bufferevent_openssl_set_allow_dirty_shutdown(bev, 1);
    return bev;
}

/* evhttp has accepted a connection and asks for its bufferevent. */
static struct bufferevent *on_connection(struct event_base *base, void *user)
{
    (void)base;
    struct server *server = user;
    struct bufferevent *bev = make_bufferevent(server);
    if (bev == NULL) {
        return NULL;
    }
    for (size_t i = 0; i < server->options.connections_max; i++) {
        struct place *place = &server->places[i];
        if (place->bev == NULL) {
            bufferevent_incref(bev);
            *place = (struct place){.bev = bev, .since_ms = clock_mono_ms()};
            server->taken++;
            break;
        }
    }
    if (server->taken == server->options.connections_max) {
        server->resting = true;
        evconnlistener_disable(server->listener);
    }
    arm_sweep(server);
    return bev;
}

static struct place *find_place(struct server *server, struct evhttp_request *request)
{
    struct evhttp_connection *connection = evhttp_request_get_connection(request);
    struct bufferevent *bev = connection != NULL ? evhttp_connection_get_bufferevent(connection)
                                                 : NULL;
    for (size_t i = 0; bev != NULL && i < server->options.connections_max; i++) {
        if (server->places[i].bev == bev) {
            return &server->places[i];
        }
    }
    return NULL;
}

static void on_answered(struct evhttp_request *request, void *user)
{
    struct place *place = find_place(user, request);
    if (place != NULL) {
        place->answering = false;
        place->stream = false;
        place->since_ms = clock_mono_ms();
    }
}

static void on_request(struct evhttp_request *request, void *user)
{
    struct server *server = user;
    struct place *place = find_place(server, request);
    if (place != NULL) {
        place->answering = true;
        place->since_ms = clock_mono_ms();
    }
    evhttp_request_set_on_complete_cb(request, on_answered, server);
    server->options.handle(server, request, server->options.user);
}

void server_mark_stream(struct server *server, struct evhttp_request *request)
{
    struct place *place = find_place(server, request);
    if (place != NULL) {
        place->stream = true;
    }
}

size_t server_connections(const struct server *server)
{
    return server->taken;
}

static int set_up(struct server *server, int fd)
{
    evutil_make_socket_nonblocking(fd);
    server->listener = evconnlistener_new(server->base, NULL, NULL,
                                          LEV_OPT_CLOSE_ON_FREE | LEV_OPT_CLOSE_ON_EXEC, 0, fd);
    if (server->listener == NULL) {
        close(fd);
        return -ENOMEM;
    }
    server->sweep = evtimer_new(server->base, on_sweep, server);
    server->http = evhttp_new(server->base);
    if (server->sweep == NULL || server->http == NULL) {
        return -ENOMEM;
    }
    evhttp_set_max_headers_size(server->http, SERVER_HEADERS_MAX);
    evhttp_set_max_body_size(server->http, SERVER_BODY_MAX);
    evhttp_set_timeout(server->http, SERVER_ANSWER_MS / 1000);
    /* All methods come to us, so that a wrong one is answered in our form. */
    evhttp_set_allowed_methods(server->http, 0xffff);
    evhttp_set_default_content_type(server->http, NULL);
    evhttp_set_bevcb(server->http, on_connection, server);
    evhttp_set_gencb(server->http, on_request, server);
    return evhttp_bind_listener(server->http, server->listener) != NULL ? 0 : -ENOMEM;
}

int server_create(struct event_base *base, int fd, const struct server_options *options,
                  struct server **ret_server)
{
    struct server *server = calloc(1, sizeof *server);
    if (server == NULL) {
        close(fd);
        return -ENOMEM;
    }
    server->base = base;
    server->options = *options;
    if (server->options.tls != NULL) {
        SSL_CTX_up_ref(server->options.tls);
    }
    int r = set_up(server, fd);
    if (r < 0) {
        server_destroy(server);
        return r;
    }
    *ret_server = server;
    return 0;
}

void server_destroy(struct server *server)
{
    if (server == NULL) {
        return;
    }
    if (server->http != NULL) {
        evhttp_free(server->http); /* frees a bound listener too */
    } else if (server->listener != NULL) {
        evconnlistener_free(server->listener);
    }
    for (size_t i = 0; i < SERVER_CONNECTIONS_MAX; i++) {
        if (server->places[i].bev != NULL) {
            bufferevent_decref(server->places[i].bev);
        }
    }
    if (server->sweep != NULL) {
        event_free(server->sweep);
    }
    SSL_CTX_free(server->options.tls);
    free(server);
}
