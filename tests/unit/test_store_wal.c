/* Write-ahead blocks and the state record as bytes: exact for every kind, and nothing damaged gets
 * through. */
#include "gateway/base/crc32c.h"
#include "gateway/store/key.h"
#include "gateway/store/memo.h"
#include "gateway/store/ranges.h"
#include "gateway/store/state.h"
#include "gateway/store/wal.h"
#include "gateway/store/wal_pack.h"
#include "store_fixture.h"

enum { ROWS = 200, POINTS = 12 };

static uint64_t dice = 88172645463325252ull;

static uint64_t roll(void)
{
    dice ^= dice << 13;
    dice ^= dice >> 7;
    dice ^= dice << 17;
    return dice;
}

static uint64_t bits_of(double real)
{
    uint64_t bits;
    memcpy(&bits, &real, sizeof(bits));
    return bits;
}

static double real_of(uint64_t bits)
{
    double real;
    memcpy(&real, &bits, sizeof(real));
    return real;
}

static double odd_real(void)
{
    const double odd[] = {0.0,
                          -0.0,
                          INFINITY,
                          -INFINITY,
                          8.25,
                          5e-324,
                          1.0 / 3,
                          -1.7976931348623157e308,
                          real_of(0x7ff8000000000000u),
                          real_of(0xfff8dead0000beefu),
                          real_of(0x7ff4000000000001u)};
    size_t i = roll() % (ARRAY_SIZE(odd) + 2);
    return i < ARRAY_SIZE(odd) ? odd[i] : real_of(roll());
}

static double odd_float(void)
{
    const float odd[] = {0.0f, -0.0f, INFINITY, -INFINITY, NAN, 0.1f, 1e-45f, 3.4e38f};
    return (double)odd[roll() % ARRAY_SIZE(odd)];
}

static int64_t odd_integer(void)
{
    const int64_t odd[] = {0, 1, -1, INT64_MAX, INT64_MIN, 842, 840, 1 << 20};
    size_t i = roll() % (ARRAY_SIZE(odd) + 1);
    return i < ARRAY_SIZE(odd) ? odd[i] : (int64_t)roll();
}

static void fill_reading(struct scan *scan, struct reading *reading, uint32_t *text_len)
{
    static const char *const texts[] = {"", "on", "windy \xc3\xa4",
                                        "a rather longer text, repeated"};
    reading->kind = (uint8_t)(roll() % VALUE_KINDS);
    reading->quality = (uint8_t)(roll() % QUALITY_COUNT);
    switch ((enum value_kind)reading->kind) {
    case VALUE_DECIMAL:
        reading->exponent = (int8_t)(roll() % 5) - 3;
        reading->integer = odd_integer();
        break;
    case VALUE_BOOL:
        reading->integer = (int64_t)(roll() % 2);
        break;
    case VALUE_REAL:
        reading->real = odd_real();
        break;
    case VALUE_FLOAT:
        reading->real = roll() % 8 == 0 ? odd_real() : odd_float();
        break;
    case VALUE_TEXT: {
        const char *text = texts[roll() % ARRAY_SIZE(texts)];
        reading->text.offset = *text_len;
        reading->text.len = (uint32_t)strlen(text);
        memcpy((char *)&scan->readings[scan->count] + *text_len, text, strlen(text));
        *text_len += reading->text.len;
        break;
    }
    default:
        break;
    }
}

/* Anything at all, but with few shapes so that columns have more than one row. */
static struct scan *odd_scan(uint32_t device, uint64_t seq, unsigned points)
{
    struct scan *scan = calloc(1, scan_size_for(points, points * 64));
    scan->seq = seq;
    scan->time_ms = roll() % 3 == 0 ? (int64_t)roll() : 1769855400000 + (int64_t)seq * 1000;
    scan->boot_ms = roll() % 3 == 0 ? (int64_t)roll() : scan->time_ms - 17;
    scan->window_s = (uint32_t)(roll() % 2) * 600;
    scan->device = device;
    scan->stream = (uint16_t)(device % STREAM_COUNT);
    scan->count = (uint16_t)points;
    uint64_t kept = dice;
    dice = 0x1234567 + roll() % 4;
    for (unsigned p = 0; p < points; p++) {
        scan->readings[p].point = (uint16_t)(roll() % 100 == 0 ? roll() : p);
        fill_reading(scan, &scan->readings[p], &scan->text_len);
    }
    dice = kept;
    return scan;
}

