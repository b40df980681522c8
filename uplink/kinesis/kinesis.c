#include "uplink/kinesis/kinesis.h"

#include "uplink/record.h"
#include "uplink/transport/keys.h"
#include "uplink/verdict.h"

#include <errno.h>
#include <openssl/evp.h>

static const struct config_key keys[] = {
    AWS_CONFIG_KEYS(struct kinesis_settings, aws),
    {
        .name = "stream",
        .type = CONFIG_TEXT,
        .offset = offsetof(struct kinesis_settings, stream_name),
        .required = true,
        .example = "readings",
        .help = "name of the data stream",
    },
    TRANSPORT_TLS_KEYS(struct kinesis_settings, aws.transport),
    TRANSPORT_LINE_KEYS(struct kinesis_settings, aws.transport),
};

static void check(const void *settings, struct config_errors *errors)
{
    aws_settings_check(&((const struct kinesis_settings *)settings)->aws, errors);
}

const struct config_table kinesis_config_table = {
    .section = "uplink",
    .variant = "kinesis",
    .size = sizeof(struct kinesis_settings),
    .keys = keys,
    .key_count = ARRAY_SIZE(keys),
    .check = check,
};

const struct aws_service kinesis_service = {.signing_name = "kinesis", .host = "kinesis"};

static int create(const void *settings, const char *gateway, size_t parallel, void **ret_state)
{
    return aws_transport_create(&kinesis_service, &((const struct kinesis_settings *)settings)->aws,
                                gateway, parallel, ret_state);
}

static const struct transport transport_kinesis = AWS_TRANSPORT("kinesis", create);

static void add_base64(struct buffer *out, const struct buffer *data)
{
    uint8_t *at = buffer_reserve(out, data->len * 4 / 3 + 8);
    if (at != NULL) {
        out->len += (size_t)EVP_EncodeBlock(at, data->data, (int)data->len);
    }
}

/* A device's name may be longer than a partition key; its end is dropped, and then some devices
 * share a shard, which is all that it means. */
static void add_partition_key(struct buffer *out, const char *device)
{
    size_t len = strlen(device);
    json_write_string(out, device, len < 60 ? len : 60);
}

static int add_records(const struct batch *batch, struct buffer *out)
{
    struct record_writer writer = {0};
    auto_buffer struct buffer origin = {0}, data = {0};
    record_write_origin(&origin, batch);
    size_t total = 0;
    int r = buffer_failed(&origin) ? -ENOMEM : 0;
    for (size_t i = 0; i < batch->count && r == 0; i++) {
        buffer_clear(&data);
        r = record_write(&data, &writer, (const char *)origin.data, origin.len, &batch->records[i]);
        total += data.len + 60;
        if (r == 0 && (buffer_failed(&data) || data.len > KINESIS_RECORD_MAX - 256 ||
                       total > KINESIS_REQUEST_MAX)) {
            r = -E2BIG;
        }
        if (r == 0) {
            buffer_add_text(out, i > 0 ? ",{\"Data\":\"" : "{\"Data\":\"");
            add_base64(out, &data);
            out_literal(out, "\",\"PartitionKey\":");
            add_partition_key(out, batch->records[i].names->device);
            out_literal(out, "}");
        }
    }
    record_writer_finish(&writer);
    return r;
}

static int encode(const void *settings, const struct batch *batch, struct uplink_request *request)
{
    const struct kinesis_settings *s = settings;
    struct buffer *out = &request->body;
    aws_begin_request(request, 2 * KINESIS_REQUEST_MAX, "X-Amz-Target: Kinesis_20131202.PutRecords",
                      "application/x-amz-json-1.1");
    out_literal(out, "{\"StreamName\":");
    json_write_string(out, s->stream_name, strlen(s->stream_name));
    out_literal(out, ",\"Records\":[");
    int r = add_records(batch, out);
    out_literal(out, "]}");
    if (r < 0 || buffer_failed(&request->headers)) {
        return r < 0 ? r : -ENOMEM;
    }
    return buffer_failed(out) ? -E2BIG : 0;
}

/* 200 with {"FailedRecordCount":1,"Records":[{"SequenceNumber":...},{"ErrorCode":...}]}: one entry
 * a record, in order. False: it does not account for the batch. */
static bool judge_entries(const struct batch *batch, const json_t *body,
                          struct uplink_verdict *verdict)
{
    const json_t *list = json_object_get(body, "Records");
    if (json_array_size(list) != batch->count) {
        return false;
    }
    for (size_t i = 0; i < batch->count; i++) {
        const json_t *entry = json_array_get(list, i);
        const char *code = json_string_value(json_object_get(entry, "ErrorCode"));
        bool kept = code == NULL && json_is_string(json_object_get(entry, "SequenceNumber"));
        code = code != NULL ? code : "no word about it";
        if (!kept && verdict_put_off(verdict, batch, i, code, strlen(code)) < 0) {
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
    const struct kinesis_settings *s = settings;
    aws_judge(&s->aws, batch, reply, judge_entries, ret_verdict);
}

const struct uplink uplink_kinesis = {
    .name = "kinesis",
    .table = &kinesis_config_table,
    .max_records = KINESIS_RECORDS_MAX,
    .max_bytes = KINESIS_REQUEST_MAX,
    .encode = encode,
    .judge = judge,
    .transport = &transport_kinesis,
    .probe = &kinesis_probe,
};
