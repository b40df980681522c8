#include "uplink/http/http.h"

/* One object for the one scan of the batch; the type's records_limit() sees to the one. */
int http_encode_flat(const struct batch *batch, struct buffer *out)
{
    const struct batch_record *record = &batch->records[0];
    struct out_names names = {0};
    int r = out_names_use(&names, record->names);
    if (r == 0) {
        out_literal(out, "{\"location\":");
        json_write_string(out, record->names->device, strlen(record->names->device));
        out_literal(out, ",\"time\":\"");
        char *at = out_room(out, OUT_NUMBER_MAX);
        if (at != NULL) {
            out_advance(out, out_time(at, record->scan->time_ms));
        }
        out_literal(out, "\"");
        out_values(out, &names, record, true);
        out_literal(out, "}");
    }
    out_names_finish(&names);
    return r;
}