static void assert_same_reading(const struct scan *a, const struct scan *b, size_t i)
{
    const struct reading *x = &a->readings[i], *y = &b->readings[i];
    assert_int_equal(x->point, y->point);
    assert_int_equal(x->kind, y->kind);
    assert_int_equal(x->quality, y->quality);
    assert_int_equal(x->exponent, y->exponent);
    if (x->kind == VALUE_REAL || x->kind == VALUE_FLOAT) {
        assert_true(bits_of(x->real) == bits_of(y->real));
    } else if (x->kind == VALUE_TEXT) {
        assert_int_equal(x->text.len, y->text.len);
        assert_memory_equal(scan_text(a, x), scan_text(b, y), x->text.len);
    } else if (x->kind != VALUE_NULL) {
        assert_true(x->integer == y->integer);
    }
}

static void assert_same(const struct scan *a, const struct scan *b)
{
    assert_true(a->seq == b->seq && a->time_ms == b->time_ms && a->boot_ms == b->boot_ms);
    assert_true(a->device == b->device && a->window_s == b->window_s);
    assert_true(a->stream == b->stream && a->count == b->count);
    for (size_t i = 0; i < a->count; i++) {
        assert_same_reading(a, b, i);
    }
}

struct fixture {
    struct wal_encoder *encoder;
    struct wal_decoder *decoder;
    struct wal_row rows[ROWS];
    size_t count;
    struct buffer block;
};

static int by_stream(const void *a, const void *b)
{
    const struct wal_row *x = a, *y = b;
    int64_t left = (int64_t)x->scan->stream << 40 | (int64_t)x->scan->device << 20 |
                   (int64_t)x->scan->seq;
    int64_t right = (int64_t)y->scan->stream << 40 | (int64_t)y->scan->device << 20 |
                    (int64_t)y->scan->seq;
    return left < right ? -1 : left > right;
}

static int set_up(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));
    assert_int_equal(wal_encoder_create(&f->encoder), 0);
    assert_int_equal(wal_decoder_create(&f->decoder), 0);
    uint64_t seqs[8] = {0};
    for (f->count = 0; f->count < ROWS; f->count++) {
        uint32_t device = (uint32_t)(roll() % 7) + 1;
        uint64_t prev = seqs[device];
        seqs[device] += 1 + (roll() % 10 == 0 ? roll() % 5 : 0);
        unsigned points = f->count == 3 ? 0 : POINTS;
        f->rows[f->count] = (struct wal_row){.scan = odd_scan(device, seqs[device], points),
                                             .prev_seq = prev};
    }
    qsort(f->rows, f->count, sizeof(f->rows[0]), by_stream);
    assert_int_equal(wal_encode(f->encoder, f->rows, f->count, 1769855400123, &f->block), 0);
    *state = f;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *f = *state;
    for (size_t i = 0; i < f->count; i++) {
        free((void *)(uintptr_t)f->rows[i].scan);
    }
    buffer_finish(&f->block);
    wal_encoder_destroy(f->encoder);
    wal_decoder_destroy(f->decoder);
    free(f);
    return 0;
}

static void test_every_kind_comes_back_exactly(void **state)
{
    struct fixture *f = *state;
    struct wal_header header;
    const struct wal_row *rows;
    assert_int_equal(wal_open(f->decoder, f->block.data, f->block.len, &header, &rows), 0);
    assert_int_equal(header.scans, f->count);
    assert_true(header.written_ms == 1769855400123);
    auto_free uint8_t *arena = malloc(header.memory);
    assert_int_equal(wal_scans(f->decoder, arena), 0);
    for (size_t i = 0; i < f->count; i++) {
        assert_true(rows[i].prev_seq == f->rows[i].prev_seq);
        assert_same(f->rows[i].scan, (const struct scan *)(const void *)(arena + rows[i].offset));
    }
}

