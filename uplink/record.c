#include "uplink/record.h"

#include <errno.h>

static int use(struct record_writer *w, const struct store_names *names)
{
    if (w->names.names == names) {
        return 0;
    }
    buffer_clear(&w->before);
    out_literal(&w->before, ",\"device\":");
    json_write_string(&w->before, names->device, strlen(names->device));
    out_literal(&w->before, ",\"time\":\"");
    buffer_clear(&w->behind);
    if (names->tags_json[0] != '\0' && strcmp(names->tags_json, "{}") != 0) {
        out_literal(&w->behind, "\",\"tags\":");
        buffer_add_text(&w->behind, names->tags_json);
    } else {
        out_literal(&w->behind, "\"");
    }
    int r = out_names_use(&w->names, names);
    return r < 0 || buffer_failed(&w->before) || buffer_failed(&w->behind) ? -ENOMEM : 0;
}

int record_write(struct buffer *out, struct record_writer *w, const char *open, size_t open_len,
                 const struct batch_record *record)
{
    int r = use(w, record->names);
    if (r < 0) {
        return r;
    }
    char *at = out_room(out, open_len + w->before.len + w->behind.len + 2 * OUT_NUMBER_MAX);
    if (at == NULL) {
        return 0;
    }
    memcpy(at, open, open_len);
    at += open_len;
    memcpy(at, "\"seq\":", 6);
    at = out_uint(at + 6, record->scan->seq);
    memcpy(at, w->before.data, w->before.len);
    at = out_time(at + w->before.len, record->scan->time_ms);
    memcpy(at, w->behind.data, w->behind.len);
    out_advance(out, at + w->behind.len);
    if (record->scan->window_s != 0) {
        out_literal(out, ",\"window_s\":");
        out_number(out, record->scan->window_s);
    }
    out_literal(out, ",\"values\":{");
    if (out_values(out, &w->names, record, false) > 0) {
        out_literal(out, "},\"quality\":{");
        out_qualities(out, &w->names, record);
    }
    out_literal(out, "}}");
    return 0;
}

void record_writer_finish(struct record_writer *w)
{
    out_names_finish(&w->names);
    buffer_finish(&w->before);
    buffer_finish(&w->behind);
}

void record_write_origin(struct buffer *out, const struct batch *batch)
{
    out_literal(out, "{\"gateway\":");
    json_write_string(out, batch->gateway, strlen(batch->gateway));
    out_literal(out, ",\"store\":");
    json_write_string(out, batch->store_id, strlen(batch->store_id));
    out_literal(out, ",\"stream\":\"");
    buffer_add_text(out, stream_name(batch->stream));
    out_literal(out, "\",");
}
