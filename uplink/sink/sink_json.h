/* sink_json.h - reads JSON (RFC 8259) in place, one token at a time, and validates all of it.
 *
 * Pure, any thread. A document object model costs more than everything else the sink does with a
 * reading; this costs a pass over the bytes. The first error latches: from then on every call says
 * false, and sink_json_error() tells why. Texts point into the document, or into the arena where
 * escapes had to be resolved; both must outlive them. */
#pragma once

#include "gateway/base/decimal.h"

enum { SINK_JSON_DEPTH_MAX = 32 };

struct sink_text {
    const char *at;
    size_t len;
};

/* Owns the few strings that held escapes; freed in one go. */
struct sink_arena {
    struct sink_arena_block *blocks;
};
void sink_arena_finish(struct sink_arena *arena);

struct sink_json {
    const char *start, *at, *end;
    const char *why; /* the first error; NULL: none so far */
    struct sink_arena *arena;
    unsigned depth;
    bool fresh; /* just behind a '{' or '[': no comma is due */
};

enum sink_json_type {
    SINK_JSON_NONE, /* no value begins here */
    SINK_JSON_OBJECT,
    SINK_JSON_ARRAY,
    SINK_JSON_STRING,
    SINK_JSON_NUMBER,
    SINK_JSON_TRUE,
    SINK_JSON_FALSE,
    SINK_JSON_NULL,
};

enum sink_value_kind { SINK_VALUE_NULL, SINK_VALUE_INTEGER, SINK_VALUE_REAL, SINK_VALUE_TEXT };

/* A value as the database holds it. A number that is whole is always an INTEGER, whether it came as
 * 13, 13.0 or 1.3e1, so that two forms of one value compare equal; true is 1. */
struct sink_value {
    enum sink_value_kind kind;
    union {
        int64_t integer;
        double real;
        struct sink_text text;
    };
};

void sink_json_init(struct sink_json *p, const char *text, size_t len, struct sink_arena *arena);

/* What begins at the present position; takes nothing but white space. */
enum sink_json_type sink_json_peek(struct sink_json *p);

/* Steps behind the '{' or '['. Then call member() or element() until it says false, and take or
 * skip exactly one value after each true. */
bool sink_json_enter(struct sink_json *p, enum sink_json_type type);
bool sink_json_member(struct sink_json *p, struct sink_text *ret_key);
bool sink_json_element(struct sink_json *p);

bool sink_json_string(struct sink_json *p, struct sink_text *ret_text);

/* A number as an exact decimal where 18 digits hold it (*ret_exact), as a double always. */
bool sink_json_number(struct sink_json *p, struct decimal *ret_decimal, double *ret_real,
                      bool *ret_exact);

/* A number that is whole and fits 64 bits; anything else latches an error. */
bool sink_json_integer(struct sink_json *p, int64_t *ret_value);

/* Any scalar; an object or array latches an error. */
bool sink_json_value(struct sink_json *p, struct sink_value *ret_value);

/* Steps over any value, validating it. */
bool sink_json_skip(struct sink_json *p);

/* True at the very end of a sound document. */
bool sink_json_end(struct sink_json *p);

/* Latches an error of the caller's, unless there is one already. Returns false. */
bool sink_json_fail(struct sink_json *p, const char *why);
static inline bool sink_json_failed(const struct sink_json *p)
{
    return p->why != NULL;
}

/* mantissa * 10^exponent as the database holds it, correctly rounded where it is a fraction. */
struct sink_value sink_value_decimal(struct decimal d);

bool sink_text_is(struct sink_text text, const char *word);
