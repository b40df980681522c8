#include "uplink/sink/sink_records.h"

#include "gateway/base/clock.h"

#include <errno.h>
#include <string.h>

static const struct json_in_text good = {.at = "good", .len = 4};

struct sink_reading *sink_parser_reading(struct sink_parser *p, size_t index)
{
    if (index >= SINK_READINGS_MAX) {
        json_in_fail(&p->json, "too many readings in a record");
        return NULL;
    }
    if (index >= p->capacity) {
        size_t capacity = p->capacity == 0 ? 64 : p->capacity * 2;
        struct sink_reading *more = realloc(p->readings, capacity * sizeof *more);
        if (more == NULL) {
            json_in_fail(&p->json, "out of memory");
            return NULL;
        }
        p->readings = more;
        p->capacity = capacity;
    }
    p->readings[index] = (struct sink_reading){.quality = good};
    return &p->readings[index];
}

bool sink_parser_take(struct sink_parser *p, const struct sink_record *record)
{
    if (++p->records > SINK_RECORDS_MAX) {
        return json_in_fail(&p->json, "too many records");
    }
    p->error = p->taker->take(p->taker->user, record);
    return p->error == 0 || json_in_fail(&p->json, "not kept");
}

static bool is_name(struct json_in_text text)
{
    return text.len > 0 && text.len <= SINK_NAME_MAX;
}

/* RFC 3339 text, or a number: seconds below 1e11, milliseconds from there on. */
static bool take_time(struct json_in *json, int64_t *ret_ms, const char **ret_refusal)
{
    struct sink_value value;
    if (!sink_value_take(json, &value)) {
        return false;
    }
    char text[CLOCK_TEXT_SIZE];
    if (value.kind == SINK_VALUE_TEXT && value.text.len < sizeof text) {
        memcpy(text, value.text.at, value.text.len);
        text[value.text.len] = '\0';
        if (clock_parse_utc(text, ret_ms) == 0) {
            return true;
        }
    } else if (value.kind == SINK_VALUE_INTEGER && value.integer > 0) {
        *ret_ms = value.integer < INT64_C(100000000000) ? value.integer * 1000 : value.integer;
        return true;
    } else if (value.kind == SINK_VALUE_REAL && value.real > 0 && value.real < 1e11) {
        *ret_ms = (int64_t)(value.real * 1000.0 + 0.5);
        return true;
    }
    *ret_refusal = "its time is none";
    return true;
}

static bool take_reading_value(struct json_in *json, struct sink_reading *reading,
                               const char **ret_refusal)
{
    enum json_in_type type = json_in_peek(json);
    if (type == JSON_IN_OBJECT || type == JSON_IN_ARRAY) {
        *ret_refusal = "a value is no plain value";
        return json_in_skip(json);
    }
    if (!sink_value_take(json, &reading->value)) {
        return false;
    }
    if (reading->value.kind == SINK_VALUE_TEXT && reading->value.text.len > SINK_TEXT_MAX) {
        *ret_refusal = "a text value is too long";
    }
    if (!is_name(reading->point)) {
        *ret_refusal = "a point's name is empty or too long";
    }
    return true;
}

/* {"wind_speed":8.42,...} behind the readings that the record has already. */
static bool take_values(struct sink_parser *p, struct sink_record *record)
{
    struct json_in_text key;
    if (!json_in_enter(&p->json, JSON_IN_OBJECT)) {
        return false;
    }
    while (json_in_member(&p->json, &key)) {
        struct sink_reading *reading = sink_parser_reading(p, record->count);
        if (reading == NULL) {
            return false;
        }
        reading->point = key;
        if (!take_reading_value(&p->json, reading, &record->refusal)) {
            return false;
        }
        record->count++;
    }
    return !json_in_failed(&p->json);
}

/* The reading of that point. Qualities come in the order of the values, so the search goes on where
 * the last one ended. */
static struct sink_reading *find_point(struct sink_parser *p, size_t count, size_t *from,
                                       struct json_in_text point)
{
    for (size_t n = 0; n < count; n++) {
        size_t i = (*from + n) % count;
        if (++p->lookups > SINK_LOOKUPS_MAX) {
            json_in_fail(&p->json, "too many qualities to look up");
            return NULL;
        }
        if (p->readings[i].point.len == point.len &&
            memcmp(p->readings[i].point.at, point.at, point.len) == 0) {
            *from = i + 1;
            return &p->readings[i];
        }
    }
    return NULL;
}

