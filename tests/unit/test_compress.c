/* How bodies are made smaller: whole again at the other end, by the search that suits them. */
#include "uplink/transport/compress.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <zlib.h>
#include <zstd.h>
// clang-format off
#include <cmocka.h> /* needs those above */
// clang-format on

enum { ROWS = 500, BODY_MAX = 256 * 1024 };

static uint64_t roll(uint64_t *rng)
{
    *rng ^= *rng << 13;
    *rng ^= *rng >> 7;
    *rng ^= *rng << 17;
    return *rng;
}

/* Records as the formats write them, all equally long or not. */
static void fill(struct buffer *body, bool equal)
{
    uint64_t rng = 88172645463325252u;
    for (int row = 0; row < ROWS; row++) {
        buffer_printf(body, "{\"seq\":%d,\"device\":\"t01\",\"values\":{", 1000 + row);
        for (int i = 0; i < 20; i++) {
            unsigned value = 1000 + (unsigned)(roll(&rng) % 300);
            buffer_printf(body, equal ? "\"channel_%02d\":%u.%02u," : "\"channel_%02d\":%u.%u,", i,
                          value / 100, value % 100);
        }
        buffer_printf(body, "}},");
    }
}

static void fill_columns(struct buffer *body)
{
    uint64_t rng = 88172645463325252u;
    for (int i = 0; i < ROWS * 20; i++) {
        int value = (int)(roll(&rng) % 41) - 20;
        buffer_printf(body, "%d,", roll(&rng) % 3 == 0 ? value : 0);
    }
}

static size_t level_one(const struct buffer *body)
{
    static char out[BODY_MAX];
    size_t n = ZSTD_compress(out, sizeof out, body->data, body->len, 1);
    assert_false(ZSTD_isError(n));
    return n;
}

static void assert_whole(const struct buffer *packed, const struct buffer *body)
{
    static char out[BODY_MAX];
    assert_int_equal(ZSTD_decompress(out, sizeof out, packed->data, packed->len), body->len);
    assert_memory_equal(out, body->data, body->len);
}

static void test_gzip_comes_back_whole(void **state)
{
    (void)state;
    static uint8_t out[BODY_MAX];
    auto_buffer struct buffer body = {0}, packed = {0};
    struct compressor *c = NULL;
    fill(&body, false);
    assert_int_equal(compressor_create(COMPRESS_GZIP, &c), 0);
    assert_string_equal(compressor_name(c), "gzip");
    for (int i = 0; i < 3; i++) {
        assert_int_equal(compressor_run(c, &body, i == 1, &packed), 0);
        z_stream z = {.next_in = packed.data,
                      .avail_in = (uInt)packed.len,
                      .next_out = out,
                      .avail_out = sizeof out};
        assert_int_equal(inflateInit2(&z, 15 + 16), Z_OK);
        assert_int_equal(inflate(&z, Z_FINISH), Z_STREAM_END);
        assert_int_equal(z.total_out, body.len);
        assert_memory_equal(out, body.data, body.len);
        inflateEnd(&z);
    }
    compressor_destroy(c);
}

static void test_rows_of_equal_length(void **state)
{
    (void)state;
    struct compressor *c = NULL;
    assert_int_equal(compressor_create(COMPRESS_ZSTD, &c), 0);
    for (int equal = 0; equal < 2; equal++) {
        auto_buffer struct buffer body = {0}, packed = {0}, again = {0};
        fill(&body, equal);
        assert_int_equal(compressor_run(c, &body, false, &packed), 0);
        assert_whole(&packed, &body);
        /* A tenth smaller than usual where that can be, and hardly ever larger. */
        assert_in_range(packed.len, 1, level_one(&body) * (equal ? 90 : 101) / 100);
        assert_int_equal(compressor_run(c, &body, false, &again), 0);
        assert_int_equal(again.len, packed.len);
        assert_memory_equal(again.data, packed.data, packed.len);
    }
    compressor_destroy(c);
}

static void test_dense_bodies_while_there_is_time(void **state)
{
    (void)state;
    auto_buffer struct buffer body = {0}, packed = {0};
    struct compressor *c = NULL;
    fill_columns(&body);
    size_t usual = level_one(&body);
    assert_int_equal(compressor_create(COMPRESS_ZSTD, &c), 0);
    assert_int_equal(compressor_run(c, &body, true, &packed), 0);
    assert_whole(&packed, &body);
    assert_in_range(packed.len, 1, usual * 97 / 100);
    size_t dense = packed.len;
    int runs = 0;
    while (packed.len == dense && runs < 10000) { /* one after the other: more than its share */
        assert_int_equal(compressor_run(c, &body, true, &packed), 0);
        runs++;
    }
    assert_in_range(runs, 1, 9999);
    assert_whole(&packed, &body);
    assert_in_range(packed.len, 1, usual * 99 / 100); /* not so small, but still worth it */
    compressor_waited(c, INT64_C(3600000000000));     /* its turn again, and not for an hour */
    assert_int_equal(compressor_run(c, &body, true, &packed), 0);
    assert_int_equal(packed.len, dense);
    while (packed.len == dense && runs < 10000) {
        assert_int_equal(compressor_run(c, &body, true, &packed), 0);
        runs++;
    }
    assert_in_range(runs, 1, 9999);
    compressor_destroy(c);
}

static void test_odd_bodies(void **state)
{
    (void)state;
    struct compressor *c = NULL;
    assert_int_equal(compressor_create(COMPRESS_ZSTD, &c), 0);
    for (size_t len = 0; len < 40; len++) {
        auto_buffer struct buffer body = {0}, packed = {0};
        for (size_t i = 0; i < len; i++) {
            buffer_add_byte(&body, (uint8_t)(i * 37));
        }
        assert_int_equal(compressor_run(c, &body, len % 2 == 0, &packed), 0);
        if (len > 0) {
            assert_whole(&packed, &body);
        }
    }
    compressor_destroy(c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_gzip_comes_back_whole),
        cmocka_unit_test(test_rows_of_equal_length),
        cmocka_unit_test(test_dense_bodies_while_there_is_time),
        cmocka_unit_test(test_odd_bodies),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
