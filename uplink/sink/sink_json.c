#include "uplink/sink/sink_json.h"

#include <math.h>
#include <string.h>

struct sink_arena_block {
    struct sink_arena_block *next;
    char bytes[];
};

void sink_arena_finish(struct sink_arena *arena)
{
    while (arena->blocks != NULL) {
        struct sink_arena_block *next = arena->blocks->next;
        free(arena->blocks);
        arena->blocks = next;
    }
}

static char *arena_take(struct sink_arena *arena, size_t len)
{
    struct sink_arena_block *block = malloc(sizeof *block + len);
    if (block == NULL) {
        return NULL;
    }
    block->next = arena->blocks;
    arena->blocks = block;
    return block->bytes;
}

void sink_json_init(struct sink_json *p, const char *text, size_t len, struct sink_arena *arena)
{
    *p = (struct sink_json){.start = text, .at = text, .end = text + len, .arena = arena};
}

bool sink_json_fail(struct sink_json *p, const char *why)
{
    if (p->why == NULL) {
        p->why = why;
    }
    return false;
}

static void skip_space(struct sink_json *p)
{
    while (p->at < p->end &&
           (*p->at == ' ' || *p->at == '\n' || *p->at == '\r' || *p->at == '\t')) {
        p->at++;
    }
}

enum sink_json_type sink_json_peek(struct sink_json *p)
{
    skip_space(p);
    if (p->why != NULL || p->at >= p->end) {
        return SINK_JSON_NONE;
    }
    switch (*p->at) {
    case '{':
        return SINK_JSON_OBJECT;
    case '[':
        return SINK_JSON_ARRAY;
    case '"':
        return SINK_JSON_STRING;
    case 't':
        return SINK_JSON_TRUE;
    case 'f':
        return SINK_JSON_FALSE;
    case 'n':
        return SINK_JSON_NULL;
    default:
        return *p->at == '-' || (*p->at >= '0' && *p->at <= '9') ? SINK_JSON_NUMBER
                                                                 : SINK_JSON_NONE;
    }
}

bool sink_json_enter(struct sink_json *p, enum sink_json_type type)
{
    if (sink_json_peek(p) != type) {
        return sink_json_fail(p, type == SINK_JSON_OBJECT ? "an object is expected"
                                                          : "an array is expected");
    }
    if (p->depth >= SINK_JSON_DEPTH_MAX) {
        return sink_json_fail(p, "nested too deeply");
    }
    p->depth++;
    p->at++;
    p->fresh = true;
    return true;
}

/* The part that objects and arrays share: the closing bracket, or the comma that is due. */
static bool next_part(struct sink_json *p, char closing)
{
    skip_space(p);
    if (p->why != NULL) {
        return false;
    }
    if (p->at >= p->end) {
        return sink_json_fail(p, "the document ends too early");
    }
    if (*p->at == closing) {
        p->at++;
        p->depth--;
        p->fresh = false;
        return false;
    }
    if (!p->fresh) {
        if (*p->at != ',') {
            return sink_json_fail(p, "a comma is missing");
        }
        p->at++;
    }
    p->fresh = false;
    return true;
}

bool sink_json_element(struct sink_json *p)
{
    return next_part(p, ']');
}

bool sink_json_member(struct sink_json *p, struct sink_text *ret_key)
{
    if (!next_part(p, '}') || !sink_json_string(p, ret_key)) {
        return false;
    }
    skip_space(p);
    if (p->at >= p->end || *p->at != ':') {
        return sink_json_fail(p, "a colon is missing");
    }
    p->at++;
    return true;
}

