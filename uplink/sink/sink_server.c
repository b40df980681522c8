/* The network side of the sink: evhttp over OpenSSL bufferevents.
 *
 * evhttp bounds headers, bodies and silence, but not the number of connections, and a client that
 * drips a byte now and then stays for ever. So every connection has a record here, tied to its SSL
 * object (evhttp frees that with the connection, and says so to nobody), and a sweep ends what has
 * taken too long. */
#include "gateway/base/address.h"
#include "gateway/base/clock.h"
#include "gateway/base/log.h"
#include "uplink/sink/sink_handler.h"
#include "uplink/sink/sink_tls.h"

#include <errno.h>
#include <event2/buffer.h>
#include <event2/bufferevent_ssl.h>
#include <event2/event.h>
#include <event2/http.h>
#include <event2/http_struct.h>
#include <event2/keyvalq_struct.h>
#include <event2/listener.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <openssl/ssl.h>
#include <string.h>
#include <sys/queue.h>
#include <sys/socket.h>

enum { SWEEP_MS = 250, BACKLOG = 128, CLOSING_TURNS = 8 };

struct connection {
    struct sink *sink;
    struct bufferevent *bufev;
    int64_t since_ms; /* accepted, or last answered */
    struct delayed *delayed;
    LIST_ENTRY(connection) entry;
};

LIST_HEAD(connection_list, connection);

struct sink {
    const struct sink_options *options;
    struct sink_handler *handler;
    struct event_base *base;
    struct evhttp *http;
    struct evconnlistener *listener; /* evhttp's */
    SSL_CTX *tls;
    struct event *sweep;
    int ssl_index; /* of struct connection in an SSL's extra data */
    uint16_t port;
    size_t connections, connections_max;
    struct connection_list list;
    int64_t handshake_ms, request_ms;
};

/* An answer that waits for its time (`--delay`). */
struct delayed {
    struct evhttp_request *request;
    struct connection *connection;
    struct sink_reply reply;
    struct event *timer;
};

static void free_delayed(struct delayed *delayed)
{
    delayed->connection->delayed = NULL;
    event_free(delayed->timer);
    buffer_finish(&delayed->reply.body);
    free(delayed);
}

static void connection_freed(void *parent, void *data, CRYPTO_EX_DATA *ad, int index, long argl,
                             void *argp)
{
    (void)parent, (void)ad, (void)index, (void)argl, (void)argp;
    struct connection *connection = data;
    if (connection == NULL) {
        return;
    }
    struct sink *sink = connection->sink;
    if (connection->delayed != NULL) {
        free_delayed(connection->delayed);
    }
    LIST_REMOVE(connection, entry);
    free(connection);
    if (sink->connections-- == sink->connections_max && sink->listener != NULL) {
        evconnlistener_enable(sink->listener);
    }
}

/* evhttp asks for the bufferevent of a connection it has just accepted. */
static struct bufferevent *accept_connection(struct event_base *base, void *user)
{
    struct sink *sink = user;
    struct connection *connection = calloc(1, sizeof *connection);
    SSL *ssl = connection == NULL ? NULL : SSL_new(sink->tls);
    if (ssl == NULL) {
        free(connection);
        log_error("sink: out of memory for a connection");
        return NULL; /* evhttp then goes on in the clear, which handle_request() refuses */
    }
    *connection = (struct connection){.sink = sink, .since_ms = clock_mono_ms()};
    LIST_INSERT_HEAD(&sink->list, connection, entry);
    if (++sink->connections == sink->connections_max) {
        evconnlistener_disable(sink->listener);
    }
    SSL_set_ex_data(ssl, sink->ssl_index, connection);
    connection->bufev = bufferevent_openssl_socket_new(base, -1, ssl, BUFFEREVENT_SSL_ACCEPTING,
                                                       BEV_OPT_CLOSE_ON_FREE);
    if (connection->bufev == NULL) {
        SSL_free(ssl);
        return NULL;
    }
    bufferevent_openssl_set_allow_dirty_shutdown(connection->bufev, 1);
    return connection->bufev;
}

/* Ends a connection from outside: evhttp then sees its end and frees it. */
static void hang_up(struct connection *connection)
{
    evutil_socket_t fd = bufferevent_getfd(connection->bufev);
    if (fd >= 0) {
        shutdown(fd, SHUT_RDWR);
    }
}

static void sweep_connections(evutil_socket_t fd, short events, void *user)
{
    (void)fd, (void)events;
    struct sink *sink = user;
    int64_t now = clock_mono_ms();
    struct connection *connection = NULL;
    LIST_FOREACH(connection, &sink->list, entry)
    {
        SSL *ssl = bufferevent_openssl_get_ssl(connection->bufev);
        int64_t age = now - connection->since_ms;
        if (age > sink->request_ms || (age > sink->handshake_ms && !SSL_is_init_finished(ssl))) {
            hang_up(connection);
        }
    }
}

