#include "uplink/sqs/sqs.h"

#include "uplink/record.h"
#include "uplink/transport/keys.h"
#include "uplink/verdict.h"

#include <errno.h>

static const struct config_key keys[] = {
    AWS_CONFIG_KEYS(struct sqs_settings, aws),
    {
        .name = "queue_url",
        .type = CONFIG_URL,
        .offset = offsetof(struct sqs_settings, queue_url),
        .required = true,
        .example = "https://sqs.eu-west-1.amazonaws.com/123456789012/readings",
        .help = "URL of the queue",
    },
    TRANSPORT_TLS_KEYS(struct sqs_settings, aws.transport),
    TRANSPORT_LINE_KEYS(struct sqs_settings, aws.transport),
};

static void check(const void *settings, struct config_errors *errors)
{
    aws_settings_check(&((const struct sqs_settings *)settings)->aws, errors);
}

const struct config_table sqs_config_table = {
    .section = "uplink",
    .variant = "sqs",
    .size = sizeof(struct sqs_settings),
    .keys = keys,
    .key_count = ARRAY_SIZE(keys),
    .check = check,
};

const struct aws_service sqs_service = {.signing_name = "sqs", .host = "sqs"};

static int create(const void *settings, const char *gateway, size_t parallel, void **ret_state)
{
    return aws_transport_create(&sqs_service, &((const struct sqs_settings *)settings)->aws,
                                gateway, parallel, ret_state);
}

static const struct transport transport_sqs = AWS_TRANSPORT("sqs", create);

static bool is_fifo(const char *url)
{
    size_t len = strlen(url);
    return len >= 5 && strcmp(url + len - 5, ".fifo") == 0;
}

/* A hash of what may be longer than the 128 characters of a deduplication id. */
static uint64_t hash_of(const char *text)
{
    uint64_t hash = 0xcbf29ce484222325u; /* 64-bit FNV-1a */
    for (; *text != '\0'; text++) {
        hash = (hash ^ (uint8_t)*text) * 0x100000001b3u;
    }
    return hash;
}

/* Bytes of the character at `at` (UTF-8) when it must be escaped, 0: it may stand as it is. */
static size_t escaped_len(const uint8_t *at, size_t left)
{
    if (at[0] >= 0xf0 && left >= 4) {
        return 4; /* beyond U+FFFF */
    }
    return left >= 3 && at[0] == 0xef && at[1] == 0xbf && at[2] >= 0xbe ? 3 : 0;
}

/* SQS refuses a message with U+FFFE or U+FFFF in it, and others that speak its protocol all beyond;
 * escaped they say the same in JSON. */
static void add_message(struct buffer *out, const struct buffer *text)
{
    size_t from = 0;
    for (size_t i = 0; i < text->len; i++) {
        const uint8_t *at = text->data + i;
        size_t len = escaped_len(at, text->len - i);
        if (len == 0) {
            continue;
        }
        buffer_add(out, text->data + from, i - from);
        if (len == 3) {
            buffer_printf(out, "\\uff%02x", at[2] == 0xbe ? 0xfeu : 0xffu);
        } else {
            unsigned code = (at[0] & 7u) << 18 | (at[1] & 0x3fu) << 12 | (at[2] & 0x3fu) << 6 |
                            (at[3] & 0x3fu);
            code -= 0x10000;
            buffer_printf(out, "\\u%04x\\u%04x", 0xd800 | code >> 10, 0xdc00 | (code & 0x3ff));
        }
        from = i + len;
        i = from - 1;
    }
    buffer_add(out, text->data + from, text->len - from);
}

static void add_entry(struct buffer *out, const struct batch *batch, size_t i,
                      const struct buffer *message, bool fifo)
{
    const struct batch_record *record = &batch->records[i];
    buffer_printf(out, "%s{\"Id\":\"%zu\",\"MessageBody\":", i > 0 ? "," : "", i);
    json_write_string(out, (const char *)message->data, message->len);
    if (fifo) {
        uint64_t device = hash_of(record->names->device);
        buffer_printf(
            out,
            ",\"MessageGroupId\":\"%016llx\",\"MessageDeduplicationId\":\"%.40s.%s.%016llx"
            ".%llu\"",
            (unsigned long long)device, batch->store_id, stream_name(batch->stream),
            (unsigned long long)device, (unsigned long long)record->scan->seq);
    }
    out_literal(out, "}");
}

