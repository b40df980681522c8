#include "drivers/coap/payload.h"
#include "drivers/coap/sensor_private.h"
#include "gateway/base/clock.h"
#include "gateway/base/log.h"

#include <errno.h>
#include <string.h>

enum quality sensor_quality(enum device_error error)
{
    switch (error) {
    case DEVICE_ERROR_TIMEOUT:
        return QUALITY_BAD_TIMEOUT;
    case DEVICE_ERROR_EXCEPTION:
        return QUALITY_BAD_REFUSED;
    case DEVICE_ERROR_PAYLOAD:
        return QUALITY_BAD_TYPE;
    default:
        return QUALITY_BAD_CONNECTION;
    }
}

enum device_error sensor_take(struct resource *resource, const struct fetch_result *result)
{
    struct sensor *sensor = resource->sensor;
    struct senml_pack pack;
    if (result->error != DEVICE_ERROR_NONE) {
        return result->error;
    }
    if (payload_parse(result->format, result->body, result->len, clock_wall_ms(), &pack) != 0) {
        return DEVICE_ERROR_PAYLOAD;
    }
    int r = resource->by_name ? harvest_add(sensor->harvest, &pack)
                              : harvest_add_value(sensor->harvest, resource->point, &pack);
    senml_finish(&pack);
    bool nothing = resource->by_name && r == 0;
    return r < 0 || nothing ? DEVICE_ERROR_PAYLOAD : DEVICE_ERROR_NONE;
}

void sensor_take_bad(struct resource *resource, enum quality quality)
{
    const struct sensor *sensor = resource->sensor;
    const struct config_device *config = sensor->device->config;
    for (size_t i = 0; i < config->points.count; i++) {
        bool mine = resource->by_name ? !coap_point(config, i)->by_path : i == resource->point;
        if (mine && harvest_add_bad(sensor->harvest, i, quality) != 0) {
            return;
        }
    }
}

static int submit_scan(void *user, struct scan *scan)
{
    return scan_submit(user, scan);
}

bool sensor_submit(struct sensor *sensor)
{
    int r = harvest_each(sensor->harvest, clock_wall_ms(), submit_scan, sensor->device);
    harvest_clear(sensor->harvest);
    if (r != 0) {
        device_report_error(sensor->device, DEVICE_ERROR_OVERRUN, 0, false);
    }
    return r == 0;
}

static int state_of(const struct sensor *sensor)
{
    return atomic_load_explicit(&sensor->device->health.state, memory_order_relaxed);
}

void sensor_fail(struct sensor *sensor, enum device_error error, int detail, bool dead)
{
    struct device *device = sensor->device;
    int before = state_of(sensor);
    if (before == DEVICE_GOOD) {
        harvest_clear(sensor->harvest);
        for (size_t i = 0; i < sensor->resource_count; i++) {
            sensor_take_bad(&sensor->resources[i], sensor_quality(error));
        }
        sensor_submit(sensor);
    }
    device_report_error(device, error, detail, dead);
    if (before == DEVICE_GOOD || before == DEVICE_STARTING) {
        char why[128];
        device_describe_error(device, why, sizeof(why));
        log_warning("%s: no readings: %s", device->config->name, why);
    } else if (dead && before != DEVICE_DEAD) {
        log_warning("%s: does not answer, asked now and then from here on", device->config->name);
    }
}

void sensor_good(struct sensor *sensor, int64_t rtt_us)
{
    int before = state_of(sensor);
    if (rtt_us == 0) {
        rtt_us = atomic_load_explicit(&sensor->device->health.rtt_us, memory_order_relaxed);
    }
    device_report_good(sensor->device, rtt_us);
    if (before == DEVICE_FAILING || before == DEVICE_DEAD) {
        log_info("%s: answers again", sensor->device->config->name);
    }
}

/* One resource for all named points, one for each path. */
static int make_resources(struct sensor *sensor)
{
    const struct config_device *config = sensor->device->config;
    struct target address;
    size_t named = 0;
    int r = target_parse(sensor->settings->address, &address);
    sensor->resources = calloc(config->points.count + 1, sizeof(*sensor->resources));
    if (r != 0 || sensor->resources == NULL) {
        return r != 0 ? r : -ENOMEM;
    }
    for (size_t i = 0; i < config->points.count && r == 0; i++) {
        bool by_name = !coap_point(config, i)->by_path;
        named += by_name ? 1 : 0;
        if (by_name && named > 1) {
            continue;
        }
        struct resource *resource = &sensor->resources[sensor->resource_count++];
        *resource = (struct resource){.sensor = sensor, .point = i, .by_name = by_name};
        resource->fetch.path = address;
        resource->fetch.timeout_ms = config->timeout_ms;
        if (!by_name) {
            r = target_parse_path(coap_point_text(config, i), &resource->fetch.path);
        }
    }
    return r;
}

int sensor_create(struct peers *peers, struct device *device, struct sensor **ret_sensor)
{
    struct sensor *sensor = calloc(1, sizeof(*sensor));
    if (sensor == NULL) {
        return -ENOMEM;
    }
    sensor->device = device;
    sensor->settings = device->config->settings;
    sensor->schedule = peers->schedule;
    int r = make_resources(sensor);
    r = r != 0 ? r : harvest_create(device->config, &sensor->harvest);
    r = r != 0 ? r : peer_create(peers, device, &sensor->peer);
    if (r != 0) {
        sensor_destroy(sensor);
        return r;
    }
    harvest_clear(sensor->harvest);
    if (sensor->settings->mode == COAP_MODE_OBSERVE) {
        sensor_observe_start(sensor);
    } else {
        sensor_poll_start(sensor);
    }
    *ret_sensor = sensor;
    return 0;
}

void sensor_destroy(struct sensor *sensor)
{
    if (sensor == NULL) {
        return;
    }
    sensor_read_cancel_all(sensor);
    if (sensor->entry.due != NULL) {
        schedule_remove(&sensor->entry);
    }
    for (size_t i = 0; i < sensor->resource_count; i++) {
        schedule_cancel(sensor->schedule, &sensor->resources[i].watchdog);
        fetch_cancel(&sensor->resources[i].fetch);
        fetch_finish(&sensor->resources[i].fetch);
    }
    peer_destroy(sensor->peer);
    harvest_destroy(sensor->harvest);
    free(sensor->resources);
    free(sensor);
}
