#include "gateway/writes/write_answer.h"

#include "gateway/base/clock.h"
#include "gateway/base/decimal.h"

#include <errno.h>
#include <string.h>

enum { WHY_MAX = 250 /* bytes of words in an answer */ };

static const char *const outcomes[] = {
    [WRITE_DONE] = "done", [WRITE_FAILED] = "failed", [WRITE_UNKNOWN] = "unknown"};

const char *write_answer_kind(enum write_kind kind)
{
    static const char *const kinds[] = {[WRITE_DONE] = "write-done",
                                        [WRITE_FAILED] = "write-failed",
                                        [WRITE_UNKNOWN] = "write-unknown"};
    return kinds[kind];
}

static void add_text(struct buffer *b, const char *key, const char *text)
{
    buffer_printf(b, "%s\"%s\":", b->len > 1 ? "," : "", key);
    json_write_string(b, text, strlen(text));
}

static void add_value(struct buffer *b, const char *key, const char *json)
{
    if (json != NULL) {
        buffer_printf(b, ",\"%s\":%s", key, json);
    }
}

/* The value as JSON: it was checked to be a number, but "+1" and "1." are none there. */
static void add_number(struct buffer *b, const char *key, const char *text)
{
    struct decimal value;
    if (decimal_parse(text, &value) < 0) {
        add_text(b, key, text);
        return;
    }
    buffer_printf(b, ",\"%s\":", key);
    decimal_write(b, value);
}

static void add_command(struct buffer *b, const struct write_record *record)
{
    buffer_add_byte(b, '{');
    add_text(b, "id", record->id);
    add_text(b, "device", record->device);
    add_text(b, "point", record->point);
}

void write_answer_intent(const struct write_record *record, struct buffer *ret_text)
{
    add_command(ret_text, record);
    add_number(ret_text, "value", record->value);
    add_text(ret_text, "who", record->who);
    buffer_add_byte(ret_text, '}');
}

static void add_outcome(struct buffer *b, const struct write_outcome *outcome)
{
    add_text(b, "outcome", outcomes[outcome->kind]);
    add_value(b, "old", outcome->old);
    add_value(b, "written", outcome->sent ? outcome->written : NULL);
    add_value(b, "read_back", outcome->read_back);
}

void write_answer_event(const struct write_record *record, const struct write_outcome *outcome,
                        struct buffer *ret_text)
{
    add_command(ret_text, record);
    add_number(ret_text, "value", record->value);
    add_text(ret_text, "who", record->who);
    add_outcome(ret_text, outcome);
    if (outcome->why != NULL) {
        add_text(ret_text, "why", outcome->why);
    }
    buffer_add_byte(ret_text, '}');
}

static int status_of(const struct write_outcome *outcome)
{
    if (outcome->kind == WRITE_DONE) {
        return 200;
    }
    if (outcome->kind == WRITE_UNKNOWN) {
        return 504;
    }
    switch (outcome->error) {
    case -ETIMEDOUT:
        return 504;
    case -EBUSY:
    case -ENOBUFS:
        return 503;
    case -EINVAL:
    case -ERANGE:
        return 422;
    case -ENOENT:
        return 404;
    case -ENOSYS:
        return 501;
    default:
        return 502;
    }
}

static const char *code_of(const struct write_outcome *outcome)
{
    if (outcome->kind == WRITE_UNKNOWN) {
        return "unknown_outcome";
    }
    int status = status_of(outcome);
    return outcome->sent   ? "device"
           : status == 504 ? "expired"
           : status == 503 ? "busy"
           : status == 422 ? "not_representable"
           : status == 501 ? "cannot"
                           : "not_written";
}

static void add_error(struct buffer *b, const char *code, const char *message)
{
    buffer_add_text(b, ",\"error\":{");
    buffer_add_text(b, "\"code\":");
    json_write_string(b, code, strlen(code));
    buffer_add_text(b, ",\"message\":");
    size_t len = strnlen(message, WHY_MAX);
    json_write_string(b, message, len);
    buffer_add_byte(b, '}');
}

/* Into the record; a text that is too long for it (it can hardly be) says less. */
static void keep(struct write_record *record, int status, struct buffer *b)
{
    const char *text = buffer_text(b);
    record->status = status;
    if (text == NULL || strlen(text) > WRITE_BODY_MAX) {
        text = "{\"error\":{\"code\":\"too_long\",\"message\":\"the answer is too long\"}}";
    }
    memcpy(record->body, text, strlen(text) + 1);
}

void write_answer_fill(struct write_record *record, const struct write_outcome *outcome)
{
    auto_buffer struct buffer b = {0};
    char time[CLOCK_TEXT_SIZE];
    add_command(&b, record);
    clock_format_utc(record->time_ms, time);
    add_text(&b, "time", time);
    add_outcome(&b, outcome);
    if (outcome->kind != WRITE_DONE) {
        add_error(&b, code_of(outcome), outcome->why != NULL ? outcome->why : "it failed");
    }
    buffer_add_byte(&b, '}');
    keep(record, status_of(outcome), &b);
}

void write_answer_refuse(struct write_record *record, int status, const char *code,
                         const char *message)
{
    auto_buffer struct buffer b = {0};
    buffer_add_byte(&b, '{');
    add_text(&b, "id", record->id);
    add_text(&b, "outcome", "refused");
    add_error(&b, code, message);
    buffer_add_byte(&b, '}');
    keep(record, status, &b);
}
