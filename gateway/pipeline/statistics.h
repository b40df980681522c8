/* statistics.h - what a window knows of one point: count, mean, spread, extremes, quantiles.
 *
 * Pure, any thread. Decimals (registers with a decimal scale) are summed as integers, exactly, so
 * that results do not depend on order; doubles by Welford's method with a compensated sum
 * (Neumaier). Angles are degrees: mean and standard deviation over the unit circle. Standard
 * deviations are those of a sample (n - 1), for angles Yamartino's estimate (1984). */
#pragma once

#include "config/config.h"
#include "gateway/base/scan.h"

enum {
    STATISTICS_FUNCTIONS = 11,
    STATISTICS_SAMPLES_MAX = 4096, /* kept of a point and window for median and p95 */
    STATISTICS_EXTRA_DIGITS = 6,   /* of mean, std, median, p95 behind the point's resolution */
};

union statistic_number {
    int64_t integer;
    double real;
};

struct statistic {
    uint32_t count;     /* readings that entered: good and uncertain ones */
    int8_t exponent;    /* of the numbers, while exact */
    bool exact : 1;     /* numbers are integers with `exponent`, otherwise doubles */
    bool single : 1;    /* all doubles came from float32 registers */
    bool uncertain : 1; /* at least one reading was */
    bool text : 1;      /* at least one reading was no number: only counted from then on */
    union {
        struct {
            int64_t sum;
            uint64_t squares_low, squares_high; /* 128 bits */
        } integers;
        struct {
            double mean, m2, sum, compensation;
        } reals;
        struct {
            double sine, cosine;
        } angle;
    };
    union statistic_number min, max, first, last;
};

/* The values themselves, evenly spaced once more than STATISTICS_SAMPLES_MAX came. */
struct samples {
    double *values;
    uint32_t count, capacity, stride, skip;
};

/* Lets a reading in; a bad one (VALUE_NULL) stays outside, a text is only counted. Returns whether
 * it entered. */
bool statistic_add(struct statistic *statistic, const struct reading *reading, bool circular);

/* The same value into the samples; where memory ends, the samples thin out. */
void samples_add(struct samples *samples, double value);
void samples_finish(struct samples *samples);

/* One function's result: kind, value, quality of ret_reading. `samples` may be NULL where neither
 * median nor p95 is asked for; it is sorted in place. -ENODATA: the function has no meaning here
 * (nothing entered, one reading for std, an angle's minimum, ...); count always has. */
must_check int statistic_result(const struct statistic *statistic, struct samples *samples,
                                enum config_functions function, bool circular,
                                struct reading *ret_reading);

/* "mean", "p95", ...: what stands behind the point's name; and whether the result has the point's
 * unit (count and ti have none). */
const char *statistics_function_name(enum config_functions function);
bool statistics_has_unit(enum config_functions function);
