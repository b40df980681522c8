/* A chain of SunSpec models that says anything: the walk ends, and what it places lies within the
 * address space and decodes. */
#include "drivers/modbus/sunspec.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { STEPS_MAX = SUNSPEC_MODELS_MAX + 8, SPAN_MAX = 64 };

static void must(bool good)
{
    if (!good) {
        abort();
    }
}

static void read_point(const struct sunspec_walk *walk, const char *model, const char *name,
                       const uint8_t *data, size_t size)
{
    struct registers_point point = {0};
    struct reading reading = {0};
    uint8_t span[2 * SPAN_MAX] = {0};
    char why[160], text[REGISTERS_TEXT_MAX];
    must(sunspec_parse_point(model, name, &point, why, sizeof(why)) == 0);
    must(point.width <= SPAN_MAX);
    if (!sunspec_place_point(walk, &point)) {
        return;
    }
    must(point.first + point.width <= UINT16_MAX + 1);
    memcpy(span, data, size < sizeof(span) ? size : sizeof(span));
    registers_decode(&point, span, &reading, text);
    must(reading.exponent >= -10 && reading.exponent <= 10);
    must(reading.kind != VALUE_NULL || reading.quality >= QUALITY_BAD_TIMEOUT);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char *const points[][2] = {{"1", "Mn"},         {"103", "A"},   {"103", "Evt1"},
                                            {"203", "TotWhExp"}, {"203:2", "W"}, {"213", "W"},
                                            {"307", "TmpAmb"}};
    struct sunspec_walk walk;
    char words[40], name[32], why[160], text[64];
    struct registers_point point = {0};
    sunspec_walk_start(&walk);
    unsigned steps = 0;
    size_t at = 0;
    for (; at + 4 <= size && !walk.ended; at += 4) {
        must(sunspec_walk_at(&walk) <= UINT16_MAX - 1);
        if (data[at] == 0xfe) {
            sunspec_walk_refused(&walk);
        } else {
            sunspec_walk_take(&walk, data + at);
        }
        must(++steps <= STEPS_MAX);
    }
    sunspec_walk_describe(&walk, text, sizeof(text));
    for (size_t i = 0; i < ARRAY_SIZE(points); i++) {
        read_point(&walk, points[i][0], points[i][1], data + at, size - at);
    }
    /* And as words of a configuration. */
    snprintf(words, sizeof(words), "%.*s", (int)(size < 20 ? size : 20), (const char *)data);
    snprintf(name, sizeof(name), "%.*s", (int)(size < 12 ? size : 12), (const char *)data);
    must(sunspec_parse_point(words, name, &point, why, sizeof(why)) <= 0);
    return 0;
}
