#include "uplink/http/http.h"

#include <errno.h>

/* What comes before and behind the time of each record of one device, rendered once. */
struct heads {
    struct out_names names;
    struct buffer before, behind;
};

static int heads_use(struct heads *h, const struct store_names *names)
{
    if (h->names.names == names) {
        return 0;
    }
    buffer_clear(&h->before);
    out_literal(&h->before, ",\"device\":");
    json_write_string(&h->before, names->device, strlen(names->device));
    out_literal(&h->before, ",\"time\":\"");
    buffer_clear(&h->behind);
    if (names->tags_json[0] != '\0' && strcmp(names->tags_json, "{}") != 0) {
        out_literal(&h->behind, "\",\"tags\":");
        buffer_add_text(&h->behind, names->tags_json);
    } else {
        out_literal(&h->behind, "\"");
    }
    int r = out_names_use(&h->names, names);
    return r < 0 || buffer_failed(&h->before) || buffer_failed(&h->behind) ? -ENOMEM : 0;
}

static void write_record(struct buffer *out, struct heads *h, const struct batch_record *record)
{
    char *at = out_room(out, h->before.len + h->behind.len + 2 * OUT_NUMBER_MAX);
    if (at == NULL || h->before.data == NULL || h->behind.data == NULL) {
        return;
    }
    memcpy(at, "{\"seq\":", 7);
    at = out_uint(at + 7, record->scan->seq);
    memcpy(at, h->before.data, h->before.len);
    at = out_time(at + h->before.len, record->scan->time_ms);
    memcpy(at, h->behind.data, h->behind.len);
    out_advance(out, at + h->behind.len);
    if (record->scan->window_s != 0) {
        out_literal(out, ",\"window_s\":");
        out_number(out, record->scan->window_s);
    }
    out_literal(out, ",\"values\":{");
    if (out_values(out, &h->names, record, false) > 0) {
        out_literal(out, "},\"quality\":{");
        out_qualities(out, &h->names, record);
    }
    out_literal(out, "}}");
}

int http_encode_batch(const struct batch *batch, struct buffer *out)
{
    out_literal(out, "{\"gateway\":");
    json_write_string(out, batch->gateway, strlen(batch->gateway));
    out_literal(out, ",\"store\":");
    json_write_string(out, batch->store_id, strlen(batch->store_id));
    out_literal(out, ",\"stream\":\"");
    buffer_add_text(out, stream_name(batch->stream));
    out_literal(out, "\",\"records\":[");
    struct heads heads = {0};
    int r = 0;
    for (size_t i = 0; i < batch->count && r == 0; i++) {
        if (i > 0) {
            out_literal(out, ",");
        }
        r = heads_use(&heads, batch->records[i].names);
        if (r == 0) {
            write_record(out, &heads, &batch->records[i]);
        }
    }
    out_literal(out, "]}");
    out_names_finish(&heads.names);
    buffer_finish(&heads.before);
    buffer_finish(&heads.behind);
    return r;
}
