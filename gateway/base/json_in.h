/* json_in.h - reads JSON (RFC 8259) in place, one token at a time, and validates all of it.
 *
 * Pure, any thread. Numbers come out as exact decimals, and a
 * document object model is spared: it would cost more than all else that is done with a reading.
 * The first error latches: from then on every call says false, and json_in_error() tells why. Texts
 * point into the document, or into the arena where escapes had to be resolved; both must outlive
 * them. */
#pragma once

#include "gateway/base/decimal.h"

enum { JSON_IN_DEPTH_MAX = 32 };

struct json_in_text {
    const char *at;
    size_t len;
};

/* Owns the few strings that held escapes; freed in one go. */
struct json_in_arena {
    struct json_in_arena_block *blocks;
};
void json_in_arena_finish(struct json_in_arena *arena);

struct json_in {
    const char *start, *at, *end;
    const char *why; /* the first error; NULL: none so far */
    struct json_in_arena *arena;
    unsigned depth;
    bool fresh; /* just behind a '{' or '[': no comma is due */
};

enum json_in_type {
    JSON_IN_NONE, /* no value begins here */
    JSON_IN_OBJECT,
    JSON_IN_ARRAY,
    JSON_IN_STRING,
    JSON_IN_NUMBER,
    JSON_IN_TRUE,
    JSON_IN_FALSE,
    JSON_IN_NULL,
};

void json_in_init(struct json_in *p, const char *text, size_t len, struct json_in_arena *arena);

/* What begins at the present position; takes nothing but white space. */
enum json_in_type json_in_peek(struct json_in *p);

/* Steps behind the '{' or '['. Then call member() or element() until it says false, and take or
 * skip exactly one value after each true. */
bool json_in_enter(struct json_in *p, enum json_in_type type);
bool json_in_member(struct json_in *p, struct json_in_text *ret_key);
bool json_in_element(struct json_in *p);

bool json_in_string(struct json_in *p, struct json_in_text *ret_text);

/* A number as an exact decimal where 18 digits hold it (*ret_exact), as a double always. */
bool json_in_number(struct json_in *p, struct decimal *ret_decimal, double *ret_real,
                    bool *ret_exact);

/* A number that is whole and fits 64 bits; anything else latches an error. */
bool json_in_integer(struct json_in *p, int64_t *ret_value);

/* true or false; null. */
bool json_in_bool(struct json_in *p, bool *ret_value);
bool json_in_null(struct json_in *p);

/* Steps over any value, validating it. */
bool json_in_skip(struct json_in *p);

/* True at the very end of a sound document. */
bool json_in_end(struct json_in *p);

/* Latches an error of the caller's, unless there is one already. Returns false. */
bool json_in_fail(struct json_in *p, const char *why);
static inline bool json_in_failed(const struct json_in *p)
{
    return p->why != NULL;
}

bool json_in_text_is(struct json_in_text text, const char *word);
