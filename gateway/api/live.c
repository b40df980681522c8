#include "gateway/api/live.h"

#include "gateway/api/reply.h"
#include "gateway/api/roster.h"
#include "gateway/api/views.h"
#include "gateway/base/clock.h"

#include <errno.h>
#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <poll.h>
#include <string.h>

struct client {
    struct live *live;
    struct evhttp_request *request; /* NULL: free */
    char device[128];
    bool behind; /* gets a full event next */
    int64_t sent_mono_ms;
};

struct seen {
    int64_t newest_ms;
    int state;
};

struct live {
    const struct api_host *host;
    struct event *tick;
    struct client clients[LIVE_CLIENTS_MAX];
    size_t count;
    uint64_t version;
    struct seen *seen; /* by device->index: what the last event said */
    size_t seen_count;
};

static void leave(struct client *client)
{
    client->live->count--;
    client->request = NULL;
}

static void on_gone(struct evhttp_connection *connection, void *user)
{
    (void)connection;
    struct client *client = user;
    struct evhttp_request *request = client->request;
    leave(client);
    /* As in later.c: parted from its connection, the request is ours. */
    if (request != NULL && evhttp_request_get_connection(request) == NULL) {
        evhttp_request_free(request);
    }
}

static void end_stream(struct client *client)
{
    struct evhttp_request *request = client->request;
    evhttp_connection_set_closecb(evhttp_request_get_connection(request), NULL, NULL);
    leave(client);
    evhttp_send_reply_end(request);
}

static struct bufferevent *client_bev(const struct client *client)
{
    return evhttp_connection_get_bufferevent(evhttp_request_get_connection(client->request));
}

/* evhttp does not read while it answers: only a look at the socket shows that the peer left. */
static bool has_left(const struct client *client)
{
    struct pollfd p = {.fd = bufferevent_getfd(client_bev(client)), .events = POLLRDHUP};
    return poll(&p, 1, 0) > 0 && (p.revents & (POLLRDHUP | POLLHUP | POLLERR)) != 0;
}

static void send_text(struct client *client, const void *text, size_t len)
{
    struct evbuffer *chunk = evbuffer_new();
    if (chunk == NULL) {
        client->behind = true;
        return;
    }
    if (evbuffer_add(chunk, text, len) == 0) {
        client->sent_mono_ms = clock_mono_ms();
        client->behind = false;
        evhttp_send_reply_chunk(client->request, chunk);
    }
    evbuffer_free(chunk);
}

/* Whether the device differs from the last event; remembers it. */
static bool has_changed(struct live *live, const struct device *device, int64_t newest_ms)
{
    if (device->index >= live->seen_count) {
        size_t count = device->index + 16;
        struct seen *seen = reallocarray(live->seen, count, sizeof *seen);
        if (seen == NULL) {
            return true;
        }
        memset(seen + live->seen_count, 0, (count - live->seen_count) * sizeof *seen);
        live->seen = seen;
        live->seen_count = count;
    }
    struct seen now = {.newest_ms = newest_ms, .state = device->health.state};
    struct seen *seen = &live->seen[device->index];
    bool changed = seen->newest_ms != now.newest_ms || seen->state != now.state;
    *seen = now;
    return changed;
}

enum selection { SELECT_FULL, SELECT_CHANGED };

/* One event. With SELECT_CHANGED, `seen` moves on. `device` "": all. */
static void write_event(struct live *live, const struct roster *roster, enum selection selection,
                        const char *device, struct buffer *b)
{
    struct json_out out = {.b = b};
    buffer_add_text(b, "event: live\ndata: ");
    json_out_open(&out, NULL, '{');
    json_out_time(&out, "time", clock_wall_ms());
    json_out_bool(&out, "full", selection == SELECT_FULL);
    json_out_open(&out, "devices", '[');
    for (size_t i = 0; i < roster->device_count; i++) {
        if (device[0] != '\0' && strcmp(roster->devices[i]->config->name, device) != 0) {
            continue;
        }
        size_t len = b->len;
        bool comma = out.comma;
        int64_t newest_ms = view_live_device(live->host, roster->devices[i], &out);
        if (selection == SELECT_CHANGED && !has_changed(live, roster->devices[i], newest_ms)) {
            b->len = len;
            out.comma = comma;
        }
    }
    json_out_close(&out, ']');
    json_out_close(&out, '}');
    buffer_add_text(b, "\n\n");
}

