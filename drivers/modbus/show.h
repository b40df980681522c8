/* show.h - raw registers beside everything they could mean, for people who look for the right type
 * and order.
 *
 * Pure, any thread. Data is as on the wire. */
#pragma once

#include "drivers/modbus/registers.h"

#include <jansson.h>

/* A new JSON array of "0x1f40" words; NULL when memory is short. */
must_check json_t *show_words(const uint8_t *data, unsigned registers);

/* A new JSON object: of one register int16 and uint16, of two the 32-bit decodings, of four the
 * 64-bit ones, each by order: {"int32":{"ABCD":1,...},"float32":{...}}. Decodings that are no
 * number are null. NULL when memory is short. */
must_check json_t *show_decodings(const uint8_t *data, unsigned registers);

/* A reading as JSON: number, bool, string or null. */
must_check json_t *show_reading(const struct reading *reading, const char *text);
