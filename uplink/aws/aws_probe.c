#include "uplink/aws/aws_probe.h"

#include "gateway/base/clock.h"
#include "uplink/aws/aws_parts.h"
#include "uplink/verdict.h"

#include <errno.h>
#include <string.h>

/* "AKIA...MPLE": enough to know it again, and it is no secret. */
static void write_key(const struct aws_credentials *c, char text[24])
{
    size_t len = strlen(c->access_key);
    snprintf(text, 24, "%.4s...%s", c->access_key, len > 8 ? c->access_key + len - 4 : "");
}

static void say_loaded(struct probe *probe, const char *from, const struct aws_credentials *c)
{
    char key[24];
    write_key(c, key);
    if (c->expires_ms == 0) {
        probe_say(probe, "credentials", PROBE_GOOD, NULL, "from %s: key %s%s", from, key,
                  c->session_token[0] != '\0' ? ", with a session token" : "");
        return;
    }
    int64_t left_s = (c->expires_ms - clock_wall_ms()) / 1000;
    probe_say(probe, "credentials", left_s > 0 ? PROBE_GOOD : PROBE_BAD,
              left_s > 0 ? NULL : "is this machine's clock right? timedatectl shows it",
              "from %s: key %s, %s %lld min", from, key, left_s > 0 ? "good for" : "expired since",
              (long long)(left_s < 0 ? -left_s : left_s) / 60);
}

/* A request of our own to the credential provider, whose answer is kept out of all messages. */
struct asked {
    struct probe *probe;
    bool done;
    int status;
    struct aws_credentials credentials;
    char words[300];
};

static void on_done(void *user, const struct uplink_reply *reply)
{
    struct asked *a = user;
    char why[AWS_WORDS_MAX] = "";
    a->done = true;
    a->status = reply->status;
    if (reply->date_ms != 0) {
        a->probe->date_ms = reply->date_ms;
        a->probe->heard_ms = clock_wall_ms();
    }
    if (reply->status == 200) {
        if (aws_credentials_parse_iot(reply->body, reply->len, &a->credentials, why) < 0) {
            a->status = -1;
            snprintf(a->words, sizeof a->words, "%s: a captive portal?", why);
        }
    } else if (reply->status == 0) {
        snprintf(a->words, sizeof a->words, "%s", reply->error);
    } else {
        snprintf(a->words, sizeof a->words, "it answers %d: %.150s", reply->status, reply->body);
    }
}

static int ask_provider(const struct transport_settings *line, const char *thing, struct asked *a)
{
    struct uplink_request request = {.method = "GET"};
    void *state = NULL;
    int r = transport_http.create(line, a->probe->gateway, 1, &state);
    if (r < 0) {
        return r;
    }
    if (thing != NULL) {
        buffer_printf(&request.headers, "x-amzn-iot-thingname: %s", thing);
        buffer_add_byte(&request.headers, 0);
    }
    r = transport_http.send(state, &request, on_done, a);
    while (r == 0 && !a->done) {
        r = transport_http.run(state, -1, line->timeout_ms);
    }
    transport_http.destroy(state);
    buffer_finish(&request.headers);
    return r;
}

static void say_provider(struct probe *probe, const struct aws_settings *s, const char *url)
{
    struct transport_settings line = s->transport;
    struct probe_target target;
    line.url = url;
    if (!probe_target_of_url(&line, url, &target) || !probe_connect(probe, &target)) {
        return;
    }
    struct asked a = {.probe = probe};
    probe_begin(probe);
    int r = ask_provider(&line, s->thing, &a);
    if (r == 0 && a.status == 200) {
        say_loaded(probe, "the IoT credential provider", &a.credentials);
    } else {
        probe_say(
            probe, "credentials", PROBE_BAD,
            a.status == 403 || a.status == 404
                ? "is the certificate active and attached to the thing, does its policy allow "
                  "iot:AssumeRoleWithCertificate on the role alias, and is `thing` right?"
                : NULL,
            "the credential provider: %s", r < 0 ? strerror(-r) : a.words);
    }
    explicit_bzero(&a, sizeof a);
}

