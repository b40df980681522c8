#include "gateway/store/codec/bits.h"

#include <endian.h>
#include <string.h>

/* The six bits in front of a group. */
enum {
    GROUP_BITS = 6,
    GROUP_RICE = 0, /* + k, 0..39 */
    GROUP_RICE_MAX = 39,
    GROUP_ZERO = 40,
    GROUP_PLAIN = 41, /* six more bits: width - 1 */
};

/* Most groups hold small values: below NARROW_BITS, what 64 of them cost fits in 32 bits, of which
 * vectors hold twice as many. Codes of at most SHORT_BITS are written two at a time, since both fit
 * in a word beside what was left of a byte. */
enum { NARROW_BITS = 25, SHORT_BITS = 28, SHORT_BYTES_MAX = RICE_GROUP * SHORT_BITS / 8 + 16 };

void bit_writer_init(struct bit_writer *w, struct buffer *to)
{
    *w = (struct bit_writer){.to = to};
}

static inline void put_word(struct bit_writer *w, uint64_t word, size_t bytes)
{
    uint64_t le = htole64(word);
    struct buffer *to = w->to;
    if (!to->failed && to->capacity - to->len >= sizeof le) {
        memcpy(to->data + to->len, &le, sizeof le);
        to->len += bytes;
    } else {
        buffer_add(to, &le, bytes);
    }
}

static inline void put_bits(struct bit_writer *w, uint64_t value, unsigned count)
{
    if (count == 0) {
        return;
    }
    if (count < 64) {
        value &= (UINT64_C(1) << count) - 1;
    }
    w->word |= value << w->used;
    unsigned total = w->used + count;
    if (total >= 64) {
        put_word(w, w->word, 8);
        /* Two shifts, because one of 64 is undefined. */
        w->word = value >> 1 >> (63 - w->used);
        total -= 64;
    }
    w->used = total;
}

void bit_write(struct bit_writer *w, uint64_t value, unsigned count)
{
    put_bits(w, value, count);
}

void bit_writer_finish(struct bit_writer *w)
{
    put_word(w, w->word, (w->used + 7) / 8);
    w->word = 0;
    w->used = 0;
}

void bit_reader_init(struct bit_reader *r, const uint8_t *from, size_t len)
{
    *r = (struct bit_reader){.at = from, .end = from + len};
}

/* At least 56 bits in the word unless the bytes end. */
static inline void refill(struct bit_reader *r)
{
    if (r->end - r->at >= 8) {
        uint64_t next;
        memcpy(&next, r->at, 8);
        r->word |= le64toh(next) << r->have;
        unsigned bytes = (63 - r->have) / 8;
        r->at += bytes;
        r->have += bytes * 8;
        return;
    }
    while (r->have <= 56 && r->at < r->end) {
        r->word |= (uint64_t)*r->at++ << r->have;
        r->have += 8;
    }
}

static inline void drop(struct bit_reader *r, unsigned count)
{
    if (count > r->have) {
        r->failed = true;
        r->word = 0;
        r->have = 0;
        r->at = r->end;
        return;
    }
    r->word >>= count;
    r->have -= count;
}

uint64_t bit_read(struct bit_reader *r, unsigned count)
{
    if (count > 32) {
        uint64_t low = bit_read(r, 32);
        return low | bit_read(r, count - 32) << 32;
    }
    /* A refill leaves bits of the next byte above `have`; they are the same when read again. */
    refill(r);
    uint64_t value = r->word & ((UINT64_C(1) << count) - 1);
    drop(r, count);
    return r->failed ? 0 : value;
}

static inline uint64_t zigzag(int64_t v)
{
    return ((uint64_t)v << 1) ^ (uint64_t)(v >> 63);
}

static inline int64_t unzigzag(uint64_t u)
{
    return (int64_t)((u >> 1) ^ (0 - (u & 1)));
}

static unsigned width_of(uint64_t all)
{
    return all == 0 ? 0 : 64 - (unsigned)__builtin_clzll(all);
}

