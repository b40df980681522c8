/* SunSpec: the points of models, the way along the chain, values with their scale factors. */
#include "drivers/modbus/layout.h"
#include "drivers/modbus/mbap.h"

#include <errno.h>
#include <jansson.h>
#include <string.h>
/* clang-format off */
#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>
/* clang-format on */

static struct registers_point point_of(const char *model, const char *name)
{
    struct registers_point point = {0};
    char why[160] = "";
    int r = sunspec_parse_point(model, name, &point, why, sizeof(why));
    if (r != 0) {
        print_error("%s %s: %s\n", model, name, why);
    }
    assert_int_equal(r, 0);
    return point;
}

static void test_figures_of_the_models(void **state)
{
    (void)state;
    struct registers_point point = point_of("203", "A");
    assert_int_equal(point.first, 2);
    assert_int_equal(point.width, 5);
    assert_int_equal(point.value_at, 0);
    assert_int_equal(point.scale_at, 4);
    assert_true(point.has_scale && point.has_invalid && point.invalid == 0x8000);
    point = point_of("203", "PF");
    assert_int_equal(point.first, 33);
    assert_int_equal(point.first + point.scale_at, 37);
    point = point_of("307", "TmpAmb");
    assert_int_equal(point.first, 2);
    assert_int_equal(point.width, 1);
    assert_int_equal(point.exponent, -1);
    assert_false(point.has_scale);
    point = point_of("213", "TotVArhExpQ4phC");
    assert_int_equal(point.first, 122);
    assert_int_equal(point.type, REGISTERS_FLOAT32);
    point = point_of("1", "Mn");
    assert_int_equal(point.type, REGISTERS_STRING);
    assert_int_equal(point.width, 16);
    assert_int_equal(sunspec_model_length(203), 105);
    assert_int_equal(sunspec_model_length(213), 124);
    assert_int_equal(point_of("203:2", "A").instance, 2);
}

/* Every point of the published models is known, where they say it is. */
static void check_model(const char *path, const char *model)
{
    json_t *root = json_load_file(path, 0, NULL), *value;
    size_t i, offset = 0, known = 0;
    if (root == NULL) {
        skip();
    }
    json_array_foreach(json_object_get(json_object_get(root, "group"), "points"), i, value)
    {
        const char *name = json_string_value(json_object_get(value, "name"));
        const char *type = json_string_value(json_object_get(value, "type"));
        if (strcmp(type, "sunssf") != 0 && strcmp(name, "ID") != 0 && strcmp(name, "L") != 0 &&
            strcmp(type, "pad") != 0) {
            struct registers_point point = point_of(model, name);
            assert_int_equal(point.first + point.value_at, offset);
            known++;
        }
        offset += (size_t)json_integer_value(json_object_get(value, "size"));
    }
    assert_true(known > 5);
    json_decref(root);
}

static void test_against_the_published_models(void **state)
{
    (void)state;
    check_model(SHARED_DATA "/sunspec/model_1.json", "1");
    check_model(SHARED_DATA "/sunspec/model_103.json", "103");
    check_model(SHARED_DATA "/sunspec/model_113.json", "113");
    check_model(SHARED_DATA "/sunspec/model_203.json", "203");
    check_model(SHARED_DATA "/sunspec/model_213.json", "213");
    check_model(SHARED_DATA "/sunspec/model_307.json", "307");
}

static void test_words_that_are_wrong(void **state)
{
    (void)state;
    static const char *const wrong[][2] = {{"", "A"},       {"0", "A"},      {"103x", "A"},
                                           {"999", "A"},    {"103", "Watt"}, {"103:0", "A"},
                                           {"103:99", "A"}, {"65536", "A"},  {"-1", "A"},
                                           {"203:", "A"},   {"103", "a"}};
    for (size_t i = 0; i < ARRAY_SIZE(wrong); i++) {
        struct registers_point point = {0};
        char why[160] = "";
        assert_int_equal(sunspec_parse_point(wrong[i][0], wrong[i][1], &point, why, sizeof(why)),
                         -EINVAL);
        assert_true(strlen(why) > 10);
    }
}

static const uint8_t marker[] = {'S', 'u', 'n', 'S'};

static void take(struct sunspec_walk *walk, unsigned model, unsigned length)
{
    uint8_t head[4];
    assert_false(walk->ended);
    mbap_put16(head, model);
    mbap_put16(head + 2, length);
    sunspec_walk_take(walk, head);
}

static void test_the_chain(void **state)
{
    (void)state;
    struct sunspec_walk walk;
    char text[64];
    sunspec_walk_start(&walk);
    assert_int_equal(sunspec_walk_at(&walk), 40000);
    sunspec_walk_refused(&walk); /* nothing there */
    assert_int_equal(sunspec_walk_at(&walk), 50000);
    take(&walk, 17, 4); /* something else there */
    assert_int_equal(sunspec_walk_at(&walk), 0);
    sunspec_walk_take(&walk, marker);
    assert_int_equal(sunspec_walk_at(&walk), 2);
    take(&walk, 1, 66);
    assert_int_equal(sunspec_walk_at(&walk), 70);
    take(&walk, 203, 105);
    take(&walk, 64001, 30); /* of a vendor */
    take(&walk, 203, 105);
    take(&walk, 0xffff, 0);
    assert_true(walk.ended && walk.found);
    sunspec_walk_describe(&walk, text, sizeof(text));
    assert_string_equal(text, "1 203 64001 203");
    struct registers_point first = point_of("203", "W"), second = point_of("203:2", "W");
    struct registers_point third = point_of("203:3", "W"), other = point_of("103", "W");
    assert_true(sunspec_place_point(&walk, &first));
    assert_true(sunspec_place_point(&walk, &second));
    assert_int_equal(first.first, 70 + 18);
    assert_int_equal(second.first, 70 + 107 + 32 + 18);
    assert_false(sunspec_place_point(&walk, &third));
    assert_false(sunspec_place_point(&walk, &other));
}

