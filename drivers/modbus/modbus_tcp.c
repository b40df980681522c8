#include "drivers/modbus/modbus_tcp.h"

#include "drivers/modbus/poller.h"
#include "drivers/modbus/read_now.h"
#include "drivers/modbus/write_now.h"
#include "gateway/base/log.h"

#include <errno.h>

struct modbus_tcp {
    struct schedule *schedule;
    struct session_pool *pool;
};

/* How punctual the loop was, for whoever measures a site. */
static void tell_lateness(const struct schedule *schedule)
{
    log_info("modbus-tcp: rounds began late by p50 %.1f ms, p99 %.1f ms, at most %.1f ms",
             (double)schedule_late_us(schedule, 0.5) / 1000,
             (double)schedule_late_us(schedule, 0.99) / 1000,
             (double)schedule_late_us(schedule, 1.0) / 1000);
}

static void tcp_destroy(void *state)
{
    struct modbus_tcp *driver = state;
    if (driver != NULL) {
        if (driver->schedule != NULL) {
            tell_lateness(driver->schedule);
        }
        session_pool_destroy(driver->pool);
        schedule_destroy(driver->schedule);
        free(driver);
    }
}

static int create(struct event_base *base, enum session_framing framing, void **ret_state)
{
    struct modbus_tcp *driver = calloc(1, sizeof(*driver));
    if (driver == NULL) {
        return -ENOMEM;
    }
    int r = schedule_create(base, &driver->schedule);
    if (r == 0) {
        r = session_pool_create(base, driver->schedule, framing, &driver->pool);
    }
    if (r != 0) {
        tcp_destroy(driver);
        return r;
    }
    *ret_state = driver;
    return 0;
}

static int tcp_create(struct event_base *base, const struct config *config, void **ret_state)
{
    (void)config;
    return create(base, SESSION_MBAP, ret_state);
}

static int rtu_tcp_create(struct event_base *base, const struct config *config, void **ret_state)
{
    (void)config;
    return create(base, SESSION_RTU, ret_state);
}

static int tcp_add(void *state, struct device *device)
{
    struct modbus_tcp *driver = state;
    const struct modbus_settings *settings = device->config->settings;
    const struct session_pauses pauses = {settings->connect_pause_ms, settings->request_pause_ms};
    struct session *session;
    struct poller *poller;
    int r = session_get(driver->pool, settings->address, pauses, &session);
    if (r == 0) {
        r = poller_create(driver->schedule, session_wire(session), device, &poller);
    }
    if (r == 0) {
        device->driver_data = poller;
    }
    return r;
}

static void tcp_remove(void *state, struct device *device)
{
    (void)state;
    poller_destroy(device->driver_data);
    device->driver_data = NULL;
}

static int tcp_write(void *state, struct device *device, struct driver_request *request)
{
    (void)state;
    return write_now_begin(device->driver_data, request);
}

static int tcp_read_now(void *state, struct device *device, struct driver_request *request)
{
    (void)state;
    return read_now_begin(device->driver_data, request);
}

struct schedule *modbus_tcp_schedule(void *state)
{
    return ((struct modbus_tcp *)state)->schedule;
}

const struct driver modbus_tcp_driver = {
    .name = "modbus-tcp",
    .table = &modbus_tcp_table,
    .address_size = sizeof(struct registers_point),
    .parse_point = modbus_parse_point,
    .check_device = modbus_check_device,
    .create = tcp_create,
    .destroy = tcp_destroy,
    .add = tcp_add,
    .remove = tcp_remove,
    .read_now = tcp_read_now,
    .write = tcp_write,
    .describe_plan = modbus_describe_plan,
};

const struct driver modbus_rtu_tcp_driver = {
    .name = "modbus-rtu-tcp",
    .table = &modbus_rtu_tcp_table,
    .address_size = sizeof(struct registers_point),
    .parse_point = modbus_parse_point,
    .check_device = modbus_check_device,
    .create = rtu_tcp_create,
    .destroy = tcp_destroy,
    .add = tcp_add,
    .remove = tcp_remove,
    .read_now = tcp_read_now,
    .write = tcp_write,
    .describe_plan = modbus_describe_plan,
};
