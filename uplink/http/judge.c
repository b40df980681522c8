#include "uplink/http/http.h"
#include "uplink/verdict.h"

#include <errno.h>
#include <jansson.h>
#include <string.h>

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

static int keep_rejected(struct uplink_verdict *verdict, const struct batch *batch, size_t record,
                         const json_t *entry)
{
    const char *reason = json_string_value(json_object_get(entry, "reason"));
    reason = reason != NULL ? reason : "refused without a reason";
    return verdict_reject(verdict, batch, record, reason, strlen(reason));
}

/* Fills verdict->rejected from the body's list; 0 when every entry is one record of ours. */
static int read_rejected(const struct batch *batch, const json_t *list,
                         struct uplink_verdict *verdict)
{
    size_t count = json_array_size(list);
    if (count > batch->count) {
        return -ENOENT;
    }
    for (size_t i = 0; i < count; i++) {
        size_t record;
        const json_t *entry = json_array_get(list, i);
        int r = find_rejected(batch, entry, &record);
        r = r < 0 ? r : keep_rejected(verdict, batch, record, entry);
        if (r < 0) {
            return r;
        }
    }
    return 0;
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
        verdict_delivered(verdict, batch);
        return true;
    }
    verdict_forget(verdict);
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
        if (truncated) {
            snprintf(what, sizeof what, "answered %d with more than %d KiB, no acknowledgement",
                     reply->status, TRANSPORT_BODY_MAX / 1024);
        } else if (json_is_integer(accepted)) {
            snprintf(what, sizeof what, "answered %d, but accounted for %lld of %zu records",
                     reply->status, (long long)json_integer_value(accepted), batch->count);
        } else {
            snprintf(what, sizeof what,
                     "answered %d but did not account for the batch: a captive portal?",
                     reply->status);
        }
        verdict_say(verdict, UPLINK_RETRY, reply, what);
    }
    json_decref(body);
}

void http_judge(const void *settings, const struct batch *batch, const struct uplink_reply *reply,
                struct uplink_verdict *ret_verdict)
{
    enum verdict_class class_of = verdict_by_status(reply, ret_verdict);
    if (class_of == VERDICT_SUCCESS) {
        judge_success(settings, batch, reply, reply->len >= TRANSPORT_BODY_MAX, ret_verdict);
    } else if (class_of == VERDICT_BAD_DATA) {
        json_t *body = json_loadb(reply->body, reply->len, 0, NULL);
        if (!judge_body(batch, body, false, ret_verdict)) {
            verdict_bad_data(batch, reply, ret_verdict);
        }
        json_decref(body);
    }
}
