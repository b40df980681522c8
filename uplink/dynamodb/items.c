#include "uplink/dynamodb/dynamodb.h"
#include "uplink/out.h"

#include <errno.h>
#include <math.h>

static const uint64_t SEQ_DIGITS = UINT64_C(1000000000000); /* twelve decimals */

static const struct reading *reading_at(const struct batch *batch, struct dynamodb_place place)
{
    return record_reading(&batch->records[place.record], place.reading);
}

struct dynamodb_place dynamodb_next(const struct batch *batch, struct dynamodb_place place)
{
    place.reading++;
    if (place.reading >= record_count(&batch->records[place.record])) {
        place.record++;
        place.reading = 0;
    }
    return place;
}

static bool same_key(const struct batch *batch, struct dynamodb_place a, struct dynamodb_place b)
{
    const struct batch_record *x = &batch->records[a.record], *y = &batch->records[b.record];
    return x->names == y->names && x->scan->time_ms == y->scan->time_ms &&
           x->scan->seq == y->scan->seq &&
           reading_at(batch, a)->point == reading_at(batch, b)->point;
}

struct dynamodb_place dynamodb_chunk_end(const struct batch *batch, struct dynamodb_place from)
{
    struct dynamodb_place end = from;
    for (size_t n = 0; n < DYNAMODB_ITEMS_MAX && !dynamodb_at_end(batch, end); n++) {
        struct dynamodb_place other = from;
        for (size_t i = 0; i < n; i++) {
            if (same_key(batch, other, end)) {
                return end;
            }
            other = dynamodb_next(batch, other);
        }
        end = dynamodb_next(batch, end);
    }
    return end;
}

void dynamodb_write_partition(const struct dynamodb_settings *settings, const struct batch *batch,
                              struct dynamodb_place place, struct buffer *out)
{
    const struct store_names *names = batch->records[place.record].names;
    uint16_t point = reading_at(batch, place)->point;
    buffer_add_text(out, settings->user != NULL ? settings->user : batch->gateway);
    buffer_add_byte(out, '#');
    buffer_add_text(out, names->device);
    buffer_add_byte(out, '.');
    if (point < names->point_count && names->points[point].name != NULL) {
        buffer_add_text(out, names->points[point].name);
    } else {
        buffer_printf(out, "point_%u", (unsigned)point);
    }
}

void dynamodb_write_sort(const struct batch *batch, struct dynamodb_place place, struct buffer *out)
{
    const struct scan *scan = batch->records[place.record].scan;
    if (scan->time_ms < 0) { /* before 1970: no scan of ours, and digits would count backwards */
        decimal_write(out, (struct decimal){scan->time_ms, -3});
        return;
    }
    buffer_printf(out, "%lld.%03d%012llu", (long long)(scan->time_ms / 1000),
                  (int)(scan->time_ms % 1000), (unsigned long long)(scan->seq % SEQ_DIGITS));
}

/* A number of DynamoDB has 38 digits and lies within 1E-130 .. 9.9E+125. */
static bool is_number(const struct reading *r)
{
    double size = fabs(reading_double(r));
    return r->kind == VALUE_DECIMAL || size == 0 || (size > 1e-129 && size < 1e125);
}

static void add_value(struct buffer *out, const struct scan *scan, const struct reading *r)
{
    bool real = r->kind == VALUE_REAL || r->kind == VALUE_FLOAT;
    if (r->kind == VALUE_NULL || (real && !isfinite(r->real))) {
        out_literal(out, "{\"NULL\":true}");
    } else if (r->kind == VALUE_BOOL || r->kind == VALUE_TEXT) {
        buffer_add_text(out, r->kind == VALUE_BOOL ? "{\"BOOL\":" : "{\"S\":");
        reading_write_json(out, scan, r);
        out_literal(out, "}");
    } else {
        buffer_add_text(out, is_number(r) ? "{\"N\":\"" : "{\"S\":\"");
        reading_write_json(out, scan, r);
        out_literal(out, "\"}");
    }
}

static void add_text(struct buffer *out, const char *name, const char *text)
{
    out_literal(out, ",");
    json_write_string(out, name, strlen(name));
    out_literal(out, ":{\"S\":");
    json_write_string(out, text, strlen(text));
    out_literal(out, "}");
}

static void add_number(struct buffer *out, const char *name, int64_t number)
{
    buffer_printf(out, ",\"%s\":{\"N\":\"%lld\"}", name, (long long)number);
}

static void add_item(const struct dynamodb_settings *s, const struct batch *batch,
                     struct dynamodb_place place, struct buffer *out)
{
    const struct scan *scan = batch->records[place.record].scan;
    const struct reading *r = reading_at(batch, place);
    auto_buffer struct buffer key = {0};
    dynamodb_write_partition(s, batch, place, &key);
    out->failed |= buffer_failed(&key);
    out_literal(out, "{\"PutRequest\":{\"Item\":{");
    json_write_string(out, s->partition_key, strlen(s->partition_key));
    out_literal(out, ":{\"S\":");
    json_write_string(out, (const char *)key.data, key.len);
    out_literal(out, "},");
    json_write_string(out, s->sort_key, strlen(s->sort_key));
    out_literal(out, ":{\"N\":\"");
    dynamodb_write_sort(batch, place, out);
    out_literal(out, "\"},\"value\":");
    add_value(out, scan, r);
    if (r->quality != QUALITY_GOOD) {
        add_text(out, "quality", quality_name((enum quality)r->quality));
    }
    add_text(out, "gateway", batch->gateway);
    add_text(out, "store", batch->store_id);
    add_text(out, "stream", stream_name(batch->stream));
    add_number(out, "seq", (int64_t)scan->seq);
    if (scan->window_s != 0) {
        add_number(out, "window_s", scan->window_s);
    }
    if (s->expire_after_ms != 0) { /* in whole seconds, as the TTL wants them */
        add_number(out, "expires_at", scan->time_ms / 1000 + s->expire_after_ms / 1000);
    }
    out_literal(out, "}}}");
}

static void add_chunk(const struct dynamodb_settings *s, const struct batch *batch,
                      struct dynamodb_place from, struct dynamodb_place end, struct buffer *out)
{
    out_literal(out, "{\"RequestItems\":{");
    json_write_string(out, s->table, strlen(s->table));
    out_literal(out, ":[");
    bool comma = false;
    for (; from.record != end.record || from.reading != end.reading;
         from = dynamodb_next(batch, from)) {
        out_bytes(out, ",", comma ? 1 : 0);
        add_item(s, batch, from, out);
        comma = true;
    }
    out_literal(out, "]}}");
}

int dynamodb_encode(const void *settings, const struct batch *batch, struct uplink_request *request)
{
    struct buffer *out = &request->body;
    aws_begin_request(request, DYNAMODB_BODY_MAX, "X-Amz-Target: DynamoDB_20120810.BatchWriteItem",
                      "application/x-amz-json-1.0");
    struct dynamodb_place at = {0};
    while (!dynamodb_at_end(batch, at) && !buffer_failed(out)) {
        struct dynamodb_place end = dynamodb_chunk_end(batch, at);
        out_bytes(out, "\n", out->len > 0 ? 1 : 0);
        add_chunk(settings, batch, at, end, out);
        at = end;
    }
    if (buffer_failed(&request->headers)) {
        return -ENOMEM;
    }
    return buffer_failed(out) || out->len > DYNAMODB_BODY_MAX ? -E2BIG : 0;
}
