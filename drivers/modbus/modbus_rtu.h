/* modbus_rtu.h - the driver `modbus-rtu`: devices on serial buses, a thread for each bus.
 *
 * Field thread only, but for the pure callbacks. */
#pragma once

#include "drivers/driver.h"
#include "drivers/modbus/serial.h"

extern const struct driver modbus_rtu_driver;

/* The [bus NAME] of a device, NULL where the config has none. */
const struct config_bus *modbus_rtu_bus(const struct config *config,
                                        const struct config_device *device);
