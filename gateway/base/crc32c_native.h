/* crc32c_native.h - the CRC-32C instruction of the machine, where it has one.
 *
 * Pure, any thread; used by crc32c.c only. CMake takes one file of several: crc32c_x86.c (SSE 4.2,
 * asked for at run time) or crc32c_plain.c (there is none). */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

bool crc32c_is_native(void);
/* Only where it is native; crc is inverted before and behind it, by the caller. */
uint32_t crc32c_native(uint32_t crc, const uint8_t *at, size_t len);
