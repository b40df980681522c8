#include "uplink/influx/influx.h"
#include "uplink/probe/probe.h"

#include <errno.h>
#include <string.h>

static const struct influx_settings *settings_of(const struct probe *probe)
{
    return probe->settings;
}

/* A write without a line: v1 and VictoriaMetrics answer 200 or 204; v2 and v3 look at token, bucket
 * or database first, and then say 400 because there is no line. */
static void say_answer(struct probe *probe, const struct uplink_reply *reply)
{
    int version = settings_of(probe)->version;
    const char *name = version == INFLUX_V2 ? "org and bucket" : "db";
    const struct batch none = {.gateway = probe->gateway};
    struct uplink_verdict verdict = {.retry_after_ms = -1};
    influx_judge(probe->settings, &none, reply, &verdict);
    bool html = strncasecmp(reply->content_type, "text/html", 9) == 0;
    if (html || (reply->status >= 300 && reply->status < 400)) {
        probe_say(probe, "request", PROBE_BAD,
                  "a captive portal that wants a login, or another server: compare url",
                  "an empty write: %d%s", reply->status, html ? " with a page for people" : "");
    } else if (reply->status == 200 || reply->status == 204) {
        probe_say(probe, "request", PROBE_GOOD, NULL, "an empty write: %d, it takes it",
                  reply->status);
    } else if (reply->status == 400 && version != INFLUX_V1) {
        probe_say(probe, "request", PROBE_GOOD, NULL,
                  "it knows the token and %s; an empty write it refuses, as it should", name);
    } else if (reply->status == 401 || reply->status == 403) {
        probe_say(probe, "request", PROBE_BAD,
                  "is the token in token_file the server's, with the right to write there?", "%s",
                  verdict.why);
    } else if (reply->status == 404) {
        probe_say(probe, "request", PROBE_BAD,
                  version == INFLUX_V2 ? "compare org, bucket and url with the server's"
                                       : "compare db and url with the server's",
                  "%s", verdict.why);
    } else {
        probe_say(probe, "request", PROBE_BAD, NULL, "%s", verdict.why);
    }
    free(verdict.rejected);
}

static void ask(struct probe *probe)
{
    struct uplink_request request = {.content_type = "text/plain; charset=utf-8",
                                     .token = influx_token(settings_of(probe))};
    auto_answer struct probe_answer answer = {0};
    int r = influx_write_path(settings_of(probe), request.path, sizeof request.path);
    probe_begin(probe);
    r = r < 0 ? r : probe_exchange(probe, &request, &answer);
    if (r < 0) {
        probe_say(probe, "request", PROBE_BAD, NULL, "it cannot be sent: %s", strerror(-r));
    } else {
        say_answer(probe, &answer.reply);
    }
}

const struct uplink_probe influx_probe = {.ask = ask};
