/* field.h - the field thread: one event base that all drivers share.
 *
 * field_start() makes the thread; drivers are created on it when their first device comes. The core
 * talks to it through a mailbox: field_add() and field_remove() wait until the thread has done it
 * (the main thread only), field_ask() does not wait (any thread). Nothing on the field thread
 * blocks, so a wait is as short as a turn of the event loop. */
#pragma once

#include "drivers/driver.h"

struct field;

/* Requests under way from outside the schedule (read now, write). */
enum { FIELD_REQUESTS_MAX = 64 };

must_check int field_start(const struct config *config, struct field **ret_field);

/* Removes all devices, destroys the drivers, ends the thread. Takes NULL. */
void field_stop(struct field *field);

/* The driver begins (ends) to read the device. field_add() takes no reference: the caller keeps the
 * device alive until field_remove() has returned. -ENOENT: no such driver; else the driver's error.
 */
must_check int field_add(struct field *field, struct device *device);
void field_remove(struct field *field, struct device *device);

/* Reads (value NULL) or writes points off schedule. points are copied, the device is referenced.
 * `done` is called once, on the field thread. -EBUSY: FIELD_REQUESTS_MAX are under way already,
 * -ENOSYS: the driver cannot, -ENOMEM; done is not called then. */
must_check int field_ask(struct field *field, struct device *device, const size_t *points,
                         size_t count, const char *value, int64_t deadline_ms,
                         void (*done)(void *arg, int error, const char *why, json_t *result),
                         void *arg);

/* Moves on every turn of the mailbox: asks the thread to move it, returns its present value. For
 * the watchdog: a field thread that hangs does not move it. */
uint64_t field_heartbeat(struct field *field);
