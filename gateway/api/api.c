#include "gateway/api/api.h"

#include "gateway/api/listen.h"
#include "gateway/api/routes.h"

#include <errno.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>

struct api {
    struct api_host host;
    char *socket_path; /* set once the socket is ours to unlink */
    struct event_base *base;
    struct event *stop_event;
    int stop_fd;
    unsigned port;
    pthread_t thread;
    bool running;
    struct routes routes;
    struct server *unix_server, *tcp_server;
};

static void on_unix_request(struct server *server, struct evhttp_request *request, void *user)
{
    struct api *api = user;
    routes_handle(&api->routes, server, true, request);
}

static void on_tcp_request(struct server *server, struct evhttp_request *request, void *user)
{
    struct api *api = user;
    routes_handle(&api->routes, server, false, request);
}

static void on_stop(evutil_socket_t fd, short what, void *user)
{
    (void)fd;
    (void)what;
    event_base_loopbreak(user);
}

static void *run(void *user)
{
    struct api *api = user;
    pthread_setname_np(pthread_self(), "api");
    event_base_dispatch(api->base);
    return NULL;
}

static unsigned bound_port(int fd)
{
    union {
        struct sockaddr any;
        struct sockaddr_in v4;
        struct sockaddr_in6 v6;
    } address = {.v6 = {0}};
    socklen_t len = sizeof address;
    if (getsockname(fd, &address.any, &len) < 0) {
        return 0;
    }
    return ntohs(address.any.sa_family == AF_INET6 ? address.v6.sin6_port : address.v4.sin_port);
}

static struct server_options options_for(struct api *api, bool over_socket)
{
    return (struct server_options){.connections_max = SERVER_CONNECTIONS_MAX,
                                   .idle_ms = SERVER_IDLE_MS,
                                   .answer_ms = SERVER_ANSWER_MS,
                                   .handle = over_socket ? on_unix_request : on_tcp_request,
                                   .user = api};
}

static int open_unix(struct api *api, char *ret_why, size_t why_size)
{
    int fd = -1;
    int r = listen_unix(api->host.socket_path, &fd, ret_why, why_size);
    if (r < 0) {
        return r;
    }
    api->socket_path = strdup(api->host.socket_path);
    const struct server_options options = options_for(api, true);
    return server_create(api->base, fd, &options, &api->unix_server);
}

static int open_tcp(struct api *api, const struct api_settings *settings, char *ret_why,
                    size_t why_size)
{
    if (settings->listen == NULL) {
        return 0;
    }
    struct server_options options = options_for(api, false);
    int r = settings->cert_file == NULL ? 0
                                        : listen_tls(settings->cert_file, settings->key_file,
                                                     &options.tls, ret_why, why_size);
    int fd = -1;
    r = r < 0 ? r : listen_tcp(settings->listen, &fd, ret_why, why_size);
    if (r == 0) {
        api->port = bound_port(fd);
        r = server_create(api->base, fd, &options, &api->tcp_server);
    }
    SSL_CTX_free(options.tls);
    return r;
}

static int make_loop(struct api *api)
{
    api->base = event_base_new();
    api->stop_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (api->base == NULL || api->stop_fd < 0) {
        return api->stop_fd < 0 ? -errno : -ENOMEM;
    }
    api->stop_event = event_new(api->base, api->stop_fd, EV_READ, on_stop, api->base);
    if (api->stop_event == NULL || event_add(api->stop_event, NULL) < 0) {
        return -ENOMEM;
    }
    int r = later_create(api->base, &api->routes.later);
    return r < 0 ? r : live_create(api->base, &api->host, &api->routes.live);
}

static int make(struct api *api, const struct api_settings *settings, char *ret_why,
                size_t why_size)
{
    const struct config *config = api->host.config(api->host.user);
    int r = access_create(settings, config->gateway->name, &api->routes.access, ret_why, why_size);
    config_unref(config);
    r = r < 0 ? r : make_loop(api);
    r = r < 0 ? r : open_unix(api, ret_why, why_size);
    r = r < 0 ? r : open_tcp(api, settings, ret_why, why_size);
    r = r < 0 ? r : history_desk_start(api->host.store(api->host.user), &api->routes.history);
    if (r < 0) {
        return r;
    }
    r = -pthread_create(&api->thread, NULL, run, api);
    api->running = r == 0;
    return r;
}

int api_start(const struct api_host *host, const struct api_settings *settings,
              struct api **ret_api, char *ret_why, size_t why_size)
{
    snprintf(ret_why, why_size, "out of memory");
    struct api *api = calloc(1, sizeof *api);
    if (api == NULL) {
        return -ENOMEM;
    }
    api->host = *host;
    api->stop_fd = -1;
    api->routes.host = &api->host;
    int r = make(api, settings, ret_why, why_size);
    if (r < 0) {
        api_stop(api);
        return r;
    }
    *ret_api = api;
    return 0;
}

/* The loop stands still now: everything is ours. */
static void tear_down(struct api *api)
{
    history_desk_stop(api->routes.history);
    live_destroy(api->routes.live);
    later_destroy(api->routes.later);
    server_destroy(api->unix_server);
    server_destroy(api->tcp_server);
    access_destroy(api->routes.access);
    if (api->stop_event != NULL) {
        event_free(api->stop_event);
    }
    if (api->base != NULL) {
        event_base_free(api->base);
    }
    if (api->stop_fd >= 0) {
        close(api->stop_fd);
    }
    if (api->socket_path != NULL) {
        unlink(api->socket_path);
        free(api->socket_path);
    }
    free(api);
}

void api_stop(struct api *api)
{
    if (api == NULL) {
        return;
    }
    if (api->running) {
        uint64_t one = 1;
        ssize_t ignored = write(api->stop_fd, &one, sizeof one);
        (void)ignored;
        pthread_join(api->thread, NULL);
    }
    tear_down(api);
}

unsigned api_port(const struct api *api)
{
    return api->port;
}
