#include "drivers/coap/sensor_private.h"

static void look_after(struct resource *resource, int64_t delay_ms)
{
    schedule_set(resource->sensor->schedule, &resource->watchdog, delay_ms);
}

static void begin(struct resource *resource)
{
    struct sensor *sensor = resource->sensor;
    atomic_fetch_add_explicit(&sensor->device->health.polls, 1, memory_order_relaxed);
    if (peer_begin(sensor->peer, &resource->fetch) != 0) {
        sensor_fail(sensor, DEVICE_ERROR_CONNECT, 0, false);
        look_after(resource, SENSOR_RETRY_MAX_MS);
    }
}

/* Max-Age has passed and nothing came: an observation that a lost acknowledgement, a restart or a
 * new address has killed shows no other sign. Or it is time to try again. */
static void on_watchdog(struct schedule_timer *timer)
{
    struct resource *resource = (struct resource *)((char *)timer -
                                                    offsetof(struct resource, watchdog));
    if (resource->fetch.peer != NULL) {
        /* Ends this fetch too, and what follows begins on a new session. */
        peer_fail(resource->sensor->peer, DEVICE_ERROR_TIMEOUT, 0);
    } else {
        begin(resource);
    }
}

static int64_t patience_ms(const struct sensor *sensor, const struct fetch_result *result)
{
    int64_t age_s = result->max_age_s < SENSOR_MAX_AGE_MAX_S ? result->max_age_s
                                                             : SENSOR_MAX_AGE_MAX_S;
    return age_s * 1000 + sensor->settings->grace_ms;
}

static void on_failure(struct resource *resource, enum device_error error, int detail)
{
    struct sensor *sensor = resource->sensor;
    bool was_quiet = resource->good && error == DEVICE_ERROR_TIMEOUT;
    resource->good = false;
    if (was_quiet) {
        /* The watchdog's first call: nothing is lost yet but time, so it asks at once. */
        look_after(resource, 0);
        return;
    }
    sensor_fail(sensor, error, detail, false);
    if (error == DEVICE_ERROR_EXCEPTION || error == DEVICE_ERROR_PAYLOAD) {
        look_after(resource, SENSOR_REFUSED_MS);
        return;
    }
    look_after(resource, sensor->pause_ms);
    sensor->pause_ms *= 2;
    sensor->pause_ms = sensor->pause_ms < SENSOR_RETRY_MAX_MS ? sensor->pause_ms
                                                              : SENSOR_RETRY_MAX_MS;
}

static void on_representation(struct fetch *fetch, const struct fetch_result *result)
{
    struct resource *resource = (struct resource *)fetch;
    struct sensor *sensor = resource->sensor;
    harvest_clear(sensor->harvest);
    enum device_error error = sensor_take(resource, result);
    if (result->error == DEVICE_ERROR_NONE && result->observed) {
        if (result->rtt_us == 0) {
            atomic_fetch_add_explicit(&sensor->device->health.polls, 1, memory_order_relaxed);
        }
        look_after(resource, patience_ms(sensor, result));
    } else if (error == DEVICE_ERROR_NONE) {
        /* It does not tell by itself: then it is asked. */
        look_after(resource, sensor->device->config->poll_ms);
    }
    if (error == DEVICE_ERROR_NONE) {
        sensor_submit(sensor);
        sensor_good(sensor, result->rtt_us);
        resource->good = true;
        sensor->pause_ms = SENSOR_RETRY_MIN_MS;
    } else if (result->error == DEVICE_ERROR_NONE && result->observed) {
        /* One that does not decode; the next may. */
        harvest_clear(sensor->harvest);
        device_report_error(sensor->device, error, 0, false);
    } else {
        on_failure(resource, error, result->detail);
    }
}

void sensor_observe_start(struct sensor *sensor)
{
    sensor->pause_ms = SENSOR_RETRY_MIN_MS;
    for (size_t i = 0; i < sensor->resource_count; i++) {
        struct resource *resource = &sensor->resources[i];
        resource->fetch.observe = true;
        resource->fetch.done = on_representation;
        if (resource->fetch.timeout_ms < SENSOR_REGISTER_MS) {
            resource->fetch.timeout_ms = SENSOR_REGISTER_MS;
        }
        resource->watchdog.fire = on_watchdog;
        /* Not all at once where a site has many. */
        look_after(resource, 20 + (int64_t)(sensor->device->id % 50) * 20);
    }
}