/* Steps over one UTF-8 sequence of two bytes or more (RFC 3629). */
static bool skip_utf8(struct sink_json *p)
{
    const unsigned char *at = (const unsigned char *)p->at;
    unsigned char c = at[0];
    size_t n = c >= 0xc2 && c < 0xe0 ? 2 : (c & 0xf0) == 0xe0 ? 3 : c >= 0xf0 && c < 0xf5 ? 4 : 0;
    if (n == 0 || (size_t)(p->end - p->at) < n) {
        return sink_json_fail(p, "no UTF-8");
    }
    for (size_t i = 1; i < n; i++) {
        if ((at[i] & 0xc0) != 0x80) {
            return sink_json_fail(p, "no UTF-8");
        }
    }
    if ((c == 0xe0 && at[1] < 0xa0) || (c == 0xed && at[1] > 0x9f) || (c == 0xf0 && at[1] < 0x90) ||
        (c == 0xf4 && at[1] > 0x8f)) {
        return sink_json_fail(p, "no UTF-8");
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

static bool skip_escape(struct sink_json *p)
{
    const char *at = p->at + 1;
    if (at < p->end && *at == 'u') {
        at++;
        if (take_unicode(&at, p->end) < 0) {
            return sink_json_fail(p, "a broken \\u escape");
        }
        p->at = at;
        return true;
    }
    if (at >= p->end || *at == '\0' || strchr("\"\\/bfnrt", *at) == NULL) {
        return sink_json_fail(p, "an unknown escape");
    }
    p->at = at + 1;
    return true;
}

/* Steps to behind the closing quote; ret_text is what stands between, escapes unresolved. */
static bool scan_string(struct sink_json *p, struct sink_text *ret_text, bool *ret_escaped)
{
    if (sink_json_peek(p) != SINK_JSON_STRING) {
        return sink_json_fail(p, "a string is expected");
    }
    const char *from = ++p->at;
    bool escaped = false;
    while (p->at < p->end) {
        unsigned char c = (unsigned char)*p->at;
        if (c == '"') {
            *ret_text = (struct sink_text){.at = from, .len = (size_t)(p->at - from)};
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
            return sink_json_fail(p, "a control character in a string");
        } else if (c < 0x80) {
            p->at++;
        } else if (!skip_utf8(p)) {
            return false;
        }
    }
    return sink_json_fail(p, "a string does not end");
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
static bool resolve_escapes(struct sink_json *p, struct sink_text *text)
{
    static const char names[] = "\"\\/bfnrt", values[] = "\"\\/\b\f\n\r\t";
    char *to = arena_take(p->arena, text->len);
    if (to == NULL) {
        return sink_json_fail(p, "out of memory");
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
    *text = (struct sink_text){.at = to, .len = n};
    return true;
}

bool sink_json_string(struct sink_json *p, struct sink_text *ret_text)
{
    bool escaped = false;
    if (!scan_string(p, ret_text, &escaped)) {
        return false;
    }
    return !escaped || resolve_escapes(p, ret_text);
}

static bool take_word(struct sink_json *p, const char *word)
{
    size_t len = strlen(word);
    if ((size_t)(p->end - p->at) < len || memcmp(p->at, word, len) != 0) {
        return sink_json_fail(p, "an unknown word");
    }
    p->at += len;
    return true;
}

/* Takes digits into the mantissa; counts those that did not fit in *lost. */
static size_t take_digits(struct sink_json *p, int64_t *mantissa, size_t *lost)
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

static bool take_exponent(struct sink_json *p, int *ret_exponent)
{
    p->at++;
    bool negative = p->at < p->end && *p->at == '-';
    p->at += p->at < p->end && (*p->at == '-' || *p->at == '+') ? 1 : 0;
    int64_t exponent = 0;
    size_t lost = 0;
    if (take_digits(p, &exponent, &lost) == 0) {
        return sink_json_fail(p, "a broken number");
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

/* The double nearest to it: one correctly rounded operation where both sides are exact. */
static double decimal_nearest(struct decimal d)
{
    if (d.mantissa >= -(INT64_C(1) << 53) && d.mantissa <= INT64_C(1) << 53) {
        return decimal_to_double(d);
    }
    char text[40];
    snprintf(text, sizeof text, "%llde%d", (long long)d.mantissa, d.exponent);
    return strtod(text, NULL);
}

/* The grammar of a number: its digits as a mantissa, and where the point stands. */
static bool scan_number(struct sink_json *p, int64_t *mantissa, int64_t *exponent, size_t *lost)
{
    if (sink_json_peek(p) != SINK_JSON_NUMBER) {
        return sink_json_fail(p, "a number is expected");
    }
    bool negative = *p->at == '-';
    p->at += negative ? 1 : 0;
    bool zero = p->at < p->end && *p->at == '0';
    size_t count = take_digits(p, mantissa, lost);
    if (count == 0 || (zero && count > 1)) {
        return sink_json_fail(p, "a broken number");
    }
    if (p->at < p->end && *p->at == '.') {
        p->at++;
        count = take_digits(p, mantissa, lost);
        if (count == 0) {
            return sink_json_fail(p, "a broken number");
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

bool sink_json_number(struct sink_json *p, struct decimal *ret_decimal, double *ret_real,
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
            return sink_json_fail(p, "a number beyond a double");
        }
    }
    return true;
}

struct sink_value sink_value_decimal(struct decimal d)
{
    struct decimal whole = d;
    while (whole.exponent < 0 && whole.mantissa % 10 == 0 && whole.mantissa != 0) {
        whole.mantissa /= 10;
        whole.exponent++;
    }
    int64_t larger;
    while (whole.exponent > 0 && !__builtin_mul_overflow(whole.mantissa, (int64_t)10, &larger)) {
        whole.mantissa = larger;
        whole.exponent--;
    }
    if (whole.exponent == 0 || whole.mantissa == 0) {
        return (struct sink_value){.kind = SINK_VALUE_INTEGER, .integer = whole.mantissa};
    }
    return (struct sink_value){.kind = SINK_VALUE_REAL, .real = decimal_nearest(d)};
}

static struct sink_value value_of_number(struct decimal d, double real, bool exact)
{
    if (exact) {
        return sink_value_decimal(d);
    }
    if (real == trunc(real) && fabs(real) < 9007199254740992.0) {
        return (struct sink_value){.kind = SINK_VALUE_INTEGER, .integer = (int64_t)real};
    }
    return (struct sink_value){.kind = SINK_VALUE_REAL, .real = real};
}

bool sink_json_integer(struct sink_json *p, int64_t *ret_value)
{
    struct decimal d;
    double real;
    bool exact;
    if (!sink_json_number(p, &d, &real, &exact)) {
        return false;
    }
    struct sink_value value = value_of_number(d, real, exact);
    if (value.kind != SINK_VALUE_INTEGER) {
        return sink_json_fail(p, "a whole number is expected");
    }
    *ret_value = value.integer;
    return true;
}

bool sink_json_value(struct sink_json *p, struct sink_value *ret_value)
{
    struct decimal d;
    double real;
    bool exact;
    *ret_value = (struct sink_value){.kind = SINK_VALUE_NULL};
    switch (sink_json_peek(p)) {
    case SINK_JSON_NUMBER:
        if (!sink_json_number(p, &d, &real, &exact)) {
            return false;
        }
        *ret_value = value_of_number(d, real, exact);
        return true;
    case SINK_JSON_STRING:
        ret_value->kind = SINK_VALUE_TEXT;
        return sink_json_string(p, &ret_value->text);
    case SINK_JSON_TRUE:
        *ret_value = (struct sink_value){.kind = SINK_VALUE_INTEGER, .integer = 1};
        return take_word(p, "true");
    case SINK_JSON_FALSE:
        *ret_value = (struct sink_value){.kind = SINK_VALUE_INTEGER, .integer = 0};
        return take_word(p, "false");
    case SINK_JSON_NULL:
        return take_word(p, "null");
    default:
        return sink_json_fail(p, "a plain value is expected");
    }
}

bool sink_json_skip(struct sink_json *p)
{
    struct sink_text text;
    struct sink_value value;
    bool escaped;
    switch (sink_json_peek(p)) {
    case SINK_JSON_OBJECT:
        if (!sink_json_enter(p, SINK_JSON_OBJECT)) {
            return false;
        }
        while (sink_json_member(p, &text) && sink_json_skip(p)) {
        }
        return p->why == NULL;
    case SINK_JSON_ARRAY:
        if (!sink_json_enter(p, SINK_JSON_ARRAY)) {
            return false;
        }
        while (sink_json_element(p) && sink_json_skip(p)) {
        }
        return p->why == NULL;
    case SINK_JSON_STRING:
        return scan_string(p, &text, &escaped);
    case SINK_JSON_NONE:
        return sink_json_fail(p, "a value is expected");
    default:
        return sink_json_value(p, &value);
    }
}

bool sink_json_end(struct sink_json *p)
{
    skip_space(p);
    if (p->why == NULL && p->at != p->end) {
        sink_json_fail(p, "something follows the document");
    }
    return p->why == NULL;
}

bool sink_text_is(struct sink_text text, const char *word)
{
    return strlen(word) == text.len && memcmp(text.at, word, text.len) == 0;
}
