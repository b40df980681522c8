#include "gateway/api/routes.h"

#include "gateway/api/amend.h"
#include "gateway/api/ask.h"
#include "gateway/api/page.h"
#include "gateway/api/push.h"
#include "gateway/api/query.h"
#include "gateway/api/reply.h"
#include "gateway/api/views.h"
#include "gateway/api/write_point.h"
#include "gateway/store/store_clock.h"

#include <errno.h>
#include <event2/buffer.h>
#include <string.h>

struct call {
    struct routes *routes;
    struct server *server;
    struct evhttp_request *request;
    const struct query *query;
    bool over_socket;
};

static void send_view(struct call *call, int r, const char *content_type, struct buffer *body)
{
    if (r == 0) {
        reply_send(call->request, 200, content_type, body);
    } else if (r == -ENOENT) {
        reply_error(call->request, 404, "no_such_device", "there is no device of that name");
    } else {
        reply_error(call->request, 500, "internal", "%s", strerror(-r));
    }
}

static void get_status(struct call *call)
{
    auto_buffer struct buffer body = {0};
    int r = view_status(call->routes->host, &body);
    send_view(call, r, REPLY_JSON, &body);
}

static void get_devices(struct call *call)
{
    auto_buffer struct buffer body = {0};
    int r = view_devices(call->routes->host, query_value(call->query, "device"), &body);
    send_view(call, r, REPLY_JSON, &body);
}

static void get_points(struct call *call)
{
    auto_buffer struct buffer body = {0};
    int r = view_points(call->routes->host, query_value(call->query, "select"), &body);
    send_view(call, r, REPLY_JSON, &body);
}

static void send_ledger(struct call *call,
                        int (*view)(struct store *store, const char *gateway, struct buffer *out))
{
    const struct api_host *host = call->routes->host;
    auto_buffer struct buffer body = {0};
    const struct config *config = host->config(host->user);
    int r = view(host->store(host->user), config->gateway->name, &body);
    config_unref(config);
    send_view(call, r, REPLY_JSON, &body);
}

static void get_ledger(struct call *call)
{
    send_ledger(call, view_ledger);
}

static void get_ledger_days(struct call *call)
{
    send_ledger(call, view_ledger_days);
}

static void get_metrics(struct call *call)
{
    auto_buffer struct buffer body = {0};
    int r = view_metrics(call->routes->host, query_value(call->query, "points") != NULL, &body);
    send_view(call, r, "text/plain; version=0.0.4; charset=utf-8", &body);
}

static void get_page(struct call *call)
{
    auto_buffer struct buffer body = {0}, policy = {0};
    page_write(&body);
    page_write_policy(&policy);
    const char *text = buffer_text(&policy);
    struct evkeyvalq *headers = evhttp_request_get_output_headers(call->request);
    evhttp_add_header(headers, "Content-Security-Policy",
                      text != NULL ? text : "default-src 'none'");
    evhttp_add_header(headers, "X-Frame-Options", "DENY");
    evhttp_add_header(headers, "Referrer-Policy", "no-referrer");
    reply_send(call->request, 200, "text/html; charset=utf-8", &body);
}

static void get_live(struct call *call)
{
    const char *device = query_value(call->query, "device");
    int r = live_join(call->routes->live, call->server, call->request,
                      device != NULL ? device : "");
    if (r < 0) {
        reply_error(call->request, 503, "too_many", "%d live views are open already",
                    LIVE_CLIENTS_MAX);
    }
}

/* A time or a span by its parameter; an absent one leaves *ret_ms as it was. */
static int take_time(const struct query *query, const char *name, bool span, int64_t now_ms,
                     int64_t *ret_ms)
{
    const char *text = query_value(query, name);
    if (text == NULL) {
        return 0;
    }
    return span ? query_parse_span(text, ret_ms) : query_parse_time(text, now_ms, ret_ms);
}

