#include "gateway/pipeline/statistics.h"

#include <errno.h>
#include <math.h>

__extension__ typedef unsigned __int128 uint128;
__extension__ typedef __int128 int128;

/* Larger mantissas are summed as doubles: so n * squares stays within 128 bits for 2^20 readings.
 */
#define EXACT_MAX ((int64_t)1 << 43)

static const long double powers[] = {1e0L, 1e1L, 1e2L, 1e3L, 1e4L, 1e5L, 1e6L};

const char *statistics_function_name(enum config_functions function)
{
    static const char *const names[STATISTICS_FUNCTIONS] = {
        "mean", "min", "max", "std", "count", "first", "last", "sum", "median", "p95", "ti"};
    int i = __builtin_ffs((int)function) - 1;
    return i >= 0 && i < STATISTICS_FUNCTIONS ? names[i] : "?";
}

bool statistics_has_unit(enum config_functions function)
{
    return function != FUNCTION_COUNT && function != FUNCTION_TI;
}

static uint128 squares_of(const struct statistic *s)
{
    return (uint128)s->integers.squares_high << 64 | s->integers.squares_low;
}

static void set_squares(struct statistic *s, uint128 squares)
{
    s->integers.squares_low = (uint64_t)squares;
    s->integers.squares_high = (uint64_t)(squares >> 64);
}

/* n * sum of squares - square of the sum, in units of the mantissa: (n - 1) * n times the
 * variance. */
static long double exact_spread(const struct statistic *s)
{
    int128 sum = s->integers.sum;
    uint128 square = (uint128)(sum * sum), product;
    if (__builtin_mul_overflow(squares_of(s), (uint128)s->count, &product)) {
        long double spread = (long double)squares_of(s) * s->count - (long double)square;
        return spread > 0 ? spread : 0;
    }
    return (long double)(product - square);
}

static double to_double(int64_t mantissa, int8_t exponent)
{
    return decimal_to_double((struct decimal){.mantissa = mantissa, .exponent = exponent});
}

static void number_to_real(union statistic_number *number, int8_t exponent)
{
    int64_t mantissa = number->integer;
    number->real = to_double(mantissa, exponent);
}

/* From here on in doubles: a float came, or the integers would overflow. */
static void become_real(struct statistic *s, bool circular)
{
    number_to_real(&s->min, s->exponent);
    number_to_real(&s->max, s->exponent);
    number_to_real(&s->first, s->exponent);
    number_to_real(&s->last, s->exponent);
    if (!circular && s->count > 0) {
        double unit = to_double(1, s->exponent);
        double sum = to_double(s->integers.sum, s->exponent);
        double m2 = (double)(exact_spread(s) / s->count) * unit * unit;
        s->reals.mean = sum / s->count;
        s->reals.m2 = m2;
        s->reals.sum = sum;
        s->reals.compensation = 0;
    }
    s->exact = false;
    s->single = false;
}

/* Multiplies by ten until the exponent has come down; false where it would overflow. */
static bool lower(int64_t *mantissa, int steps)
{
    for (; steps > 0; steps--) {
        if (__builtin_mul_overflow(*mantissa, (int64_t)10, mantissa)) {
            return false;
        }
    }
    return true;
}

/* Brings the statistic down to a finer exponent, all of it or nothing. */
static bool refine(struct statistic *s, int8_t exponent, bool circular)
{
    struct statistic t = *s;
    int steps = s->exponent - exponent;
    if (!lower(&t.min.integer, steps) || !lower(&t.max.integer, steps) ||
        !lower(&t.first.integer, steps) || !lower(&t.last.integer, steps)) {
        return false;
    }
    if (!circular) {
        uint128 squares = squares_of(s);
        for (int i = 0; i < 2 * steps; i++) {
            if (__builtin_mul_overflow(squares, (uint128)10, &squares)) {
                return false;
            }
        }
        if (!lower(&t.integers.sum, steps)) {
            return false;
        }
        set_squares(&t, squares);
    }
    t.exponent = exponent;
    *s = t;
    return true;
}

