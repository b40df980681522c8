#include "uplink/out.h"

#include "gateway/base/clock.h"

#include <assert.h>
#include <errno.h>

static const char pairs[] = "00010203040506070809101112131415161718192021222324"
                            "25262728293031323334353637383940414243444546474849"
                            "50515253545556575859606162636465666768697071727374"
                            "75767778798081828384858687888990919293949596979899";

static const uint64_t tens[] = {1u,
                                10u,
                                100u,
                                1000u,
                                10000u,
                                100000u,
                                1000000u,
                                10000000u,
                                100000000u,
                                1000000000u,
                                10000000000u,
                                100000000000u,
                                1000000000000u,
                                10000000000000u,
                                100000000000000u,
                                1000000000000000u,
                                10000000000000000u,
                                100000000000000000u,
                                1000000000000000000u};

static char *two_digits(char *at, uint32_t value)
{
    memcpy(at, pairs + 2 * value, 2);
    return at + 2;
}

/* Most numbers have few digits: neither a loop nor a copy of unknown length for those. */
static char *small_uint(char *at, uint32_t value)
{
    if (value >= 10000) {
        at = small_uint(at, value / 10000);
        value %= 10000;
        return two_digits(two_digits(at, value / 100), value % 100);
    }
    if (value >= 1000) {
        return two_digits(two_digits(at, value / 100), value % 100);
    }
    if (value >= 100) {
        *at = (char)('0' + value / 100);
        return two_digits(at + 1, value % 100);
    }
    if (value >= 10) {
        return two_digits(at, value);
    }
    *at = (char)('0' + value);
    return at + 1;
}

char *out_uint(char *at, uint64_t value)
{
    if (value <= UINT32_MAX) {
        return small_uint(at, (uint32_t)value);
    }
    uint64_t high = value / 1000000000u;
    uint32_t low = (uint32_t)(value % 1000000000u);
    at = out_uint(at, high);
    for (int i = 8; i >= 0; i--, low /= 10) {
        at[i] = (char)('0' + low % 10);
    }
    return at + 9;
}

char *out_int(char *at, int64_t value)
{
    if (value < 0) {
        *at++ = '-';
        return out_uint(at, 0 - (uint64_t)value);
    }
    return out_uint(at, (uint64_t)value);
}

/* The digits behind the point, all `places` of them. */
static char *fraction(char *at, uint64_t value, int places)
{
    char *end = at + places + 1;
    *at = '.';
    for (; places > 9; places--, value /= 10) {
        at[places] = (char)('0' + value % 10);
    }
    uint32_t small = (uint32_t)value;
    for (; places > 1; places -= 2, small /= 100) {
        two_digits(at + places - 1, small % 100);
    }
    if (places == 1) {
        at[1] = (char)('0' + small % 10);
    }
    return end;
}

/* m / 10^places, the divisions that are usual by constants. */
static uint32_t whole_part(uint32_t m, int places, uint32_t *ret_rest)
{
    uint32_t whole = places == 1   ? m / 10
                     : places == 2 ? m / 100
                     : places == 3 ? m / 1000
                                   : m / (uint32_t)tens[places];
    *ret_rest = m - whole * (uint32_t)tens[places];
    return whole;
}

char *out_decimal(char *at, struct decimal d)
{
    uint64_t m = d.mantissa < 0 ? 0 - (uint64_t)d.mantissa : (uint64_t)d.mantissa;
    if (d.mantissa < 0) {
        *at++ = '-';
    }
    if (d.exponent >= 0) {
        at = out_uint(at, m);
        for (int i = m != 0 ? d.exponent : 0; i > 0; i--) {
            *at++ = '0';
        }
        return at;
    }
    if (m <= UINT32_MAX && d.exponent >= -9) {
        uint32_t rest;
        at = small_uint(at, whole_part((uint32_t)m, -d.exponent, &rest));
        return fraction(at, rest, -d.exponent);
    }
    uint64_t divisor = tens[-d.exponent];
    at = out_uint(at, m / divisor);
    return fraction(at, m % divisor, -d.exponent);
}

char *out_time(char *at, int64_t time_ms)
{
    static const int64_t day_ms = 86400000, year_10000_ms = 253402300800000;
    if (time_ms < 0 || time_ms >= year_10000_ms) {
        return at + clock_format_utc(time_ms, at);
    }
    /* Days to a date in eras of 400 years that begin on 1 March, where the leap day comes last
     * (H. Hinnant, "chrono-compatible low-level date algorithms", civil_from_days). */
    uint32_t days = (uint32_t)(time_ms / day_ms) + 719468, ms = (uint32_t)(time_ms % day_ms);
    uint32_t era = days / 146097, of_era = days % 146097;
    uint32_t year = (of_era - of_era / 1460 + of_era / 36524 - of_era / 146096) / 365;
    uint32_t of_year = of_era - (365 * year + year / 4 - year / 100);
    uint32_t shifted = (5 * of_year + 2) / 153, day = of_year - (153 * shifted + 2) / 5 + 1;
    uint32_t month = shifted < 10 ? shifted + 3 : shifted - 9;
    year += era * 400 + (month <= 2 ? 1 : 0);

    at = two_digits(two_digits(at, year / 100), year % 100);
    *at++ = '-';
    at = two_digits(at, month);
    *at++ = '-';
    at = two_digits(at, day);
    *at++ = 'T';
    at = two_digits(at, ms / 3600000);
    *at++ = ':';
    at = two_digits(at, ms / 60000 % 60);
    *at++ = ':';
    at = two_digits(at, ms / 1000 % 60);
    *at++ = '.';
    *at++ = (char)('0' + ms % 1000 / 100);
    at = two_digits(at, ms % 100);
    *at++ = 'Z';
    return at;
}