static int decode(struct fixture *f, const uint8_t *bytes, size_t len)
{
    struct wal_header header;
    const struct wal_row *rows;
    int rc = wal_open(f->decoder, bytes, len, &header, &rows);
    if (rc == 0) {
        auto_free uint8_t *arena = malloc((size_t)header.memory + 1);
        rc = wal_scans(f->decoder, arena);
    }
    return rc;
}

static void test_any_flipped_bit_or_cut_is_seen(void **state)
{
    struct fixture *f = *state;
    for (size_t bit = 0; bit < f->block.len * 8; bit += bit < 400 ? 1 : 7) {
        f->block.data[bit / 8] ^= (uint8_t)(1u << bit % 8);
        assert_int_equal(decode(f, f->block.data, f->block.len), -EBADMSG);
        f->block.data[bit / 8] ^= (uint8_t)(1u << bit % 8);
    }
    for (size_t len = 0; len < f->block.len; len += 13) {
        assert_int_equal(decode(f, f->block.data, len), -EBADMSG);
    }
    assert_int_equal(decode(f, f->block.data, f->block.len), 0);
}

static void test_a_block_is_bounded(void **state)
{
    struct fixture *f = *state;
    struct wal_row rows[16];
    auto_free struct scan *large = fixture_scan(STREAM_RAW, 1, 5, SCAN_READINGS_MAX);
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        rows[i] = (struct wal_row){.scan = large, .prev_seq = 4};
    }
    auto_buffer struct buffer block = {0};
    assert_int_equal(wal_encode(f->encoder, rows, 8, 0, &block), -E2BIG);
    assert_int_equal(wal_encode(f->encoder, rows, 1, 0, &block), 0);
    assert_int_equal(decode(f, block.data, block.len), 0);
}

/* Version 1 as it was first written: blocks on flash out there look like this for ever. */
static void test_a_block_of_version_1_stays_readable(void **state)
{
    struct fixture *f = *state;
    static const char golden[] =
        "01000000ca323e1249000000900000000100000006000000bb389a139c01000040389a139c0100"
        "0040389a139c0100000101010601ea9c02010080e1d1b98267dc9ed1b98267b0090a0106000000"
        "0200000100fe020100030000040000050000000200940d000000000082944001cdcccc3d020577"
        "696e6479";
    uint8_t bytes[sizeof(golden) / 2];
    for (size_t i = 0; i < sizeof(bytes); i++) {
        const char digits[] = {golden[2 * i], golden[2 * i + 1], '\0'};
        bytes[i] = (uint8_t)strtoul(digits, NULL, 16);
    }
    struct wal_header header;
    const struct wal_row *rows;
    assert_int_equal(wal_open(f->decoder, bytes, sizeof(bytes), &header, &rows), 0);
    assert_int_equal(header.scans, 1);
    assert_int_equal(rows[0].prev_seq, 18229);
    auto_free struct scan *scan = malloc(header.memory);
    assert_int_equal(wal_scans(f->decoder, scan), 0);
    assert_true(scan->seq == 18231 && scan->time_ms == 1769855400000 && scan->boot_ms == 4242);
    assert_true(scan->device == 3 && scan->window_s == 600 && scan->stream == STREAM_AGGREGATE);
    assert_int_equal(scan->count, 6);
    assert_true(scan->readings[0].integer == 842 && scan->readings[0].exponent == -2);
    assert_true(scan->readings[1].real == 1312.5);
    assert_int_equal(scan->readings[1].quality, QUALITY_UNCERTAIN);
    assert_true(scan->readings[2].real == (double)0.1f);
    assert_true(scan->readings[3].kind == VALUE_BOOL && scan->readings[3].integer == 1);
    assert_int_equal(scan->readings[4].text.len, 5);
    assert_memory_equal(scan_text(scan, &scan->readings[4]), "windy", 5);
    assert_true(scan->readings[5].kind == VALUE_NULL && scan->readings[5].point == 6);
    assert_int_equal(scan->readings[5].quality, QUALITY_BAD_TIMEOUT);
}

