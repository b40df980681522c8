#include "gateway/store/codec/column.h"

#include <string.h>

/* `how` is reference * PREDICTORS + predictor; reference 0 is none, then the nearest first. */
enum predictor {
    PREDICT_CONSTANT, /* all rows are equal: no groups follow */
    PREDICT_LAST,     /* the value before */
    PREDICT_HALF,     /* the value before and half its step */
    PREDICT_LINEAR,   /* the value before and its step */
    PREDICT_MEAN_2,   /* a running mean that moves by 1/2, 1/4, 1/8, 1/32 of the error */
    PREDICT_MEAN_4,
    PREDICT_MEAN_8,
    PREDICT_MEAN_32,
    PREDICTORS
};

/* Bits behind the point in a running mean. */
enum { MEAN_BITS = 8, SAMPLE = 64 };

/* A sample within this of its first value is priced in 32 bits, running means included; and the
 * first one must be so far from the ends of 64 bits. */
#define NARROW (INT64_C(1) << 20)
#define FAR    (INT64_C(1) << 50)

static const unsigned mean_shift[PREDICTORS] = {
    [PREDICT_MEAN_2] = 1, [PREDICT_MEAN_4] = 2, [PREDICT_MEAN_8] = 3, [PREDICT_MEAN_32] = 5};

static inline int64_t sub(int64_t a, int64_t b)
{
    return (int64_t)((uint64_t)a - (uint64_t)b);
}

static inline int64_t add(int64_t a, int64_t b)
{
    return (int64_t)((uint64_t)a + (uint64_t)b);
}

static inline int64_t mean_begin(int64_t first)
{
    return (int64_t)((uint64_t)first << MEAN_BITS);
}

static inline int64_t mean_value(int64_t mean)
{
    return add(mean, 1 << (MEAN_BITS - 1)) >> MEAN_BITS;
}

static inline int64_t mean_next(int64_t mean, int64_t value, unsigned shift)
{
    return add(mean, sub((int64_t)((uint64_t)value << MEAN_BITS), mean) >> shift);
}

/* residuals[i] = values[i] - prediction, for i from 1; residuals[0] = values[0]. */
static void residuals_of(enum predictor predictor, const int64_t *v, size_t count, int64_t *res)
{
    res[0] = v[0];
    if (predictor == PREDICT_LAST) {
        for (size_t i = 1; i < count; i++) {
            res[i] = sub(v[i], v[i - 1]);
        }
    } else if (predictor == PREDICT_LINEAR || predictor == PREDICT_HALF) {
        unsigned shift = predictor == PREDICT_HALF ? 1 : 0;
        int64_t step = 0;
        for (size_t i = 1; i < count; i++) {
            int64_t now = sub(v[i], v[i - 1]);
            res[i] = sub(now, step >> shift);
            step = now;
        }
    } else {
        int64_t mean = mean_begin(v[0]);
        for (size_t i = 1; i < count; i++) {
            res[i] = sub(v[i], mean_value(mean));
            mean = mean_next(mean, v[i], mean_shift[predictor]);
        }
    }
}

static void values_from(enum predictor predictor, int64_t *v, size_t count)
{
    if (predictor == PREDICT_LAST) {
        for (size_t i = 1; i < count; i++) {
            v[i] = add(v[i], v[i - 1]);
        }
    } else if (predictor == PREDICT_LINEAR || predictor == PREDICT_HALF) {
        unsigned shift = predictor == PREDICT_HALF ? 1 : 0;
        int64_t step = 0;
        for (size_t i = 1; i < count; i++) {
            step = add(v[i], step >> shift);
            v[i] = add(v[i - 1], step);
        }
    } else {
        int64_t mean = mean_begin(v[0]);
        for (size_t i = 1; i < count; i++) {
            v[i] = add(v[i], mean_value(mean));
            mean = mean_next(mean, v[i], mean_shift[predictor]);
        }
    }
}

/* What a stretch of residuals costs: the sum of their sizes, which never overflows here. */
static uint64_t price(const int64_t *res, size_t count)
{
    uint64_t sum = 0;
    for (size_t i = 1; i < count; i++) {
        uint64_t size = (uint64_t)(res[i] < 0 ? ~res[i] : res[i]);
        sum += size >> 48 != 0 ? UINT64_C(1) << 48 : size;
    }
    return sum;
}

static void difference(const int64_t *v, const int64_t *ref, size_t count, int64_t *ret_difference)
{
    for (size_t i = 0; i < count; i++) {
        ret_difference[i] = sub(v[i], ref[i]);
    }
}

