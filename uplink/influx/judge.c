#include "uplink/influx/influx.h"
#include "uplink/verdict.h"

#include <jansson.h>
#include <string.h>

/* InfluxDB 3 and its hosted editions name at most this many lines of a partial write. */
enum { LINES_NAMED_MAX = 100 };

/* v3: {"error":"partial write of line protocol occurred","data":[{"line_number":2,
 * "error_message":"..."}]}, lines from 1; all lines that are not named were kept. True: the verdict
 * is made. */
static bool judge_lines(const struct batch *batch, const json_t *body,
                        struct uplink_verdict *verdict)
{
    const char *error = json_string_value(json_object_get(body, "error"));
    const json_t *data = json_object_get(body, "data");
    size_t count = json_array_size(data);
    if (error == NULL || strstr(error, "partial write") == NULL || count == 0 ||
        count >= LINES_NAMED_MAX) {
        return false;
    }
    for (size_t i = 0; i < count; i++) {
        const json_t *entry = json_array_get(data, i);
        const json_t *number = json_object_get(entry, "line_number");
        json_int_t line = json_is_integer(number) ? json_integer_value(number) : 0;
        const char *why = json_string_value(json_object_get(entry, "error_message"));
        why = why != NULL ? why : "refused without a reason";
        if (line < 1 || (uint64_t)line > batch->count ||
            verdict_reject(verdict, batch, (size_t)line - 1, why, strlen(why)) < 0) {
            verdict_forget(verdict);
            return false;
        }
    }
    verdict_delivered(verdict, batch);
    return true;
}

/* v1 and v2: "partial write: <the first reason> dropped=N". Which points were dropped is not said,
 * so halves find them (what was kept is overwritten by itself), unless it is all of them. A server
 * counts by shard: less than all may still be all, more cannot be. */
static bool dropped_all(const struct batch *batch, const struct uplink_reply *reply)
{
    const char *partial = strstr(reply->body, "partial write:");
    const char *dropped = partial != NULL ? strstr(partial, "dropped=") : NULL;
    return dropped != NULL && strtoull(dropped + strlen("dropped="), NULL, 10) == batch->count;
}

/* Faults of the request as a whole, under the status of bad data. */
static const char *hold_words(const struct uplink_reply *reply)
{
    static const struct {
        const char *said, *why;
    } words[] = {
        {"database is required", "the endpoint misses the database: db, version"},
        {"database not found", "the endpoint has no such database: db"},
        {"bucket not found", "the endpoint has no such bucket: bucket"},
        {"organization not found", "the endpoint has no such organisation: org"},
        {"retention policy not found", "the endpoint's database has no such retention policy: db"},
        {"invalid precision", "the endpoint is of another edition: version"},
        {"unable to decode gzip", "the endpoint cannot unpack the request: compress"},
    };
    for (size_t i = 0; i < ARRAY_SIZE(words); i++) {
        if (strstr(reply->body, words[i].said) != NULL) {
            return words[i].why;
        }
    }
    return NULL;
}

static void judge_bad_data(const struct influx_settings *settings, const struct batch *batch,
                           const struct uplink_reply *reply, struct uplink_verdict *verdict)
{
    const char *hold = hold_words(reply);
    if (hold != NULL) {
        verdict_say(verdict, UPLINK_HOLD, reply, hold);
        return;
    }
    if (settings->version == INFLUX_V3) {
        json_t *body = json_loadb(reply->body, reply->len, 0, NULL);
        bool done = judge_lines(batch, body, verdict);
        json_decref(body);
        if (done) {
            return;
        }
    }
    if (settings->version != INFLUX_V3 && dropped_all(batch, reply)) {
        verdict_say(verdict, UPLINK_REJECTED, reply, "the endpoint refuses the data");
    } else {
        verdict_bad_data(batch, reply, verdict);
    }
}

void influx_judge(const void *settings, const struct batch *batch, const struct uplink_reply *reply,
                  struct uplink_verdict *ret_verdict)
{
    enum verdict_class class_of = verdict_by_status(reply, ret_verdict);
    if (class_of == VERDICT_BAD_DATA) {
        judge_bad_data(settings, batch, reply, ret_verdict);
    } else if (class_of == VERDICT_SUCCESS && reply->status == 204) {
        verdict_delivered(ret_verdict, batch);
    } else if (class_of == VERDICT_SUCCESS && reply->status == 201) {
        /* Clustered editions: some points were refused. */
        verdict_bad_data(batch, reply, ret_verdict);
    } else if (class_of == VERDICT_SUCCESS) {
        /* 200 is how v1 says "understood, but not done", and how captive portals greet. */
        char what[80];
        snprintf(what, sizeof what, "answered %d, but a write is answered 204: a captive portal?",
                 reply->status);
        verdict_say(ret_verdict, UPLINK_RETRY, reply, what);
    }
}
