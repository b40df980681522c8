/* Any registers as any point: nothing outside them is read, and what decodes encodes back to a
 * pattern that decodes the same. The first bytes choose type and order. */
#include "drivers/modbus/registers.h"

#include <assert.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char text[REGISTERS_TEXT_MAX], text_again[REGISTERS_TEXT_MAX];
    if (size < 4) {
        return 0;
    }
    struct registers_point point = {.type = data[0] % REGISTERS_TYPES, .order = data[1] & 3};
    point.detail = point.type == REGISTERS_BIT      ? data[2] & 15
                   : point.type == REGISTERS_STRING ? (uint16_t)(data[2] % REGISTERS_TEXT_MAX + 1)
                                                    : 0;
    point.width = registers_width(point.type, point.detail);
    point.has_invalid = (data[1] & 4) != 0;
    point.invalid = data[3] * UINT64_C(0x0101010101010101);
    size_t bytes = 2 * (size_t)point.width;
    if (size < 4 + bytes) {
        return 0;
    }
    uint8_t *exact = malloc(bytes); /* so that the sanitizer sees its end */
    struct reading reading = {0}, again = {0};
    memcpy(exact, data + 4, bytes);
    registers_decode(&point, exact, &reading, text);
    if (reading.kind != VALUE_NULL) {
        assert(reading.quality == QUALITY_GOOD);
        assert(registers_encode(&point, &reading, text, exact) == 0);
        registers_decode(&point, exact, &again, text_again);
        assert(again.kind == reading.kind);
        assert(again.kind == VALUE_TEXT ? again.text.len == reading.text.len &&
                                              memcmp(text, text_again, again.text.len) == 0
                                        : again.integer == reading.integer);
    } else {
        assert(reading.quality != QUALITY_GOOD);
    }
    free(exact);
    return 0;
}
