/* bus.h - a serial bus: the thread that owns its port, and the mailbox to it.
 *
 * The functions here are for the field thread and do not block, bus_put() apart, which waits some
 * milliseconds for the thread to stop. Requests go to the bus thread through a bounded queue, one
 * runs at a time, and `done` is called on the field thread, whose event base the bus was made on.
 * A port that cannot be opened, or is unplugged, is tried again after a growing pause; until then
 * requests fail at once. */
#pragma once

#include "drivers/modbus/serial.h"
#include "drivers/modbus/session.h"

struct bus;
struct event_base;

enum {
    BUS_QUEUE_MAX = 320, /* requests: one of each of 247 units, and questions from outside */
    BUS_REOPEN_MIN_MS = 1000,
    BUS_REOPEN_MAX_MS = 10000
};

/* Copies name and settings and starts the thread; there is one user. */
must_check int bus_create(struct event_base *base, const char *name,
                          const struct serial_settings *settings, struct bus **ret_bus);

/* The bus as a wire: wire_put() by the last user stops the thread. Not from within `done`. */
struct wire *bus_wire(struct bus *bus);

/* Called when the last user is gone, before the bus is freed. */
void bus_on_gone(struct bus *bus, void (*gone)(void *user, struct bus *bus), void *user);

/* Pause between two requests; the largest asked for counts. */
void bus_ask_pause(struct bus *bus, int64_t pause_ms);

/* How long the line has been held by exchanges, since the start. */
int64_t bus_busy_us(const struct bus *bus);

/* Why the port is not open, in words; "" when it is. */
void bus_trouble(struct bus *bus, char *text, size_t size);
