/* WriteRecords of hostile clients, and Authorization headers of them: no key signs, so none passes.
 */
#include "uplink/sink/sink_aws.h"
#include "uplink/sink/sink_timestream.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static int take(void *user, const struct sink_record *record)
{
    size_t *total = user;
    if (record->seq < 1 || record->device.len == 0 ||
        record->count > SINK_TIMESTREAM_MEASURES_MAX) {
        abort();
    }
    for (size_t i = 0; i < record->count; i++) {
        *total += record->readings[i].point.len + record->readings[i].quality.len;
    }
    return 0;
}

static void check_header(const uint8_t *data, size_t size)
{
    static const struct sink_aws_key key = {.id = "A", .secret = "B"};
    char *text = malloc(size + 1);
    if (text == NULL) {
        return;
    }
    memcpy(text, data, size);
    text[size] = '\0';
    struct sink_request request = {.method = SINK_POST,
                                   .path = "/",
                                   .authorization = text,
                                   .body = data,
                                   .len = size,
                                   .headers = {{"Host", "h"}, {"X-Amz-Date", "20260131T103000Z"}},
                                   .header_count = 2};
    struct sink_aws_refusal refusal;
    if (sink_aws_check(&key, &request, INT64_C(1769855400000), &refusal) == 0) {
        abort();
    }
    free(text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    size_t total = 0, count;
    const struct sink_taker taker = {.take = take, .user = &total};
    char why[SINK_WHY_SIZE];
    int r = sink_timestream_parse((const char *)data, size, &taker, &count, why);
    if (r == 0 && (count < 1 || count > SINK_TIMESTREAM_RECORDS_MAX)) {
        abort();
    }
    check_header(data, size);
    return 0;
}