static void get_history(struct call *call)
{
    const char *point = query_value(call->query, "point");
    const struct api_host *host = call->routes->host;
    int64_t now_ms = store_now_ms(host->store(host->user));
    struct history_query query = {.to_ms = now_ms + 1};
    int64_t last_ms = 3600 * 1000;
    if (point == NULL || strlen(point) >= sizeof query.point) {
        reply_error(call->request, 400, "bad_query", "point=DEVICE.POINT is missing or too long");
        return;
    }
    snprintf(query.point, sizeof query.point, "%s", point);
    if (take_time(call->query, "to", false, now_ms, &query.to_ms) < 0 ||
        take_time(call->query, "last", true, now_ms, &last_ms) < 0) {
        reply_error(call->request, 400, "bad_query", "`to` or `last` is no time");
        return;
    }
    query.from_ms = query.to_ms - last_ms;
    if (take_time(call->query, "from", false, now_ms, &query.from_ms) < 0 ||
        take_time(call->query, "bin", true, now_ms, &query.bin_ms) < 0) {
        reply_error(call->request, 400, "bad_query",
                    "`from` is no time, or `bin` no span: 2026-01-31T10:30:00Z, -2h, 10 min");
        return;
    }
    struct ticket *ticket;
    int r = ticket_open(call->routes->later, call->request, &ticket);
    if (r == 0) {
        r = history_desk_ask(call->routes->history, &query, ticket);
        if (r < 0) {
            ticket_cancel(ticket);
        }
    }
    if (r < 0) {
        reply_error(call->request, 503, "busy", "too many questions at once: try again");
    }
}

static void post_reload(struct call *call)
{
    const struct api_host *host = call->routes->host;
    auto_buffer struct buffer text = {0};
    int r = host->reload(host->user, &text);
    if (r < 0) {
        const char *lines = buffer_text(&text);
        auto_buffer struct buffer body = {0};
        reply_write_error(&body, "bad_configuration",
                          lines != NULL && lines[0] != '\0' ? lines : strerror(-r));
        reply_send(call->request, 422, REPLY_JSON, &body);
        return;
    }
    auto_buffer struct buffer body = {0};
    struct json_out out = {.b = &body};
    const char *lines = buffer_text(&text);
    json_out_open(&out, NULL, '{');
    json_out_bool(&out, "reloaded", true);
    json_out_text(&out, "warnings", lines != NULL ? lines : "");
    json_out_close(&out, '}');
    reply_send(call->request, 200, REPLY_JSON, &body);
}

/* The request's body in one piece; it stays the request's. */
static const char *take_body(struct call *call, size_t *ret_len)
{
    struct evbuffer *in = evhttp_request_get_input_buffer(call->request);
    size_t len = evbuffer_get_length(in);
    const char *body = (const char *)evbuffer_pullup(in, -1);
    *ret_len = body != NULL ? len : 0;
    return body != NULL ? body : "";
}

static void post_read(struct call *call)
{
    size_t len;
    const char *body = take_body(call, &len);
    ask_device(call->routes->host, call->routes->later, call->request, body, len);
}

static void post_write(struct call *call)
{
    size_t len;
    const char *body = take_body(call, &len);
    const char *authorization = evhttp_find_header(evhttp_request_get_input_headers(call->request),
                                                   "Authorization");
    const char *token = call->over_socket ? NULL : access_who(call->routes->access, authorization);
    write_point(call->routes->host, call->routes->later, call->request, token, body, len);
}

static void post_sensor(struct call *call)
{
    size_t len;
    const char *body = take_body(call, &len);
    push_sensor(call->routes->host, call->routes->later, call->request, body, len);
}

static void change_letters(struct call *call, bool drops)
{
    size_t len;
    const char *body = take_body(call, &len);
    amend_letters(call->routes->host, call->routes->later, call->routes->history, call->request,
                  body, len, drops);
}

static void post_requeue(struct call *call)
{
    change_letters(call, false);
}

static void post_drop(struct call *call)
{
    change_letters(call, true);
}

static void post_delivered(struct call *call)
{
    size_t len;
    const char *body = take_body(call, &len);
    amend_handover(call->routes->host, call->routes->later, call->routes->history, call->request,
                   body, len);
}