static uint64_t rice_cost(const uint64_t *u, size_t count, unsigned k)
{
    uint64_t bits = count * (k + 1);
    for (size_t i = 0; i < count; i++) {
        uint64_t q = u[i] >> k;
        bits += q < RICE_ESCAPE ? q : RICE_ESCAPE + 64 - k - 1;
    }
    return bits;
}

/* The same of narrow values, RICE_GROUP of them: zeros behind the last one cost nothing here. */
static uint64_t rice_cost_narrow(const uint32_t *u, size_t count, unsigned k)
{
    int32_t escape = (int32_t)(RICE_ESCAPE + 64 - k - 1), bits = 0;
    for (size_t i = 0; i < RICE_GROUP; i++) {
        int32_t q = (int32_t)(u[i] >> k);
        bits += q < RICE_ESCAPE ? q : escape;
    }
    return (uint64_t)bits + count * (k + 1);
}

/* A group in zig-zag form. */
struct group {
    size_t count;
    uint64_t all; /* their bits together */
    uint64_t wide[RICE_GROUP];
    uint32_t narrow[RICE_GROUP]; /* the same, if `all` is narrow */
};

static bool is_narrow(const struct group *group)
{
    return group->all >> NARROW_BITS == 0;
}

static void group_from(struct group *group, const int64_t *values, size_t count)
{
    uint64_t all = 0;
    for (size_t i = 0; i < count; i++) {
        uint64_t u = zigzag(values[i]);
        group->wide[i] = u;
        group->narrow[i] = (uint32_t)u;
        all |= u;
    }
    for (size_t i = count; i < RICE_GROUP; i++) {
        group->narrow[i] = 0;
    }
    group->count = count;
    group->all = all;
}

static uint64_t mean_of(const struct group *group)
{
    if (is_narrow(group)) {
        uint32_t sum = 0;
        for (size_t i = 0; i < RICE_GROUP; i++) {
            sum += group->narrow[i];
        }
        return sum / (uint32_t)group->count;
    }
    uint64_t low = 0, high = 0; /* two sums, so that neither overflows */
    for (size_t i = 0; i < group->count; i++) {
        low += (uint32_t)group->wide[i];
        high += group->wide[i] >> 32;
    }
    /* NOLINTNEXTLINE(clang-analyzer-core.DivideZero): without values there are no bits either */
    high /= group->count;
    return high > UINT32_MAX / 2 ? UINT64_MAX : (high << 32) + low / group->count;
}

static uint64_t cost_of(const struct group *group, unsigned k)
{
    return is_narrow(group) ? rice_cost_narrow(group->narrow, group->count, k)
                            : rice_cost(group->wide, group->count, k);
}

/* k near log2 of the mean is within one of the best; both neighbours are priced. */
static unsigned best_k(const struct group *group, uint64_t *ret_cost)
{
    unsigned guess = width_of(mean_of(group));
    guess = guess > 0 ? guess - 1 : 0;
    guess = guess > GROUP_RICE_MAX ? GROUP_RICE_MAX : guess;
    unsigned best = guess;
    uint64_t least = cost_of(group, guess);
    for (int step = -1; step <= 1; step += 2) {
        int k = (int)guess + step;
        if (k < 0 || k > GROUP_RICE_MAX) {
            continue;
        }
        uint64_t cost = cost_of(group, (unsigned)k);
        if (cost < least) {
            least = cost;
            best = (unsigned)k;
        }
    }
    *ret_cost = least;
    return best;
}

static void write_rice(struct bit_writer *w, const uint64_t *u, size_t count, unsigned k)
{
    for (size_t i = 0; i < count; i++) {
        uint64_t q = u[i] >> k;
        if (q >= RICE_ESCAPE) {
            put_bits(w, 0, RICE_ESCAPE);
            put_bits(w, u[i], 64);
        } else if (q + 1 + k <= 64) {
            /* q zeros, a one, and the low k bits in one go. */
            uint64_t low = u[i] & ((UINT64_C(1) << k) - 1);
            put_bits(w, (low << 1 | 1) << q, (unsigned)q + 1 + k);
        }
    }
}