/* Adds an integer at the statistic's exponent; false, and nothing done, where it would overflow. */
static bool add_integer(struct statistic *s, int64_t x)
{
    int64_t sum;
    uint128 squares = squares_of(s);
    if (x > EXACT_MAX || x < -EXACT_MAX || __builtin_add_overflow(s->integers.sum, x, &sum) ||
        __builtin_add_overflow(squares, (uint128)((int128)x * x), &squares)) {
        return false;
    }
    s->integers.sum = sum;
    set_squares(s, squares);
    return true;
}

static void note_integer(struct statistic *s, int64_t x)
{
    if (s->count == 0) {
        s->min.integer = s->max.integer = s->first.integer = x;
    }
    s->min.integer = x < s->min.integer ? x : s->min.integer;
    s->max.integer = x > s->max.integer ? x : s->max.integer;
    s->last.integer = x;
}

/* True when the decimal entered exactly. */
static bool add_exact(struct statistic *s, struct decimal d, bool circular)
{
    if (s->count == 0) {
        s->exact = true;
        s->exponent = d.exponent;
    }
    if (!s->exact) {
        return false;
    }
    if (d.exponent < s->exponent && !refine(s, d.exponent, circular)) {
        return false;
    }
    if (!lower(&d.mantissa, d.exponent - s->exponent)) {
        return false;
    }
    if (!circular && !add_integer(s, d.mantissa)) {
        return false;
    }
    note_integer(s, d.mantissa);
    return true;
}

static void add_real(struct statistic *s, double x, bool single, bool circular)
{
    if (s->exact) {
        become_real(s, circular);
    }
    if (s->count == 0) {
        s->min.real = s->max.real = s->first.real = x;
        s->single = single;
    }
    s->min.real = fmin(s->min.real, x);
    s->max.real = fmax(s->max.real, x);
    s->last.real = x;
    s->single = s->single && single;
    if (circular) {
        return;
    }
    double delta = x - s->reals.mean;
    s->reals.mean += delta / (s->count + 1.0);
    s->reals.m2 += delta * (x - s->reals.mean);
    double sum = s->reals.sum + x;
    s->reals.compensation += fabs(s->reals.sum) >= fabs(x) ? (s->reals.sum - sum) + x
                                                           : (x - sum) + s->reals.sum;
    s->reals.sum = sum;
}

static void add_angle(struct statistic *s, double degrees)
{
    double sine, cosine;
    sincos(degrees * (M_PI / 180.0), &sine, &cosine);
    s->angle.sine += sine;
    s->angle.cosine += cosine;
}

static void add_number(struct statistic *s, const struct reading *reading, bool circular)
{
    bool decimal = reading->kind == VALUE_DECIMAL;
    struct decimal d = {.mantissa = reading->integer, .exponent = decimal ? reading->exponent : 0};
    bool integer = decimal || reading->kind == VALUE_BOOL;
    if (!integer || !add_exact(s, d, circular)) {
        add_real(s, reading_double(reading), reading->kind == VALUE_FLOAT, circular);
    }
    if (circular) {
        add_angle(s, reading_double(reading));
    }
}

bool statistic_add(struct statistic *s, const struct reading *reading, bool circular)
{
    if (reading->kind == VALUE_NULL) {
        return false;
    }
    s->uncertain |= reading->quality == QUALITY_UNCERTAIN;
    s->text |= reading->kind == VALUE_TEXT;
    if (!s->text) {
        add_number(s, reading, circular);
    }
    s->count++;
    return true;
}

