/* The block codec: exact for every kind of value, compact on the pinned signal, deaf to damage. */
#include "gateway/base/crc32c.h"
#include "gateway/store/codec/block.h"
#include "reference_signal.h"

#include <errno.h>
#include <string.h>
/* clang-format off */
#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>
/* clang-format on */

enum { ROWS = 300, POINTS = 12 };

static struct scan *scan_new(uint64_t seq, int64_t time_ms, size_t points, const char *texts)
{
    size_t text_len = strlen(texts);
    struct scan *scan = calloc(1, scan_size_for(points, text_len));
    assert_non_null(scan);
    *scan = (struct scan){.seq = seq,
                          .time_ms = time_ms,
                          .boot_ms = time_ms / 2,
                          .device = 3,
                          .count = (uint16_t)points,
                          .text_len = (uint32_t)text_len};
    memcpy(&scan->readings[points], texts, text_len);
    return scan;
}

static void free_all(struct scan **scans, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        free(scans[i]);
    }
}

/* Encodes, decodes and compares byte for byte. */
static size_t round_trip(struct scan **scans, size_t count)
{
    auto_buffer struct buffer coded = {0};
    auto_buffer struct buffer back = {0};
    struct codec_head head, peeked;
    assert_int_equal(codec_encode((const struct scan *const *)scans, count, &coded), 0);
    assert_int_equal(codec_peek(coded.data, coded.len, &peeked), 0);
    assert_int_equal(codec_decode(coded.data, coded.len, &back, &head), 0);
    assert_memory_equal(&head, &peeked, sizeof head);
    assert_int_equal(head.count, count);
    assert_int_equal(head.first_seq, scans[0]->seq);
    assert_int_equal(head.last_seq, scans[count - 1]->seq);
    assert_int_equal(head.first_ms, scans[0]->time_ms);
    assert_int_equal(head.last_ms, scans[count - 1]->time_ms);
    size_t at = 0;
    for (size_t i = 0; i < count; i++) {
        const struct scan *is = (const struct scan *)(back.data + at);
        assert_int_equal(scan_size(is), scan_size(scans[i]));
        size_t bare = sizeof *is + is->count * sizeof *is->readings + is->text_len;
        assert_memory_equal(is, scans[i], bare);
        at += scan_size(is);
    }
    assert_int_equal(at, back.len);
    return coded.len;
}

static void put_special(struct reading *r, unsigned what, uint32_t row)
{
    static const double specials[] = {0.0, -0.0, 1e300, -1e-300, 5e-324, INFINITY, -INFINITY, 8.42};
    switch (what % 6) {
    case 0:
        *r = (struct reading){.point = r->point, .kind = VALUE_DECIMAL, .exponent = -2};
        r->integer = row % 7 == 3 ? INT64_MIN : row % 7 == 4 ? INT64_MAX : (int64_t)row * 3;
        break;
    case 1:
        r->kind = VALUE_REAL;
        r->real = specials[row % ARRAY_SIZE(specials)];
        if (row % 11 == 5) {
            uint64_t payload = UINT64_C(0x7ff8000000001234) + row;
            memcpy(&r->real, &payload, sizeof payload);
        }
        break;
    case 2:
        r->kind = VALUE_FLOAT;
        r->real = (double)(float)(8.3 + 0.1 * (row % 50));
        break;
    case 3:
        r->kind = VALUE_BOOL;
        r->integer = row % 30 < 20;
        break;
    case 4:
        r->kind = VALUE_TEXT;
        break;
    default:
        r->kind = row % 5 == 0 ? VALUE_NULL : row % 2 == 0 ? VALUE_DECIMAL : VALUE_REAL;
        r->quality = row % 5 == 0 ? QUALITY_BAD_TIMEOUT : QUALITY_UNCERTAIN;
        r->integer = row % 5 == 0 ? 0 : row;
        break;
    }
}

/* Texts are laid out by the decoder in the order of the readings; do the same here. */
static void every_kind_is_exact(void **state)
{
    (void)state;
    struct scan *scans[ROWS];
    for (uint32_t i = 0; i < ROWS; i++) {
        char texts[8] = {(char)('a' + i % 4), (char)('x' + i % 2), 0};
        if (i % 9 == 0) {
            texts[0] = '\0';
        }
        uint64_t seq = 10 + i + (i > 100 ? 5 : 0) + (i > 200 ? UINT64_C(1) << 40 : 0);
        int64_t time = INT64_C(1769855400000) + (int64_t)i * 1000 + (i * 7919) % 5 - 2;
        scans[i] = scan_new(seq, time, POINTS, texts);
        for (uint16_t p = 0; p < POINTS; p++) {
            struct reading *r = &scans[i]->readings[p];
            r->point = (uint16_t)(p * 5000);
            put_special(r, p, i);
            if (r->kind == VALUE_TEXT) {
                r->text.offset = p == 4 ? 0 : (uint32_t)strlen(texts) / 2;
                r->text.len = (uint32_t)(p == 4 ? strlen(texts) / 2
                                                : strlen(texts) - strlen(texts) / 2);
            }
        }
    }
    round_trip(scans, ROWS);
    round_trip(scans + 150, 1);
    round_trip(scans + 150, 2);
    free_all(scans, ROWS);
}

