#include "drivers/coap/sensor_private.h"
#include "gateway/base/clock.h"

static void ask_next(struct sensor *sensor);

/* Whether the error says that nobody is there, rather than that somebody declines. */
static bool is_silence(enum device_error error)
{
    return error != DEVICE_ERROR_EXCEPTION && error != DEVICE_ERROR_PAYLOAD;
}

static void finish_round(struct sensor *sensor)
{
    sensor->running = false;
    if (sensor->answers > 0) {
        breaker_good(&sensor->breaker);
        sensor_submit(sensor);
        if (sensor->error != DEVICE_ERROR_NONE) {
            device_report_error(sensor->device, sensor->error, sensor->detail, false);
        }
        sensor_good(sensor, sensor->rtt_us);
        return;
    }
    harvest_clear(sensor->harvest);
    bool dead = is_silence(sensor->error) &&
                breaker_bad(&sensor->breaker, &sensor->line, clock_mono_ms(),
                            clock_mono_ms() - sensor->round_ms, false);
    sensor_fail(sensor, sensor->error, sensor->detail, dead);
}

static void on_answer(struct fetch *fetch, const struct fetch_result *result)
{
    struct resource *resource = (struct resource *)fetch;
    struct sensor *sensor = resource->sensor;
    enum device_error error = sensor_take(resource, result);
    if (error == DEVICE_ERROR_NONE) {
        sensor->answers++;
        sensor->rtt_us = result->rtt_us;
    } else {
        if (sensor->error == DEVICE_ERROR_NONE) {
            sensor->error = error;
            sensor->detail = result->detail;
        }
        sensor_take_bad(resource, sensor_quality(error));
    }
    sensor->at++;
    if (error != DEVICE_ERROR_NONE && is_silence(error)) {
        /* The rest of the round would fare no better. */
        for (; sensor->at < sensor->resource_count; sensor->at++) {
            sensor_take_bad(&sensor->resources[sensor->at], sensor_quality(error));
        }
    }
    ask_next(sensor);
}

static void ask_next(struct sensor *sensor)
{
    if (sensor->at >= sensor->resource_count) {
        finish_round(sensor);
        return;
    }
    if (peer_begin(sensor->peer, &sensor->resources[sensor->at].fetch) != 0) {
        sensor->error = DEVICE_ERROR_CONNECT;
        sensor->at = sensor->resource_count;
        finish_round(sensor);
    }
}

static void on_due(struct schedule_entry *entry, unsigned skipped, int64_t late_us)
{
    struct sensor *sensor = (struct sensor *)((char *)entry - offsetof(struct sensor, entry));
    struct device *device = sensor->device;
    if (late_us > atomic_load_explicit(&device->health.late_us_max, memory_order_relaxed)) {
        atomic_store_explicit(&device->health.late_us_max, late_us, memory_order_relaxed);
    }
    if (!sensor->running && breaker_is_open(&sensor->breaker) &&
        !breaker_allows(&sensor->breaker, &sensor->line, clock_mono_ms())) {
        return;
    }
    if (skipped > 0 || sensor->running || !scan_has_room(device, device->config->points.count)) {
        atomic_fetch_add_explicit(&device->health.errors[DEVICE_ERROR_OVERRUN],
                                  skipped > 0 ? skipped - 1U : 0, memory_order_relaxed);
        device_report_error(device, DEVICE_ERROR_OVERRUN, 0, false);
    }
    if (sensor->running || !scan_has_room(device, device->config->points.count)) {
        return;
    }
    atomic_fetch_add_explicit(&device->health.polls, 1, memory_order_relaxed);
    sensor->running = true;
    sensor->at = sensor->answers = 0;
    sensor->error = DEVICE_ERROR_NONE;
    sensor->round_ms = clock_mono_ms();
    harvest_clear(sensor->harvest);
    ask_next(sensor);
}

void sensor_poll_start(struct sensor *sensor)
{
    for (size_t i = 0; i < sensor->resource_count; i++) {
        sensor->resources[i].fetch.done = on_answer;
    }
    sensor->entry.due = on_due;
    schedule_add(sensor->schedule, &sensor->entry, sensor->device->config->poll_ms);
}
