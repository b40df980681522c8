/* The four forms of a body: what comes out of them, and that columns say what a batch says. */
#include "uplink/sink/sink_body.h"
#include "uplink/sink/sink_records.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <zlib.h>
#include <zstd.h>
/* clang-format off: cmocka needs the ones above */
#include <cmocka.h>
/* clang-format on */

struct listing {
    struct buffer text;
    size_t records, refused;
};

/* Renders a record so that two bodies can be compared as text. */
static int list_record(void *user, const struct sink_record *record)
{
    struct listing *listing = user;
    struct buffer *b = &listing->text;
    buffer_printf(b, "%.*s/%.*s/%.*s/%.*s/%lld@%lld%s%s", (int)record->gateway.len,
                  record->gateway.at, (int)record->store.len, record->store.at,
                  (int)record->stream.len, record->stream.at, (int)record->device.len,
                  record->device.at, (long long)record->seq, (long long)record->time_ms,
                  record->refusal == NULL ? "" : " refused: ",
                  record->refusal == NULL ? "" : record->refusal);
    for (size_t i = 0; i < record->count; i++) {
        const struct sink_reading *r = &record->readings[i];
        buffer_printf(b, " %.*s=", (int)r->point.len, r->point.at);
        if (r->value.kind == SINK_VALUE_INTEGER) {
            buffer_printf(b, "%lld", (long long)r->value.integer);
        } else if (r->value.kind == SINK_VALUE_REAL) {
            buffer_printf(b, "%.17g", r->value.real);
        } else if (r->value.kind == SINK_VALUE_TEXT) {
            buffer_printf(b, "'%.*s'", (int)r->value.text.len, r->value.text.at);
        } else {
            buffer_add_text(b, "null");
        }
        if (!json_in_text_is(r->quality, "good")) {
            buffer_printf(b, "(%.*s)", (int)r->quality.len, r->quality.at);
        }
    }
    buffer_add_byte(b, '\n');
    listing->records++;
    listing->refused += record->refusal != NULL ? 1 : 0;
    return 0;
}

static int parse(const char *body, enum sink_form form, struct listing *listing,
                 char why[SINK_WHY_SIZE])
{
    struct json_in_arena arena = {NULL};
    const struct sink_taker taker = {.take = list_record, .user = listing};
    int r = sink_records_parse(body, strlen(body), form, &arena, &taker, why);
    json_in_arena_finish(&arena);
    return r;
}

static void assert_lists(const char *body, enum sink_form form, const char *expected)
{
    struct listing listing = {0};
    char why[SINK_WHY_SIZE] = "";
    int r = parse(body, form, &listing, why);
    if (r != 0) {
        fail_msg("%s: %s", why, body);
    }
    assert_string_equal(buffer_text(&listing.text), expected);
    buffer_finish(&listing.text);
}

static void assert_refused(const char *body, enum sink_form form, const char *reason)
{
    struct listing listing = {0};
    char why[SINK_WHY_SIZE] = "";
    assert_int_equal(parse(body, form, &listing, why), -EINVAL);
    if (strstr(why, reason) == NULL) {
        fail_msg("'%s' is not in '%s': %s", reason, why, body);
    }
    buffer_finish(&listing.text);
}

static const char batch[] =
    "{\"gateway\":\"g1\",\"store\":\"9f\",\"stream\":\"raw\",\"records\":["
    "{\"seq\":7,\"device\":\"t01\",\"time\":\"2026-01-31T10:30:00.000Z\",\"tags\":{\"type\":"
    "\"V90\"},"
    "\"values\":{\"wind\":8.42,\"power\":null,\"ok\":true,\"name\":\"a\\u00e9\"},"
    "\"quality\":{\"power\":\"bad:timeout\"}},"
    "{\"seq\":8,\"device\":\"t01\",\"time\":\"2026-01-31T10:30:01.000Z\","
    "\"values\":{\"wind\":8.4,\"power\":1312.5,\"ok\":false,\"name\":\"b\"},"
    "\"quality\":{\"power\":\"uncertain\"}},"
    "{\"seq\":9,\"device\":\"t01\",\"time\":\"2026-01-31T10:30:02.500Z\","
    "\"values\":{\"wind\":-3,\"ok\":false,\"name\":\"b\"}}]}";

