#include "uplink/dynamodb/dynamodb.h"
#include "uplink/verdict.h"

#include <string.h>

static bool at(struct dynamodb_place a, struct dynamodb_place b)
{
    return a.record == b.record && a.reading == b.reading;
}

static int put_off(struct uplink_verdict *verdict, const struct batch *batch,
                   struct dynamodb_place from, struct dynamodb_place end, const char *why)
{
    int r = 0;
    for (; !at(from, end) && r == 0; from = dynamodb_next(batch, from)) {
        r = verdict_put_off(verdict, batch, from.record, why, strlen(why));
    }
    return r;
}

static const char *key_of(const json_t *put, const char *name, const char *type)
{
    const json_t *item = json_object_get(json_object_get(put, "PutRequest"), "Item");
    return json_string_value(json_object_get(json_object_get(item, name), type));
}

/* Whether that item is among the unprocessed ones. A number may come back written in another way,
 * so the sort key is compared by value. */
static bool is_among(const struct dynamodb_settings *s, const struct batch *batch,
                     struct dynamodb_place place, const json_t *list)
{
    auto_buffer struct buffer key = {0};
    dynamodb_write_partition(s, batch, place, &key);
    const char *own = buffer_text(&key);
    int64_t time_ms = batch->records[place.record].scan->time_ms;
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *put = json_array_get(list, i);
        const char *partition = key_of(put, s->partition_key, "S");
        const char *sort = key_of(put, s->sort_key, "N");
        if (own == NULL || partition == NULL || sort == NULL) {
            return true; /* not to be known: rather once more */
        }
        double off_ms = strtod(sort, NULL) * 1000 - (double)time_ms;
        if (strcmp(own, partition) == 0 && off_ms > -0.5 && off_ms < 0.5) {
            return true;
        }
    }
    return false;
}

/* Whether all that is unprocessed stands in one list under our table's name. Another name may be
 * another form of the same (an ARN). */
static bool is_plain(const json_t *unprocessed, const char *table)
{
    const char *name;
    json_t *list;
    json_object_foreach((json_t *)unprocessed, name, list)
    {
        if (!json_is_array(list) || (strcmp(name, table) != 0 && json_array_size(list) > 0)) {
            return false;
        }
    }
    return true;
}

/* The reply to one chunk: {"UnprocessedItems":{"TABLE":[{"PutRequest":...}]}} under 200. What names
 * an item that is none of the chunk's might mean any of them: all go once more. */
static int judge_chunk(const struct dynamodb_settings *s, const struct batch *batch,
                       struct dynamodb_place from, struct dynamodb_place end, const json_t *reply,
                       struct uplink_verdict *verdict)
{
    const json_t *unprocessed = json_object_get(reply, "UnprocessedItems");
    if (!json_is_object(unprocessed)) {
        return put_off(verdict, batch, from, end, "no word about the items: a captive portal?");
    }
    const json_t *list = json_object_get(unprocessed, s->table);
    static const char words[] = "unprocessed items";
    if (!is_plain(unprocessed, s->table)) {
        return put_off(verdict, batch, from, end, words);
    }
    size_t count = json_array_size(list), found = 0;
    int r = 0;
    for (struct dynamodb_place p = from; !at(p, end) && r == 0 && count > 0;
         p = dynamodb_next(batch, p)) {
        if (is_among(s, batch, p, list)) {
            r = verdict_put_off(verdict, batch, p.record, words, sizeof words - 1);
            found++;
        }
    }
    return r < 0 || found >= count ? r : put_off(verdict, batch, from, end, words);
}

/* What a table says whose keys are called otherwise than ours or are of another type: no item would
 * ever fit, so it is no fault of the items. */
static bool has_other_keys(const json_t *body)
{
    static const char *const words[] = {"does not match the schema", "Type mismatch for key",
                                        "Missing the key", "required keys was not given a value"};
    if (!aws_error_is(body, "ValidationException")) {
        return false;
    }
    const char *message = aws_error_message(body);
    for (size_t i = 0; i < ARRAY_SIZE(words); i++) {
        if (strstr(message, words[i]) != NULL) {
            return true;
        }
    }
    return false;
}

/* The last entry when a chunk failed after others had been taken. True: the verdict is made. */
static bool judge_failure(const struct dynamodb_settings *s, const struct batch *batch,
                          const json_t *entry, struct uplink_verdict *verdict, char *words,
                          size_t size)
{
    const char *said = json_string_value(json_object_get(entry, "body"));
    said = said != NULL ? said : "";
    struct uplink_reply reply = {
        .status = (int)json_integer_value(json_object_get(entry, "failed")),
        .body = said,
        .len = strlen(said),
        .content_type = "",
        .retry_after_ms = verdict->retry_after_ms,
        .error = said};
    struct uplink_verdict of_chunk;
    json_t *body = NULL;
    enum verdict_class class_of = aws_verdict(&s->aws, &reply, &of_chunk, &body);
    json_decref(body);
    if (class_of == VERDICT_BAD_DATA) {
        verdict_bad_data(batch, &reply, &of_chunk);
        if (batch->count == 1) {
            verdict_forget(verdict);
            *verdict = of_chunk; /* its begin was taken; the whole of it is refused */
            return true;
        }
    }
    snprintf(words, size, "%s", of_chunk.why);
    return false;
}

static void judge_replies(const struct dynamodb_settings *s, const struct batch *batch,
                          const json_t *replies, struct uplink_verdict *verdict)
{
    struct dynamodb_place from = {0};
    size_t i = 0;
    int r = 0;
    char words[sizeof verdict->why] = "was not asked";
    for (; i < json_array_size(replies) && !dynamodb_at_end(batch, from) && r == 0; i++) {
        const json_t *entry = json_array_get(replies, i);
        if (json_object_get(entry, "failed") != NULL) {
            if (judge_failure(s, batch, entry, verdict, words, sizeof words)) {
                return;
            }
            break;
        }
        struct dynamodb_place end = dynamodb_chunk_end(batch, from);
        r = judge_chunk(s, batch, from, end, entry, verdict);
        from = end;
    }
    struct dynamodb_place end = {.record = batch->count};
    r = r < 0 ? r : put_off(verdict, batch, from, end, words);
    if (r < 0) {
        verdict_forget(verdict);
        snprintf(verdict->why, sizeof verdict->why, "reading the reply: %s", strerror(-r));
        return;
    }
    verdict_delivered(verdict, batch);
}

void dynamodb_judge(const void *settings, const struct batch *batch,
                    const struct uplink_reply *reply, struct uplink_verdict *ret_verdict)
{
    const struct dynamodb_settings *s = settings;
    json_t *body = NULL;
    enum verdict_class class_of = aws_verdict(&s->aws, reply, ret_verdict, &body);
    if (class_of == VERDICT_BAD_DATA && has_other_keys(body)) {
        verdict_say(ret_verdict, UPLINK_HOLD, reply,
                    "the table's keys are not those of partition_key (S) and sort_key (N)");
    } else if (class_of == VERDICT_BAD_DATA) {
        verdict_bad_data(batch, reply, ret_verdict);
    } else if (class_of == VERDICT_SUCCESS && json_array_size(body) > 0) {
        judge_replies(s, batch, body, ret_verdict);
    } else if (class_of == VERDICT_SUCCESS) {
        verdict_say(ret_verdict, UPLINK_RETRY, reply,
                    "the reply does not account for the items: a captive portal?");
    }
    json_decref(body);
}