/* Of any length, small and large among each other; and not a byte further than it may. */
static void test_numbers_are_packed_as_one_by_one(void **state)
{
    (void)state;
    enum { NUMBERS = 67, GUARD = 0xa5 };
    for (unsigned round = 0; round < 20000; round++) {
        uint32_t numbers[NUMBERS];
        uint8_t expected[NUMBERS * VARINT_MAX], packed[sizeof(expected) + PACK_BEYOND + 1];
        size_t count = roll() % (NUMBERS + 1);
        for (size_t i = 0; i < count; i++) {
            uint64_t mask = roll() % 30 == 0 ? UINT32_MAX : roll() % 3 == 0 ? 0x3fff : 0xff;
            numbers[i] = (uint32_t)(roll() & mask);
        }
        uint8_t *end = expected;
        for (size_t i = 0; i < count; i++) {
            end = wal_put(end, numbers[i]);
        }
        memset(packed, GUARD, sizeof(packed));
        size_t len = (size_t)(wal_pack(packed, numbers, count) - packed);
        assert_int_equal(len, end - expected);
        assert_memory_equal(packed, expected, len);
        for (size_t i = len + PACK_BEYOND; i < sizeof(packed); i++) {
            assert_int_equal(packed[i], GUARD);
        }
    }
}

/* Of any number of rows; what needs more than 32 bits is told, column by column. */
static void test_steps_are_taken_column_by_column(void **state)
{
    (void)state;
    enum { MOST = 23, INDEX = 2 };
    for (unsigned round = 0; round < 20000; round++) {
        struct reading readings[MOST][INDEX + TOGETHER + 1];
        const struct reading *rows[MOST];
        size_t count = 1 + roll() % MOST;
        for (size_t i = 0; i < count; i++) {
            rows[i] = readings[i];
            for (size_t c = 0; c < ARRAY_SIZE(readings[i]); c++) {
                uint64_t odd = roll() % 40 == 0 ? (uint64_t)odd_integer() : roll() % 5000;
                readings[i][c] = (struct reading){.point = 7, .integer = (int64_t)odd};
            }
        }
        uint32_t steps[MOST * TOGETHER];
        unsigned wide = wal_steps(rows, INDEX, count, steps);
        for (size_t c = 0; c < TOGETHER; c++) {
            uint64_t all = 0;
            for (size_t i = 1; i < count; i++) {
                uint64_t now = (uint64_t)readings[i][INDEX + c].integer;
                uint64_t before = (uint64_t)readings[i - 1][INDEX + c].integer;
                all |= wal_zigzag(now - before);
                assert_true((wide >> c & 1) != 0 ||
                            steps[c * count + i - 1] == wal_zigzag(now - before));
            }
            assert_int_equal(wide >> c & 1, all >> 32 != 0);
        }
        assert_int_equal(wide >> TOGETHER, 0);
    }
}

/* Two scans of each device, encoded and noted as that block. */
static void note_block(struct memo *memo, uint64_t number, size_t devices)
{
    struct wal_encoder *encoder = NULL;
    auto_buffer struct buffer block = {0};
    struct scan *scans = calloc(devices * 2, sizeof(*scans));
    struct wal_row *rows = calloc(devices * 2, sizeof(*rows));
    for (size_t i = 0; i < devices * 2; i++) {
        scans[i] = (struct scan){.device = (uint32_t)(i / 2) + 1, .seq = number + i % 2 * 5};
        rows[i] = (struct wal_row){
            .scan = &scans[i], .seq = scans[i].seq, .prev_seq = scans[i].seq - 1};
    }
    assert_int_equal(wal_encoder_create(&encoder), 0);
    assert_int_equal(wal_encode(encoder, rows, devices * 2, (int64_t)number * 100, &block), 0);
    memo_note(memo, number, rows, devices * 2, block.data, block.len);
    wal_encoder_destroy(encoder);
    free(rows);
    free(scans);
}

