#include "gateway/base/json_in.h"

#include <math.h>
#include <string.h>

struct json_in_arena_block {
    struct json_in_arena_block *next;
    char bytes[];
};

void json_in_arena_finish(struct json_in_arena *arena)
{
    while (arena->blocks != NULL) {
        struct json_in_arena_block *next = arena->blocks->next;
        free(arena->blocks);
        arena->blocks = next;
    }
}

static char *arena_take(struct json_in_arena *arena, size_t len)
{
    struct json_in_arena_block *block = malloc(sizeof *block + len);
    if (block == NULL) {
        return NULL;
    }
    block->next = arena->blocks;
    arena->blocks = block;
    return block->bytes;
}

void json_in_init(struct json_in *p, const char *text, size_t len, struct json_in_arena *arena)
{
    *p = (struct json_in){.start = text, .at = text, .end = text + len, .arena = arena};
}

bool json_in_fail(struct json_in *p, const char *why)
{
    if (p->why == NULL) {
        p->why = why;
    }
    return false;
}

static void skip_space(struct json_in *p)
{
    while (p->at < p->end &&
           (*p->at == ' ' || *p->at == '\n' || *p->at == '\r' || *p->at == '\t')) {
        p->at++;
    }
}

enum json_in_type json_in_peek(struct json_in *p)
{
    skip_space(p);
    if (p->why != NULL || p->at >= p->end) {
        return JSON_IN_NONE;
    }
    switch (*p->at) {
    case '{':
        return JSON_IN_OBJECT;
    case '[':
        return JSON_IN_ARRAY;
    case '"':
        return JSON_IN_STRING;
    case 't':
        return JSON_IN_TRUE;
    case 'f':
        return JSON_IN_FALSE;
    case 'n':
        return JSON_IN_NULL;
    default:
        return *p->at == '-' || (*p->at >= '0' && *p->at <= '9') ? JSON_IN_NUMBER : JSON_IN_NONE;
    }
}

bool json_in_enter(struct json_in *p, enum json_in_type type)
{
    if (json_in_peek(p) != type) {
        return json_in_fail(p, type == JSON_IN_OBJECT ? "an object is expected"
                                                      : "an array is expected");
    }
    if (p->depth >= JSON_IN_DEPTH_MAX) {
        return json_in_fail(p, "nested too deeply");
    }
    p->depth++;
    p->at++;
    p->fresh = true;
    return true;
}

/* The part that objects and arrays share: the closing bracket, or the comma that is due. */
static bool next_part(struct json_in *p, char closing)
{
    skip_space(p);
    if (p->why != NULL) {
        return false;
    }
    if (p->at >= p->end) {
        return json_in_fail(p, "the document ends too early");
    }
    if (*p->at == closing) {
        p->at++;
        p->depth--;
        p->fresh = false;
        return false;
    }
    if (!p->fresh) {
        if (*p->at != ',') {
            return json_in_fail(p, "a comma is missing");
        }
        p->at++;
    }
    p->fresh = false;
    return true;
}

bool json_in_element(struct json_in *p)
{
    return next_part(p, ']');
}

bool json_in_member(struct json_in *p, struct json_in_text *ret_key)
{
    if (!next_part(p, '}') || !json_in_string(p, ret_key)) {
        return false;
    }
    skip_space(p);
    if (p->at >= p->end || *p->at != ':') {
        return json_in_fail(p, "a colon is missing");
    }
    p->at++;
    return true;
}

/* Steps over one UTF-8 sequence of two bytes or more (RFC 3629). */
static bool skip_utf8(struct json_in *p)
{
    const unsigned char *at = (const unsigned char *)p->at;
    unsigned char c = at[0];
    size_t n = c >= 0xc2 && c < 0xe0 ? 2 : (c & 0xf0) == 0xe0 ? 3 : c >= 0xf0 && c < 0xf5 ? 4 : 0;
    if (n == 0 || (size_t)(p->end - p->at) < n) {
        return json_in_fail(p, "no UTF-8");
    }
    for (size_t i = 1; i < n; i++) {
        if ((at[i] & 0xc0) != 0x80) {
            return json_in_fail(p, "no UTF-8");
        }
    }
    if ((c == 0xe0 && at[1] < 0xa0) || (c == 0xed && at[1] > 0x9f) || (c == 0xf0 && at[1] < 0x90) ||
        (c == 0xf4 && at[1] > 0x8f)) {
        return json_in_fail(p, "no UTF-8");
    }
    p->at += n;
    return true;
}

