#include "gateway/base/clock.h"
#include "uplink/probe/parts.h"

#include <errno.h>
#include <string.h>
#include <sys/eventfd.h>

/* A transport may try several addresses, fetch credentials and ask for an endpoint first. */
enum { EXCHANGE_MAX_MS = 120000 };

struct wait {
    struct probe *probe;
    struct probe_answer *answer;
    bool done;
};

static const char *keep(struct buffer *b, const char *text, size_t len)
{
    buffer_clear(b);
    buffer_add(b, text, len);
    const char *kept = buffer_text(b);
    return kept != NULL ? kept : "";
}

static void on_done(void *user, const struct uplink_reply *reply)
{
    struct wait *wait = user;
    struct probe_answer *a = wait->answer;
    const char *error = reply->error != NULL ? reply->error : "";
    a->reply = *reply;
    a->reply.body = keep(&a->body, reply->body != NULL ? reply->body : "", reply->len);
    a->reply.error = keep(&a->words, error, strlen(error));
    snprintf(a->content_type, sizeof a->content_type, "%s",
             reply->content_type != NULL ? reply->content_type : "");
    a->reply.content_type = a->content_type;
    snprintf(a->etag, sizeof a->etag, "%s", reply->etag != NULL ? reply->etag : "");
    snprintf(a->checksum_sha256, sizeof a->checksum_sha256, "%s",
             reply->checksum_sha256 != NULL ? reply->checksum_sha256 : "");
    a->reply.etag = a->etag;
    a->reply.checksum_sha256 = a->checksum_sha256;
    if (reply->code != NULL) {
        snprintf(a->code, sizeof a->code, "%s", reply->code);
        a->reply.code = a->code;
    }
    if (reply->date_ms != 0) {
        wait->probe->date_ms = reply->date_ms;
        wait->probe->heard_ms = clock_wall_ms();
    }
    wait->done = true;
}

int probe_exchange(struct probe *probe, const struct uplink_request *request,
                   struct probe_answer *ret_answer)
{
    const struct transport *transport = probe->type->transport;
    const void *settings = probe->type->transport_settings != NULL
                               ? probe->type->transport_settings(probe->settings)
                               : probe->settings;
    struct wait wait = {.probe = probe, .answer = ret_answer};
    void *state = NULL;
    int r = transport->create(settings, probe->gateway, 1, &state);
    if (r < 0) {
        return r;
    }
    auto_close int never = eventfd(0, EFD_CLOEXEC);
    int64_t deadline_ms = clock_mono_ms() + EXCHANGE_MAX_MS;
    r = transport->send(state, request, on_done, &wait);
    while (r == 0 && !wait.done) {
        int64_t left_ms = deadline_ms - clock_mono_ms();
        r = left_ms <= 0 ? -ETIMEDOUT : transport->run(state, never, left_ms);
    }
    transport->destroy(state);
    return r;
}

void probe_answer_finish(struct probe_answer *answer)
{
    buffer_finish(&answer->body);
    buffer_finish(&answer->words);
}

/* One reading of a device that no site has, under a store that is none: whoever finds it in the
 * receiving table knows what it is. */
static int encode_record(struct probe *probe, struct uplink_request *request)
{
    static const struct store_point_name point = {"test", "", 4};
    static const struct store_names names = {PROBE_DEVICE, "", 1, &point};
    auto_free struct scan *scan = calloc(1, scan_size_for(1, 0));
    if (scan == NULL) {
        return -ENOMEM;
    }
    int64_t now_ms = clock_wall_ms();
    *scan = (struct scan){.seq = (uint64_t)now_ms, .time_ms = now_ms, .device = 1, .count = 1};
    scan->readings[0] = (struct reading){.kind = VALUE_DECIMAL, .integer = 1};
    const struct batch_record record = {.scan = scan, .names = &names};
    const struct batch batch = {.gateway = probe->gateway,
                                .store_id = PROBE_STORE,
                                .stream = STREAM_RAW,
                                .records = &record,
                                .count = 1};
    int r = probe->type->encode(probe->settings, &batch, request);
    if (r < 0) {
        return r;
    }
    auto_answer struct probe_answer answer = {0};
    probe_begin(probe);
    r = probe_exchange(probe, request, &answer);
    if (r < 0) {
        return r;
    }
    struct uplink_verdict verdict = {.retry_after_ms = -1};
    probe->type->judge(probe->settings, &batch, &answer.reply, &verdict);
    bool good = verdict.outcome == UPLINK_DELIVERED && verdict.rejected_count == 0;
    const char *why = verdict.rejected_count > 0 ? verdict.rejected[0].why : verdict.why;
    if (good) {
        probe_say(probe, "write", PROBE_GOOD, NULL,
                  "one record of a device " PROBE_DEVICE " was taken, and confirmed");
    } else {
        probe_say(probe, "write", PROBE_BAD,
                  "what the endpoint says tells which key of the section is wrong",
                  "the record is not confirmed: %s", why);
    }
    free(verdict.rejected);
    return 0;
}

void probe_write(struct probe *probe)
{
    struct uplink_request request = {0};
    int r = encode_record(probe, &request);
    if (r < 0) {
        probe_say(probe, "write", PROBE_BAD, NULL, "the record cannot be sent: %s", strerror(-r));
    }
    buffer_finish(&request.body);
    buffer_finish(&request.headers);
}
