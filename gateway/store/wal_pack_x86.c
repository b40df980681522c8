#include "gateway/store/wal_pack.h"

#include <tmmintrin.h>

enum { LANES = 8, NONE = 0x80, ROWS = 4, AHEAD = 12 };

/* Of a row; before: that of the row before, by two columns, and then of this one. */
static inline __m128i step_row(const struct reading *now, __m128i before[2], __m128i *wide)
{
    const __m128i *at = (const __m128i *)(const void *)now;
    __m128i a = _mm_unpackhi_epi64(_mm_loadu_si128(at), _mm_loadu_si128(at + 1));
    __m128i b = _mm_unpackhi_epi64(_mm_loadu_si128(at + 2), _mm_loadu_si128(at + 3));
    __m128 from_a = _mm_castsi128_ps(_mm_sub_epi64(a, before[0]));
    __m128 from_b = _mm_castsi128_ps(_mm_sub_epi64(b, before[1]));
    before[0] = a;
    before[1] = b;
    __m128i low = _mm_castps_si128(_mm_shuffle_ps(from_a, from_b, _MM_SHUFFLE(2, 0, 2, 0)));
    __m128i high = _mm_castps_si128(_mm_shuffle_ps(from_a, from_b, _MM_SHUFFLE(3, 1, 3, 1)));
    __m128i sign = _mm_srai_epi32(low, 31);
    *wide = _mm_or_si128(*wide, _mm_xor_si128(high, sign));
    return _mm_xor_si128(_mm_add_epi32(low, low), sign);
}

/* Four rows of four columns turned, one column to each place. */
static inline void store_turned(uint32_t *to, size_t apart, const __m128i rows[ROWS])
{
    __m128i a = _mm_unpacklo_epi32(rows[0], rows[1]), b = _mm_unpacklo_epi32(rows[2], rows[3]);
    __m128i c = _mm_unpackhi_epi32(rows[0], rows[1]), d = _mm_unpackhi_epi32(rows[2], rows[3]);
    _mm_storeu_si128((__m128i *)(void *)to, _mm_unpacklo_epi64(a, b));
    _mm_storeu_si128((__m128i *)(void *)(to + apart), _mm_unpackhi_epi64(a, b));
    _mm_storeu_si128((__m128i *)(void *)(to + 2 * apart), _mm_unpacklo_epi64(c, d));
    _mm_storeu_si128((__m128i *)(void *)(to + 3 * apart), _mm_unpackhi_epi64(c, d));
}

unsigned wal_steps(const struct reading *const *rows, size_t index, size_t count, uint32_t *steps)
{
    const __m128i zero = _mm_setzero_si128();
    __m128i before[2] = {zero, zero}, wide = zero, four[ROWS];
    step_row(rows[0] + index, before, &wide);
    wide = zero;
    size_t i = 1;
    for (; i + ROWS <= count; i += ROWS) {
        for (size_t r = 0; r < ROWS; r++) {
            size_t ahead = i + r + AHEAD < count ? i + r + AHEAD : i;
            _mm_prefetch((const char *)(rows[ahead] + index), _MM_HINT_T0);
            four[r] = step_row(rows[i + r] + index, before, &wide);
        }
        store_turned(steps + i - 1, count, four);
    }
    for (; i < count; i++) {
        uint32_t row[TOGETHER];
        _mm_storeu_si128((__m128i *)(void *)row, step_row(rows[i] + index, before, &wide));
        for (size_t c = 0; c < TOGETHER; c++) {
            steps[c * count + i - 1] = row[c];
        }
    }
    return (unsigned)_mm_movemask_ps(_mm_castsi128_ps(_mm_cmpeq_epi32(wide, zero))) ^ 15u;
}

/* Where the bytes of four numbers come from that have two each, by which of them need both. */
static const uint8_t keep[16][8] __attribute__((aligned(8))) = {
    {0, 2, 4, 6, NONE, NONE, NONE, NONE}, {0, 1, 2, 4, 6, NONE, NONE, NONE},
    {0, 2, 3, 4, 6, NONE, NONE, NONE},    {0, 1, 2, 3, 4, 6, NONE, NONE},
    {0, 2, 4, 5, 6, NONE, NONE, NONE},    {0, 1, 2, 4, 5, 6, NONE, NONE},
    {0, 2, 3, 4, 5, 6, NONE, NONE},       {0, 1, 2, 3, 4, 5, 6, NONE},
    {0, 2, 4, 6, 7, NONE, NONE, NONE},    {0, 1, 2, 4, 6, 7, NONE, NONE},
    {0, 2, 3, 4, 6, 7, NONE, NONE},       {0, 1, 2, 3, 4, 6, 7, NONE},
    {0, 2, 4, 5, 6, 7, NONE, NONE},       {0, 1, 2, 4, 5, 6, 7, NONE},
    {0, 2, 3, 4, 5, 6, 7, NONE},          {0, 1, 2, 3, 4, 5, 6, 7},
};

static const uint8_t lengths[16] = {4, 5, 5, 6, 5, 6, 6, 7, 5, 6, 6, 7, 6, 7, 7, 8};

__attribute__((target("ssse3"))) static inline uint8_t *put_four(uint8_t *at, __m128i bytes,
                                                                 unsigned both)
{
    __m128i from = _mm_loadl_epi64((const __m128i *)(const void *)keep[both]);
    _mm_storel_epi64((__m128i *)(void *)at, _mm_shuffle_epi8(bytes, from));
    return at + lengths[both];
}

/* Eight numbers below 2^14 at a time; where there is a larger one, these eight one by one. */
__attribute__((target("ssse3"))) static uint8_t *pack_vectors(uint8_t *at, const uint32_t *numbers,
                                                              size_t count)
{
    const __m128i zero = _mm_setzero_si128();
    for (size_t i = 0; i < count; i += LANES, numbers += LANES) {
        const __m128i *from = (const __m128i *)(const void *)numbers;
        __m128i a = _mm_loadu_si128(from), b = _mm_loadu_si128(from + 1);
        __m128i large = _mm_srli_epi32(_mm_or_si128(a, b), 14);
        if (_mm_movemask_epi8(_mm_cmpeq_epi32(large, zero)) != 0xffff) {
            for (size_t lane = 0; lane < LANES; lane++) {
                at = wal_put(at, numbers[lane]);
            }
            continue;
        }
        __m128i words = _mm_packs_epi32(a, b);
        __m128i both = _mm_cmpgt_epi16(words, _mm_set1_epi16(0x7f));
        __m128i low = _mm_or_si128(_mm_and_si128(words, _mm_set1_epi16(0x7f)),
                                   _mm_and_si128(both, _mm_set1_epi16(0x80)));
        __m128i high = _mm_and_si128(_mm_slli_epi16(words, 1), _mm_set1_epi16(0x7f00));
        __m128i bytes = _mm_or_si128(low, high);
        unsigned which = (unsigned)_mm_movemask_epi8(_mm_packs_epi16(both, zero));
        at = put_four(at, bytes, which & 15);
        at = put_four(at, _mm_srli_si128(bytes, 8), which >> 4);
    }
    return at;
}

uint8_t *wal_pack(uint8_t *at, const uint32_t *numbers, size_t count)
{
    size_t whole = __builtin_cpu_supports("ssse3") != 0 ? count / LANES * LANES : 0;
    at = pack_vectors(at, numbers, whole);
    for (size_t i = whole; i < count; i++) {
        at = wal_put(at, numbers[i]);
    }
    return at;
}