static void send_event(struct live *live, const struct roster *roster, struct client *client,
                       const struct buffer *changed)
{
    if (!client->behind && client->device[0] == '\0') {
        send_text(client, changed->data, changed->len);
        return;
    }
    auto_buffer struct buffer full = {0};
    write_event(live, roster, SELECT_FULL, client->device, &full);
    if (buffer_failed(&full)) {
        client->behind = true;
        return;
    }
    send_text(client, full.data, full.len);
}

static void tend(struct live *live, struct client *client, const struct roster *roster,
                 const struct buffer *changed)
{
    static const char keepalive[] = ": still here\n\n";
    if (has_left(client)) {
        end_stream(client);
        return;
    }
    if (evbuffer_get_length(bufferevent_get_output(client_bev(client))) > 0) {
        client->behind = client->behind || changed->len > 0;
        return;
    }
    if (changed->len > 0 || client->behind) {
        send_event(live, roster, client, changed);
    } else if (clock_mono_ms() - client->sent_mono_ms >= LIVE_KEEPALIVE_MS) {
        send_text(client, keepalive, sizeof keepalive - 1);
    }
}

static void arm(struct live *live)
{
    const struct timeval next = {.tv_sec = LIVE_TICK_MS / 1000};
    if (live->count > 0) {
        evtimer_add(live->tick, &next);
    }
}

static void on_tick(evutil_socket_t fd, short what, void *user)
{
    (void)fd;
    (void)what;
    struct live *live = user;
    auto_roster struct roster roster = {0};
    auto_buffer struct buffer changed = {0};
    uint64_t version = pipeline_live_version(live->host->pipeline(live->host->user));
    if (roster_take(live->host, ROSTER_DEVICES, &roster) == 0 && version != live->version) {
        write_event(live, &roster, SELECT_CHANGED, "", &changed);
        live->version = version;
    }
    if (buffer_failed(&changed)) {
        buffer_clear(&changed);
    }
    for (size_t i = 0; i < LIVE_CLIENTS_MAX; i++) {
        if (live->clients[i].request != NULL) {
            tend(live, &live->clients[i], &roster, &changed);
        }
    }
    arm(live);
}

int live_create(struct event_base *base, const struct api_host *host, struct live **ret_live)
{
    struct live *live = calloc(1, sizeof *live);
    if (live == NULL) {
        return -ENOMEM;
    }
    live->host = host;
    live->tick = evtimer_new(base, on_tick, live);
    if (live->tick == NULL) {
        free(live);
        return -ENOMEM;
    }
    *ret_live = live;
    return 0;
}

void live_destroy(struct live *live)
{
    if (live == NULL) {
        return;
    }
    for (size_t i = 0; i < LIVE_CLIENTS_MAX; i++) {
        if (live->clients[i].request != NULL) {
            end_stream(&live->clients[i]);
        }
    }
    event_free(live->tick);
    free(live->seen);
    free(live);
}

int live_join(struct live *live, struct server *server, struct evhttp_request *request,
              const char *device)
{
    if (live->count == LIVE_CLIENTS_MAX) {
        return -EBUSY;
    }
    size_t i = 0;
    while (live->clients[i].request != NULL) {
        i++;
    }
    struct client *client = &live->clients[i];
    *client = (struct client){.live = live, .request = request};
    snprintf(client->device, sizeof client->device, "%s", device);
    live->count++;
    server_mark_stream(server, request);
    reply_headers(request, "text/event-stream");
    evhttp_connection_set_closecb(evhttp_request_get_connection(request), on_gone, client);
    evhttp_send_reply_start(request, 200, "OK");
    auto_roster struct roster roster = {0};
    if (roster_take(live->host, ROSTER_DEVICES, &roster) < 0) {
        client->behind = true;
    } else {
        const struct buffer nothing = {0};
        client->behind = true;
        send_event(live, &roster, client, &nothing);
    }
    arm(live);
    return 0;
}

size_t live_clients(const struct live *live)
{
    return live->count;
}