static const char listed[] =
    "g1/9f/raw/t01/7@1769855400000 wind=8.4199999999999999 power=null(bad:timeout) ok=1 "
    "name='a\xc3\xa9'\n"
    "g1/9f/raw/t01/8@1769855401000 wind=8.4000000000000004 power=1312.5(uncertain) ok=0 name='b'\n"
    "g1/9f/raw/t01/9@1769855402500 wind=-3 ok=0 name='b'\n";

static const char columns[] =
    "{\"gateway\":\"g1\",\"store\":\"9f\",\"stream\":\"raw\",\"blocks\":[{\"device\":\"t01\","
    "\"first_seq\":7,\"points\":[\"wind\",\"power\",\"ok\",\"name\"],"
    "\"time_ms\":{\"first\":1769855400000,\"deltas\":[1000,1500]},"
    "\"values\":[{\"scale\":0.01,\"deltas\":[842,-2,-1140]},[null,1312.5,null],[true,false,false],"
    "[\"a\\u00e9\",\"b\",\"b\"]],"
    "\"quality\":[[0,1,\"bad:timeout\"],[1,1,\"uncertain\"]]}]}";

static void test_batch(void **state)
{
    (void)state;
    assert_lists(batch, SINK_FORM_READINGS, listed);
}

static void test_columns_equal_batch(void **state)
{
    (void)state;
    assert_lists(columns, SINK_FORM_READINGS, listed);
}

/* The members of an object have no order: content before identity, quality before values. */
static void test_any_order(void **state)
{
    (void)state;
    assert_lists("{\"records\":[{\"quality\":{\"p\":\"bad:range\"},\"values\":{\"p\":null},"
                 "\"time\":1769855400000,\"device\":\"d\",\"seq\":1}],\"stream\":\"event\","
                 "\"store\":\"s\",\"gateway\":\"g\"}",
                 SINK_FORM_READINGS, "g/s/event/d/1@1769855400000 p=null(bad:range)\n");
    assert_lists("{\"blocks\":[{\"values\":[{\"deltas\":[5,null,1],\"scale\":0.1}],\"quality\":[],"
                 "\"time_ms\":{\"deltas\":[1,1],\"first\":5},\"points\":[\"p\"],\"first_seq\":1,"
                 "\"device\":\"d\"}],\"stream\":\"raw\",\"store\":\"s\",\"gateway\":\"g\"}",
                 SINK_FORM_READINGS,
                 "g/s/raw/d/1@5 p=0.5\ng/s/raw/d/2@6 refused: it has no values\n"
                 "g/s/raw/d/3@7 p=0.59999999999999998\n");
}

static void test_telemetry_and_flat(void **state)
{
    (void)state;
    assert_lists("[{\"deviceId\":\"t01\",\"timestamp\":\"2026-01-31T10:30:00Z\","
                 "\"readings\":{\"wind\":8.5}},{\"deviceId\":\"t02\",\"timestamp\":1769855400,"
                 "\"readings\":{\"wind\":9}}]",
                 SINK_FORM_READINGS,
                 "///t01/1769855400000@1769855400000 wind=8.5\n"
                 "///t02/1769855400000@1769855400000 wind=9\n");
    assert_lists("{\"location\":\"t01\",\"time\":\"2026-01-31T11:30:00+01:00\",\"wind\":8.5,"
                 "\"quality\":{\"wind\":\"uncertain\"},\"state\":3}",
                 SINK_FORM_FLAT,
                 "///t01/1769855400000@1769855400000 wind=8.5(uncertain) state=3\n");
    assert_lists("[{\"location\":\"a\",\"time\":1769855400000,\"v\":1},"
                 "{\"location\":\"b\",\"time\":1769855400000,\"v\":2}]",
                 SINK_FORM_FLAT,
                 "///a/1769855400000@1769855400000 v=1\n///b/1769855400000@1769855400000 v=2\n");
}

