/* modbus_tcp.h - the drivers `modbus-tcp` and `modbus-rtu-tcp` (RTU frames to a serial server).
 *
 * One state a field event base: a schedule and the sessions to all endpoints, which devices behind
 * one address share. Field thread only, but for the pure callbacks. */
#pragma once

#include "drivers/driver.h"

struct schedule;

extern const struct driver modbus_tcp_driver, modbus_rtu_tcp_driver;

/* The schedule of a state, for those who measure lateness. */
struct schedule *modbus_tcp_schedule(void *state);
