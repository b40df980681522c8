#include "drivers/http/http_driver.h"

#include "drivers/http/http_pull.h"

#include <errno.h>

struct http_state {
    struct schedule *schedule;
    struct http_fetcher *fetcher;
};

static void http_destroy(void *state)
{
    struct http_state *driver = state;
    if (driver != NULL) {
        http_fetcher_destroy(driver->fetcher);
        schedule_destroy(driver->schedule);
        free(driver);
    }
}

static int http_create(struct event_base *base, const struct config *config, void **ret_state)
{
    (void)config;
    struct http_state *driver = calloc(1, sizeof *driver);
    if (driver == NULL) {
        return -ENOMEM;
    }
    int r = schedule_create(base, &driver->schedule);
    if (r == 0) {
        r = http_fetcher_create(base, &driver->fetcher);
    }
    if (r < 0) {
        http_destroy(driver);
        return r;
    }
    *ret_state = driver;
    return 0;
}

static int http_add(void *state, struct device *device)
{
    struct http_state *driver = state;
    const struct http_device_settings *settings = device->config->settings;
    if (settings->mode == HTTP_MODE_LISTEN) {
        atomic_store(&device->takes_pushes, true);
        return 0;
    }
    struct http_pull *pull;
    int r = http_pull_create(driver->schedule, driver->fetcher, device, &pull);
    if (r == 0) {
        device->driver_data = pull;
    }
    return r;
}

static void http_remove(void *state, struct device *device)
{
    (void)state;
    atomic_store(&device->takes_pushes, false);
    http_pull_destroy(device->driver_data);
    device->driver_data = NULL;
}

const struct driver http_driver = {
    .name = "http",
    .table = &http_device_table,
    .address_size = sizeof(struct http_point),
    .parse_point = http_parse_point,
    .check_device = http_check_device,
    .create = http_create,
    .destroy = http_destroy,
    .add = http_add,
    .remove = http_remove,
    .describe_plan = http_describe_plan,
};
