#include "gateway/api/write_point.h"

#include "gateway/api/reply.h"
#include "gateway/base/json_reading.h"

#include <errno.h>
#include <event2/bufferevent.h>
#include <string.h>
#include <sys/socket.h>

enum { TIMEOUT_DEFAULT_MS = 5000 };

static bool take_text(struct json_in *p, char *text, const char *why)
{
    struct json_in_text value;
    if (json_in_peek(p) != JSON_IN_STRING) {
        return json_in_fail(p, why);
    }
    if (!json_in_string(p, &value)) {
        return false;
    }
    if (value.len == 0 || value.len > WRITES_TEXT_MAX) {
        return json_in_fail(p, why);
    }
    memcpy(text, value.at, value.len);
    text[value.len] = '\0';
    return true;
}

/* A number keeps its digits: what is compared and written is what was meant. */
static bool take_value(struct json_in *p, char *text)
{
    struct reading reading = {0};
    struct json_in_text word;
    auto_buffer struct buffer b = {0};
    if (json_in_peek(p) == JSON_IN_STRING) {
        return take_text(p, text, "value is a number, true or false");
    }
    if (!json_reading_take(p, &reading, &word)) {
        return false;
    }
    if (reading.kind == VALUE_DECIMAL) {
        decimal_write(&b, reading_decimal(&reading));
    } else if (reading.kind == VALUE_BOOL) {
        buffer_add_text(&b, reading.integer != 0 ? "1" : "0");
    }
    const char *shown = b.len > 0 ? buffer_text(&b) : NULL;
    if (shown == NULL || b.len > WRITES_TEXT_MAX) {
        return json_in_fail(p, "value is a number of at most 18 digits, true or false");
    }
    memcpy(text, shown, b.len + 1);
    return true;
}

static bool take_timeout(struct json_in *p, int64_t *timeout_ms)
{
    if (!json_in_integer(p, timeout_ms)) {
        return false;
    }
    return (*timeout_ms >= WRITES_TIMEOUT_MIN_MS && *timeout_ms <= WRITES_TIMEOUT_MAX_MS) ||
           json_in_fail(p, "timeout_ms is a number from 100 to 30000");
}

static bool take_member(struct json_in *p, struct write_request *request, struct json_in_text name)
{
    if (json_in_text_is(name, "device")) {
        return take_text(p, request->device, "device is a name");
    }
    if (json_in_text_is(name, "point")) {
        return take_text(p, request->point, "point is a name");
    }
    if (json_in_text_is(name, "id")) {
        return take_text(p, request->id, "id is a text of at most 64 characters");
    }
    if (json_in_text_is(name, "value")) {
        return take_value(p, request->value);
    }
    return json_in_text_is(name, "timeout_ms")
               ? take_timeout(p, &request->timeout_ms)
               : json_in_fail(p, "there is a member beside device, point, value, id, timeout_ms");
}

int write_request_parse(const char *body, size_t len, struct write_request *ret_request,
                        const char **ret_why)
{
    struct json_in_arena arena = {0};
    struct json_in json;
    struct json_in_text name;
    *ret_request = (struct write_request){.timeout_ms = TIMEOUT_DEFAULT_MS};
    json_in_init(&json, body, len, &arena);
    bool good = len <= WRITE_POINT_BODY_MAX && json_in_enter(&json, JSON_IN_OBJECT);
    while (good && json_in_member(&json, &name)) {
        good = take_member(&json, ret_request, name);
    }
    good = good && json_in_end(&json);
    bool whole = ret_request->device[0] != '\0' && ret_request->point[0] != '\0' &&
                 ret_request->value[0] != '\0';
    *ret_why = json.why != NULL ? json.why
               : !whole         ? "device, point and value are needed"
                                : "the body is too long";
    json_in_arena_finish(&arena);
    return good && whole ? 0 : -EINVAL;
}

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
                                          .timeout_ms = asked.timeout_ms};
    host->write(host->user, &command, on_done, ticket);
}