void out_number(struct buffer *b, int64_t value)
{
    char *at = out_room(b, OUT_NUMBER_MAX);
    if (at != NULL) {
        out_advance(b, out_int(at, value));
    }
}

/* Copies of a length that the compiler knows are quicker than a call: KEY_COPY bytes, of which the
 * first len count. Behind the names are so many more. */
enum { KEY_COPY = 32 };
static_assert((int)KEY_COPY <= (int)OUT_NUMBER_MAX, "there is room for a number behind each key");

static void render_key(struct buffer *b, const char *name, size_t len, unsigned point)
{
    char unnamed[24];
    if (name == NULL) {
        len = (size_t)snprintf(unnamed, sizeof unnamed, "point_%u", point);
        name = unnamed;
    }
    out_literal(b, ",");
    json_write_string(b, name, len);
    out_literal(b, ":");
}

int out_names_use(struct out_names *n, const struct store_names *names)
{
    if (n->names == names) {
        return 0;
    }
    size_t count = names->point_count;
    if (count > n->capacity) {
        struct out_name *keys = realloc(n->keys, count * sizeof *keys);
        if (keys == NULL) {
            return -ENOMEM;
        }
        n->keys = keys;
        n->capacity = count;
    }
    buffer_clear(&n->text);
    for (size_t i = 0; i < count; i++) {
        size_t from = n->text.len;
        render_key(&n->text, names->points[i].name, names->points[i].name_len, (unsigned)i);
        n->keys[i] = (struct out_name){(uint32_t)from, (uint32_t)(n->text.len - from)};
    }
    /* What copy_key() reads beyond the last of them. */
    uint8_t *behind = buffer_reserve(&n->text, KEY_COPY);
    if (behind == NULL) {
        return -ENOMEM;
    }
    memset(behind, 0, KEY_COPY);
    n->names = names;
    n->count = count;
    return 0;
}

void out_names_finish(struct out_names *n)
{
    buffer_finish(&n->text);
    free(n->keys);
    *n = (struct out_names){0};
}

void out_key(struct buffer *b, const struct out_names *n, uint16_t point, bool comma)
{
    size_t skip = comma ? 0 : 1;
    if (point < n->count) {
        out_bytes(b, n->text.data + n->keys[point].offset + skip, n->keys[point].len - skip);
        return;
    }
    buffer_printf(b, "%s\"point_%u\":", comma ? "," : "", (unsigned)point);
}

/* Needs room for KEY_COPY bytes, and as many to read. */
static char *copy_key(char *at, const uint8_t *key, size_t len)
{
    memcpy(at, key, KEY_COPY);
    if (len > KEY_COPY) {
        memcpy(at + KEY_COPY, key + KEY_COPY, len - KEY_COPY);
    }
    return at + len;
}

/* The usual value, a decimal of a point with a name: one check for room, then straight copies. */
static bool fast_value(struct buffer *b, const struct out_names *n, const struct reading *r,
                       bool comma)
{
    if (r->kind != VALUE_DECIMAL || r->point >= n->count || r->exponent < DECIMAL_EXPONENT_MIN ||
        r->exponent > DECIMAL_EXPONENT_MAX) {
        return false;
    }
    struct out_name key = n->keys[r->point];
    size_t skip = comma ? 0 : 1;
    char *at = out_room(b, key.len + OUT_NUMBER_MAX);
    if (at != NULL) {
        at = copy_key(at, n->text.data + key.offset + skip, key.len - skip);
        out_advance(b, out_decimal(at, reading_decimal(r)));
    }
    return true;
}

size_t out_values(struct buffer *b, struct out_names *n, const struct batch_record *record,
                  bool comma)
{
    size_t doubtful = 0;
    for (size_t i = 0, count = record_count(record); i < count; i++) {
        const struct reading *r = record_reading(record, i);
        doubtful += r->quality != QUALITY_GOOD;
        if (!fast_value(b, n, r, comma || i > 0)) {
            out_key(b, n, r->point, comma || i > 0);
            reading_write_json(b, record->scan, r);
        }
    }
    return doubtful;
}

void out_qualities(struct buffer *b, const struct out_names *n, const struct batch_record *record)
{
    bool comma = false;
    for (size_t i = 0, count = record_count(record); i < count; i++) {
        const struct reading *r = record_reading(record, i);
        if (r->quality != QUALITY_GOOD) {
            out_key(b, n, r->point, comma);
            out_literal(b, "\"");
            buffer_add_text(b, quality_name((enum quality)r->quality));
            out_literal(b, "\"");
            comma = true;
        }
    }
}