static bool all_equal(const int64_t *v, size_t count)
{
    size_t i = 1;
    while (i < count && v[i] == v[0]) {
        i++;
    }
    return i >= count;
}

/* The stretch that a choice is made on: the values, and their differences to each reference. */
struct sample {
    size_t count;
    bool usable[1 + COLUMN_REFERENCES];
    bool narrow; /* all are within NARROW of the first one, and are held less it */
    int64_t values[1 + COLUMN_REFERENCES][SAMPLE];
    int32_t near[1 + COLUMN_REFERENCES][SAMPLE];
};

/* From the middle: what suits it nearly always suits the block. */
static void take_sample(struct sample *sample, const int64_t *values, size_t count,
                        const struct column_references *refs)
{
    sample->count = count < SAMPLE ? count : SAMPLE;
    const size_t from = (count - sample->count) / 2;
    uint64_t far = 0;
    for (unsigned reference = 0; reference <= COLUMN_REFERENCES; reference++) {
        const int64_t *ref = reference == 0 ? NULL : refs->values[reference - 1];
        int64_t *to = sample->values[reference];
        sample->usable[reference] = reference == 0 || ref != NULL;
        if (!sample->usable[reference]) {
            memset(sample->near[reference], 0, sizeof sample->near[reference]);
            continue;
        }
        for (size_t i = 0; i < sample->count; i++) {
            to[i] = ref == NULL ? values[from + i] : sub(values[from + i], ref[from + i]);
        }
        /* The first one, too: far from all limits no prediction depends on where zero is. */
        far |= (uint64_t)add(to[0], FAR) / (2 * FAR);
        for (size_t i = 0; i < sample->count; i++) {
            int64_t apart = sub(to[i], to[0]);
            sample->near[reference][i] = (int32_t)apart;
            far |= (uint64_t)add(apart, NARROW) / (2 * NARROW);
        }
    }
    sample->narrow = far == 0;
}

static inline uint32_t size_of(int32_t residual)
{
    return (uint32_t)(residual ^ residual >> 31);
}

/* price() of a running mean, for the references side by side: each step of a mean waits for the one
 * before it, so that a processor has room for several at once. */
static void price_references(const struct sample *sample, uint64_t ret_costs[1 + COLUMN_REFERENCES])
{
    int32_t mean[1 + COLUMN_REFERENCES] = {0};
    uint32_t sum[1 + COLUMN_REFERENCES] = {0};
    const unsigned shift = mean_shift[PREDICT_MEAN_2];
    for (size_t i = 1; i < sample->count; i++) {
        for (unsigned r = 0; r <= COLUMN_REFERENCES; r++) {
            int32_t v = sample->near[r][i];
            sum[r] += size_of(v - ((mean[r] + (1 << (MEAN_BITS - 1))) >> MEAN_BITS));
            mean[r] += (v * (1 << MEAN_BITS) - mean[r]) >> shift;
        }
    }
    for (unsigned r = 0; r <= COLUMN_REFERENCES; r++) {
        ret_costs[r] = sample->usable[r] ? sum[r] : UINT64_MAX;
    }
}

static void price_means(const int32_t *v, size_t count, uint64_t ret_costs[PREDICTORS])
{
    int32_t mean[PREDICTORS] = {0};
    uint32_t sum[PREDICTORS] = {0};
    for (size_t i = 1; i < count; i++) {
        for (unsigned p = PREDICT_MEAN_2; p < PREDICTORS; p++) {
            sum[p] += size_of(v[i] - ((mean[p] + (1 << (MEAN_BITS - 1))) >> MEAN_BITS));
            mean[p] += (v[i] * (1 << MEAN_BITS) - mean[p]) >> mean_shift[p];
        }
    }
    for (unsigned p = PREDICT_MEAN_2; p < PREDICTORS; p++) {
        ret_costs[p] = sum[p];
    }
}

static void price_steps(const int32_t *v, size_t count, uint64_t ret_costs[PREDICTORS])
{
    int32_t step[SAMPLE] = {0};
    uint32_t last = 0, half = 0, linear = 0;
    for (size_t i = 1; i < count; i++) {
        step[i] = v[i] - v[i - 1];
    }
    for (size_t i = 1; i < count; i++) {
        last += size_of(step[i]);
        half += size_of(step[i] - (step[i - 1] >> 1));
        linear += size_of(step[i] - step[i - 1]);
    }
    ret_costs[PREDICT_LAST] = last;
    ret_costs[PREDICT_HALF] = half;
    ret_costs[PREDICT_LINEAR] = linear;
}