static void test_the_newest_blocks_are_remembered_within_bounds(void **state)
{
    (void)state;
    struct memo memo = {0};
    assert_null(memo_find(&memo, 0));
    for (uint64_t number = 1; number <= MEMO_BLOCKS + 3; number++) {
        note_block(&memo, number, 70);
    }
    assert_null(memo_find(&memo, 3));
    for (uint64_t number = 4; number <= MEMO_BLOCKS + 3; number++) {
        const struct memo_block *block = memo_find(&memo, number);
        assert_non_null(block);
        assert_int_equal(block->header.scans, 140);
        assert_int_equal(block->header.written_ms, number * 100);
        assert_int_equal(block->run_count, 70);
        assert_int_equal(block->runs[69].device, 70);
        assert_int_equal(block->runs[69].prev_seq, number - 1);
        assert_int_equal(block->runs[69].last_seq, number + 5);
    }
    memo_forget(&memo, 3); /* another one has its place */
    assert_non_null(memo_find(&memo, 3 + MEMO_BLOCKS));
    memo_forget(&memo, 4);
    assert_null(memo_find(&memo, 4));
    note_block(&memo, 101, MEMO_RUNS_MAX);
    assert_int_equal(memo_find(&memo, 101)->run_count, MEMO_RUNS_MAX);
    note_block(&memo, 102, MEMO_RUNS_MAX + 1);
    assert_null(memo_find(&memo, 102));
    memo_finish(&memo);
}

static void test_ranges_against_a_bitmap(void **state)
{
    (void)state;
    enum { SEQS = 300 };
    for (unsigned round = 0; round < 200; round++) {
        struct ranges ranges = {0};
        bool known[SEQS + 2] = {true};
        for (unsigned step = 0; step < 60; step++) {
            uint64_t first = 1 + roll() % SEQS, last = first + roll() % 9;
            last = last > SEQS ? SEQS : last;
            assert_int_equal(ranges_add(&ranges, first, last), 0);
            memset(known + first, 1, (size_t)(last - first + 1));
            for (uint64_t seq = 1; seq <= SEQS + 1; seq++) {
                assert_int_equal(ranges_contains(&ranges, seq), known[seq]);
            }
            assert_int_equal(ranges_covers(&ranges, first, last), true);
            assert_int_equal(ranges_covers(&ranges, first, SEQS + 1), false);
        }
        ranges_raise(&ranges, SEQS);
        assert_int_equal(ranges.count, 0);
        assert_true(ranges.floor == SEQS);
        ranges_finish(&ranges);
    }
}

static void test_ranges_are_bounded(void **state)
{
    (void)state;
    struct ranges ranges = {0};
    for (uint64_t i = 0; i < RANGES_MAX; i++) {
        assert_int_equal(ranges_add(&ranges, 3 + i * 2, 3 + i * 2), 0);
    }
    assert_int_equal(ranges_add(&ranges, 10 * RANGES_MAX, 10 * RANGES_MAX), -ENOBUFS);
    assert_int_equal(ranges_reserve(&ranges, 1), -ENOBUFS);
    assert_int_equal(ranges_reserve(&ranges, 0), 0);
    assert_int_equal(ranges_add(&ranges, 1, 2), 0);
    assert_int_equal(ranges_add(&ranges, 10 * RANGES_MAX, 10 * RANGES_MAX), 0);
    ranges_finish(&ranges);
}

static void fill_state(struct state *state)
{
    snprintf(state->id, sizeof(state->id), "0123456789ab");
    state->tail = 7;
    state->next = 99;
    assert_int_equal(state_add_devices(state, 50), 0);
    for (unsigned u = 0; u < 3; u++) {
        char name[8];
        unsigned index;
        snprintf(name, sizeof(name), "up%u", u);
        assert_int_equal(state_add_uplink(state, name, &index), 0);
        state->uplinks[index].streams = 1 + u;
        state->uplinks[index].max_age_ms = u;
    }
    state_drop_uplink(state, 1);
    for (size_t i = 0; i < state->device_count; i++) {
        for (unsigned s = 0; s < STREAM_COUNT; s++) {
            struct track *track = &state->uplinks[2].devices[i].streams[s];
            state->devices[i].seq[s] = roll() % 1000;
            track->waiting = roll() % 100;
            track->settled.floor = roll() % 1000;
            assert_int_equal(ranges_add(&track->settled, 2000 + roll() % 9, 2010), 0);
        }
        state->devices[i].counts[roll() % LEDGER_COUNTS] = roll();
        state->uplinks[0].devices[i].fates[roll() % FATE_COUNTS] = roll();
    }
    assert_int_equal(state_set_note(state, "closed", -5), 0);
    assert_int_equal(state_set_note(state, "x", INT64_MIN), 0);
}

