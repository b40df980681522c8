#include "uplink/labels.h"
#include "uplink/out.h"
#include "uplink/timestream/timestream.h"

#include <errno.h>
#include <math.h>

/* What is the same in all records of one device. */
struct head {
    const struct store_names *names;
    uint32_t window_s;
    struct labels labels;
    struct buffer dimensions; /* "[{"Name":...}]" of what is not common to the batch */
    size_t bytes;             /* of names and values of all dimensions */
};

/* One member of MeasureValues. */
struct measure {
    char name[LABELS_NAME_MAX];
    const char *type, *text; /* text NULL: the reading's number */
    size_t text_len;
    const struct reading *reading;
};

static bool is_common(const char *key)
{
    return strcmp(key, "gateway") == 0 || strcmp(key, "store") == 0 || strcmp(key, "stream") == 0;
}

static void add_dimension(struct buffer *to, const char *name, const char *value, bool comma)
{
    out_bytes(to, ",", comma ? 1 : 0);
    out_literal(to, "{\"Name\":");
    json_write_string(to, name, strlen(name));
    out_literal(to, ",\"Value\":");
    json_write_string(to, value, strlen(value));
    out_literal(to, "}");
}

static void add_dimensions(struct buffer *to, const struct labels *labels, bool common)
{
    bool comma = false;
    out_literal(to, "[");
    for (size_t i = 0; i < labels->count; i++) {
        if (is_common(labels->list[i].key) == common) {
            add_dimension(to, labels->list[i].key, labels->list[i].value, comma);
            comma = true;
        }
    }
    out_literal(to, "]");
}

static void head_finish(struct head *h)
{
    labels_finish(&h->labels);
    buffer_finish(&h->dimensions);
}

static void head_use(struct head *h, const struct batch *batch, const struct batch_record *record)
{
    if (h->names == record->names && h->window_s == record->scan->window_s) {
        return;
    }
    labels_finish(&h->labels);
    labels_init(&h->labels, batch, record);
    h->names = record->names;
    h->window_s = record->scan->window_s;
    h->bytes = 0;
    for (size_t i = 0; i < h->labels.count; i++) {
        h->bytes += strlen(h->labels.list[i].key) + strlen(h->labels.list[i].value);
    }
    buffer_clear(&h->dimensions);
    add_dimensions(&h->dimensions, &h->labels, false);
}

static void name_measure(const struct head *h, const struct reading *r, const char *suffix,
                         struct measure *m)
{
    const char *name = r->point < h->names->point_count ? h->names->points[r->point].name : NULL;
    char unnamed[24];
    if (name == NULL) {
        snprintf(unnamed, sizeof unnamed, "point_%u", (unsigned)r->point);
        name = unnamed;
    }
    labels_column(&h->labels, h->names, name, suffix, m->name);
    if (strcmp(m->name, "measure_name") == 0 || strcmp(m->name, "measure_value") == 0) {
        memcpy(m->name + strlen(m->name), "_", 2); /* columns of every table */
    }
}

static bool has_value(const struct reading *r)
{
    return r->kind != VALUE_NULL &&
           ((r->kind != VALUE_REAL && r->kind != VALUE_FLOAT) || isfinite(r->real));
}

/* The reading's own measure, and that of its quality; returns how many. */
static size_t measures_of(const struct head *h, const struct scan *scan, const struct reading *r,
                          struct measure to[2])
{
    size_t n = 0;
    bool has = has_value(r);
    enum quality quality = has || r->quality != QUALITY_GOOD ? (enum quality)r->quality
                                                             : QUALITY_BAD_INVALID;
    if (has) {
        struct measure *m = &to[n++];
        m->reading = r;
        m->type = r->kind == VALUE_TEXT ? "VARCHAR" : r->kind == VALUE_BOOL ? "BOOLEAN" : "DOUBLE";
        m->text = r->kind == VALUE_TEXT ? scan_text(scan, r) : NULL;
        m->text_len = r->kind == VALUE_TEXT ? r->text.len : 0;
        if (m->text != NULL && m->text_len == 0) {
            m->text = " "; /* a value has at least one character */
            m->text_len = 1;
        }
        name_measure(h, r, "", m);
    }
    if (quality != QUALITY_GOOD) {
        struct measure *m = &to[n++];
        m->type = "VARCHAR";
        m->text = quality_name(quality);
        m->text_len = strlen(m->text);
        name_measure(h, r, "_quality", m);
    }
    return n;
}

static size_t bytes_of(const struct measure *m)
{
    return strlen(m->name) + (m->text != NULL ? m->text_len : 8);
}

/* Fills records one after the other: where the present one is full the next begins. `out` NULL:
 * only counts. */
struct filling {
    const struct timestream_settings *settings;
    const struct head *head;
    const struct batch_record *record;
    struct buffer *out;
    size_t parts, measures, bytes;
};

