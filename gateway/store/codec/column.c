#include "gateway/store/codec/column.h"

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

uint8_t column_choose(const int64_t *values, size_t count, const struct column_references *refs)
{
    if (all_equal(values, count)) {
        return PREDICT_CONSTANT;
    }
    /* Priced on a stretch in the middle: what suits it nearly always suits the block. */
    size_t n = count < SAMPLE ? count : SAMPLE;
    const size_t from = (count - n) / 2;
    int64_t plain[1 + COLUMN_REFERENCES][SAMPLE], res[SAMPLE];
    uint64_t best = UINT64_MAX;
    unsigned best_reference = 0, best_how = 0;
    for (unsigned reference = 0; reference <= COLUMN_REFERENCES; reference++) {
        const int64_t *ref = reference == 0 ? NULL : refs->values[reference - 1];
        if (reference > 0 && ref == NULL) {
            continue;
        }
        for (size_t i = 0; i < n; i++) {
            plain[reference][i] = ref == NULL ? values[from + i]
                                              : sub(values[from + i], ref[from + i]);
        }
        residuals_of(PREDICT_MEAN_2, plain[reference], n, res);
        uint64_t cost = price(res, n);
        if (cost < best) {
            best = cost;
            best_reference = reference;
            best_how = PREDICT_MEAN_2;
        }
    }
    for (unsigned predictor = PREDICT_LAST; predictor < PREDICTORS; predictor++) {
        residuals_of((enum predictor)predictor, plain[best_reference], n, res);
        uint64_t cost = price(res, n);
        if (cost < best) {
            best = cost;
            best_how = predictor;
        }
    }
    return (uint8_t)(best_reference * PREDICTORS + best_how);
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
