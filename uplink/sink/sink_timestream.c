#include "uplink/sink/sink_timestream.h"

#include "gateway/base/scan.h"

#include <errno.h>
#include <jansson.h>
#include <string.h>

static const char suffix[] = "_quality";

/* What a request says, and where the present record's readings go. */
struct parsing {
    const json_t *common, *record;
    struct sink_reading *readings;
    size_t count;
    int64_t seq; /* 0: not met yet */
    char *why;
};

static int fail(struct parsing *p, const char *why)
{
    snprintf(p->why, SINK_WHY_SIZE, "%s", why);
    return -EINVAL;
}

static struct json_in_text text_of(const json_t *json)
{
    const char *at = json_string_value(json);
    return (struct json_in_text){at != NULL ? at : "", json_string_length(json)};
}

/* The record's own member, or the one that all have in common. */
static const json_t *member(const struct parsing *p, const char *name)
{
    const json_t *own = json_object_get(p->record, name);
    return own != NULL ? own : json_object_get(p->common, name);
}

static bool number_of(const json_t *json, int64_t *ret_number)
{
    const char *text = json_string_value(json);
    char *end;
    if (text == NULL || text[0] == '\0' || json_string_length(json) != strlen(text)) {
        return false;
    }
    errno = 0;
    long long number = strtoll(text, &end, 10);
    *ret_number = number;
    return *end == '\0' && errno == 0;
}

/* ---- dimensions ---- */

static const json_t *dimension(const json_t *from, const char *name)
{
    size_t i;
    const json_t *one;
    json_array_foreach(json_object_get(from, "Dimensions"), i, one)
    {
        const char *own = json_string_value(json_object_get(one, "Name"));
        if (own != NULL && strcmp(own, name) == 0) {
            return json_object_get(one, "Value");
        }
    }
    return NULL;
}

static int check_dimensions(struct parsing *p)
{
    const json_t *own = json_object_get(p->record, "Dimensions"), *one;
    size_t i;
    json_array_foreach(own, i, one)
    {
        const char *name = json_string_value(json_object_get(one, "Name"));
        if (name == NULL || name[0] == '\0' || strlen(name) > 60) {
            return fail(p, "a dimension's name has 1 to 60 bytes");
        }
        if (dimension(p->common, name) != NULL) {
            return fail(p, "a dimension is both in the record and in CommonAttributes");
        }
    }
    size_t all = json_array_size(own) + json_array_size(json_object_get(p->common, "Dimensions"));
    return all > SINK_TIMESTREAM_DIMENSIONS_MAX ? fail(p, "more than 128 dimensions") : 0;
}

static int take_identity(struct parsing *p, struct sink_record *record)
{
    const struct {
        const char *name;
        struct json_in_text *to;
    } parts[] = {{"gateway", &record->gateway},
                 {"store", &record->store},
                 {"stream", &record->stream},
                 {"device", &record->device}};
    for (size_t i = 0; i < ARRAY_SIZE(parts); i++) {
        const json_t *value = dimension(p->record, parts[i].name);
        *parts[i].to = text_of(value != NULL ? value : dimension(p->common, parts[i].name));
        if (parts[i].to->len == 0 || parts[i].to->len > SINK_NAME_MAX) {
            return fail(p, "a dimension of gateway, store, stream, device is missing");
        }
    }
    return 0;
}

static int take_time(struct parsing *p, int64_t *ret_ms)
{
    static const struct {
        const char *unit;
        int64_t times, over;
    } units[] = {{"MILLISECONDS", 1, 1},
                 {"SECONDS", 1000, 1},
                 {"MICROSECONDS", 1, 1000},
                 {"NANOSECONDS", 1, 1000000}};
    const json_t *given = member(p, "TimeUnit");
    const char *unit = given == NULL ? "MILLISECONDS" : json_string_value(given);
    int64_t time;
    if (unit == NULL || !number_of(member(p, "Time"), &time) || time < 0) {
        return fail(p, "Time is a number in a text");
    }
    for (size_t i = 0; i < ARRAY_SIZE(units); i++) {
        if (strcmp(unit, units[i].unit) == 0 && time <= INT64_MAX / units[i].times) {
            *ret_ms = time * units[i].times / units[i].over;
            return 0;
        }
    }
    return fail(p, "an unknown TimeUnit, or a Time beyond it");
}

/* ---- measures ---- */

static int take_number(struct parsing *p, const json_t *value, struct sink_value *ret_value)
{
    struct json_in_arena arena __attribute__((cleanup(json_in_arena_finish))) = {NULL};
    struct json_in number;
    json_in_init(&number, json_string_value(value), json_string_length(value), &arena);
    if (json_in_peek(&number) != JSON_IN_NUMBER || !sink_value_take(&number, ret_value) ||
        !json_in_end(&number)) {
        return fail(p, "a DOUBLE or BIGINT is no number");
    }
    return 0;
}

static int take_value(struct parsing *p, const json_t *measure, struct sink_value *ret_value)
{
    const char *type = json_string_value(json_object_get(measure, "Type"));
    const json_t *value = json_object_get(measure, "Value");
    const char *text = json_string_value(value);
    size_t len = json_string_length(value);
    if (type == NULL || text == NULL || len == 0 || len > SINK_TIMESTREAM_VALUE_MAX) {
        return fail(p, "a Value has 1 to 2048 bytes");
    }
    if (strcmp(type, "DOUBLE") == 0 || strcmp(type, "BIGINT") == 0) {
        return take_number(p, value, ret_value);
    }
    if (strcmp(type, "BOOLEAN") == 0) {
        bool yes = strcmp(text, "true") == 0;
        *ret_value = (struct sink_value){.kind = SINK_VALUE_INTEGER, .integer = yes};
        return yes || strcmp(text, "false") == 0 ? 0 : fail(p, "a BOOLEAN is true or false");
    }
    *ret_value = (struct sink_value){.kind = SINK_VALUE_TEXT, .text = {text, len}};
    return strcmp(type, "VARCHAR") == 0 ? 0 : fail(p, "an unknown Type");
}

