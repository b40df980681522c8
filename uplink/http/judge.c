#include "uplink/http/http.h"

#include <ctype.h>
#include <errno.h>
#include <jansson.h>
#include <string.h>

/* What a status means before its body is looked at. */
enum reply_class {
    CLASS_SUCCESS,
    CLASS_RETRY,
    CLASS_HOLD,
    CLASS_TOO_LARGE,
    CLASS_BAD_DATA, /* one record or more of it is wrong: halves find which */
};

/* Statuses that say "your configuration is wrong": nothing is thrown away for them. */
static const struct {
    int status;
    const char *why;
} holds[] = {
    {401, "the endpoint does not accept the credentials (401): token_file, cert_file"},
    {402, "the endpoint wants to be paid, or its quota is used up (402)"},
    {403, "the endpoint forbids this to us (403): rights of the token or certificate"},
    {404, "there is nothing at that address (404): check url"},
    {405, "the address does not take POST (405): check url"},
    {406, "the endpoint cannot answer in JSON (406): check url"},
    {407, "the proxy wants credentials (407)"},
    {410, "the address was given up (410): check url"},
    {411, "something on the way does not pass the body on (411)"},
    {414, "the address is too long (414): check url"},
    {415, "the endpoint does not take this format or compression (415): format, compress"},
    {417, "something on the way cannot handle the request (417)"},
    {426, "the endpoint wants another protocol (426)"},
    {428, "the endpoint wants conditional requests (428)"},
    {431, "the endpoint finds the headers too large (431): is the token right?"},
    {451, "the address is blocked for legal reasons (451)"},
    {501, "the endpoint does not know this kind of request (501): check url"},
    {511, "the network wants a login first (511): a captive portal"},
};

static const char *hold_words(int status)
{
    for (size_t i = 0; i < ARRAY_SIZE(holds); i++) {
        if (holds[i].status == status) {
            return holds[i].why;
        }
    }
    return NULL;
}

/* nginx answers a missing or foreign client certificate, and plain HTTP on its TLS port, with a
 * page under 400, the status of bad data; a word of its title tells them apart. */
static const char *not_our_data(const struct uplink_reply *reply)
{
    if (reply->status != 400 || reply->len == 0) {
        return NULL;
    }
    if (memmem(reply->body, reply->len, "SSL certificate", 15) != NULL) {
        return "the endpoint wants a client certificate it knows (400): cert_file, key_file";
    }
    if (memmem(reply->body, reply->len, "to HTTPS port", 13) != NULL) {
        return "the endpoint wants https:// (400): check url";
    }
    return NULL;
}

static enum reply_class classify(const struct uplink_reply *reply)
{
    int status = reply->status;
    if (status >= 200 && status < 300) {
        return CLASS_SUCCESS;
    }
    if ((status >= 300 && status < 400) || hold_words(status) != NULL ||
        not_our_data(reply) != NULL) {
        return CLASS_HOLD;
    }
    if (status == 413) {
        return CLASS_TOO_LARGE;
    }
    /* 409 with Retry-After: the same request is being worked on (Idempotency-Key draft, 2.6). */
    if (status == 408 || status == 421 || status == 423 || status == 424 || status == 425 ||
        status == 429 || (status == 409 && reply->retry_after_ms >= 0)) {
        return CLASS_RETRY;
    }
    return status >= 400 && status < 500 ? CLASS_BAD_DATA : CLASS_RETRY;
}

/* The first words of a body that is text, for a technician to recognise who answered. */
static void excerpt(const struct uplink_reply *reply, char *text, size_t size)
{
    size_t n = 0;
    bool blank = true;
    for (size_t i = 0; i < reply->len && n + 1 < size; i++) {
        unsigned char c = (unsigned char)reply->body[i];
        if (c <= ' ' || c == 0x7f) {
            if (!blank) {
                text[n++] = ' ';
            }
            blank = true;
        } else {
            text[n++] = c < 0x80 ? (char)c : '?';
            blank = false;
        }
    }
    text[n] = '\0';
}