/* The four hex digits behind \u, or -1. */
static int hex4(const char *at, const char *end)
{
    if (end - at < 4) {
        return -1;
    }
    int code = 0;
    for (int i = 0; i < 4; i++) {
        char c = at[i];
        int digit = c >= '0' && c <= '9'   ? c - '0'
                    : c >= 'a' && c <= 'f' ? c - 'a' + 10
                    : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                           : -1;
        if (digit < 0) {
            return -1;
        }
        code = code * 16 + digit;
    }
    return code;
}

/* The code point of a \uXXXX at *at (behind the u), with its second half; moves *at. NUL and lone
 * halves are refused: no text of ours holds them, and they break what comes after. */
static int take_unicode(const char **at, const char *end)
{
    int code = hex4(*at, end);
    if (code <= 0 || (code >= 0xdc00 && code <= 0xdfff)) {
        return -1;
    }
    *at += 4;
    if (code < 0xd800 || code > 0xdbff) {
        return code;
    }
    if (end - *at < 6 || (*at)[0] != '\\' || (*at)[1] != 'u') {
        return -1;
    }
    int low = hex4(*at + 2, end);
    if (low < 0xdc00 || low > 0xdfff) {
        return -1;
    }
    *at += 6;
    return 0x10000 + ((code - 0xd800) << 10) + (low - 0xdc00);
}

static bool skip_escape(struct json_in *p)
{
    const char *at = p->at + 1;
    if (at < p->end && *at == 'u') {
        at++;
        if (take_unicode(&at, p->end) < 0) {
            return json_in_fail(p, "a broken \\u escape");
        }
        p->at = at;
        return true;
    }
    if (at >= p->end || *at == '\0' || strchr("\"\\/bfnrt", *at) == NULL) {
        return json_in_fail(p, "an unknown escape");
    }
    p->at = at + 1;
    return true;
}

/* Steps to behind the closing quote; ret_text is what stands between, escapes unresolved. */
static bool scan_string(struct json_in *p, struct json_in_text *ret_text, bool *ret_escaped)
{
    if (json_in_peek(p) != JSON_IN_STRING) {
        return json_in_fail(p, "a string is expected");
    }
    const char *from = ++p->at;
    bool escaped = false;
    while (p->at < p->end) {
        unsigned char c = (unsigned char)*p->at;
        if (c == '"') {
            *ret_text = (struct json_in_text){.at = from, .len = (size_t)(p->at - from)};
            *ret_escaped = escaped;
            p->at++;
            return true;
        }
        if (c == '\\') {
            escaped = true;
            if (!skip_escape(p)) {
                return false;
            }
        } else if (c < 0x20) {
            return json_in_fail(p, "a control character in a string");
        } else if (c < 0x80) {
            p->at++;
        } else if (!skip_utf8(p)) {
            return false;
        }
    }
    return json_in_fail(p, "a string does not end");
}

static size_t write_utf8(char *to, int code)
{
    if (code < 0x80) {
        to[0] = (char)code;
        return 1;
    }
    if (code < 0x800) {
        to[0] = (char)(0xc0 | code >> 6);
        to[1] = (char)(0x80 | (code & 0x3f));
        return 2;
    }
    if (code < 0x10000) {
        to[0] = (char)(0xe0 | code >> 12);
        to[1] = (char)(0x80 | (code >> 6 & 0x3f));
        to[2] = (char)(0x80 | (code & 0x3f));
        return 3;
    }
    to[0] = (char)(0xf0 | code >> 18);
    to[1] = (char)(0x80 | (code >> 12 & 0x3f));
    to[2] = (char)(0x80 | (code >> 6 & 0x3f));
    to[3] = (char)(0x80 | (code & 0x3f));
    return 4;
}