/* Stores the word, of which whole bytes are done with; fewer than eight bits stay. */
static inline uint8_t *store_word(uint8_t *at, uint64_t *word, unsigned *used)
{
    uint64_t le = htole64(*word);
    memcpy(at, &le, sizeof le);
    at += *used / 8;
    *word >>= *used & ~7u;
    *used &= 7;
    return at;
}

/* write_rice of codes that are all short. Free of branches that depend on the values. */
static void write_short(struct bit_writer *w, const uint32_t *u, size_t count, unsigned k)
{
    uint8_t *at = buffer_reserve(w->to, SHORT_BYTES_MAX);
    if (at == NULL) {
        return;
    }
    const uint32_t mask = (UINT32_C(1) << k) - 1;
    uint64_t word = w->word;
    unsigned used = w->used;
    at = store_word(at, &word, &used);
    for (size_t i = 0; i < count; i += 2) {
        unsigned q = u[i] >> k, len = q + 1 + k;
        uint64_t code = (uint64_t)((u[i] & mask) << 1 | 1) << q;
        if (i + 1 < count) {
            unsigned next_q = u[i + 1] >> k;
            code |= (uint64_t)((u[i + 1] & mask) << 1 | 1) << next_q << len;
            len += next_q + 1 + k;
        }
        word |= code << used;
        used += len;
        at = store_word(at, &word, &used);
    }
    w->word = word;
    w->used = used;
    w->to->len = (size_t)(at - w->to->data);
}

void rice_write_group(struct bit_writer *w, const int64_t *values, size_t count)
{
    struct group group;
    group_from(&group, values, count);
    if (group.all == 0) {
        put_bits(w, GROUP_ZERO, GROUP_BITS);
        return;
    }
    unsigned width = width_of(group.all);
    uint64_t cost;
    unsigned k = best_k(&group, &cost);
    if (cost <= (uint64_t)width * count + 6) {
        put_bits(w, GROUP_RICE + k, GROUP_BITS);
        uint64_t most = group.all >> k; /* no quotient is larger */
        if (is_narrow(&group) && most < RICE_ESCAPE && most + 1 + k <= SHORT_BITS) {
            write_short(w, group.narrow, count, k);
        } else {
            write_rice(w, group.wide, count, k);
        }
        return;
    }
    put_bits(w, GROUP_PLAIN, GROUP_BITS);
    put_bits(w, width - 1, 6);
    for (size_t i = 0; i < count; i++) {
        put_bits(w, group.wide[i], width);
    }
}

static bool read_rice(struct bit_reader *r, int64_t *values, size_t count, unsigned k)
{
    const uint64_t mask = (UINT64_C(1) << k) - 1;
    for (size_t i = 0; i < count; i++) {
        refill(r);
        unsigned q = r->word == 0 ? 64 : (unsigned)__builtin_ctzll(r->word);
        if (q >= RICE_ESCAPE) {
            drop(r, RICE_ESCAPE);
            values[i] = unzigzag(bit_read(r, 64));
        } else if (q + 1 + k <= 56) {
            uint64_t low = (r->word >> (q + 1)) & mask;
            drop(r, q + 1 + k);
            values[i] = unzigzag((uint64_t)q << k | low);
        } else {
            drop(r, q + 1);
            values[i] = unzigzag((uint64_t)q << k | bit_read(r, k));
        }
    }
    return !r->failed;
}

bool rice_read_group(struct bit_reader *r, int64_t *ret_values, size_t count)
{
    unsigned mode = (unsigned)bit_read(r, GROUP_BITS);
    if (r->failed || mode > GROUP_PLAIN) {
        return false;
    }
    if (mode == GROUP_ZERO) {
        memset(ret_values, 0, count * sizeof *ret_values);
        return true;
    }
    if (mode <= GROUP_RICE_MAX) {
        return read_rice(r, ret_values, count, mode - GROUP_RICE);
    }
    unsigned width = (unsigned)bit_read(r, 6) + 1;
    for (size_t i = 0; i < count; i++) {
        ret_values[i] = unzigzag(bit_read(r, width));
    }
    return !r->failed;
}
