#include "uplink/influx/influx.h"
#include "uplink/labels.h"
#include "uplink/out.h"

#include <errno.h>
#include <math.h>

/* What is the same in all lines of one device, rendered once. */
struct head {
    const struct store_names *names;
    uint32_t window_s;
    struct buffer before; /* up to "seq=" */
    struct buffer text;   /* ",name=" of every point */
    struct field {
        uint32_t offset, len;
    } * fields;
    size_t count, capacity;
    bool odd_names; /* a point ends in "_quality" */
};

/* Names: comma, blank and (but in a measurement) "=" get a backslash. There is no escape for a
 * backslash itself, so one that would be read as an escape becomes a slash; line breaks and other
 * controls, which the protocol lacks, become blanks. */
static void add_name(struct buffer *to, const char *text, bool equals)
{
    for (const char *at = text, *end = text + strlen(text); at < end;) {
        size_t n = utf8_length((const uint8_t *)at, (size_t)(end - at));
        unsigned char c = (unsigned char)*at;
        if (n == 0) {
            buffer_add_text(to, "\xef\xbf\xbd");
            at++;
        } else if (n > 1) {
            buffer_add(to, at, n);
            at += n;
        } else {
            bool escapes = c == '\\' && (at[1] == '\0' || strchr(",= \"\\", at[1]) != NULL ||
                                         (unsigned char)at[1] < ' ');
            c = escapes ? '/' : c < ' ' || c == 0x7f ? ' ' : c;
            buffer_add_text(to, c == ',' || c == ' ' || (equals && c == '=') ? "\\" : "");
            buffer_add_byte(to, c);
            at++;
        }
    }
}

/* A text value in quotes: quote and backslash are escaped. */
static void add_text(struct buffer *to, const char *text, size_t len)
{
    const uint8_t *at = (const uint8_t *)text, *end = at + len;
    out_literal(to, "\"");
    while (at < end) {
        size_t n = utf8_length(at, (size_t)(end - at));
        if (n == 0) {
            out_literal(to, "\xef\xbf\xbd");
            at++;
        } else if (n > 1) {
            out_bytes(to, at, n);
            at += n;
        } else {
            buffer_add_text(to, *at == '"' || *at == '\\' ? "\\" : "");
            buffer_add_byte(to, *at < ' ' || *at == 0x7f ? ' ' : *at);
            at++;
        }
    }
    out_literal(to, "\"");
}

static void add_field_keys(struct head *h, const struct labels *labels)
{
    buffer_clear(&h->text);
    h->odd_names = false;
    for (size_t i = 0; i < h->count; i++) {
        char unnamed[24];
        const char *name = h->names->points[i].name;
        if (name == NULL) {
            snprintf(unnamed, sizeof unnamed, "point_%u", (unsigned)i);
            name = unnamed;
        }
        size_t len = strlen(name), from = h->text.len;
        h->odd_names |= len >= 8 && strcmp(name + len - 8, "_quality") == 0;
        char column[LABELS_NAME_MAX];
        labels_column(labels, h->names, name, "", column);
        out_literal(&h->text, ",");
        add_name(&h->text, column, true);
        out_literal(&h->text, "=");
        h->fields[i] = (struct field){(uint32_t)from, (uint32_t)(h->text.len - from)};
    }
}

static void add_before(struct head *h, const char *measurement, const struct labels *labels)
{
    buffer_clear(&h->before);
    add_name(&h->before, measurement, false);
    for (size_t i = 0; i < labels->count; i++) {
        out_literal(&h->before, ",");
        add_name(&h->before, labels->list[i].key, true);
        out_literal(&h->before, "=");
        add_name(&h->before, labels->list[i].value, true);
    }
    out_literal(&h->before, " seq=");
}

static int make_room(struct head *h, size_t count)
{
    if (count > h->capacity) {
        struct field *fields = realloc(h->fields, count * sizeof *fields);
        if (fields == NULL) {
            return -ENOMEM;
        }
        h->fields = fields;
        h->capacity = count;
    }
    h->count = count;
    return 0;
}

static int head_use(struct head *h, const char *measurement, const struct batch *batch,
                    const struct batch_record *record)
{
    uint32_t window_s = record->scan->window_s;
    if (h->before.len > 0 && h->names == record->names && h->window_s == window_s) {
        return 0;
    }
    h->names = record->names;
    h->window_s = window_s;
    struct labels labels;
    labels_init(&labels, batch, record);
    int r = make_room(h, h->names->point_count);
    if (r == 0) {
        add_before(h, measurement, &labels);
        add_field_keys(h, &labels);
    }
    labels_finish(&labels);
    return r < 0 || buffer_failed(&h->before) || buffer_failed(&h->text) ? -ENOMEM : 0;
}