/* Resolves the escapes of a scanned string; the result is never longer than what it came from. */
static bool resolve_escapes(struct json_in *p, struct json_in_text *text)
{
    static const char names[] = "\"\\/bfnrt", values[] = "\"\\/\b\f\n\r\t";
    char *to = arena_take(p->arena, text->len);
    if (to == NULL) {
        return json_in_fail(p, "out of memory");
    }
    const char *at = text->at, *end = text->at + text->len;
    size_t n = 0;
    while (at < end) {
        if (*at != '\\') {
            to[n++] = *at++;
        } else if (at[1] == 'u') {
            at += 2;
            n += write_utf8(to + n, take_unicode(&at, end));
        } else {
            to[n++] = values[strchr(names, at[1]) - names];
            at += 2;
        }
    }
    *text = (struct json_in_text){.at = to, .len = n};
    return true;
}

bool json_in_string(struct json_in *p, struct json_in_text *ret_text)
{
    bool escaped = false;
    if (!scan_string(p, ret_text, &escaped)) {
        return false;
    }
    return !escaped || resolve_escapes(p, ret_text);
}

static bool take_word(struct json_in *p, const char *word)
{
    size_t len = strlen(word);
    if ((size_t)(p->end - p->at) < len || memcmp(p->at, word, len) != 0) {
        return json_in_fail(p, "an unknown word");
    }
    p->at += len;
    return true;
}

/* Takes digits into the mantissa; counts those that did not fit in *lost. */
static size_t take_digits(struct json_in *p, int64_t *mantissa, size_t *lost)
{
    const char *from = p->at;
    for (; p->at < p->end && *p->at >= '0' && *p->at <= '9'; p->at++) {
        if (*mantissa >= INT64_C(100000000000000000)) {
            (*lost)++;
        } else {
            *mantissa = *mantissa * 10 + (*p->at - '0');
        }
    }
    return (size_t)(p->at - from);
}

static bool take_exponent(struct json_in *p, int *ret_exponent)
{
    p->at++;
    bool negative = p->at < p->end && *p->at == '-';
    p->at += p->at < p->end && (*p->at == '-' || *p->at == '+') ? 1 : 0;
    int64_t exponent = 0;
    size_t lost = 0;
    if (take_digits(p, &exponent, &lost) == 0) {
        return json_in_fail(p, "a broken number");
    }
    exponent = exponent > 9999 || lost > 0 ? 9999 : exponent;
    *ret_exponent = negative ? -(int)exponent : (int)exponent;
    return true;
}

static double slow_double(const char *from, const char *to)
{
    char text[400];
    size_t len = (size_t)(to - from);
    if (len >= sizeof text) {
        len = sizeof text - 1; /* digits beyond these change no double that a device could send */
    }
    memcpy(text, from, len);
    text[len] = '\0';
    return strtod(text, NULL);
}

/* The grammar of a number: its digits as a mantissa, and where the point stands. */
static bool scan_number(struct json_in *p, int64_t *mantissa, int64_t *exponent, size_t *lost)
{
    if (json_in_peek(p) != JSON_IN_NUMBER) {
        return json_in_fail(p, "a number is expected");
    }
    bool negative = *p->at == '-';
    p->at += negative ? 1 : 0;
    bool zero = p->at < p->end && *p->at == '0';
    size_t count = take_digits(p, mantissa, lost);
    if (count == 0 || (zero && count > 1)) {
        return json_in_fail(p, "a broken number");
    }
    if (p->at < p->end && *p->at == '.') {
        p->at++;
        count = take_digits(p, mantissa, lost);
        if (count == 0) {
            return json_in_fail(p, "a broken number");
        }
        *exponent = -(int64_t)count;
    }
    *mantissa = negative ? -*mantissa : *mantissa;
    int written = 0;
    if (p->at < p->end && (*p->at == 'e' || *p->at == 'E') && !take_exponent(p, &written)) {
        return false;
    }
    *exponent += written;
    return true;
}

bool json_in_number(struct json_in *p, struct decimal *ret_decimal, double *ret_real,
                    bool *ret_exact)
{
    int64_t mantissa = 0, exponent = 0;
    size_t lost = 0;
    skip_space(p);
    const char *from = p->at;
    if (!scan_number(p, &mantissa, &exponent, &lost)) {
        return false;
    }
    *ret_exact = lost == 0 && exponent >= DECIMAL_EXPONENT_MIN && exponent <= DECIMAL_EXPONENT_MAX;
    if (*ret_exact) {
        *ret_decimal = (struct decimal){.mantissa = mantissa, .exponent = (int8_t)exponent};
        *ret_real = decimal_nearest(*ret_decimal);
    } else {
        *ret_real = slow_double(from, p->at);
        if (!isfinite(*ret_real)) {
            return json_in_fail(p, "a number beyond a double");
        }
    }
    return true;
}

