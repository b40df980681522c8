/* crc32c.h - the checksum of everything the store writes (Castagnoli, RFC 3720 appendix B.4).
 *
 * Pure, any thread. Start with 0 and pass the result on to go over several pieces. */
#pragma once

#include <stddef.h>
#include <stdint.h>

uint32_t crc32c(uint32_t crc, const void *bytes, size_t len);
