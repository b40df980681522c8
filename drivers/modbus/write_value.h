/* write_value.h - from a value in scaled units to the request that writes it.
 *
 * Pure, any thread; for every kind of Modbus line. An integer register takes a value only when
 * (value - offset) / scale is whole: nothing is rounded. A float register takes the float that is
 * nearest to it. */
#pragma once

#include "config/config.h"
#include "drivers/modbus/mbap.h"
#include "drivers/modbus/registers.h"

enum { WRITE_VALUE_BYTES = 8, WRITE_VALUE_WHY = 160 };

/* The raw value for the point's register, coil or bit, out of a decimal number ("21.5"). -EINVAL
 * with why: no number, a text point, not exactly representable; -ERANGE: the type does not hold
 * it. */
must_check int write_value_raw(const struct config_point *point, const char *text,
                               struct reading *ret_raw, char ret_why[WRITE_VALUE_WHY]);

/* The request for it, and in `data` its bytes, which the request points to. For a bit of a
 * register data must hold the register's present content. `multiple`: functions 15 and 16 only. */
must_check int write_value_request(const struct registers_point *address, const struct reading *raw,
                                   bool multiple, uint8_t data[WRITE_VALUE_BYTES],
                                   struct mbap_request *ret_request);

/* Whether what was read back (the bytes of a read reply) is what was written. */
bool write_value_matches(const struct registers_point *address, const struct reading *raw,
                         const uint8_t *read_back);