static int add_entries(const struct batch *batch, bool fifo, struct buffer *out)
{
    struct record_writer writer = {0};
    auto_buffer struct buffer origin = {0}, record = {0}, message = {0};
    record_write_origin(&origin, batch);
    size_t total = 0;
    int r = buffer_failed(&origin) ? -ENOMEM : 0;
    for (size_t i = 0; i < batch->count && r == 0; i++) {
        buffer_clear(&record);
        buffer_clear(&message);
        r = record_write(&record, &writer, (const char *)origin.data, origin.len,
                         &batch->records[i]);
        add_message(&message, &record);
        total += message.len;
        if (r == 0 &&
            (buffer_failed(&record) || buffer_failed(&message) || total > SQS_MESSAGES_MAX)) {
            r = -E2BIG;
        }
        if (r == 0) {
            add_entry(out, batch, i, &message, fifo);
        }
    }
    record_writer_finish(&writer);
    return r;
}

static int encode(const void *settings, const struct batch *batch, struct uplink_request *request)
{
    const struct sqs_settings *s = settings;
    struct buffer *out = &request->body;
    aws_begin_request(request, SQS_REQUEST_MAX, "X-Amz-Target: AmazonSQS.SendMessageBatch",
                      "application/x-amz-json-1.0");
    out_literal(out, "{\"QueueUrl\":");
    json_write_string(out, s->queue_url, strlen(s->queue_url));
    out_literal(out, ",\"Entries\":[");
    int r = add_entries(batch, is_fifo(s->queue_url), out);
    out_literal(out, "]}");
    if (r < 0 || buffer_failed(&request->headers)) {
        return r < 0 ? r : -ENOMEM;
    }
    return buffer_failed(out) ? -E2BIG : 0;
}

/* The entry of that list whose Id is the record's place, NULL: none. */
static const json_t *entry_of(const json_t *list, size_t record)
{
    char id[24];
    snprintf(id, sizeof id, "%zu", record);
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *entry = json_array_get(list, i);
        const char *given = json_string_value(json_object_get(entry, "Id"));
        if (given != NULL && strcmp(given, id) == 0) {
            return entry;
        }
    }
    return NULL;
}

/* 200 with {"Successful":[{"Id":"0"}],"Failed":[{"Id":"1","SenderFault":true,"Code":"..."}]}.
 * False: it is nothing of the kind. */
static bool judge_entries(const struct batch *batch, const json_t *body,
                          struct uplink_verdict *verdict)
{
    const json_t *good = json_object_get(body, "Successful"),
                 *failed = json_object_get(body, "Failed");
    if (!json_is_array(good) && !json_is_array(failed)) {
        return false;
    }
    for (size_t i = 0; i < batch->count; i++) {
        const json_t *entry = entry_of(failed, i);
        if (entry == NULL && entry_of(good, i) != NULL) {
            continue;
        }
        const char *why = json_string_value(json_object_get(entry, "Message"));
        why = why != NULL ? why : json_string_value(json_object_get(entry, "Code"));
        why = why != NULL ? why : "no word about it";
        bool ours = json_is_true(json_object_get(entry, "SenderFault"));
        int r = ours ? verdict_reject(verdict, batch, i, why, strlen(why))
                     : verdict_put_off(verdict, batch, i, why, strlen(why));
        if (r < 0) {
            verdict_forget(verdict);
            return false;
        }
    }
    verdict_delivered(verdict, batch);
    return true;
}

static void judge(const void *settings, const struct batch *batch, const struct uplink_reply *reply,
                  struct uplink_verdict *ret_verdict)
{
    const struct sqs_settings *s = settings;
    aws_judge(&s->aws, batch, reply, judge_entries, ret_verdict);
}

const struct uplink uplink_sqs = {
    .name = "sqs",
    .table = &sqs_config_table,
    .max_records = SQS_ENTRIES_MAX,
    .max_bytes = SQS_MESSAGES_MAX,
    .encode = encode,
    .judge = judge,
    .transport = &transport_sqs,
    .probe = &sqs_probe,
};