void aws_probe_credentials(struct probe *probe)
{
    const struct aws_settings *s = probe->settings;
    enum aws_source source;
    const char *rest;
    if (aws_source_parse(s->credentials, &source, &rest) < 0) {
        probe_say(probe, "credentials", PROBE_BAD, NULL,
                  "'%s' is none of file:, env:, iot:", s->credentials);
        return;
    }
    if (source == AWS_FROM_IOT) {
        say_provider(probe, s, rest);
        return;
    }
    struct aws_credentials c = {.expires_ms = 0};
    char words[AWS_WORDS_MAX] = "";
    int r = aws_credentials_load(source, rest, &c, words);
    bool file = source == AWS_FROM_FILE;
    if (r < 0) {
        probe_say(probe, "credentials", PROBE_BAD,
                  file ? "the file has lines aws_access_key_id = ... and aws_secret_access_key = "
                         "..., and mode 0600"
                       : "this is the environment of this shell; the service has its own "
                         "(systemctl edit windrow)",
                  "%s", words[0] != '\0' ? words : strerror(-r));
    } else {
        say_loaded(probe, file ? rest : "the environment (of this shell, not of the service)", &c);
    }
    explicit_bzero(&c, sizeof c);
}

bool aws_probe_target(const struct aws_service *service, const struct aws_settings *settings,
                      struct probe_target *ret_target)
{
    char url[AWS_URL_MAX];
    if (settings->transport.url == NULL &&
        aws_service_url(service->host, settings->region, url) < 0) {
        return false;
    }
    return probe_target_of_url(&settings->transport,
                               settings->transport.url != NULL ? settings->transport.url : url,
                               ret_target);
}

static void say_refused(struct probe *probe, const struct aws_question *q, const json_t *body,
                        const char *why)
{
    char mend[300] = "";
    enum probe_verdict verdict = PROBE_BAD;
    if (aws_error_is(body, "AccessDeniedException")) {
        verdict = PROBE_WARN;
        snprintf(mend, sizeof mend,
                 "the keys are known, their policy does not allow %s: writing may be allowed all "
                 "the same, --write tells",
                 q->action);
    } else if (aws_error_is(body, "ResourceNotFoundException") ||
               aws_error_is(body, "QueueDoesNotExist")) {
        snprintf(mend, sizeof mend, "compare region and %s with what is in the account", q->keys);
    } else if (aws_error_is(body, "UnrecognizedClientException") ||
               aws_error_is(body, "InvalidSignatureException") ||
               aws_error_is(body, "ExpiredTokenException")) {
        snprintf(mend, sizeof mend, "the keys: are they active, of this account, in date?");
    }
    if (aws_error_is(body, "InvalidSignatureException") && strstr(why, "ignature ") != NULL &&
        (strstr(why, "expired") != NULL || strstr(why, "not yet current") != NULL)) {
        verdict = PROBE_WARN;
        snprintf(mend, sizeof mend,
                 "set the clock; until then the gateway signs by the clock of the service");
    }
    probe_say(probe, "request", verdict, mend, "%s: %s", q->action, why);
}

static void say_answer(struct probe *probe, const struct aws_question *q,
                       const struct uplink_reply *reply)
{
    struct uplink_verdict verdict = {.retry_after_ms = -1};
    json_t *body = NULL;
    enum verdict_class class_of = aws_verdict(probe->settings, reply, &verdict, &body);
    /* A transport that sends chunks gives a list of their answers. */
    const json_t *first = json_is_array(body) ? json_array_get(body, 0) : body;
    auto_buffer struct buffer found = {.max = PROBE_TEXT_MAX / 2};
    if (class_of == VERDICT_SUCCESS && json_is_object(first)) {
        enum probe_verdict good = PROBE_GOOD;
        const char *mend = q->read(probe->settings, first, &found, &good);
        const char *text = buffer_text(&found);
        probe_say(probe, "request", good, mend, "%s: %s", q->action, text != NULL ? text : "");
    } else if (class_of == VERDICT_SUCCESS) {
        probe_say(probe, "request", PROBE_BAD,
                  "a captive portal that wants a login, or an endpoint of something else",
                  "%s: %d, but not with what the service says", q->action, reply->status);
    } else {
        const char *message = aws_error_message(first);
        say_refused(probe, q, first,
                    verdict.why[0] != '\0' ? verdict.why
                    : message[0] != '\0'   ? message
                                           : reply->body);
    }
    free(verdict.rejected);
    json_decref(body);
}

void aws_probe_ask(struct probe *probe, const struct aws_question *q)
{
    struct uplink_request request = {.content_type = q->content_type};
    auto_answer struct probe_answer answer = {0};
    buffer_add_text(&request.body, q->body);
    buffer_add(&request.headers, q->target, strlen(q->target) + 1);
    probe_begin(probe);
    int r = probe_exchange(probe, &request, &answer);
    if (r < 0) {
        probe_say(probe, "request", PROBE_BAD, NULL, "it cannot be sent: %s", strerror(-r));
    } else {
        say_answer(probe, q, &answer.reply);
    }
    buffer_finish(&request.body);
    buffer_finish(&request.headers);
}
