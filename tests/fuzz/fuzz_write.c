/* What a write is made of, out of foreign bytes: the body of POST /v1/write, and the store's record
 * of a command. What is taken is bounded and goes back to the same bytes. */
#include "gateway/api/write_point.h"
#include "gateway/writes/write_record.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_text(const char *text, size_t max)
{
    if (strnlen(text, max + 1) > max) {
        abort();
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct write_request request;
    const char *why = "";
    if (write_request_parse((const char *)data, size, &request, &why) == 0) {
        check_text(request.device, WRITES_TEXT_MAX);
        check_text(request.point, WRITES_TEXT_MAX);
        check_text(request.value, WRITES_TEXT_MAX);
        check_text(request.id, WRITES_TEXT_MAX);
    } else if (why[0] == '\0') {
        abort();
    }
    static struct write_record record, again;
    if (write_record_decode(data, size, &record) == 0) {
        auto_buffer struct buffer bytes = {0};
        write_record_encode(&record, &bytes);
        if (write_record_decode(bytes.data, bytes.len, &again) < 0 ||
            strcmp(record.body, again.body) != 0 || record.status != again.status) {
            abort();
        }
    }
    return 0;
}
