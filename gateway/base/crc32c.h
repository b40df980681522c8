/* crc32c.h - CRC-32C (Castagnoli, RFC 3720 appendix B.4), the checksum of all that is stored.
 *
 * Pure, any thread. crc32c(0, "123456789", 9) is 0xe3069283. */
#pragma once

#include <stddef.h>
#include <stdint.h>

/* The checksum of the bytes behind those that `crc` stands for; 0 begins. */
uint32_t crc32c(uint32_t crc, const void *bytes, size_t len);

/* The same on any machine: crc32c() takes an instruction of it, where there is one. */
uint32_t crc32c_by_tables(uint32_t crc, const void *bytes, size_t len);