static void test_the_state_record_comes_back(void **unused)
{
    (void)unused;
    struct state state = {0}, again = {0};
    auto_buffer struct buffer record = {0}, second = {0};
    fill_state(&state);
    assert_int_equal(state_encode(&state, NULL, &record), 0);
    assert_int_equal(state_decode(record.data, record.len, &again), 0);
    assert_int_equal(state_encode(&again, NULL, &second), 0);
    assert_int_equal(record.len, second.len);
    assert_memory_equal(record.data, second.data, record.len);
    assert_true(again.devices[49].seq[2] == state.devices[49].seq[2]);
    assert_null(again.uplinks[1].name);
    assert_string_equal(again.uplinks[2].name, "up2");
    assert_true(state_note(&again, "x")->value == INT64_MIN);
    for (size_t bit = 0; bit < record.len * 8; bit += 5) {
        struct state broken;
        record.data[bit / 8] ^= (uint8_t)(1u << bit % 8);
        assert_int_equal(state_decode(record.data, record.len, &broken), -EBADMSG);
        record.data[bit / 8] ^= (uint8_t)(1u << bit % 8);
    }
    state_finish(&state);
    state_finish(&again);
}

/* A record of before there was salvage: two counts of each device less. */
static void test_a_state_of_version_1_stays_readable(void **unused)
{
    (void)unused;
    enum { HEADER = 12, ENDS = 2 }; /* ends: how many notes and uplinks there are, none */
    struct state state = {.id = "0123456789ab", .tail = 1, .next = 5}, again = {0};
    auto_buffer struct buffer record = {0};
    assert_int_equal(state_add_devices(&state, 1), 0);
    state.devices[0].seq[STREAM_RAW] = 77;
    state.devices[0].counts[LEDGER_READ] = state.devices[0].counts[LEDGER_STORED] = 7700;
    state.devices[0].counts[LEDGER_DERIVED] = 12;
    assert_int_equal(state_encode(&state, NULL, &record), 0);
    assert_int_equal(record.data[1], 0); /* plain */
    size_t len = record.len - (LEDGER_COUNTS - (LEDGER_DERIVED + 1));
    for (size_t i = len - ENDS; i < record.len; i++) {
        assert_int_equal(record.data[i], 0);
    }
    record.data[0] = 1;
    field_put32(record.data + 8, (uint32_t)(len - HEADER));
    field_put32(record.data + 4, crc32c(crc32c(0, record.data, 4), record.data + 8, len - 8));
    assert_int_equal(state_decode(record.data, len, &again), 0);
    assert_int_equal(again.devices[0].seq[STREAM_RAW], 77);
    assert_int_equal(again.devices[0].counts[LEDGER_STORED], 7700);
    assert_int_equal(again.devices[0].counts[LEDGER_DERIVED], 12);
    assert_int_equal(again.devices[0].counts[LEDGER_SALVAGED], 0);
    state_finish(&state);
    state_finish(&again);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_every_kind_comes_back_exactly, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_any_flipped_bit_or_cut_is_seen, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_a_block_is_bounded, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_a_block_of_version_1_stays_readable, set_up,
                                        tear_down),
        cmocka_unit_test(test_numbers_are_packed_as_one_by_one),
        cmocka_unit_test(test_steps_are_taken_column_by_column),
        cmocka_unit_test(test_the_newest_blocks_are_remembered_within_bounds),
        cmocka_unit_test(test_ranges_against_a_bitmap),
        cmocka_unit_test(test_ranges_are_bounded),
        cmocka_unit_test(test_the_state_record_comes_back),
        cmocka_unit_test(test_a_state_of_version_1_stays_readable),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