/* {"power":"uncertain",...} at `at`, which the caller has stepped over once already. */
static bool apply_quality(struct sink_parser *p, const char *at, struct sink_record *record)
{
    const char *back = p->json.at;
    struct json_in_text key, quality;
    size_t from = 0;
    p->json.at = at;
    if (!json_in_enter(&p->json, JSON_IN_OBJECT)) {
        return false;
    }
    while (json_in_member(&p->json, &key) && json_in_string(&p->json, &quality)) {
        struct sink_reading *reading = find_point(p, record->count, &from, key);
        if (reading == NULL || quality.len > SINK_NAME_MAX) {
            record->refusal = "a quality without its value";
        } else {
            reading->quality = quality;
        }
    }
    p->json.at = back;
    return !json_in_failed(&p->json);
}

struct seen {
    bool seq, time, values;
    const char *quality;
};

static bool take_member(struct sink_parser *p, struct json_in_text key, struct sink_record *record,
                        struct seen *seen)
{
    struct json_in *json = &p->json;
    if (json_in_text_is(key, "seq")) {
        seen->seq = true;
        return json_in_integer(json, &record->seq);
    }
    if (json_in_text_is(key, "device") || json_in_text_is(key, "deviceId")) {
        return json_in_string(json, &record->device);
    }
    if (json_in_text_is(key, "time") || json_in_text_is(key, "timestamp")) {
        seen->time = true;
        return take_time(json, &record->time_ms, &record->refusal);
    }
    if (json_in_text_is(key, "values") || json_in_text_is(key, "readings")) {
        if (seen->values) {
            return json_in_fail(json, "the values stand there twice");
        }
        seen->values = true;
        return take_values(p, record);
    }
    if (json_in_text_is(key, "quality")) {
        json_in_peek(json);
        seen->quality = json->at;
    }
    return json_in_skip(json);
}

/* What is asked of every record, whatever its form. */
static bool settle_record(struct sink_parser *p, struct sink_record *record,
                          const struct seen *seen)
{
    if (seen->quality != NULL && !apply_quality(p, seen->quality, record)) {
        return false;
    }
    if (!seen->time && record->refusal == NULL) {
        record->refusal = "its time is missing";
    }
    if (!is_name(record->device)) {
        return json_in_fail(&p->json, "a record without a device");
    }
    if (record->count == 0 && record->refusal == NULL) {
        record->refusal = "it has no values";
    }
    record->readings = p->readings;
    return sink_parser_take(p, record);
}

/* One record of a batch, or one object of telemetry. */
static bool take_record(struct sink_parser *p, bool with_seq)
{
    struct sink_record record = p->head;
    struct seen seen = {0};
    struct json_in_text key;
    if (!json_in_enter(&p->json, JSON_IN_OBJECT)) {
        return false;
    }
    while (json_in_member(&p->json, &key) && take_member(p, key, &record, &seen)) {
    }
    if (json_in_failed(&p->json)) {
        return false;
    }
    if (!with_seq) {
        record.seq = record.time_ms;
    } else if (!seen.seq || record.seq < 1) {
        return json_in_fail(&p->json, "a record without a seq from 1");
    }
    return settle_record(p, &record, &seen);
}

static bool take_records(struct sink_parser *p, bool with_seq)
{
    if (!json_in_enter(&p->json, JSON_IN_ARRAY)) {
        return false;
    }
    while (json_in_element(&p->json) && take_record(p, with_seq)) {
    }
    return !json_in_failed(&p->json);
}

/* {"location":"t01","time":...,"wind_speed":8.42}: every other key is a point. */
static bool take_flat(struct sink_parser *p)
{
    struct sink_record record = p->head;
    struct seen seen = {0};
    struct json_in_text key;
    if (!json_in_enter(&p->json, JSON_IN_OBJECT)) {
        return false;
    }
    while (json_in_member(&p->json, &key)) {
        bool fine;
        if (json_in_text_is(key, "location")) {
            fine = json_in_string(&p->json, &record.device);
        } else if (json_in_text_is(key, "time") ||
                   (json_in_text_is(key, "quality") && json_in_peek(&p->json) == JSON_IN_OBJECT)) {
            fine = take_member(p, key, &record, &seen);
        } else {
            struct sink_reading *reading = sink_parser_reading(p, record.count++);
            fine = reading != NULL;
            if (fine) {
                reading->point = key;
                fine = take_reading_value(&p->json, reading, &record.refusal);
            }
        }
        if (!fine) {
            return false;
        }
    }
    record.seq = record.time_ms;
    return !json_in_failed(&p->json) && settle_record(p, &record, &seen);
}

