/* settings.h - what windrow.ini says about a Modbus device, and its points as addresses.
 *
 * Pure, any thread; the keys are the same for every kind of Modbus line but for where the
 * device is. */
#pragma once

#include "config/config.h"
#include "drivers/modbus/plan.h"

struct modbus_settings {
    const char *address; /* HOST or HOST:PORT; NULL on a bus */
    const char *bus;     /* NULL on a network */
    int64_t unit;
    int64_t address_base;
    int64_t max_gap, largest_request; /* registers */
    int64_t connect_pause_ms, request_pause_ms;
    int byte_order; /* enum registers_order */
    bool one_request_per_point, close_after_round, write_multiple;
};

extern const struct config_table modbus_tcp_table, modbus_rtu_table, modbus_rtu_tcp_table;

/* For struct driver: "holding 4 uint16", "coil 7" to a struct registers_point. */
must_check int modbus_parse_point(const struct config_point *point, const void *settings,
                                  void *ret_address, char *ret_why, size_t why_size);

/* For struct driver: what no single point shows. */
void modbus_check_device(const struct config_device *device, struct config_errors *errors);

/* The plan of a device, as far as it can be known without it; plan_finish() it. */
must_check int modbus_plan_device(const struct config_device *device, struct plan *ret_plan);

/* For struct driver: a line for each request. */
must_check int modbus_describe_plan(const struct config_device *device, struct buffer *ret_text);

static inline const struct registers_point *modbus_point(const struct config_device *device,
                                                         size_t i)
{
    return device->points.list[i].address;
}