/* The same for values of any size. */
static void price_wide(const struct sample *sample, unsigned reference, unsigned predictor,
                       uint64_t *ret_cost)
{
    int64_t res[SAMPLE];
    residuals_of((enum predictor)predictor, sample->values[reference], sample->count, res);
    *ret_cost = price(res, sample->count);
}

static unsigned least_of(const uint64_t *costs, unsigned first, unsigned end)
{
    unsigned best = first;
    for (unsigned i = first + 1; i < end; i++) {
        best = costs[i] < costs[best] ? i : best;
    }
    return best;
}

uint8_t column_choose(const int64_t *values, size_t count, const struct column_references *refs)
{
    if (count < 2 || all_equal(values, count)) {
        return PREDICT_CONSTANT;
    }
    struct sample sample;
    take_sample(&sample, values, count, refs);
    uint64_t costs[1 + COLUMN_REFERENCES];
    if (sample.narrow) {
        price_references(&sample, costs);
    }
    for (unsigned r = 0; !sample.narrow && r <= COLUMN_REFERENCES; r++) {
        costs[r] = UINT64_MAX;
        if (sample.usable[r]) {
            price_wide(&sample, r, PREDICT_MEAN_2, &costs[r]);
        }
    }
    unsigned reference = least_of(costs, 0, 1 + COLUMN_REFERENCES);
    uint64_t by_predictor[PREDICTORS];
    if (sample.narrow) {
        price_means(sample.near[reference], sample.count, by_predictor);
        price_steps(sample.near[reference], sample.count, by_predictor);
    }
    for (unsigned p = PREDICT_LAST; !sample.narrow && p < PREDICTORS; p++) {
        price_wide(&sample, reference, p, &by_predictor[p]);
    }
    /* Of equals the running mean that the reference was chosen by, then the first. */
    unsigned predictor = least_of(by_predictor, PREDICT_LAST, PREDICTORS);
    if (by_predictor[predictor] == by_predictor[PREDICT_MEAN_2]) {
        predictor = PREDICT_MEAN_2;
    }
    return (uint8_t)(reference * PREDICTORS + predictor);
}

static bool resolve(uint8_t how, const struct column_references *refs, const int64_t **ret_ref)
{
    unsigned reference = how / PREDICTORS;
    if (reference > COLUMN_REFERENCES) {
        return false;
    }
    *ret_ref = reference == 0 ? NULL : refs->values[reference - 1];
    return reference == 0 || *ret_ref != NULL;
}

void column_write(struct bit_writer *w, uint8_t how, const int64_t *values, size_t count,
                  const struct column_references *refs, int64_t *scratch)
{
    enum predictor predictor = (enum predictor)(how % PREDICTORS);
    const int64_t *ref = NULL;
    if (!resolve(how, refs, &ref)) {
        return;
    }
    if (predictor == PREDICT_CONSTANT) {
        rice_write_group(w, values, 1);
        return;
    }
    const int64_t *from = values;
    if (ref != NULL) {
        difference(values, ref, count, scratch + count);
        from = scratch + count;
    }
    residuals_of(predictor, from, count, scratch);
    rice_write_group(w, scratch, 1);
    for (size_t i = 1; i < count; i += RICE_GROUP) {
        rice_write_group(w, scratch + i, count - i < RICE_GROUP ? count - i : RICE_GROUP);
    }
}

bool column_read(struct bit_reader *r, uint8_t how, int64_t *ret_values, size_t count,
                 const struct column_references *refs)
{
    enum predictor predictor = (enum predictor)(how % PREDICTORS);
    const int64_t *ref = NULL;
    if (!resolve(how, refs, &ref) || !rice_read_group(r, ret_values, 1)) {
        return false;
    }
    if (predictor == PREDICT_CONSTANT) {
        for (size_t i = 1; i < count; i++) {
            ret_values[i] = ret_values[0];
        }
        return ref == NULL;
    }
    for (size_t i = 1; i < count; i += RICE_GROUP) {
        if (!rice_read_group(r, ret_values + i, count - i < RICE_GROUP ? count - i : RICE_GROUP)) {
            return false;
        }
    }
    values_from(predictor, ret_values, count);
    for (size_t i = 0; ref != NULL && i < count; i++) {
        ret_values[i] = add(ret_values[i], ref[i]);
    }
    return true;
}