void samples_add(struct samples *samples, double value)
{
    if (samples->stride > 1 && samples->skip > 0) {
        samples->skip--;
        return;
    }
    if (samples->count == samples->capacity && samples->capacity < STATISTICS_SAMPLES_MAX) {
        uint32_t capacity = samples->capacity == 0 ? 64 : samples->capacity * 2;
        double *values = realloc(samples->values, capacity * sizeof *values);
        if (values != NULL) {
            samples->values = values;
            samples->capacity = capacity;
        }
    }
    if (samples->count == samples->capacity) {
        for (uint32_t i = 0; i < samples->count / 2; i++) {
            samples->values[i] = samples->values[2 * (size_t)i];
        }
        samples->count /= 2;
        samples->stride = samples->stride == 0 ? 2 : samples->stride * 2;
    }
    if (samples->count < samples->capacity) {
        samples->values[samples->count++] = value;
        samples->skip = samples->stride > 1 ? samples->stride - 1 : 0;
    }
}

void samples_finish(struct samples *samples)
{
    free(samples->values);
    *samples = (struct samples){0};
}

static int compare_doubles(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Linear between the two nearest ranks: type 7 of Hyndman and Fan (1996), as numpy and R do. */
static double quantile(struct samples *samples, double p)
{
    qsort(samples->values, samples->count, sizeof *samples->values, compare_doubles);
    double rank = p * (samples->count - 1);
    size_t below = (size_t)rank;
    double low = samples->values[below];
    return below + 1 >= samples->count
               ? low
               : low + (rank - (double)below) * (samples->values[below + 1] - low);
}

static void result_integer(int64_t mantissa, int8_t exponent, struct reading *ret)
{
    ret->kind = VALUE_DECIMAL;
    ret->integer = mantissa;
    ret->exponent = exponent;
}

static void result_number(const struct statistic *s, union statistic_number number,
                          struct reading *ret)
{
    if (s->exact) {
        result_integer(number.integer, s->exponent, ret);
        return;
    }
    ret->kind = s->single ? VALUE_FLOAT : VALUE_REAL;
    ret->real = number.real;
}

/* A value in units of 10^exponent, kept to STATISTICS_EXTRA_DIGITS behind it; a double where that
 * does not fit. */
static void result_rounded(long double value, int exponent, struct reading *ret)
{
    long double scaled = roundl(value * powers[STATISTICS_EXTRA_DIGITS]);
    int e = exponent - STATISTICS_EXTRA_DIGITS;
    if (e >= DECIMAL_EXPONENT_MIN && fabsl(scaled) < 9e18L) {
        result_integer((int64_t)scaled, (int8_t)e, ret);
        return;
    }
    ret->kind = VALUE_REAL;
    ret->real = (double)(value * powl(10.0L, exponent));
}

/* A double of the point's own scale, rounded like the rest where the point is exact. */
static void result_double(const struct statistic *s, double value, struct reading *ret)
{
    if (s->exact) {
        result_rounded((long double)value * powl(10.0L, -s->exponent), s->exponent, ret);
        return;
    }
    ret->kind = VALUE_REAL;
    ret->real = value;
}

static void result_mean(const struct statistic *s, struct reading *ret)
{
    if (s->exact) {
        result_rounded((long double)s->integers.sum / s->count, s->exponent, ret);
        return;
    }
    ret->kind = VALUE_REAL;
    ret->real = s->reals.mean;
}

/* In units of 10^exponent where exact. */
static long double deviation(const struct statistic *s)
{
    if (s->exact) {
        return sqrtl(exact_spread(s) / ((long double)s->count * (s->count - 1.0L)));
    }
    return sqrt(s->reals.m2 / (s->count - 1.0));
}

static int result_std(const struct statistic *s, struct reading *ret)
{
    if (s->count < 2) {
        return -ENODATA;
    }
    if (s->exact) {
        result_rounded(deviation(s), s->exponent, ret);
    } else {
        ret->kind = VALUE_REAL;
        ret->real = (double)deviation(s);
    }
    return 0;
}

/* Turbulence intensity, IEC 61400-12-1: the deviation over the mean; no unit. */
static int result_ti(const struct statistic *s, struct reading *ret)
{
    long double mean = s->exact ? (long double)s->integers.sum / s->count
                                : (long double)s->reals.mean;
    if (s->count < 2 || !(mean > 0)) {
        return -ENODATA;
    }
    result_rounded(deviation(s) / mean, 0, ret);
    return 0;
}

static int result_sum(const struct statistic *s, struct reading *ret)
{
    if (s->exact) {
        result_integer(s->integers.sum, s->exponent, ret);
    } else {
        ret->kind = VALUE_REAL;
        ret->real = s->reals.sum + s->reals.compensation;
    }
    return 0;
}

static int result_circular_mean(const struct statistic *s, struct reading *ret)
{
    /* Opposite directions cancel: there is no mean then. */
    if (hypot(s->angle.sine, s->angle.cosine) < 1e-9 * s->count) {
        return -ENODATA;
    }
    double degrees = atan2(s->angle.sine, s->angle.cosine) * (180.0 / M_PI);
    degrees += degrees < 0 ? 360.0 : 0.0;
    result_double(s, degrees, ret);
    if (reading_double(ret) >= 360.0) {
        result_double(s, 0.0, ret);
    }
    return 0;
}

static int result_circular_std(const struct statistic *s, struct reading *ret)
{
    if (s->count < 2) {
        return -ENODATA;
    }
    double sine = s->angle.sine / s->count, cosine = s->angle.cosine / s->count;
    double e = sqrt(fmin(1.0, fmax(0.0, 1.0 - sine * sine - cosine * cosine)));
    double radians = asin(e) * (1.0 + (2.0 / sqrt(3.0) - 1.0) * e * e * e);
    result_double(s, radians * (180.0 / M_PI), ret);
    return 0;
}

static int result_circular(const struct statistic *s, enum config_functions function,
                           struct reading *ret)
{
    switch (function) {
    case FUNCTION_MEAN:
        return result_circular_mean(s, ret);
    case FUNCTION_STD:
        return result_circular_std(s, ret);
    case FUNCTION_FIRST:
        result_number(s, s->first, ret);
        return 0;
    case FUNCTION_LAST:
        result_number(s, s->last, ret);
        return 0;
    default:
        return -ENODATA;
    }
}

static int result_linear(const struct statistic *s, struct samples *samples,
                         enum config_functions function, struct reading *ret)
{
    switch (function) {
    case FUNCTION_MEAN:
        result_mean(s, ret);
        return 0;
    case FUNCTION_MIN:
    case FUNCTION_MAX:
        result_number(s, function == FUNCTION_MIN ? s->min : s->max, ret);
        return 0;
    case FUNCTION_FIRST:
    case FUNCTION_LAST:
        result_number(s, function == FUNCTION_FIRST ? s->first : s->last, ret);
        return 0;
    case FUNCTION_STD:
        return result_std(s, ret);
    case FUNCTION_SUM:
        return result_sum(s, ret);
    case FUNCTION_TI:
        return result_ti(s, ret);
    case FUNCTION_MEDIAN:
    case FUNCTION_P95:
        if (samples == NULL || samples->count == 0) {
            return -ENODATA;
        }
        result_double(s, quantile(samples, function == FUNCTION_MEDIAN ? 0.5 : 0.95), ret);
        return 0;
    default:
        return -ENODATA;
    }
}

int statistic_result(const struct statistic *s, struct samples *samples,
                     enum config_functions function, bool circular, struct reading *ret)
{
    struct reading result = {.point = ret->point,
                             .quality = (uint8_t)(s->uncertain ? QUALITY_UNCERTAIN : QUALITY_GOOD)};
    int r = 0;
    if (function == FUNCTION_COUNT) {
        result_integer(s->count, 0, &result);
    } else if (s->count == 0 || s->text) {
        r = -ENODATA;
    } else {
        r = circular ? result_circular(s, function, &result)
                     : result_linear(s, samples, function, &result);
    }
    if (r == 0) {
        *ret = result;
    }
    return r;
}