static void add_key(struct buffer *out, const struct head *h, uint16_t point)
{
    if (point < h->count) {
        out_bytes(out, h->text.data + h->fields[point].offset, h->fields[point].len);
    } else {
        buffer_printf(out, ",point_%u=", (unsigned)point);
    }
}

/* Whether a point of the device is itself called like another one's quality. */
static bool has_point(const struct head *h, const char *name, const char *suffix)
{
    size_t len = strlen(name);
    for (size_t i = 0; i < h->count; i++) {
        const char *other = h->names->points[i].name;
        if (other != NULL && strncmp(other, name, len) == 0 && strcmp(other + len, suffix) == 0) {
            return true;
        }
    }
    return false;
}

static void add_quality(struct buffer *out, const struct head *h, uint16_t point,
                        const char *quality)
{
    add_key(out, h, point);
    if (buffer_failed(out)) {
        return;
    }
    out->len--; /* the "=" */
    out_literal(out, "_quality");
    const char *name = point < h->count ? h->names->points[point].name : NULL;
    if (h->odd_names && name != NULL && has_point(h, name, "_quality")) {
        out_literal(out, "_");
    }
    out_literal(out, "=\"");
    buffer_add_text(out, quality);
    out_literal(out, "\"");
}

/* False: there is no value that the protocol could carry. */
static bool has_value(const struct reading *r)
{
    return r->kind != VALUE_NULL &&
           ((r->kind != VALUE_REAL && r->kind != VALUE_FLOAT) || isfinite(r->real));
}

static void add_reading(struct buffer *out, const struct head *h, const struct scan *scan,
                        const struct reading *r)
{
    const char *quality = r->quality != QUALITY_GOOD ? quality_name((enum quality)r->quality)
                                                     : NULL;
    if (!has_value(r)) {
        quality = quality != NULL ? quality : quality_name(QUALITY_BAD_INVALID);
    } else {
        add_key(out, h, r->point);
        if (r->kind == VALUE_TEXT) {
            add_text(out, scan_text(scan, r), r->text.len);
        } else {
            reading_write_json(out, scan, r); /* a number without "i" is a float; true, false */
        }
    }
    if (quality != NULL) {
        add_quality(out, h, r->point, quality);
    }
}

/* Without the zeros at the end of a fraction: gzip has no use for lines of equal length. */
static char *trim(char *end, int8_t exponent)
{
    while (exponent < 0 && end[-1] == '0') {
        end--;
        exponent++;
    }
    return end[-1] == '.' ? end - 1 : end;
}

/* The usual value: one check for room, then straight copies. */
static bool add_fast(struct buffer *out, const struct head *h, const struct reading *r)
{
    if (r->kind != VALUE_DECIMAL || r->quality != QUALITY_GOOD || r->point >= h->count ||
        r->exponent < DECIMAL_EXPONENT_MIN || r->exponent > DECIMAL_EXPONENT_MAX) {
        return false;
    }
    struct field key = h->fields[r->point];
    char *at = out_room(out, key.len + OUT_NUMBER_MAX);
    if (at != NULL) {
        memcpy(at, h->text.data + key.offset, key.len);
        out_advance(out, trim(out_decimal(at + key.len, reading_decimal(r)), r->exponent));
    }
    return true;
}

static void add_line(struct buffer *out, const struct head *h, const struct batch_record *record)
{
    char *at = out_room(out, h->before.len + OUT_NUMBER_MAX);
    if (at == NULL || h->before.data == NULL) {
        return;
    }
    memcpy(at, h->before.data, h->before.len);
    at = out_uint(at + h->before.len, record->scan->seq);
    *at++ = 'i';
    out_advance(out, at);
    for (size_t i = 0, count = record_count(record); i < count; i++) {
        const struct reading *r = record_reading(record, i);
        if (!add_fast(out, h, r)) {
            add_reading(out, h, record->scan, r);
        }
    }
    out_literal(out, " ");
    out_number(out, labels_time_ns(record->scan));
    out_literal(out, "\n");
}

int influx_encode_lines(const char *measurement, const struct batch *batch, struct buffer *out)
{
    struct head head = {0};
    int r = 0;
    for (size_t i = 0; i < batch->count && r == 0; i++) {
        r = head_use(&head, measurement, batch, &batch->records[i]);
        if (r == 0) {
            add_line(out, &head, &batch->records[i]);
        }
    }
    buffer_finish(&head.before);
    buffer_finish(&head.text);
    free(head.fields);
    return r;
}
