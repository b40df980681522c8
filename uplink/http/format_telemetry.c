#include "uplink/http/http.h"

#include <errno.h>

int http_encode_telemetry(const struct batch *batch, struct buffer *out)
{
    struct out_names names = {0};
    int r = 0;
    out_literal(out, "[");
    for (size_t i = 0; i < batch->count && r == 0; i++) {
        const struct batch_record *record = &batch->records[i];
        r = out_names_use(&names, record->names);
        if (r < 0) {
            break;
        }
        if (i > 0) {
            out_literal(out, ",");
        }
        out_literal(out, "{\"deviceId\":");
        json_write_string(out, record->names->device, strlen(record->names->device));
        out_literal(out, ",\"timestamp\":\"");
        char *at = out_room(out, OUT_NUMBER_MAX);
        if (at != NULL) {
            out_advance(out, out_time(at, record->scan->time_ms));
        }
        out_literal(out, "\",\"readings\":{");
        out_values(out, &names, record, false);
        out_literal(out, "}}");
    }
    out_literal(out, "]");
    out_names_finish(&names);
    return r;
}