static void explain(struct uplink_verdict *verdict, const struct uplink_reply *reply,
                    const char *what)
{
    char body[80];
    excerpt(reply, body, sizeof body);
    snprintf(verdict->why, sizeof verdict->why, body[0] != '\0' ? "%s; it said: %s" : "%s%s", what,
             body);
}

/* The record a `rejected` entry means. -ENOENT: none of ours; -ENOTUNIQ: its seq alone could be
 * several devices'. */
static int find_rejected(const struct batch *batch, const json_t *entry, size_t *ret_record)
{
    const json_t *seq = json_object_get(entry, "seq");
    const char *device = json_string_value(json_object_get(entry, "device"));
    if (!json_is_integer(seq) || json_integer_value(seq) <= 0) {
        return -ENOENT;
    }
    uint64_t wanted = (uint64_t)json_integer_value(seq);
    size_t found = batch->count;
    for (size_t i = 0; i < batch->count; i++) {
        const struct batch_record *r = &batch->records[i];
        if (r->scan->seq != wanted || (device != NULL && strcmp(device, r->names->device) != 0)) {
            continue;
        }
        if (found != batch->count) {
            return -ENOTUNIQ;
        }
        found = i;
    }
    if (found == batch->count) {
        return -ENOENT;
    }
    *ret_record = found;
    return 0;
}

static void keep_rejected(struct uplink_verdict *verdict, size_t record, const json_t *entry)
{
    for (size_t i = 0; i < verdict->rejected_count; i++) {
        if (verdict->rejected[i].record == record) {
            return;
        }
    }
    const char *reason = json_string_value(json_object_get(entry, "reason"));
    struct uplink_rejected *to = &verdict->rejected[verdict->rejected_count++];
    to->record = record;
    snprintf(to->why, sizeof to->why, "%s", reason != NULL ? reason : "refused without a reason");
}

/* Fills verdict->rejected from the body's list; 0 when every entry is one record of ours. */
static int read_rejected(const struct batch *batch, const json_t *list,
                         struct uplink_verdict *verdict)
{
    size_t count = json_array_size(list);
    if (count == 0) {
        return 0;
    }
    if (count > batch->count) {
        return -ENOENT;
    }
    verdict->rejected = calloc(count, sizeof *verdict->rejected);
    if (verdict->rejected == NULL) {
        return -ENOMEM;
    }
    for (size_t i = 0; i < count; i++) {
        size_t record;
        int r = find_rejected(batch, json_array_get(list, i), &record);
        if (r < 0) {
            return r;
        }
        keep_rejected(verdict, record, json_array_get(list, i));
    }
    return 0;
}

static void forget_rejected(struct uplink_verdict *verdict)
{
    free(verdict->rejected);
    verdict->rejected = NULL;
    verdict->rejected_count = 0;
}

/* Whether `accepted` (which may be missing beside a list) and the list make up the batch. */
static bool accounts(const struct batch *batch, const json_t *accepted, size_t rejected)
{
    if (accepted == NULL) {
        return rejected > 0;
    }
    uint64_t n = json_is_integer(accepted) && json_integer_value(accepted) >= 0
                     ? (uint64_t)json_integer_value(accepted)
                     : UINT64_MAX;
    return n == batch->count || n == batch->count - rejected;
}

/* Looks for {"accepted":N} and {"rejected":[...]}. True: the verdict is made. */
static bool judge_body(const struct batch *batch, const json_t *body, bool success,
                       struct uplink_verdict *verdict)
{
    const json_t *accepted = json_object_get(body, "accepted");
    const json_t *list = json_object_get(body, "rejected");
    if (accepted == NULL && !json_is_array(list)) {
        return false;
    }
    int r = read_rejected(batch, list, verdict);
    /* Beside an error status the rest counts as taken only when it is said so. */
    if (r == 0 && (success || accepted != NULL) &&
        accounts(batch, accepted, verdict->rejected_count)) {
        verdict->outcome = UPLINK_DELIVERED;
        if (verdict->rejected_count > 0) {
            snprintf(verdict->why, sizeof verdict->why, "refused %zu of %zu records: %s",
                     verdict->rejected_count, batch->count, verdict->rejected[0].why);
        }
        return true;
    }
    forget_rejected(verdict);
    if (r == -ENOTUNIQ) {
        verdict->outcome = UPLINK_SPLIT;
        snprintf(verdict->why, sizeof verdict->why,
                 "refused records by seq alone, which several devices have: asking in halves");
        return true;
    }
    return false;
}