static const struct route {
    const char *path;
    enum evhttp_cmd_type method; /* EVHTTP_REQ_GET allows HEAD too */
    bool open;                   /* needs no token: holds no data of the site */
    void (*answer)(struct call *call);
} routes_table[] = {
    {"/", EVHTTP_REQ_GET, true, get_page},
    {"/metrics", EVHTTP_REQ_GET, false, get_metrics},
    {"/sensor", EVHTTP_REQ_POST, false, post_sensor},
    {"/v1/dead/drop", EVHTTP_REQ_POST, false, post_drop},
    {"/v1/dead/requeue", EVHTTP_REQ_POST, false, post_requeue},
    {"/v1/delivered", EVHTTP_REQ_POST, false, post_delivered},
    {"/v1/devices", EVHTTP_REQ_GET, false, get_devices},
    {"/v1/history", EVHTTP_REQ_GET, false, get_history},
    {"/v1/ledger", EVHTTP_REQ_GET, false, get_ledger},
    {"/v1/ledger/days", EVHTTP_REQ_GET, false, get_ledger_days},
    {"/v1/live", EVHTTP_REQ_GET, false, get_live},
    {"/v1/points", EVHTTP_REQ_GET, false, get_points},
    {"/v1/read", EVHTTP_REQ_POST, false, post_read},
    {"/v1/reload", EVHTTP_REQ_POST, false, post_reload},
    {"/v1/status", EVHTTP_REQ_GET, false, get_status},
    {"/v1/write", EVHTTP_REQ_POST, false, post_write},
};

static const struct route *find_route(const char *path)
{
    for (size_t i = 0; i < ARRAY_SIZE(routes_table); i++) {
        if (strcmp(routes_table[i].path, path) == 0) {
            return &routes_table[i];
        }
    }
    return NULL;
}

/* Access is judged before the path is looked up: a stranger does not learn what exists. */
static bool may_pass(struct routes *routes, bool over_socket, struct evhttp_request *request,
                     const struct route *route)
{
    struct evkeyvalq *headers = evhttp_request_get_input_headers(request);
    enum evhttp_cmd_type method = evhttp_request_get_command(request);
    const struct access_request wanted = {
        .over_socket = over_socket,
        .changes = method != EVHTTP_REQ_GET && method != EVHTTP_REQ_HEAD,
        .pushes = method == EVHTTP_REQ_POST && route != NULL && route->answer == post_sensor,
        .writes = method == EVHTTP_REQ_POST && route != NULL && route->answer == post_write,
        .open = route != NULL && route->open,
        .host = evhttp_find_header(headers, "Host"),
        .authorization = evhttp_find_header(headers, "Authorization"),
    };
    const char *why = "";
    int status = access_judge(routes->access, &wanted, &why);
    if (status != 0) {
        reply_error(request, status, status == 401 ? "unauthorized" : "forbidden", "%s", why);
    }
    return status == 0;
}

void routes_handle(struct routes *routes, struct server *server, bool over_socket,
                   struct evhttp_request *request)
{
    const char *uri = evhttp_request_get_uri(request);
    struct query query;
    int r = uri != NULL ? query_parse(uri, &query) : -EINVAL;
    if (r < 0) {
        reply_error(request, 400, "bad_request", "the address does not read");
        return;
    }
    const struct route *route = find_route(query.path);
    if (!may_pass(routes, over_socket, request, route)) {
        return;
    }
    enum evhttp_cmd_type method = evhttp_request_get_command(request);
    if (route == NULL) {
        reply_error(request, 404, "not_found", "there is nothing at that address");
    } else if (method != route->method &&
               !(method == EVHTTP_REQ_HEAD && route->method == EVHTTP_REQ_GET)) {
        evhttp_add_header(evhttp_request_get_output_headers(request), "Allow",
                          route->method == EVHTTP_REQ_GET ? "GET, HEAD" : "POST");
        reply_error(request, 405, "wrong_method", "%s takes %s", route->path,
                    route->method == EVHTTP_REQ_GET ? "GET" : "POST");
    } else {
        route->answer(&(struct call){.routes = routes,
                                     .server = server,
                                     .request = request,
                                     .query = &query,
                                     .over_socket = over_socket});
    }
}
