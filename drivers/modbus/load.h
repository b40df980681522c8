/* load.h - how much of a serial line's time its devices want.
 *
 * Pure, any thread. What a device takes to think is not known and not counted, so the real load is
 * higher. */
#pragma once

#include "config/config.h"
#include "drivers/modbus/rtu.h"

struct load {
    double utilisation; /* of the line's time; above 1 it cannot be done */
    double round_ms;    /* every device asked once for everything */
    size_t devices, requests;
};

/* Beyond this a line has no room for a device's thinking, let alone for repeats. */
#define LOAD_HIGH 0.8

/* Adds what one device wants. 0, or -ENOMEM. */
must_check int load_add(struct load *load, struct rtu_line line,
                        const struct config_device *device);