/* One bad record is refused with its reason; those beside it are taken. */
static void test_refusals(void **state)
{
    (void)state;
#define HEAD "{\"gateway\":\"g\",\"store\":\"s\",\"stream\":\"raw\",\"records\":["
    assert_lists(HEAD "{\"seq\":1,\"device\":\"d\",\"time\":\"yesterday\",\"values\":{\"p\":1}},"
                      "{\"seq\":2,\"device\":\"d\",\"values\":{\"p\":1}},"
                      "{\"seq\":3,\"device\":\"d\",\"time\":5000000,\"values\":{\"p\":{}}},"
                      "{\"seq\":4,\"device\":\"d\",\"time\":5,\"values\":{}},"
                      "{\"seq\":5,\"device\":\"d\",\"time\":5,\"values\":{\"p\":1},"
                      "\"quality\":{\"q\":\"good\"}},"
                      "{\"seq\":6,\"device\":\"d\",\"time\":5,\"values\":{\"p\":1}}]}",
                 SINK_FORM_READINGS,
                 "g/s/raw/d/1@0 refused: its time is none p=1\n"
                 "g/s/raw/d/2@0 refused: its time is missing p=1\n"
                 "g/s/raw/d/3@5000000000 refused: a value is no plain value p=null\n"
                 "g/s/raw/d/4@5000 refused: it has no values\n"
                 "g/s/raw/d/5@5000 refused: a quality without its value p=1\n"
                 "g/s/raw/d/6@5000 p=1\n");
}

static void test_bad_bodies(void **state)
{
    (void)state;
    assert_refused("", SINK_FORM_READINGS, "object is expected");
    assert_refused("{}", SINK_FORM_READINGS, "neither records nor blocks");
    assert_refused("{\"records\":[]}", SINK_FORM_READINGS, "gateway, store or stream");
    assert_refused("{\"gateway\":\"g\",\"store\":\"s\",\"stream\":\"x\",\"records\":[]}",
                   SINK_FORM_READINGS, "unknown stream");
    assert_refused(HEAD "{\"device\":\"d\",\"time\":5,\"values\":{\"p\":1}}]}", SINK_FORM_READINGS,
                   "without a seq");
    assert_refused(HEAD "{\"seq\":1.5,\"device\":\"d\"}]}", SINK_FORM_READINGS, "whole number");
    assert_refused(HEAD "{\"seq\":1,\"time\":5,\"values\":{\"p\":1}}]}", SINK_FORM_READINGS,
                   "without a device");
    assert_refused(HEAD "]} x", SINK_FORM_READINGS, "follows the document");
    assert_refused(HEAD "],\"records\":[]}", SINK_FORM_READINGS, "twice");
    assert_refused("{\"time\":5,\"v\":1}", SINK_FORM_FLAT, "without a device");
#undef HEAD
}

static void assert_block_refused(const char *block, const char *reason)
{
    char body[1024];
    snprintf(body, sizeof body,
             "{\"gateway\":\"g\",\"store\":\"s\",\"stream\":\"raw\",\"blocks\":[%s]}", block);
    assert_refused(body, SINK_FORM_READINGS, reason);
}

static void test_bad_blocks(void **state)
{
    (void)state;
#define BLOCK(values, quality)                                                                     \
    "{\"device\":\"d\",\"first_seq\":1,\"points\":[\"p\"],\"time_ms\":{\"first\":5,\"deltas\":[1]" \
    "},"                                                                                           \
    "\"values\":[" values "],\"quality\":[" quality "]}"
    assert_block_refused("{}", "a block needs");
    assert_block_refused(BLOCK("[1]", ""), "one value a row");
    assert_block_refused(BLOCK("[1,2,3]", ""), "too large");
    assert_block_refused(BLOCK("", ""), "one column a point");
    assert_block_refused(BLOCK("[1,2],[3,4]", ""), "too large");
    assert_block_refused(BLOCK("{\"scale\":0.1}", ""), "scale and deltas");
    assert_block_refused(BLOCK("{\"scale\":1,\"deltas\":[999999999999999999,1e18,9e18]}", ""), "");
    assert_block_refused(BLOCK("[1,2]", "[2,0,\"bad\"]"), "outside its block");
    assert_block_refused(BLOCK("[1,2]", "[0,1,\"bad\"]"), "outside its block");
    assert_block_refused(BLOCK("[1,2]", "[0,0]"), "");
    assert_block_refused(BLOCK("[1,2]", "[0,0,\"bad\",1]"), "");
    assert_block_refused(BLOCK("[1,2]", "0"), "");
#undef BLOCK
}

