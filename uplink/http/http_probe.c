#include "uplink/http/http.h"
#include "uplink/probe/probe.h"

#include <errno.h>
#include <jansson.h>
#include <string.h>

/* A batch of no records, which an endpoint that knows the form takes without keeping anything.
 * False: the format has no such thing. */
static bool write_empty(const struct probe *probe, int format, struct buffer *out)
{
    switch (format) {
    case HTTP_BATCH:
    case HTTP_COLUMNS:
        buffer_add_text(out, "{\"gateway\":");
        json_write_string(out, probe->gateway, strlen(probe->gateway));
        buffer_printf(out, ",\"store\":\"000000000000\",\"stream\":\"raw\",\"%s\":[]}",
                      format == HTTP_BATCH ? "records" : "blocks");
        return true;
    case HTTP_TELEMETRY:
        buffer_add_text(out, "[]");
        return true;
    default:
        return false;
    }
}

/* http_judge() cannot say that none of none was delivered. */
static bool is_taken(const struct http_settings *s, const struct uplink_reply *reply)
{
    json_t *body = json_loadb(reply->body, reply->len, 0, NULL);
    const json_t *accepted = json_object_get(body, "accepted");
    bool none = json_is_integer(accepted) && json_integer_value(accepted) == 0;
    json_decref(body);
    return reply->status >= 200 && reply->status < 300 && (none || s->ack == HTTP_ACK_STATUS);
}

static void say_answer(struct probe *probe, const struct uplink_reply *reply)
{
    /* The general rules first: no answer, wrong token, not now. */
    const struct batch none = {.gateway = probe->gateway, .store_id = "000000000000"};
    struct uplink_verdict verdict = {.retry_after_ms = -1};
    bool html = strncasecmp(reply->content_type, "text/html", 9) == 0;
    http_judge(probe->settings, &none, reply, &verdict);
    if (reply->status >= 300 && reply->status < 400) {
        probe_say(probe, "request", PROBE_BAD,
                  "a captive portal that wants a login, or the URL has moved: put the new one into "
                  "url",
                  "an empty batch: %d, it sends us elsewhere", reply->status);
    } else if (html) {
        probe_say(probe, "request", PROBE_BAD,
                  "a captive portal that wants a login, or a web server instead of the service: "
                  "compare url",
                  "an empty batch: %d with a page for people (%.60s), no acknowledgement",
                  reply->status, reply->content_type);
    } else if (is_taken(probe->settings, reply)) {
        probe_say(probe, "request", PROBE_GOOD, NULL, "an empty batch: %d, it takes it",
                  reply->status);
    } else if (reply->status == 401 || reply->status == 403) {
        probe_say(probe, "request", PROBE_BAD,
                  "is the token in token_file the one that the service knows?", "%s", verdict.why);
    } else if (reply->status == 404 || reply->status == 405) {
        probe_say(probe, "request", PROBE_BAD, "compare the path in url with the service's", "%s",
                  verdict.why);
    } else if (reply->status == 400 || reply->status == 422) {
        probe_say(probe, "request", PROBE_WARN, "--write tells whether it takes a record",
                  "it lets us in, but takes no empty batch: %s", verdict.why);
    } else if (reply->status >= 200 && reply->status < 300) {
        probe_say(probe, "request", PROBE_WARN,
                  "--write tells; an endpoint that never answers with {\"accepted\":N} needs "
                  "ack = status",
                  "an empty batch: %d, but the answer is not {\"accepted\":0}", reply->status);
    } else {
        probe_say(probe, "request", PROBE_BAD, NULL, "%s", verdict.why);
    }
    free(verdict.rejected);
}

static void ask(struct probe *probe)
{
    const struct http_settings *s = probe->settings;
    struct uplink_request request = {.content_type = "application/json", .compressible = true};
    if (!write_empty(probe, s->format, &request.body)) {
        probe_say(probe, "request", PROBE_SKIP, NULL,
                  "format = flat has no request that changes nothing");
        return;
    }
    auto_answer struct probe_answer answer = {0};
    probe_begin(probe);
    int r = probe_exchange(probe, &request, &answer);
    if (r < 0) {
        probe_say(probe, "request", PROBE_BAD, NULL, "it cannot be sent: %s", strerror(-r));
    } else {
        say_answer(probe, &answer.reply);
    }
    buffer_finish(&request.body);
}

const struct uplink_probe http_probe = {.ask = ask};
