#include "uplink/timestream/timestream.h"
#include "uplink/verdict.h"

#include <string.h>

/* The record whose part has that index in the request; batch->count: none. */
static size_t record_of(const struct batch *batch, size_t index)
{
    for (size_t i = 0; i < batch->count; i++) {
        size_t parts = timestream_parts(batch, &batch->records[i]);
        if (index < parts) {
            return i;
        }
        index -= parts;
    }
    return batch->count;
}

/* {"RejectedRecords":[{"RecordIndex":3,"Reason":"..."}]}, indexes from 0: all others were written.
 * Too old for the table is one of the reasons: no repetition mends it. False: it does not say. */
static bool judge_rejected(const struct batch *batch, const json_t *body,
                           struct uplink_verdict *verdict)
{
    const json_t *list = json_object_get(body, "RejectedRecords");
    size_t count = json_array_size(list);
    if (count == 0 || count > TIMESTREAM_RECORDS_MAX) {
        return false;
    }
    for (size_t i = 0; i < count; i++) {
        const json_t *entry = json_array_get(list, i);
        const json_t *index = json_object_get(entry, "RecordIndex");
        const char *why = json_string_value(json_object_get(entry, "Reason"));
        json_int_t at = json_is_integer(index) ? json_integer_value(index) : -1;
        size_t record = at < 0 ? batch->count : record_of(batch, (size_t)at);
        why = why != NULL ? why : "rejected without a reason";
        if (record == batch->count ||
            verdict_reject(verdict, batch, record, why, strlen(why)) < 0) {
            verdict_forget(verdict);
            return false;
        }
    }
    verdict_delivered(verdict, batch);
    return true;
}

static size_t all_parts(const struct batch *batch)
{
    size_t parts = 0;
    for (size_t i = 0; i < batch->count; i++) {
        parts += timestream_parts(batch, &batch->records[i]);
    }
    return parts;
}

static void judge_success(const struct batch *batch, const struct uplink_reply *reply,
                          const json_t *body, struct uplink_verdict *verdict)
{
    const json_t *total = json_object_get(json_object_get(body, "RecordsIngested"), "Total");
    if (reply->status == 200 && json_is_integer(total) &&
        json_integer_value(total) == (json_int_t)all_parts(batch)) {
        verdict_delivered(verdict, batch);
        return;
    }
    char what[100];
    snprintf(what, sizeof what,
             "answered %d but did not account for the records: a captive portal?", reply->status);
    verdict_say(verdict, UPLINK_RETRY, reply, what);
}

void timestream_judge(const void *settings, const struct batch *batch,
                      const struct uplink_reply *reply, struct uplink_verdict *ret_verdict)
{
    const struct timestream_settings *s = settings;
    json_t *body = NULL;
    enum verdict_class class_of = aws_verdict(&s->aws, reply, ret_verdict, &body);
    if (class_of == VERDICT_SUCCESS) {
        judge_success(batch, reply, body, ret_verdict);
    } else if (class_of == VERDICT_BAD_DATA) {
        bool partial = reply->status == 419 || aws_error_is(body, "RejectedRecordsException");
        if (!partial || !judge_rejected(batch, body, ret_verdict)) {
            verdict_bad_data(batch, reply, ret_verdict);
        }
    }
    json_decref(body);
}