static struct connection *connection_of(struct sink *sink, struct evhttp_request *request)
{
    struct evhttp_connection *evcon = evhttp_request_get_connection(request);
    struct bufferevent *bufev = evcon == NULL ? NULL : evhttp_connection_get_bufferevent(evcon);
    SSL *ssl = bufev == NULL ? NULL : bufferevent_openssl_get_ssl(bufev);
    return ssl == NULL ? NULL : SSL_get_ex_data(ssl, sink->ssl_index);
}

static void send_reply(struct connection *connection, struct evhttp_request *request,
                       struct sink_reply *reply)
{
    struct evkeyvalq *headers = evhttp_request_get_output_headers(request);
    connection->since_ms = clock_mono_ms();
    if (reply->lose) {
        hang_up(connection);
    }
    evhttp_add_header(headers, "Content-Type", reply->content_type);
    if (reply->retry) {
        evhttp_add_header(headers, "Retry-After", "1");
    }
    struct evbuffer *body = evbuffer_new();
    if (body == NULL || evbuffer_add(body, reply->body.data, reply->body.len) < 0) {
        hang_up(connection);
    }
    evhttp_send_reply(request, reply->status, NULL, body);
    if (body != NULL) {
        evbuffer_free(body);
    }
}

static void send_delayed(evutil_socket_t fd, short events, void *user)
{
    (void)fd, (void)events;
    struct delayed *delayed = user;
    struct evhttp_request *request = delayed->request;
    struct connection *connection = delayed->connection;
    struct sink_reply reply = delayed->reply;
    delayed->reply.body = (struct buffer){.max = 0};
    free_delayed(delayed);
    send_reply(connection, request, &reply);
    buffer_finish(&reply.body);
}

/* Takes the reply's body; false when there is no memory to wait with. */
static bool delay_reply(struct connection *connection, struct evhttp_request *request,
                        struct sink_reply *reply)
{
    struct delayed *delayed = calloc(1, sizeof *delayed);
    if (delayed == NULL) {
        return false;
    }
    delayed->timer = event_new(connection->sink->base, -1, 0, send_delayed, delayed);
    if (delayed->timer == NULL) {
        free(delayed);
        return false;
    }
    delayed->request = request;
    delayed->connection = connection;
    delayed->reply = *reply;
    reply->body = (struct buffer){.max = 0};
    connection->delayed = delayed;
    int64_t ms = connection->sink->options->delay_ms;
    const struct timeval wait = {.tv_sec = ms / 1000, .tv_usec = ms % 1000 * 1000};
    event_add(delayed->timer, &wait);
    return true;
}

static void fill_request(struct evhttp_request *from, struct sink_request *request)
{
    const struct evhttp_uri *uri = evhttp_request_get_evhttp_uri(from);
    const struct evkeyvalq *headers = evhttp_request_get_input_headers(from);
    struct evbuffer *body = evhttp_request_get_input_buffer(from);
    enum evhttp_cmd_type command = evhttp_request_get_command(from);
    const char *path = uri == NULL ? NULL : evhttp_uri_get_path(uri);
    *request = (struct sink_request){
        .method = command == EVHTTP_REQ_GET    ? SINK_GET
                  : command == EVHTTP_REQ_POST ? SINK_POST
                                               : SINK_OTHER,
        .path = path == NULL ? "" : path,
        .query = uri == NULL ? NULL : evhttp_uri_get_query(uri),
        .authorization = evhttp_find_header(headers, "Authorization"),
        .encoding = evhttp_find_header(headers, "Content-Encoding"),
        .len = evbuffer_get_length(body),
    };
    const struct evkeyval *line;
    TAILQ_FOREACH(line, headers, next)
    {
        if (request->header_count < SINK_HEADER_LINES_MAX) {
            request->headers[request->header_count++] = (struct sink_header){line->key,
                                                                             line->value};
        }
    }
    request->body = request->len == 0 ? (const uint8_t *)"" : evbuffer_pullup(body, -1);
}

static void handle_request(struct evhttp_request *from, void *user)
{
    struct sink *sink = user;
    struct connection *connection = connection_of(sink, from);
    if (connection == NULL) {
        evhttp_send_error(from, 500, "no TLS");
        return;
    }
    struct sink_request request;
    struct sink_reply reply = {.status = 500};
    fill_request(from, &request);
    if (request.body == NULL) {
        evhttp_send_error(from, 500, "out of memory");
        return;
    }
    sink_handler_handle(sink->handler, &request, &reply);
    bool waits = sink->options->delay_ms > 0 && delay_reply(connection, from, &reply);
    if (!waits) {
        send_reply(connection, from, &reply);
    }
    buffer_finish(&reply.body);
}

/* ---- set-up ---- */