static void points_may_come_and_go(void **state)
{
    (void)state;
    struct scan *scans[ROWS];
    for (uint32_t i = 0; i < ROWS; i++) {
        scans[i] = scan_new(1 + i, INT64_C(-5000) - 60000 * (int64_t)i, i % 4, "");
        for (uint16_t p = 0; p < i % 4; p++) {
            scans[i]->readings[p] = (struct reading){
                .point = p, .kind = VALUE_DECIMAL, .exponent = (int8_t)(i > 150), .integer = i};
        }
        scans[i]->window_s = i < 20 ? 600 : 3600;
    }
    round_trip(scans, ROWS);
    free_all(scans, ROWS);
}

/* Values on both sides of what is priced and written in 32 bits. */
static int64_t of_size(unsigned point, uint32_t row)
{
    uint64_t noise = (uint64_t)row * 2654435761u % 4096;
    switch (point) {
    case 0:
        return (int64_t)noise % 5;
    case 1:
        return (int64_t)(noise << 12); /* residuals around 2^24 */
    case 2:
        return (int64_t)(noise << 20);
    case 3:
        return INT64_MAX - (int64_t)noise;
    case 4:
        return row % 97 == 0 ? INT64_MIN : (int64_t)noise;
    default:
        return (int64_t)row << (row / 16);
    }
}

/* Rows that look like the one before them are taken together: one that does not, anywhere, must be
 * seen. */
static void one_row_may_look_different(void **state)
{
    (void)state;
    enum { N = 600, FEW = 6 };
    static const uint32_t odd_rows[] = {1, 2, 255, 256, 257, 258, 300, 512, 513, 599};
    for (uint32_t way = 0; way < 4; way++) {
        struct scan *scans[N];
        for (uint32_t i = 0; i < N; i++) {
            bool odd = false;
            for (size_t k = 0; k < ARRAY_SIZE(odd_rows); k++) {
                odd = odd || i == odd_rows[k];
            }
            uint16_t points = odd && way == 0 ? FEW - 2 : FEW;
            scans[i] = scan_new(1 + i, INT64_C(1769855400000) + (int64_t)i * 1000, points, "");
            for (uint16_t p = 0; p < points; p++) {
                struct reading *r = &scans[i]->readings[p];
                *r = (struct reading){.point = p, .kind = VALUE_DECIMAL, .integer = of_size(p, i)};
                if (odd && p == way) {
                    r->quality = QUALITY_UNCERTAIN;
                    r->exponent = way == 2 ? -1 : 0;
                    r->kind = way == 3 ? VALUE_NULL : VALUE_DECIMAL;
                    r->integer = way == 3 ? 0 : r->integer;
                }
            }
        }
        round_trip(scans, N);
        round_trip(scans + 250, 10);
        free_all(scans, N);
    }
}

static void what_belongs_apart_is_refused(void **state)
{
    (void)state;
    auto_buffer struct buffer coded = {0};
    struct scan *scans[2] = {scan_new(5, 0, 2, ""), scan_new(5, 0, 2, "")};
    scans[0]->readings[1].point = 1;
    scans[1]->readings[1].point = 1;
    assert_int_equal(codec_encode((const struct scan *const *)scans, 2, &coded), -EINVAL);
    scans[1]->seq = 6;
    scans[1]->device = 4;
    assert_int_equal(codec_encode((const struct scan *const *)scans, 2, &coded), -EINVAL);
    scans[1]->device = 3;
    scans[1]->readings[1].point = 0;
    assert_int_equal(codec_encode((const struct scan *const *)scans, 2, &coded), -EINVAL);
    scans[1]->readings[1].point = 1;
    assert_int_equal(codec_encode((const struct scan *const *)scans, 2, &coded), 0);
    assert_int_equal(codec_encode((const struct scan *const *)scans, 0, &coded), -EINVAL);
    free_all(scans, 2);
}

