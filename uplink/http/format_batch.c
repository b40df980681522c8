#include "uplink/http/http.h"
#include "uplink/record.h"

int http_encode_batch(const struct batch *batch, struct buffer *out)
{
    record_write_origin(out, batch);
    out_literal(out, "\"records\":[");
    struct record_writer writer = {0};
    int r = 0;
    for (size_t i = 0; i < batch->count && r == 0; i++) {
        r = record_write(out, &writer, i == 0 ? "{" : ",{", i == 0 ? 1 : 2, &batch->records[i]);
    }
    out_literal(out, "]}");
    record_writer_finish(&writer);
    return r;
}
