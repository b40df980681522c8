#include "gateway/api/json_out.h"

#include "gateway/base/clock.h"
#include "gateway/base/decimal.h"

#include <inttypes.h>
#include <string.h>

void json_out_key(struct json_out *out, const char *key)
{
    if (out->comma) {
        buffer_add_byte(out->b, ',');
    }
    if (key != NULL) {
        json_write_string(out->b, key, strlen(key));
        buffer_add_byte(out->b, ':');
    }
    out->comma = true;
}

void json_out_open(struct json_out *out, const char *key, char bracket)
{
    json_out_key(out, key);
    buffer_add_byte(out->b, (uint8_t)bracket);
    out->comma = false;
}

void json_out_close(struct json_out *out, char bracket)
{
    buffer_add_byte(out->b, (uint8_t)bracket);
    out->comma = true;
}

void json_out_text(struct json_out *out, const char *key, const char *text)
{
    json_out_key(out, key);
    if (text == NULL) {
        buffer_add_text(out->b, "null");
    } else {
        json_write_string(out->b, text, strlen(text));
    }
}

void json_out_uint(struct json_out *out, const char *key, uint64_t value)
{
    json_out_key(out, key);
    buffer_printf(out->b, "%" PRIu64, value);
}

void json_out_int(struct json_out *out, const char *key, int64_t value)
{
    json_out_key(out, key);
    buffer_printf(out->b, "%" PRId64, value);
}

void json_out_real(struct json_out *out, const char *key, double value)
{
    json_out_key(out, key);
    decimal_write_double(out->b, value);
}

void json_out_bool(struct json_out *out, const char *key, bool value)
{
    json_out_key(out, key);
    buffer_add_text(out->b, value ? "true" : "false");
}

void json_out_null(struct json_out *out, const char *key)
{
    json_out_key(out, key);
    buffer_add_text(out->b, "null");
}

void json_out_time(struct json_out *out, const char *key, int64_t wall_ms)
{
    if (wall_ms == 0) {
        json_out_null(out, key);
        return;
    }
    char text[CLOCK_TEXT_SIZE];
    clock_format_utc(wall_ms, text);
    json_out_text(out, key, text);
}