/* Takes the exponent out of a decimal that is whole. */
static bool make_whole(struct decimal d, int64_t *ret_value)
{
    while (d.exponent < 0 && d.mantissa % 10 == 0 && d.mantissa != 0) {
        d.mantissa /= 10;
        d.exponent++;
    }
    while (d.exponent > 0 && !__builtin_mul_overflow(d.mantissa, (int64_t)10, &d.mantissa)) {
        d.exponent--;
    }
    *ret_value = d.mantissa;
    return d.exponent == 0 || d.mantissa == 0;
}

/* A whole number of few digits, as nearly all are; false: something else, and nothing is taken. */
static bool take_short(struct json_in *p, int64_t *ret_value)
{
    skip_space(p);
    const char *at = p->at;
    bool negative = at < p->end && *at == '-';
    const char *digits = at += negative;
    int64_t value = 0;
    for (; at < p->end && *at >= '0' && *at <= '9' && at - digits < 17; at++) {
        value = value * 10 + (*at - '0');
    }
    bool plain = at < p->end && (*at == ',' || *at == ']' || *at == '}');
    if (p->why != NULL || !plain || at == digits || (*digits == '0' && at - digits > 1)) {
        return false;
    }
    p->at = at;
    *ret_value = negative ? -value : value;
    return true;
}

bool json_in_integer(struct json_in *p, int64_t *ret_value)
{
    struct decimal d;
    double real;
    bool exact;
    if (take_short(p, ret_value)) {
        return true;
    }
    if (!json_in_number(p, &d, &real, &exact)) {
        return false;
    }
    if (!exact && real == trunc(real) && fabs(real) < 9007199254740992.0) {
        *ret_value = (int64_t)real;
        return true;
    }
    if (!exact || !make_whole(d, ret_value)) {
        return json_in_fail(p, "a whole number is expected");
    }
    return true;
}

bool json_in_bool(struct json_in *p, bool *ret_value)
{
    *ret_value = json_in_peek(p) == JSON_IN_TRUE;
    if (!*ret_value && json_in_peek(p) != JSON_IN_FALSE) {
        return json_in_fail(p, "true or false is expected");
    }
    return take_word(p, *ret_value ? "true" : "false");
}

bool json_in_null(struct json_in *p)
{
    return json_in_peek(p) == JSON_IN_NULL ? take_word(p, "null")
                                           : json_in_fail(p, "null is expected");
}

bool json_in_skip(struct json_in *p)
{
    struct json_in_text text;
    struct decimal d;
    double real;
    int64_t whole;
    bool flag;
    switch (json_in_peek(p)) {
    case JSON_IN_OBJECT:
        if (!json_in_enter(p, JSON_IN_OBJECT)) {
            return false;
        }
        while (json_in_member(p, &text) && json_in_skip(p)) {
        }
        return p->why == NULL;
    case JSON_IN_ARRAY:
        if (!json_in_enter(p, JSON_IN_ARRAY)) {
            return false;
        }
        while (json_in_element(p) && json_in_skip(p)) {
        }
        return p->why == NULL;
    case JSON_IN_STRING:
        return scan_string(p, &text, &flag);
    case JSON_IN_NUMBER:
        return take_short(p, &whole) || json_in_number(p, &d, &real, &flag);
    case JSON_IN_NULL:
        return json_in_null(p);
    case JSON_IN_NONE:
        return json_in_fail(p, "a value is expected");
    default:
        return json_in_bool(p, &flag);
    }
}

bool json_in_end(struct json_in *p)
{
    skip_space(p);
    if (p->why == NULL && p->at != p->end) {
        json_in_fail(p, "something follows the document");
    }
    return p->why == NULL;
}

bool json_in_text_is(struct json_in_text text, const char *word)
{
    return strlen(word) == text.len && memcmp(text.at, word, text.len) == 0;
}
