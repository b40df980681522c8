#include "uplink/message.h"

#include <errno.h>

const char *const message_form_choices[] = {"telemetry", "record", "batch", NULL};

/* {"deviceId":…,"timestamp":…,"readings":{…}} as in format = telemetry, and behind it what makes a
 * repeat known. */
static int write_telemetry(struct buffer *out, struct message_writer *w,
                           const struct batch_record *record)
{
    int r = out_names_use(&w->records.names, record->names);
    if (r < 0) {
        return r;
    }
    out_literal(out, "{\"deviceId\":");
    json_write_string(out, record->names->device, strlen(record->names->device));
    out_literal(out, ",\"timestamp\":\"");
    char *at = out_room(out, OUT_NUMBER_MAX);
    if (at != NULL) {
        out_advance(out, out_time(at, record->scan->time_ms));
    }
    out_literal(out, "\",\"readings\":{");
    if (out_values(out, &w->records.names, record, false) > 0) {
        out_literal(out, "},\"quality\":{");
        out_qualities(out, &w->records.names, record);
    }
    out_literal(out, "},");
    /* The origin without its brace: "gateway", "store", "stream" and a comma. */
    out_bytes(out, w->origin.data + 1, w->origin.len - 1);
    if (record->scan->window_s != 0) {
        out_literal(out, "\"window_s\":");
        out_number(out, record->scan->window_s);
        out_literal(out, ",");
    }
    buffer_printf(out, "\"seq\":%llu}", (unsigned long long)record->scan->seq);
    return 0;
}

static int write_batch(struct buffer *out, struct message_writer *w,
                       const struct batch_record *records, size_t count)
{
    int r = 0;
    out_bytes(out, w->origin.data, w->origin.len);
    out_literal(out, "\"records\":[");
    for (size_t i = 0; i < count && r == 0; i++) {
        r = record_write(out, &w->records, i == 0 ? "{" : ",{", i == 0 ? 1 : 2, &records[i]);
    }
    out_literal(out, "]}");
    return r;
}

int message_write(struct buffer *out, struct message_writer *w, int form, const struct batch *batch,
                  size_t first, size_t count)
{
    const struct batch_record *records = batch->records + first;
    if (w->origin.len == 0) {
        record_write_origin(&w->origin, batch);
        if (buffer_failed(&w->origin)) {
            return -ENOMEM;
        }
    }
    switch (form) {
    case MESSAGE_TELEMETRY:
        return write_telemetry(out, w, records);
    case MESSAGE_RECORD:
        return record_write(out, &w->records, (const char *)w->origin.data, w->origin.len, records);
    default:
        return write_batch(out, w, records, count);
    }
}

void message_writer_finish(struct message_writer *w)
{
    record_writer_finish(&w->records);
    buffer_finish(&w->origin);
}

size_t message_group(const struct batch *batch, int form, bool per_device, size_t first)
{
    if (form != MESSAGE_BATCH) {
        return 1;
    }
    if (!per_device) {
        return batch->count - first;
    }
    size_t n = 1;
    while (first + n < batch->count &&
           batch->records[first + n].scan->device == batch->records[first].scan->device) {
        n++;
    }
    return n;
}