static void begin_part(struct filling *f)
{
    f->parts++;
    f->measures = 1;
    f->bytes = f->head->bytes + 64;
    if (f->out == NULL) {
        return;
    }
    out_literal(f->out, "{\"Dimensions\":");
    out_bytes(f->out, f->head->dimensions.data, f->head->dimensions.len);
    out_literal(f->out, ",\"Time\":\"");
    out_number(f->out, labels_time_ns(f->record->scan));
    out_literal(f->out, "\",\"MeasureName\":");
    char name[240];
    int n = f->parts == 1 ? snprintf(name, sizeof name, "%s", f->settings->measure)
                          : snprintf(name, sizeof name, "%s.%zu", f->settings->measure, f->parts);
    json_write_string(f->out, name, (size_t)n);
    out_literal(f->out, ",\"MeasureValues\":[{\"Name\":\"seq\",\"Type\":\"BIGINT\",\"Value\":\"");
    out_number(f->out, (int64_t)f->record->scan->seq);
    out_literal(f->out, "\"}");
}

static void end_part(struct filling *f)
{
    if (f->out != NULL) {
        out_literal(f->out, "]}");
    }
}

static void add_measure(struct filling *f, const struct measure *m)
{
    size_t bytes = bytes_of(m);
    if (f->measures > 1 &&
        (f->measures == TIMESTREAM_MEASURES_MAX || f->bytes + bytes > TIMESTREAM_RECORD_BYTES)) {
        end_part(f);
        if (f->out != NULL) {
            out_literal(f->out, ",");
        }
        begin_part(f);
    }
    f->measures++;
    f->bytes += bytes;
    if (f->out == NULL) {
        return;
    }
    out_literal(f->out, ",{\"Name\":");
    json_write_string(f->out, m->name, strlen(m->name));
    out_literal(f->out, ",\"Type\":\"");
    buffer_add_text(f->out, m->type);
    out_literal(f->out, "\",\"Value\":");
    if (m->text != NULL) {
        json_write_string(f->out, m->text, m->text_len);
    } else {
        out_literal(f->out, "\"");
        reading_write_json(f->out, f->record->scan, m->reading);
        out_literal(f->out, "\"");
    }
    out_literal(f->out, "}");
}

static void fill(struct filling *f)
{
    begin_part(f);
    for (size_t i = 0, count = record_count(f->record); i < count; i++) {
        struct measure measures[2];
        size_t n = measures_of(f->head, f->record->scan, record_reading(f->record, i), measures);
        for (size_t m = 0; m < n; m++) {
            add_measure(f, &measures[m]);
        }
    }
    end_part(f);
}

size_t timestream_parts(const struct batch *batch, const struct batch_record *record)
{
    struct head head = {0};
    head_use(&head, batch, record);
    struct filling f = {.head = &head, .record = record};
    fill(&f);
    head_finish(&head);
    return f.parts;
}

static void begin_body(const struct timestream_settings *s, const struct labels *labels,
                       struct buffer *out)
{
    out_literal(out, "{\"DatabaseName\":");
    json_write_string(out, s->database, strlen(s->database));
    out_literal(out, ",\"TableName\":");
    json_write_string(out, s->table, strlen(s->table));
    out_literal(out, ",\"CommonAttributes\":{\"Dimensions\":");
    add_dimensions(out, labels, true);
    out_literal(out, ",\"MeasureValueType\":\"MULTI\",\"TimeUnit\":\"NANOSECONDS\","
                     "\"Version\":1},\"Records\":[");
}

static size_t add_records(const struct timestream_settings *s, const struct batch *batch,
                          struct buffer *out)
{
    struct head head = {0};
    size_t parts = 0;
    for (size_t i = 0; i < batch->count && parts <= TIMESTREAM_RECORDS_MAX; i++) {
        head_use(&head, batch, &batch->records[i]);
        if (i == 0) {
            begin_body(s, &head.labels, out);
        } else {
            out_literal(out, ",");
        }
        struct filling f = {.settings = s, .head = &head, .record = &batch->records[i], .out = out};
        fill(&f);
        parts += f.parts;
        out->failed |= buffer_failed(&head.dimensions);
    }
    out_literal(out, "]}");
    head_finish(&head);
    return parts;
}

int timestream_encode(const void *settings, const struct batch *batch,
                      struct uplink_request *request)
{
    aws_begin_request(request, TIMESTREAM_REQUEST_MAX,
                      "X-Amz-Target: Timestream_20181101.WriteRecords",
                      "application/x-amz-json-1.0");
    size_t parts = add_records(settings, batch, &request->body);
    if (buffer_failed(&request->headers)) {
        return -ENOMEM;
    }
    return buffer_failed(&request->body) || request->body.len > TIMESTREAM_REQUEST_MAX ||
                   parts > TIMESTREAM_RECORDS_MAX
               ? -E2BIG
               : 0;
}