/* The bounds that a hostile body reaches first. */
static void test_bounds(void **state)
{
    (void)state;
    struct buffer body = {.max = 0};
    buffer_add_text(&body, "{\"location\":\"d\",\"time\":5");
    for (int i = 0; i <= SINK_READINGS_MAX; i++) {
        buffer_printf(&body, ",\"p%d\":1", i);
    }
    buffer_add_byte(&body, '}');
    assert_refused(buffer_text(&body), SINK_FORM_FLAT, "too many readings");
    buffer_clear(&body);
    buffer_add_byte(&body, '[');
    for (int i = 0; i <= SINK_RECORDS_MAX; i++) {
        buffer_printf(&body, "%s{\"location\":\"d\"}", i == 0 ? "" : ",");
    }
    buffer_add_byte(&body, ']');
    assert_refused(buffer_text(&body), SINK_FORM_FLAT, "too many records");
    buffer_finish(&body);
}

static size_t gzip(const void *from, size_t len, uint8_t *to, size_t room)
{
    z_stream stream = {.next_in = (Bytef *)(uintptr_t)from,
                       .avail_in = (uInt)len,
                       .next_out = to,
                       .avail_out = (uInt)room};
    assert_int_equal(deflateInit2(&stream, 6, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY), Z_OK);
    assert_int_equal(deflate(&stream, Z_FINISH), Z_STREAM_END);
    deflateEnd(&stream);
    return room - stream.avail_out;
}

static void assert_decodes(const char *encoding, const uint8_t *packed, size_t len)
{
    struct buffer out = {.max = 0};
    assert_int_equal(sink_body_decode(encoding, packed, len, sizeof batch, &out), 0);
    assert_int_equal(out.len, sizeof batch);
    assert_memory_equal(out.data, batch, sizeof batch);
    buffer_clear(&out);
    assert_int_equal(sink_body_decode(encoding, packed, len, sizeof batch - 1, &out), -EMSGSIZE);
    for (size_t cut = 0; cut < len; cut++) {
        buffer_clear(&out);
        assert_int_equal(sink_body_decode(encoding, packed, cut, sizeof batch, &out), -EBADMSG);
    }
    buffer_finish(&out);
}

static void test_encodings(void **state)
{
    (void)state;
    uint8_t packed[2048];
    size_t len = gzip(batch, sizeof batch, packed, sizeof packed);
    assert_decodes("gzip", packed, len);
    packed[len] = 'x';
    struct buffer out = {.max = 0};
    assert_int_equal(sink_body_decode("GZIP", packed, len + 1, 4096, &out), -EBADMSG);
    len = ZSTD_compress(packed, sizeof packed, batch, sizeof batch, 3);
    assert_false(ZSTD_isError(len));
    assert_decodes("zstd", packed, len);
    assert_int_equal(sink_body_decode("br", packed, len, 4096, &out), -ENOTSUP);
    buffer_finish(&out);
}

/* A bomb: kilobytes that stand for 64 MiB stop at the bound, not behind it. */
static void test_bomb(void **state)
{
    (void)state;
    enum { ZEROS = 64 << 20, BOUND = 1 << 20 };
    void *zeros = calloc(1, ZEROS);
    uint8_t *packed = malloc(1 << 20);
    assert_true(zeros != NULL && packed != NULL);
    size_t len = gzip(zeros, ZEROS, packed, 1 << 20);
    struct buffer out = {.max = 0};
    assert_int_equal(sink_body_decode("gzip", packed, len, BOUND, &out), -EMSGSIZE);
    assert_true(out.capacity <= 2 * BOUND);
    free(packed);
    free(zeros);
    buffer_finish(&out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_batch),      cmocka_unit_test(test_columns_equal_batch),
        cmocka_unit_test(test_any_order),  cmocka_unit_test(test_telemetry_and_flat),
        cmocka_unit_test(test_refusals),   cmocka_unit_test(test_bad_bodies),
        cmocka_unit_test(test_bad_blocks), cmocka_unit_test(test_bounds),
        cmocka_unit_test(test_encodings),  cmocka_unit_test(test_bomb),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
