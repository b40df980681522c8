/* Any reply at all: the first bytes choose status, ack and header, the rest is the body. A verdict
 * must name only records of the batch, and "delivered" must have been said. */
#include "uplink/http/http.h"
#include "uplink/transport/reply_headers.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const struct store_point_name points[] = {{"a", "", 1}};
static const struct store_names names[] = {{"t01", "", 1, points}, {"t02", "", 1, points}};

static void check(const struct batch *batch, const struct uplink_reply *reply, int ack)
{
    struct http_settings settings = {.ack = ack};
    struct uplink_verdict v;
    uplink_http.judge(&settings, batch, reply, &v);
    bool said = strstr(reply->body, "accepted") != NULL ||
                strstr(reply->body, "rejected") != NULL || strchr(reply->body, '\\') != NULL ||
                strlen(reply->body) < reply->len;
    if (v.outcome == UPLINK_DELIVERED && ack == HTTP_ACK_BODY && !said) {
        abort();
    }
    if ((v.outcome != UPLINK_DELIVERED && v.rejected_count > 0) ||
        v.rejected_count > batch->count || memchr(v.why, '\0', sizeof v.why) == NULL) {
        abort();
    }
    for (size_t i = 0; i < v.rejected_count; i++) {
        if (v.rejected[i].record >= batch->count) {
            abort();
        }
    }
    free(v.rejected);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 3) {
        return 0;
    }
    static struct scan scans[] = {{.seq = 1, .device = 1},
                                  {.seq = 2, .device = 1},
                                  {.seq = 1, .device = 2},
                                  {.seq = 9, .device = 2}};
    struct batch_record records[4];
    for (size_t i = 0; i < 4; i++) {
        records[i] = (struct batch_record){.scan = &scans[i], .names = &names[i / 2]};
    }
    struct batch batch = {.records = records, .count = 1 + (data[0] & 3u)};
    struct reply_headers headers = {0};
    reply_headers_line(&headers, (const char *)data + 3, size - 3);
    int64_t wait_ms = reply_retry_after_ms(&headers, 784111777000);
    if (wait_ms < -1 || wait_ms > RETRY_AFTER_MAX_MS) {
        abort();
    }
    char *body = malloc(size - 2);
    memcpy(body, data + 3, size - 3);
    body[size - 3] = '\0';
    struct uplink_reply reply = {.status = (data[0] & 4) != 0 ? 200 : data[1] + 256 * (data[2] & 3),
                                 .body = body,
                                 .len = size - 3,
                                 .content_type = headers.content_type,
                                 .retry_after_ms = wait_ms,
                                 .error = ""};
    check(&batch, &reply, HTTP_ACK_BODY);
    check(&batch, &reply, HTTP_ACK_STATUS);
    free(body);
    return 0;
}
