#include "gateway/api/write_point.h"

#include "gateway/api/reply.h"

#include <event2/bufferevent.h>
#include <string.h>
#include <sys/socket.h>

/* Who is at the other end, for the record. */
static void name_asker(struct evhttp_request *request, const char *token, char *who, size_t size)
{
    struct evhttp_connection *connection = evhttp_request_get_connection(request);
    struct bufferevent *bev = connection != NULL ? evhttp_connection_get_bufferevent(connection)
                                                 : NULL;
    struct ucred peer;
    socklen_t len = sizeof peer;
    if (token != NULL) {
        snprintf(who, size, "token %s", token);
    } else if (bev != NULL &&
               getsockopt(bufferevent_getfd(bev), SOL_SOCKET, SO_PEERCRED, &peer, &len) == 0) {
        snprintf(who, size, "uid %u", (unsigned)peer.uid);
    } else {
        snprintf(who, size, "socket");
    }
}

static void on_done(void *arg, int status, struct buffer *body)
{
    ticket_answer(arg, status, NULL, body);
}

void write_point(const struct api_host *host, struct later *later, struct evhttp_request *request,
                 const char *token, const char *body, size_t len)
{
    struct write_request asked;
    const char *why = "";
    char who[WRITES_TEXT_MAX + 1];
    struct ticket *ticket;
    if (host->write == NULL) {
        reply_error(request, 501, "cannot", "nothing can be written here");
        return;
    }
    if (write_request_parse(body, len, &asked, &why) < 0) {
        reply_error(request, 400, "bad_request", "%s", why);
        return;
    }
    if (ticket_open(later, request, &ticket) < 0) {
        reply_error(request, 503, "busy", "too many questions at once: try again");
        return;
    }
    name_asker(request, token, who, sizeof who);
    const struct write_command command = {.id = asked.id[0] != '\0' ? asked.id : NULL,
                                          .device = asked.device,
                                          .point = asked.point,
                                          .value = asked.value,
                                          .who = who,
                                          .timeout_ms = asked.timeout_ms,
                                          .expires_ms = asked.expires_ms};
    host->write(host->user, &command, on_done, ticket);
}
