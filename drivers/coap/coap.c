#include "drivers/coap/coap.h"

#include "drivers/coap/sensor.h"

#include <errno.h>

struct coap {
    struct schedule *schedule;
    struct peers peers;
};

static void driver_destroy(void *state)
{
    struct coap *driver = state;
    if (driver != NULL) {
        peers_finish(&driver->peers);
        schedule_destroy(driver->schedule);
        free(driver);
    }
}

static int driver_create(struct event_base *base, const struct config *config, void **ret_state)
{
    (void)config;
    struct coap *driver = calloc(1, sizeof(*driver));
    if (driver == NULL) {
        return -ENOMEM;
    }
    int r = schedule_create(base, &driver->schedule);
    r = r != 0 ? r : peers_init(&driver->peers, base, driver->schedule);
    if (r != 0) {
        driver_destroy(driver);
        return r;
    }
    *ret_state = driver;
    return 0;
}

static int driver_add(void *state, struct device *device)
{
    struct coap *driver = state;
    struct sensor *sensor;
    int r = sensor_create(&driver->peers, device, &sensor);
    if (r == 0) {
        device->driver_data = sensor;
    }
    return r;
}

static void driver_remove(void *state, struct device *device)
{
    (void)state;
    sensor_destroy(device->driver_data);
    device->driver_data = NULL;
}

static int driver_read_now(void *state, struct device *device, struct driver_request *request)
{
    (void)state;
    return sensor_read_now(device->driver_data, request);
}

const struct driver coap_driver = {
    .name = "coap",
    .table = &coap_device_table,
    .section = &coap_section_table,
    .address_size = sizeof(struct coap_point),
    .parse_point = coap_parse_point,
    .check_device = coap_check_device,
    .create = driver_create,
    .destroy = driver_destroy,
    .add = driver_add,
    .remove = driver_remove,
    .read_now = driver_read_now,
    .describe_plan = coap_describe_plan,
};