static int bind_listener(struct sink *sink, char ret_error[SINK_ERROR_SIZE])
{
    struct sockaddr_storage address;
    socklen_t len;
    const char *listen_at = sink->options->listen;
    if (address_parse(listen_at, &address, &len) < 0) {
        snprintf(ret_error, SINK_ERROR_SIZE, "%s: an address is IP:PORT", listen_at);
        return -EINVAL;
    }
    sink->listener = evconnlistener_new_bind(
        sink->base, NULL, NULL, LEV_OPT_REUSEABLE | LEV_OPT_CLOSE_ON_FREE | LEV_OPT_CLOSE_ON_EXEC,
        BACKLOG, (struct sockaddr *)&address, (int)len);
    if (sink->listener == NULL) {
        int error = errno != 0 ? errno : EADDRNOTAVAIL;
        snprintf(ret_error, SINK_ERROR_SIZE, "%s: %s", listen_at, strerror(error));
        return -error;
    }
    if (evhttp_bind_listener(sink->http, sink->listener) == NULL) {
        evconnlistener_free(take_ptr(sink->listener));
        return -ENOMEM;
    }
    /* Connections inherit it. Without, an answer's second piece waits 40 ms for the first's ACK. */
    const int on = 1;
    evutil_socket_t fd = evconnlistener_get_fd(sink->listener);
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    socklen_t size = sizeof address;
    getsockname(fd, (struct sockaddr *)&address, &size);
    sink->port = address_port(&address);
    return 0;
}

static int start_http(struct sink *sink, char ret_error[SINK_ERROR_SIZE])
{
    const struct timeval every = {.tv_usec = SWEEP_MS * 1000};
    sink->http = evhttp_new(sink->base);
    sink->sweep = event_new(sink->base, -1, EV_PERSIST, sweep_connections, sink);
    if (sink->http == NULL || sink->sweep == NULL || event_add(sink->sweep, &every) < 0) {
        return -ENOMEM;
    }
    size_t body_max = sink->options->body_max != 0 ? sink->options->body_max : SINK_BODY_MAX;
    /* What is a little too large gets our own words, what is far too large evhttp's. */
    evhttp_set_max_body_size(sink->http, (ev_ssize_t)(2 * body_max));
    evhttp_set_max_headers_size(sink->http, SINK_HEADERS_MAX);
    evhttp_set_timeout(sink->http, SINK_IDLE_S);
    evhttp_set_allowed_methods(sink->http, EVHTTP_REQ_GET | EVHTTP_REQ_POST | EVHTTP_REQ_HEAD |
                                               EVHTTP_REQ_PUT | EVHTTP_REQ_DELETE);
    evhttp_set_bevcb(sink->http, accept_connection, sink);
    evhttp_set_gencb(sink->http, handle_request, sink);
    return bind_listener(sink, ret_error);
}

int sink_create(const struct sink_options *options, struct event_base *base, struct sink **ret_sink,
                char ret_error[SINK_ERROR_SIZE])
{
    struct sink *sink = calloc(1, sizeof *sink);
    if (sink == NULL) {
        return -ENOMEM;
    }
    sink->options = options;
    sink->base = base;
    sink->connections_max = options->connections_max != 0 ? options->connections_max
                                                          : SINK_CONNECTIONS_MAX;
    sink->handshake_ms = options->handshake_ms != 0 ? options->handshake_ms : SINK_HANDSHAKE_MS;
    sink->request_ms = options->request_ms != 0 ? options->request_ms : SINK_REQUEST_MS;
    LIST_INIT(&sink->list);
    ret_error[0] = '\0';
    sink->ssl_index = SSL_get_ex_new_index(0, NULL, NULL, NULL, connection_freed);
    int r = sink->ssl_index < 0 ? -ENOMEM : sink_tls_create(options, &sink->tls, ret_error);
    r = r < 0 ? r : sink_handler_create(options, &sink->handler, ret_error);
    r = r < 0 ? r : start_http(sink, ret_error);
    if (r < 0) {
        if (ret_error[0] == '\0') {
            snprintf(ret_error, SINK_ERROR_SIZE, "%s", strerror(-r));
        }
        sink_destroy(sink);
        return r;
    }
    *ret_sink = sink;
    return 0;
}

void sink_destroy(struct sink *sink)
{
    if (sink == NULL) {
        return;
    }
    sink->listener = NULL; /* evhttp frees it, and then the connections */
    if (sink->http != NULL) {
        evhttp_free(sink->http);
    }
    if (sink->sweep != NULL) {
        event_free(sink->sweep);
    }
    /* libevent frees a bufferevent, and with it our record, in its next turn. */
    for (int i = 0; i < CLOSING_TURNS && sink->connections > 0; i++) {
        event_base_loop(sink->base, EVLOOP_NONBLOCK);
    }
    sink_handler_destroy(sink->handler);
    SSL_CTX_free(sink->tls);
    if (sink->ssl_index > 0) {
        CRYPTO_free_ex_index(CRYPTO_EX_INDEX_SSL, sink->ssl_index);
    }
    free(sink);
}

uint16_t sink_port(const struct sink *sink)
{
    return sink->port;
}

size_t sink_connections(const struct sink *sink)
{
    return sink->connections;
}

json_t *sink_stats(const struct sink *sink)
{
    return sink_handler_stats(sink->handler);
}
