/* clock.h - the only way to ask for the time.
 *
 * Any thread. Monotonic time schedules, boot time orders readings across suspend, wall time (UTC)
 * stamps them. Tests take the clocks into their hands with clock_hold(); the daemon never does. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

/* CLOCK_MONOTONIC. */
int64_t clock_mono_ns(void);
int64_t clock_mono_ms(void);

/* CLOCK_BOOTTIME: goes on during suspend, starts near 0 at boot. */
int64_t clock_boot_ms(void);

/* CLOCK_REALTIME, milliseconds since 1970-01-01T00:00:00Z. */
int64_t clock_wall_ms(void);

/* UTC minus boot time, both read at one moment: constant until somebody steps the wall clock, since
 * what slews one of them slews the other. */
int64_t clock_offset_ms(void);

/* Which boot this is: the kernel's random id of it. -errno where /proc does not tell. */
enum { CLOCK_BOOT_ID_SIZE = 16 };
int clock_boot_id(uint8_t id[CLOCK_BOOT_ID_SIZE]) __attribute__((warn_unused_result));

/* Whether the kernel holds the wall clock for synchronised (adjtimex(2): neither TIME_ERROR nor
 * STA_UNSYNC). False where the call is forbidden. */
bool clock_synchronised(void);

/* For tests: from now on all clocks stand still at these times, until moved by another call.
 * Monotonic and boot time share mono_ns. clock_release() gives the real clocks back. */
void clock_hold(int64_t wall_ms, int64_t mono_ns);
void clock_advance_ms(int64_t ms);
/* What clock_synchronised() and clock_boot_id() answer while the clocks are held; at first yes, and
 * all bytes 0. */
void clock_hold_synchronised(bool synchronised);
void clock_hold_boot(uint8_t boot);
void clock_release(void);

/* Writes "2026-01-31T10:30:00.000Z" (RFC 3339) and a NUL: 24 characters for years 0 to 9999.
 * CLOCK_TEXT_SIZE bytes are always enough. Returns the length without the NUL. */
enum { CLOCK_TEXT_SIZE = 40 };
int clock_format_utc(int64_t wall_ms, char text[CLOCK_TEXT_SIZE]);

/* RFC 3339 with 'Z' or a numeric offset, fractions cut to milliseconds, to UTC; -EINVAL otherwise.
 */
int clock_parse_utc(const char *text, int64_t *ret_wall_ms) __attribute__((warn_unused_result));