static bool parse_flat(struct sink_parser *p)
{
    if (json_in_peek(&p->json) != JSON_IN_ARRAY) {
        return take_flat(p);
    }
    if (!json_in_enter(&p->json, JSON_IN_ARRAY)) {
        return false;
    }
    while (json_in_element(&p->json) && take_flat(p)) {
    }
    return !json_in_failed(&p->json);
}

struct parts {
    const char *records, *blocks; /* where they stand, until they can be read */
    bool taken;
};

static bool head_complete(const struct sink_record *head)
{
    return head->gateway.at != NULL && head->store.at != NULL && head->stream.at != NULL;
}

static bool check_head(struct sink_parser *p)
{
    const struct sink_record *head = &p->head;
    if (!head_complete(head) || !is_name(head->gateway) || !is_name(head->store)) {
        return json_in_fail(&p->json, "gateway, store or stream is missing");
    }
    if (!json_in_text_is(head->stream, "raw") && !json_in_text_is(head->stream, "aggregate") &&
        !json_in_text_is(head->stream, "event")) {
        return json_in_fail(&p->json, "an unknown stream");
    }
    return true;
}

/* The records or blocks at the present position: read now when the identity is known (the usual
 * order), otherwise stepped over and read at the end. */
static bool take_content(struct sink_parser *p, bool columns, struct parts *parts)
{
    if (parts->taken) {
        return json_in_fail(&p->json, "the records stand there twice");
    }
    parts->taken = true;
    if (!head_complete(&p->head)) {
        json_in_peek(&p->json);
        *(columns ? &parts->blocks : &parts->records) = p->json.at;
        return json_in_skip(&p->json);
    }
    return check_head(p) && (columns ? sink_columns_parse(p) : take_records(p, true));
}

static bool take_head_member(struct sink_parser *p, struct json_in_text key, struct parts *parts)
{
    struct sink_record *head = &p->head;
    struct json_in_text *to = json_in_text_is(key, "gateway")  ? &head->gateway
                              : json_in_text_is(key, "store")  ? &head->store
                              : json_in_text_is(key, "stream") ? &head->stream
                                                               : NULL;
    if (to != NULL) {
        if (parts->taken && to->at != NULL) {
            return json_in_fail(&p->json, "the identity stands there twice");
        }
        return json_in_string(&p->json, to);
    }
    bool columns = json_in_text_is(key, "blocks");
    if (columns || json_in_text_is(key, "records")) {
        return take_content(p, columns, parts);
    }
    return json_in_skip(&p->json);
}

static bool parse_batch(struct sink_parser *p)
{
    struct parts parts = {0};
    struct json_in_text key;
    if (!json_in_enter(&p->json, JSON_IN_OBJECT)) {
        return false;
    }
    while (json_in_member(&p->json, &key) && take_head_member(p, key, &parts)) {
    }
    if (json_in_failed(&p->json)) {
        return false;
    }
    if (!parts.taken) {
        return json_in_fail(&p->json, "neither records nor blocks");
    }
    const char *content = parts.records != NULL ? parts.records : parts.blocks;
    if (content == NULL) {
        return true;
    }
    const char *back = p->json.at;
    p->json.at = content;
    bool fine = check_head(p) &&
                (parts.records != NULL ? take_records(p, true) : sink_columns_parse(p));
    p->json.at = back;
    return fine;
}

static bool parse_body(struct sink_parser *p, enum sink_form form)
{
    if (form == SINK_FORM_FLAT) {
        return parse_flat(p);
    }
    return json_in_peek(&p->json) == JSON_IN_ARRAY ? take_records(p, false) : parse_batch(p);
}

int sink_records_parse(const char *body, size_t len, enum sink_form form,
                       struct json_in_arena *arena, const struct sink_taker *taker,
                       char ret_why[SINK_WHY_SIZE])
{
    struct sink_parser p = {.taker = taker};
    json_in_init(&p.json, body, len, arena);
    bool without_identity = form == SINK_FORM_FLAT || json_in_peek(&p.json) == JSON_IN_ARRAY;
    if (without_identity) {
        const struct json_in_text none = {.at = "", .len = 0};
        p.head.gateway = p.head.store = p.head.stream = none;
    }
    bool fine = parse_body(&p, form) && json_in_end(&p.json);
    free(p.readings);
    if (fine) {
        return 0;
    }
    if (p.error != 0) {
        return p.error;
    }
    snprintf(ret_why, SINK_WHY_SIZE, "%s (at byte %zu)", p.json.why,
             (size_t)(p.json.at - p.json.start));
    return -EINVAL;
}
