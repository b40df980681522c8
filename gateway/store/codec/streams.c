#include "gateway/store/codec/streams.h"

#include <math.h>
#include <string.h>

/* First byte of a double stream: an exponent 0..DECIMALS_MAX as integers / 10^exponent, or XOR. */
enum { DECIMALS_MAX = 9, STREAM_XOR = 255 };

static const struct column_references no_references;

static const double powers[DECIMALS_MAX + 1] = {1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9};

void stream_write_integers(struct buffer *head, struct bit_writer *bits, const int64_t *values,
                           size_t count, const struct column_references *refs, int64_t *work)
{
    uint8_t how = column_choose(values, count, refs);
    buffer_add_byte(head, how);
    column_write(bits, how, values, count, refs, work);
}

bool stream_read_integers(struct cursor *head, struct bit_reader *bits, int64_t *ret_values,
                          size_t count, const struct column_references *refs)
{
    uint8_t how = cursor_take_byte(head);
    return !head->failed && column_read(bits, how, ret_values, count, refs);
}

static double as_double(int64_t pattern)
{
    double value;
    memcpy(&value, &pattern, sizeof value);
    return value;
}

static int64_t as_pattern(double value)
{
    int64_t pattern;
    memcpy(&pattern, &value, sizeof pattern);
    return pattern;
}

static double from_decimal(int64_t mantissa, unsigned decimals, bool single)
{
    double value = (double)mantissa / powers[decimals];
    return single ? (double)(float)value : value;
}

/* Whether the pattern is exactly an integer / 10^decimals. */
static bool as_decimal(int64_t pattern, unsigned decimals, bool single, int64_t *ret_mantissa)
{
    double scaled = as_double(pattern) * powers[decimals];
    if (!(fabs(scaled) < 9007199254740992.0)) {
        return false;
    }
    int64_t mantissa = llrint(scaled);
    *ret_mantissa = mantissa;
    return as_pattern(from_decimal(mantissa, decimals, single)) == pattern;
}

/* The least exponent that suits all, with the integers in ret_mantissas; or STREAM_XOR. */
static unsigned common_decimals(const int64_t *patterns, size_t count, bool single,
                                int64_t *ret_mantissas)
{
    unsigned decimals = 0;
    for (size_t i = 0; i < count; i++) {
        unsigned before = decimals;
        while (!as_decimal(patterns[i], decimals, single, &ret_mantissas[i])) {
            if (++decimals > DECIMALS_MAX) {
                return STREAM_XOR;
            }
        }
        if (decimals != before) {
            i = (size_t)-1; /* those before have to be seen anew with the larger exponent */
        }
    }
    return decimals;
}

/* The low bits that a float32 leaves empty are seen by the widths. */
static void write_xor(struct bit_writer *bits, const int64_t *patterns, size_t count)
{
    uint64_t before = 0;
    for (size_t i = 0; i < count; i++) {
        uint64_t now = (uint64_t)patterns[i];
        uint64_t x = now ^ before;
        before = now;
        if (x == 0) {
            bit_write(bits, 0, 1);
            continue;
        }
        unsigned lead = (unsigned)__builtin_clzll(x) / 8, trail = (unsigned)__builtin_ctzll(x) / 4;
        unsigned width = 64 - lead * 8 - trail * 4;
        bit_write(bits, 1 | lead << 1 | trail << 4, 8);
        bit_write(bits, x >> (trail * 4), width);
    }
}

static bool read_xor(struct bit_reader *bits, int64_t *ret_patterns, size_t count)
{
    uint64_t before = 0;
    for (size_t i = 0; i < count; i++) {
        if (bit_read(bits, 1) != 0) {
            unsigned lead = (unsigned)bit_read(bits, 3), trail = (unsigned)bit_read(bits, 4);
            if (lead * 8 + trail * 4 >= 64) {
                return false;
            }
            before ^= bit_read(bits, 64 - lead * 8 - trail * 4) << (trail * 4);
        }
        ret_patterns[i] = (int64_t)before;
    }
    return !bits->failed;
}

void stream_write_doubles(struct buffer *head, struct bit_writer *bits, const int64_t *patterns,
                          size_t count, bool single, int64_t *work)
{
    auto_free int64_t *mantissas = malloc(count * sizeof *mantissas);
    if (mantissas == NULL) {
        head->failed = true;
        return;
    }
    unsigned decimals = common_decimals(patterns, count, single, mantissas);
    buffer_add_byte(head, (uint8_t)decimals);
    if (decimals == STREAM_XOR) {
        write_xor(bits, patterns, count);
    } else {
        stream_write_integers(head, bits, mantissas, count, &no_references, work);
    }
}

bool stream_read_doubles(struct cursor *head, struct bit_reader *bits, int64_t *ret_patterns,
                         size_t count, bool single)
{
    unsigned decimals = cursor_take_byte(head);
    if (head->failed || (decimals > DECIMALS_MAX && decimals != STREAM_XOR)) {
        return false;
    }
    if (decimals == STREAM_XOR) {
        return read_xor(bits, ret_patterns, count);
    }
    if (!stream_read_integers(head, bits, ret_patterns, count, &no_references)) {
        return false;
    }
    for (size_t i = 0; i < count; i++) {
        ret_patterns[i] = as_pattern(from_decimal(ret_patterns[i], decimals, single));
    }
    return true;
}
