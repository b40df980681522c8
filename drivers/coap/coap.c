#include "drivers/coap/coap.h"

#include "drivers/coap/listen.h"
#include "drivers/coap/sensor.h"
#include "gateway/base/log.h"

#include <errno.h>

struct coap {
    struct event_base *base;
    struct schedule *schedule;
    struct peers peers;
    struct listener *listener; /* NULL: nothing listens */
    uint64_t fingerprint;      /* of [coap] as it listens */
};

static void driver_destroy(void *state)
{
    struct coap *driver = state;
    if (driver != NULL) {
        listener_destroy(driver->listener);
        if (driver->peers.base != NULL) {
            peers_finish(&driver->peers);
        }
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
    driver->base = base;
    int r = schedule_create(base, &driver->schedule);
    r = r != 0 ? r : peers_init(&driver->peers, base, driver->schedule);
    if (r != 0) {
        driver_destroy(driver);
        return r;
    }
    *ret_state = driver;
    return 0;
}

static bool posts(const struct device *device)
{
    return ((const struct coap_settings *)device->config->settings)->mode == COAP_MODE_LISTEN;
}

/* The first device that posts opens the ports; so nothing listens where nobody posts. A device
 * that is added under a changed [coap] is not served until the gateway starts anew. */
static int add_poster(struct coap *driver, struct device *device)
{
    const struct config *config = device->owner;
    const struct coap_section *section = config->coap;
    if (section == NULL || section->listen == NULL) {
        log_error("%s: mode = listen needs listen in [coap]", device->config->name);
        return -EINVAL;
    }
    if (driver->listener == NULL) {
        int r = listener_create(driver->base, section, config->gateway->data_dir,
                                &driver->listener);
        if (r != 0) {
            return r;
        }
        driver->fingerprint = config->coap_fingerprint;
    } else if (driver->fingerprint != config->coap_fingerprint) {
        log_warning("[coap] has changed: it takes effect when the gateway is started again");
    }
    return listener_add(driver->listener, device);
}

static int driver_add(void *state, struct device *device)
{
    struct coap *driver = state;
    if (posts(device)) {
        return add_poster(driver, device);
    }
    struct sensor *sensor;
    int r = sensor_create(&driver->peers, device, &sensor);
    if (r == 0) {
        device->driver_data = sensor;
    }
    return r;
}

static void driver_remove(void *state, struct device *device)
{
    struct coap *driver = state;
    if (posts(device)) {
        listener_remove(driver->listener, device);
        return;
    }
    sensor_destroy(device->driver_data);
    device->driver_data = NULL;
}

static int driver_read_now(void *state, struct device *device, struct driver_request *request)
{
    (void)state;
    return posts(device) ? -ENOTSUP : sensor_read_now(device->driver_data, request);
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