static void test_chains_that_lie(void **state)
{
    (void)state;
    struct sunspec_walk walk;
    sunspec_walk_start(&walk);
    for (unsigned i = 0; i < 3; i++) {
        sunspec_walk_refused(&walk);
    }
    assert_true(walk.ended && !walk.found);
    /* One without an end: by number, and by address. */
    sunspec_walk_start(&walk);
    sunspec_walk_take(&walk, marker);
    for (unsigned i = 0; i < SUNSPEC_MODELS_MAX; i++) {
        take(&walk, 5, 0);
    }
    assert_true(walk.ended);
    assert_int_equal(walk.count, SUNSPEC_MODELS_MAX);
    sunspec_walk_start(&walk);
    sunspec_walk_take(&walk, marker);
    take(&walk, 5, 30000);
    assert_true(walk.ended);
    /* A model that would reach beyond the last address. */
    sunspec_walk_start(&walk);
    sunspec_walk_take(&walk, marker);
    take(&walk, 5, 25520);
    take(&walk, 203, 105);
    struct registers_point beyond = point_of("203", "W");
    assert_true(walk.ended);
    assert_false(sunspec_place_point(&walk, &beyond));
    /* A model cut short: what lies beyond its end is not there. */
    sunspec_walk_start(&walk);
    sunspec_walk_take(&walk, marker);
    take(&walk, 307, 4);
    take(&walk, 0xffff, 0);
    struct registers_point speed = point_of("307", "WndSpd"), direction = point_of("307", "WndDir");
    assert_true(sunspec_place_point(&walk, &speed));
    assert_false(sunspec_place_point(&walk, &direction));
}

static struct reading decode(const struct registers_point *point, const uint16_t *registers)
{
    uint8_t data[2 * 64];
    char text[REGISTERS_TEXT_MAX];
    struct reading reading = {0};
    for (unsigned i = 0; i < point->width; i++) {
        mbap_put16(data + 2 * (size_t)i, registers[i]);
    }
    registers_decode(point, data, &reading, text);
    return reading;
}

static void test_values_with_their_scale_factors(void **state)
{
    (void)state;
    const struct registers_point current = point_of("203", "A");
    struct reading reading = decode(&current, (uint16_t[]){1234, 0, 0, 0, (uint16_t)-2});
    assert_int_equal(reading.quality, QUALITY_GOOD);
    assert_int_equal(reading.integer, 1234);
    assert_int_equal(reading.exponent, -2);
    reading = decode(&current, (uint16_t[]){(uint16_t)-7, 0, 0, 0, 3});
    assert_int_equal(reading.integer, -7);
    assert_int_equal(reading.exponent, 3);
    /* Value or scale factor not implemented, or no scale factor at all. */
    static const uint16_t bad[][5] = {
        {0x8000, 0, 0, 0, 0}, {5, 0, 0, 0, 0x8000}, {5, 0, 0, 0, 11}, {5, 0, 0, 0, 0xfff5}};
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
        reading = decode(&current, bad[i]);
        assert_int_equal(reading.kind, VALUE_NULL);
        assert_int_equal(reading.quality, QUALITY_BAD_INVALID);
    }
    const struct registers_point unsigned_current = point_of("103", "A");
    assert_int_equal(decode(&unsigned_current, (uint16_t[]){0x8000, 0, 0, 0, 0}).integer, 32768);
    assert_int_equal(decode(&unsigned_current, (uint16_t[]){0xffff, 0, 0, 0, 0}).quality,
                     QUALITY_BAD_INVALID);
    const struct registers_point energy = point_of("103", "WH");
    reading = decode(&energy, (uint16_t[]){1, 2, 1});
    assert_int_equal(reading.integer, 65538);
    assert_int_equal(reading.exponent, 1);
    const struct registers_point events = point_of("103", "Evt1");
    assert_int_equal(decode(&events, (uint16_t[]){0x8000, 1}).quality, QUALITY_BAD_INVALID);
    assert_int_equal(decode(&events, (uint16_t[]){0, 5}).integer, 5);
    const struct registers_point air = point_of("307", "TmpAmb");
    reading = decode(&air, (uint16_t[]){(uint16_t)-153});
    assert_int_equal(reading.integer, -153);
    assert_int_equal(reading.exponent, -1);
    const struct registers_point power = point_of("213", "W");
    assert_int_equal(decode(&power, (uint16_t[]){0x7fc0, 0}).quality, QUALITY_BAD_INVALID);
    assert_true(decode(&power, (uint16_t[]){0x4148, 0}).real == 12.5);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_figures_of_the_models),
        cmocka_unit_test(test_against_the_published_models),
        cmocka_unit_test(test_words_that_are_wrong),
        cmocka_unit_test(test_the_chain),
        cmocka_unit_test(test_chains_that_lie),
        cmocka_unit_test(test_values_with_their_scale_factors),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
