#include "uplink/http/http.h"

#include "uplink/transport/keys.h"

#include <errno.h>

#define KEY(field) offsetof(struct http_settings, field)

static const char *const format_choices[] = {"batch", "columns", "telemetry", "flat", NULL};
static const char *const ack_choices[] = {"body", "status", NULL};

static const struct config_key keys[] = {
    {
        .name = "url",
        .type = CONFIG_URL,
        .offset = KEY(transport.url),
        .required = true,
        .example = "https://ingest.example.com/v1/readings",
        .help = "where requests go; plain http for loopback addresses only",
    },
    {
        .name = "format",
        .type = CONFIG_CHOICE,
        .offset = KEY(format),
        .fallback = "batch",
        .choices = format_choices,
        .help = "how a request looks; flat is one request a scan",
    },
    {
        .name = "ack",
        .type = CONFIG_CHOICE,
        .offset = KEY(ack),
        .fallback = "body",
        .choices = ack_choices,
        .help = "what counts as delivered: {\"accepted\":N} in the body, or any 2xx",
    },
    TRANSPORT_CONFIG_KEYS(struct http_settings, transport),
};

static void check(const void *settings, struct config_errors *errors)
{
    const struct http_settings *s = settings;
    transport_settings_check(&s->transport, errors);
    if (s->ack == HTTP_ACK_STATUS) {
        config_warn(errors, "ack", "with ack = status a captive portal's 200 counts as delivered");
    }
}

const struct config_table http_config_table = {
    .section = "uplink",
    .variant = "http",
    .size = sizeof(struct http_settings),
    .keys = keys,
    .key_count = ARRAY_SIZE(keys),
    .check = check,
};

static const struct transport_settings *transport_settings(const void *settings)
{
    return &((const struct http_settings *)settings)->transport;
}

static size_t records_limit(const void *settings)
{
    return ((const struct http_settings *)settings)->format == HTTP_FLAT ? 1 : SIZE_MAX;
}

/* A hash for telling batches apart, not against forgery: 64-bit FNV-1a's multiply over words, with
 * the finaliser of splitmix64 on each, so that neighbours differ everywhere. */
static uint64_t mix(uint64_t hash, uint64_t word)
{
    word += 0x9e3779b97f4a7c15u;
    word = (word ^ (word >> 30)) * 0xbf58476d1ce4e5b9u;
    word = (word ^ (word >> 27)) * 0x94d049bb133111ebu;
    return (hash ^ word ^ (word >> 31)) * 0x100000001b3u;
}

void http_write_idempotency_key(const struct batch *batch, struct buffer *headers)
{
    uint64_t hash = 0xcbf29ce484222325u;
    for (size_t i = 0; i < batch->count; i++) {
        hash = mix(mix(hash, batch->records[i].scan->device), batch->records[i].scan->seq);
    }
    buffer_printf(headers, "Idempotency-Key: \"%s.%s.%016llx\"", batch->store_id,
                  stream_name(batch->stream), (unsigned long long)hash);
    buffer_add_byte(headers, '\0');
}

static int encode(const void *settings, const struct batch *batch, struct uplink_request *request)
{
    static int (*const encoders[])(const struct batch *, struct buffer *) = {
        [HTTP_BATCH] = http_encode_batch,
        [HTTP_COLUMNS] = http_encode_columns,
        [HTTP_TELEMETRY] = http_encode_telemetry,
        [HTTP_FLAT] = http_encode_flat,
    };
    const struct http_settings *s = settings;
    if (s->format == HTTP_FLAT && batch->count > 1) {
        return -E2BIG;
    }
    request->body.max = HTTP_REQUEST_MAX;
    buffer_clear(&request->body);
    buffer_clear(&request->headers);
    request->content_type = "application/json";
    request->path[0] = '\0';
    request->compressible = true;
    request->dense = s->format == HTTP_COLUMNS;
    int r = encoders[s->format](batch, &request->body);
    http_write_idempotency_key(batch, &request->headers);
    if (r < 0 || buffer_failed(&request->headers)) {
        return -ENOMEM;
    }
    return buffer_failed(&request->body) || request->body.len > HTTP_REQUEST_MAX ? -E2BIG : 0;
}

const struct uplink uplink_http = {
    .name = "http",
    .table = &http_config_table,
    .max_records = UPLINK_BATCH_RECORDS_MAX,
    .max_bytes = HTTP_REQUEST_MAX,
    .records_limit = records_limit,
    .encode = encode,
    .judge = http_judge,
    .transport = &transport_http,
    .transport_settings = transport_settings,
    .probe = &http_probe,
};