static struct scan **signal_scans(size_t rows)
{
    struct scan **scans = calloc(rows, sizeof(struct scan *));
    assert_non_null(scans);
    struct reference_signal signal;
    reference_signal_init(&signal, 1);
    for (size_t i = 0; i < rows; i++) {
        int32_t row[REFERENCE_CHANNELS];
        reference_signal_next(&signal, row);
        scans[i] = scan_new(1 + i, INT64_C(1769855400000) + 1000 * (int64_t)i, 20, "");
        for (uint16_t p = 0; p < 20; p++) {
            scans[i]->readings[p] = (struct reading){.point = p,
                                                     .kind = VALUE_DECIMAL,
                                                     .exponent = -2,
                                                     .integer = row[reference_signal_20[p]]};
        }
    }
    return scans;
}

/* 0.532 B is the order-0 entropy of this signal's deltas over a day. */
static void the_reference_signal_is_small(void **state)
{
    (void)state;
    enum { N = 3600 };
    struct scan **scans = signal_scans(N);
    size_t bytes = round_trip(scans, N);
    assert_true((double)bytes / (N * 20.0) < 0.532 * 1.15);
    free_all(scans, N);
    free(scans);
}

static void any_flipped_bit_is_seen(void **state)
{
    (void)state;
    struct scan **scans = signal_scans(40);
    auto_buffer struct buffer coded = {0};
    auto_buffer struct buffer back = {0};
    struct codec_head head;
    assert_int_equal(codec_encode((const struct scan *const *)scans, 40, &coded), 0);
    for (size_t bit = 0; bit < coded.len * 8; bit++) {
        coded.data[bit / 8] ^= (uint8_t)(1u << bit % 8);
        int r = codec_decode(coded.data, coded.len, &back, &head);
        assert_int_equal(r, bit < 8 ? -ENOTSUP : -EBADMSG);
        assert_int_equal(back.len, 0);
        coded.data[bit / 8] ^= (uint8_t)(1u << bit % 8);
    }
    for (size_t len = 0; len < coded.len; len++) {
        assert_true(codec_decode(coded.data, len, &back, &head) < 0);
    }
    free_all(scans, 40);
    free(scans);
}

/* Version 1 as it was first written: these bytes must decode to these values for ever. */
static void the_golden_block_still_reads(void **state)
{
    (void)state;
    struct scan **scans = signal_scans(40);
    auto_buffer struct buffer coded = {0};
    assert_int_equal(codec_encode((const struct scan *const *)scans, 40, &coded), 0);
    FILE *golden = fopen(TEST_SOURCE_DIR "/tests/unit/golden/block-v1.hex", "r");
    assert_non_null(golden);
    uint8_t bytes[4096];
    size_t len = 0;
    unsigned byte;
    while (len < sizeof bytes && fscanf(golden, "%2x", &byte) == 1) {
        bytes[len++] = (uint8_t)byte;
    }
    fclose(golden);
    auto_buffer struct buffer back = {0};
    struct codec_head head;
    assert_int_equal(codec_decode(bytes, len, &back, &head), 0);
    assert_int_equal(head.count, 40);
    for (size_t i = 0, at = 0; i < 40; i++) {
        assert_memory_equal(back.data + at, scans[i], scan_size(scans[i]));
        at += scan_size(scans[i]);
    }
    free_all(scans, 40);
    free(scans);
}

static void the_checksum_is_castagnoli(void **state)
{
    (void)state;
    assert_int_equal(crc32c(0, "123456789", 9), 0xe3069283u);
    uint32_t in_parts = crc32c(crc32c(0, "1234", 4), "56789", 5);
    assert_int_equal(in_parts, 0xe3069283u);
    assert_int_equal(crc32c_by_tables(0, "123456789", 9), 0xe3069283u);
}

/* Whatever the length, and wherever in a word it begins. */
static void the_checksum_is_the_same_without_the_instruction(void **state)
{
    (void)state;
    uint8_t bytes[200];
    for (size_t i = 0; i < sizeof bytes; i++) {
        bytes[i] = (uint8_t)(i * 151 + i / 7);
    }
    for (size_t from = 0; from < 9; from++) {
        for (size_t len = 0; from + len <= sizeof bytes; len++) {
            uint32_t before = (uint32_t)(len * 0x9e3779b9u);
            assert_int_equal(crc32c(before, bytes + from, len),
                             crc32c_by_tables(before, bytes + from, len));
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_kind_is_exact),
        cmocka_unit_test(points_may_come_and_go),
        cmocka_unit_test(one_row_may_look_different),
        cmocka_unit_test(what_belongs_apart_is_refused),
        cmocka_unit_test(the_reference_signal_is_small),
        cmocka_unit_test(any_flipped_bit_is_seen),
        cmocka_unit_test(the_golden_block_still_reads),
        cmocka_unit_test(the_checksum_is_castagnoli),
        cmocka_unit_test(the_checksum_is_the_same_without_the_instruction),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