static void judge_success(const struct http_settings *settings, const struct batch *batch,
                          const struct uplink_reply *reply, bool truncated,
                          struct uplink_verdict *verdict)
{
    json_t *body = truncated ? NULL : json_loadb(reply->body, reply->len, 0, NULL);
    bool done = judge_body(batch, body, true, verdict);
    const json_t *accepted = json_object_get(body, "accepted");
    if (done) {
        /* judged */
    } else if (settings->ack == HTTP_ACK_STATUS) {
        verdict->outcome = UPLINK_DELIVERED;
    } else {
        char what[120];
        if (json_is_integer(accepted)) {
            snprintf(what, sizeof what, "answered %d, but accounted for %lld of %zu records",
                     reply->status, (long long)json_integer_value(accepted), batch->count);
        } else {
            snprintf(what, sizeof what,
                     "answered %d but did not account for the batch: a captive portal?",
                     reply->status);
        }
        verdict->outcome = UPLINK_RETRY;
        explain(verdict, reply, what);
    }
    json_decref(body);
}

static void judge_bad_data(const struct batch *batch, const struct uplink_reply *reply,
                           struct uplink_verdict *verdict)
{
    json_t *body = json_loadb(reply->body, reply->len, 0, NULL);
    if (!judge_body(batch, body, false, verdict)) {
        char what[60];
        snprintf(what, sizeof what, "the endpoint refuses the data (%d)", reply->status);
        verdict->outcome = batch->count > 1 ? UPLINK_SPLIT : UPLINK_REJECTED;
        explain(verdict, reply, what);
    }
    json_decref(body);
}

static void judge_retry(const struct uplink_reply *reply, struct uplink_verdict *verdict)
{
    char what[80];
    const char *kind = reply->status == 429                          ? "asks us to slow down"
                       : reply->status == 408                        ? "waited too long for us"
                       : reply->status >= 500 && reply->status < 600 ? "is in trouble"
                                                                     : "cannot take it now";
    snprintf(what, sizeof what, "the endpoint %s (%d)", kind, reply->status);
    verdict->outcome = UPLINK_RETRY;
    explain(verdict, reply, what);
}

void http_judge(const void *settings, const struct batch *batch, const struct uplink_reply *reply,
                struct uplink_verdict *ret_verdict)
{
    struct uplink_verdict verdict = {.outcome = UPLINK_RETRY,
                                     .retry_after_ms = reply->retry_after_ms};
    if (reply->status == 0) {
        snprintf(verdict.why, sizeof verdict.why, "%s", reply->error);
        *ret_verdict = verdict;
        return;
    }
    switch (classify(reply)) {
    case CLASS_SUCCESS:
        judge_success(settings, batch, reply, reply->len >= TRANSPORT_BODY_MAX, &verdict);
        break;
    case CLASS_TOO_LARGE:
        verdict.outcome = UPLINK_SPLIT;
        explain(&verdict, reply, "the endpoint finds the request too large (413)");
        break;
    case CLASS_HOLD:
        verdict.outcome = UPLINK_HOLD;
        if (reply->status < 400) {
            snprintf(verdict.why, sizeof verdict.why,
                     "the endpoint sends us elsewhere (%d), which is not followed: check url",
                     reply->status);
        } else {
            const char *words = not_our_data(reply);
            explain(&verdict, reply, words != NULL ? words : hold_words(reply->status));
        }
        break;
    case CLASS_BAD_DATA:
        judge_bad_data(batch, reply, &verdict);
        break;
    case CLASS_RETRY:
        judge_retry(reply, &verdict);
        break;
    }
    *ret_verdict = verdict;
}
