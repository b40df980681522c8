#include "gateway/writes/write_request.h"

#include <errno.h>
#include <string.h>

enum { TIMEOUT_DEFAULT_MS = 5000 };

static bool take_text(struct json_in *p, char *text, const char *why)
{
    struct json_in_text value;
    if (json_in_peek(p) != JSON_IN_STRING) {
        return json_in_fail(p, why);
    }
    if (!json_in_string(p, &value)) {
        return false;
    }
    if (value.len == 0 || value.len > WRITES_TEXT_MAX) {
        return json_in_fail(p, why);
    }
    memcpy(text, value.at, value.len);
    text[value.len] = '\0';
    return true;
}

bool write_request_value(struct json_in *p, char *text)
{
    struct reading reading = {0};
    struct json_in_text word;
    auto_buffer struct buffer b = {0};
    if (json_in_peek(p) == JSON_IN_STRING) {
        return take_text(p, text, "value is a number, true or false");
    }
    if (!json_reading_take(p, &reading, &word)) {
        return false;
    }
    if (reading.kind == VALUE_DECIMAL) {
        decimal_write(&b, reading_decimal(&reading));
    } else if (reading.kind == VALUE_BOOL) {
        buffer_add_text(&b, reading.integer != 0 ? "1" : "0");
    }
    const char *shown = b.len > 0 ? buffer_text(&b) : NULL;
    if (shown == NULL || b.len > WRITES_TEXT_MAX) {
        return json_in_fail(p, "value is a number of at most 18 digits, true or false");
    }
    memcpy(text, shown, b.len + 1);
    return true;
}

static bool take_timeout(struct json_in *p, int64_t *timeout_ms)
{
    if (!json_in_integer(p, timeout_ms)) {
        return false;
    }
    return (*timeout_ms >= WRITES_TIMEOUT_MIN_MS && *timeout_ms <= WRITES_TIMEOUT_MAX_MS) ||
           json_in_fail(p, "timeout_ms is a number from 100 to 30000");
}

static bool take_expiry(struct json_in *p, int64_t *expires_ms)
{
    struct reading reading = {0};
    struct json_in_text word;
    if (!json_reading_take(p, &reading, &word)) {
        return false;
    }
    return json_reading_time(&reading, word, expires_ms) == 0 ||
           json_in_fail(p, "expires is a time: 2026-01-31T10:30:00Z, or seconds since 1970");
}

static bool take_member(struct json_in *p, struct write_request *request, struct json_in_text name)
{
    if (json_in_text_is(name, "device")) {
        return take_text(p, request->device, "device is a name");
    }
    if (json_in_text_is(name, "point")) {
        return take_text(p, request->point, "point is a name");
    }
    if (json_in_text_is(name, "id")) {
        return take_text(p, request->id, "id is a text of at most 64 characters");
    }
    if (json_in_text_is(name, "value")) {
        return write_request_value(p, request->value);
    }
    if (json_in_text_is(name, "expires")) {
        return take_expiry(p, &request->expires_ms);
    }
    return json_in_text_is(name, "timeout_ms")
               ? take_timeout(p, &request->timeout_ms)
               : json_in_fail(p, "there is a member beside device, point, value, id, expires, "
                                 "timeout_ms");
}

int write_request_parse(const char *body, size_t len, struct write_request *ret_request,
                        const char **ret_why)
{
    struct json_in_arena arena = {0};
    struct json_in json;
    struct json_in_text name;
    *ret_request = (struct write_request){.timeout_ms = TIMEOUT_DEFAULT_MS};
    json_in_init(&json, body, len, &arena);
    bool good = len <= WRITE_REQUEST_MAX && json_in_enter(&json, JSON_IN_OBJECT);
    while (good && json_in_member(&json, &name)) {
        good = take_member(&json, ret_request, name);
    }
    good = good && json_in_end(&json);
    bool whole = ret_request->device[0] != '\0' && ret_request->point[0] != '\0' &&
                 ret_request->value[0] != '\0';
    *ret_why = json.why != NULL ? json.why
               : !whole         ? "device, point and value are needed"
                                : "the body is too long";
    json_in_arena_finish(&arena);
    return good && whole ? 0 : -EINVAL;
}
