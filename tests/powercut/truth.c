#include "truth.h"

#include "gateway/base/clock.h"
#include "gateway/base/crc32c.h"

#include <math.h>
#include <string.h>
#include <sys/mman.h>

const char *const truth_device_names[TRUTH_DEVICES] = {"t01", "t02", "mast"};
const char *const truth_uplink_names[TRUTH_UPLINKS] = {"cloud", "local"};
const unsigned truth_uplink_streams[TRUTH_UPLINKS] = {
    1u << STREAM_RAW | 1u << STREAM_AGGREGATE | 1u << STREAM_EVENT,
    1u << STREAM_RAW,
};
const char truth_note[] = "commit";

static size_t truth_size(uint64_t seqs)
{
    return sizeof(struct truth) +
           (size_t)seqs * STREAM_COUNT * TRUTH_DEVICES * sizeof(struct truth_scan);
}

struct truth *truth_create(uint64_t seed, uint64_t seqs)
{
    struct truth *truth = mmap(NULL, truth_size(seqs), PROT_READ | PROT_WRITE,
                               MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (truth == MAP_FAILED) {
        return NULL;
    }
    truth->seed = seed;
    truth->seqs = seqs;
    truth->base_ms = 1800000000000 + (int64_t)(seed % 1000) * 86400000;
    return truth;
}

void truth_reset(struct truth *truth)
{
    uint64_t seed = truth->seed, seqs = truth->seqs;
    int64_t base_ms = truth->base_ms;
    memset(truth, 0, truth_size(seqs));
    truth->seed = seed;
    truth->seqs = seqs;
    truth->base_ms = base_ms;
}

void truth_destroy(struct truth *truth)
{
    if (truth != NULL) {
        munmap(truth, truth_size(truth->seqs));
    }
}

struct truth_scan *truth_at(struct truth *truth, unsigned stream, unsigned device, uint64_t seq)
{
    return &truth->scans[((size_t)stream * TRUTH_DEVICES + device) * truth->seqs + seq];
}

static uint64_t mix(uint64_t x)
{
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9;
    x = (x ^ (x >> 27)) * 0x94d049bb133111eb;
    return x ^ (x >> 31);
}

/* Short, or in a large scan so long and so random that it fills the store quickly. */
static void build_text(uint64_t noise, struct scan *scan, struct reading *reading)
{
    char *text = (char *)&scan->readings[scan->count] + scan->text_len;
    uint32_t len = scan->count < TRUTH_POINTS ? 8 + (uint32_t)(noise % 5) : TRUTH_TEXT;
    for (uint32_t i = 0; i < len; i++) {
        noise = i % 8 == 0 ? mix(noise) : noise >> 6;
        text[i] = (char)('0' + (noise & 63));
    }
    reading->text.offset = scan->text_len;
    reading->text.len = len;
    scan->text_len += len;
}

static void build_reading(uint64_t noise, unsigned p, struct scan *scan)
{
    struct reading *reading = &scan->readings[p];
    *reading = (struct reading){.point = (uint16_t)p, .quality = QUALITY_GOOD};
    switch (p) {
    case 1:
        reading->kind = VALUE_REAL;
        reading->real = noise % 7 == 0 ? NAN : (double)noise * 0x1p-40;
        return;
    case 2:
        reading->kind = VALUE_BOOL;
        reading->integer = (int64_t)(noise & 1);
        return;
    case 3:
        reading->kind = VALUE_TEXT;
        build_text(noise, scan, reading);
        return;
    case 4:
        reading->kind = VALUE_NULL;
        reading->quality = QUALITY_BAD_TIMEOUT;
        return;
    default: /* beyond the first few: noise that no codec makes small */
        reading->kind = VALUE_DECIMAL;
        reading->exponent = -2;
        reading->integer = (int64_t)(noise >> (p < 8 ? 52 : 20));
    }
}

void truth_build(const struct truth *truth, unsigned stream, unsigned device, uint64_t seq,
                 unsigned count, struct scan *into)
{
    uint64_t noise = mix(truth->seed ^ (seq << 8) ^ (stream << 4) ^ device);
    memset(into, 0, TRUTH_SCAN_BYTES);
    into->seq = seq;
    into->time_ms = truth->base_ms + (int64_t)seq * 1000 + (int64_t)(noise % 3);
    into->boot_ms = stream == STREAM_AGGREGATE ? 0 : 5000 + (int64_t)seq * 1000;
    into->window_s = stream == STREAM_AGGREGATE ? 600 : 0;
    into->device = device + 1;
    into->stream = (uint16_t)stream;
    into->count = (uint16_t)count;
    for (unsigned p = 0; p < count; p++) {
        noise = mix(noise + p);
        build_reading(noise, p, into);
    }
}

static bool equal_reading(const struct scan *a, const struct scan *b, unsigned p)
{
    const struct reading *x = &a->readings[p], *y = &b->readings[p];
    if (x->point != y->point || x->kind != y->kind || x->quality != y->quality) {
        return false;
    }
    switch (x->kind) {
    case VALUE_NULL:
        return true;
    case VALUE_TEXT:
        return x->text.len == y->text.len &&
               memcmp(scan_text(a, x), scan_text(b, y), x->text.len) == 0;
    case VALUE_DECIMAL:
        return x->integer == y->integer && x->exponent == y->exponent;
    default:
        return x->integer == y->integer; /* doubles by their bits, NaN too */
    }
}

bool truth_equal(const struct truth *truth, unsigned count, const struct scan *scan)
{
    _Alignas(8) uint8_t memory[TRUTH_SCAN_BYTES];
    struct scan *expected = (struct scan *)(void *)memory;
    truth_build(truth, scan->stream, scan->device - 1, scan->seq, count, expected);
    if (scan->time_ms != expected->time_ms || scan->boot_ms != expected->boot_ms ||
        scan->window_s != expected->window_s || scan->count != expected->count) {
        return false;
    }
    for (unsigned p = 0; p < count; p++) {
        if (!equal_reading(scan, expected, p)) {
            return false;
        }
    }
    return true;
}

uint32_t truth_hash(const struct scan *scan)
{
    int64_t head[] = {(int64_t)scan->seq, scan->time_ms, scan->boot_ms, scan->window_s,
                      scan->count};
    uint32_t hash = crc32c(scan->device, head, sizeof(head));
    for (unsigned p = 0; p < scan->count; p++) {
        const struct reading *reading = &scan->readings[p];
        int exponent = reading->kind == VALUE_DECIMAL ? reading->exponent : 0;
        int64_t all[] = {reading->point, reading->kind, reading->quality, exponent,
                         reading->integer};
        hash += crc32c(0, all, sizeof(all)); /* large blocks may put them in another order */
    }
    return hash;
}

void truth_hold_clocks(const struct truth *truth, uint32_t commit)
{
    if (truth->held_ms != 0) {
        int64_t since_ms = 1000 * (int64_t)commit;
        clock_hold(truth->held_ms + since_ms, 1000000 * (10000000 + since_ms));
    }
}

void truth_rebase(struct truth *truth, uint32_t commit)
{
    for (unsigned s = 0; s < STREAM_COUNT; s++) {
        for (unsigned d = 0; d < TRUTH_DEVICES; d++) {
            uint64_t last = 0;
            for (uint64_t seq = 1; seq <= truth->last[s][d]; seq++) {
                struct truth_scan *scan = truth_at(truth, s, d, seq);
                if (scan->commit > commit) {
                    *scan = (struct truth_scan){.commit = 0};
                }
                for (unsigned u = 0; u < TRUTH_UPLINKS; u++) {
                    if (scan->rose[u] > commit) {
                        scan->settled[u] = scan->certain[u] = scan->died[u];
                        scan->fate[u] = FATE_DEAD;
                        scan->rose[u] = scan->died[u] = 0;
                    }
                    if (scan->settled[u] > commit) {
                        scan->settled[u] = scan->certain[u] = 0;
                    } else if (scan->certain[u] > commit) {
                        scan->certain[u] = UINT32_MAX; /* nobody knows; it may come again */
                    }
                }
                last = scan->commit != 0 ? seq : last;
            }
            truth->last[s][d] = last;
        }
    }
    truth->attempted = truth->acked = commit;
}