static struct sink_reading *find(struct parsing *p, struct json_in_text point)
{
    for (size_t i = 0; i < p->count; i++) {
        const struct json_in_text own = p->readings[i].point;
        if (own.len == point.len && memcmp(own.at, point.at, own.len) == 0) {
            return &p->readings[i];
        }
    }
    return NULL;
}

/* NAME_quality (or NAME_quality_, where a point is called that): that of the reading before it, or
 * a reading without a value. "uncertain" always stands beside a value, which may be in the record
 * before; then it is left out. */
static bool take_quality(struct parsing *p, struct json_in_text name, const struct sink_value *v)
{
    enum quality quality;
    if (v->kind != SINK_VALUE_TEXT || quality_parse(v->text.at, &quality) < 0) {
        return false;
    }
    while (name.len > 0 && name.at[name.len - 1] == '_') {
        name.len--;
    }
    const size_t tail = sizeof suffix - 1;
    if (name.len <= tail || memcmp(name.at + name.len - tail, suffix, tail) != 0) {
        return false;
    }
    name.len -= tail;
    struct sink_reading *reading = find(p, name);
    if (reading != NULL) {
        reading->quality = v->text;
    } else if (quality != QUALITY_UNCERTAIN) {
        p->readings[p->count++] = (struct sink_reading){.point = name, .quality = v->text};
    }
    return true;
}

static int take_measure(struct parsing *p, const json_t *measure)
{
    static const struct json_in_text good = {.at = "good", .len = 4};
    struct json_in_text name = text_of(json_object_get(measure, "Name"));
    struct sink_value value;
    int r = take_value(p, measure, &value);
    if (r < 0) {
        return r;
    }
    if (name.len == 0 || name.len > SINK_NAME_MAX) {
        return fail(p, "a measure's name has 1 to 255 bytes");
    }
    if (json_in_text_is(name, "seq")) {
        p->seq = value.kind == SINK_VALUE_INTEGER ? value.integer : 0;
        return 0;
    }
    if (find(p, name) != NULL) {
        return fail(p, "a measure stands there twice");
    }
    if (!take_quality(p, name, &value)) {
        p->readings[p->count++] = (struct sink_reading){
            .point = name, .value = value, .quality = good};
    }
    return 0;
}

static int take_measures(struct parsing *p)
{
    const json_t *list = json_object_get(p->record, "MeasureValues"), *one;
    const char *type = json_string_value(member(p, "MeasureValueType"));
    size_t count = json_array_size(list), i;
    if (type == NULL || strcmp(type, "MULTI") != 0) {
        return fail(p, "only records of MeasureValueType MULTI are kept here");
    }
    if (count < 1 || count > SINK_TIMESTREAM_MEASURES_MAX) {
        return fail(p, "1 to 256 MeasureValues");
    }
    p->count = 0;
    p->seq = 0;
    json_array_foreach(list, i, one)
    {
        int r = take_measure(p, one);
        if (r < 0) {
            return r;
        }
    }
    return p->seq < 1 ? fail(p, "a record without the measure seq, from 1") : 0;
}

static int take_record(struct parsing *p, struct sink_record *record)
{
    *record = (struct sink_record){.readings = p->readings};
    const json_t *version = member(p, "Version");
    if (text_of(member(p, "MeasureName")).len == 0 ||
        (version != NULL && json_integer_value(version) < 1)) {
        return fail(p, "MeasureName or Version is none");
    }
    int r = check_dimensions(p);
    r = r < 0 ? r : take_identity(p, record);
    r = r < 0 ? r : take_time(p, &record->time_ms);
    r = r < 0 ? r : take_measures(p);
    record->seq = p->seq;
    record->count = p->count;
    return r;
}

static int take_records(struct parsing *p, const json_t *list, const struct sink_taker *taker)
{
    size_t i;
    json_array_foreach(list, i, p->record)
    {
        struct sink_record record;
        int r = take_record(p, &record);
        r = r < 0 ? r : taker->take(taker->user, &record);
        if (r < 0) {
            return r;
        }
    }
    return 0;
}

int sink_timestream_parse(const char *body, size_t len, const struct sink_taker *taker,
                          size_t *ret_count, char ret_why[SINK_WHY_SIZE])
{
    struct sink_reading readings[SINK_TIMESTREAM_MEASURES_MAX];
    struct parsing p = {.readings = readings, .why = ret_why};
    json_t *root = json_loadb(body, len, JSON_REJECT_DUPLICATES, NULL);
    const json_t *list = json_object_get(root, "Records");
    size_t count = json_array_size(list);
    int r = 0;
    if (root == NULL || text_of(json_object_get(root, "DatabaseName")).len == 0 ||
        text_of(json_object_get(root, "TableName")).len == 0) {
        r = fail(&p, "no JSON, or no DatabaseName or TableName");
    } else if (count < 1 || count > SINK_TIMESTREAM_RECORDS_MAX) {
        r = fail(&p, "1 to 100 Records");
    } else {
        p.common = json_object_get(root, "CommonAttributes");
        r = take_records(&p, list, taker);
    }
    json_decref(root);
    if (r == 0) {
        *ret_count = count;
    }
    return r;
}
