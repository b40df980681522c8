#include "drivers/coap/payload.h"
#include "drivers/coap/sensor_private.h"
#include "gateway/base/clock.h"

#include <errno.h>
#include <string.h>

enum { SHOWN_BYTES_MAX = 256 };

/* A question from outside: the resources of its points, one after another. */
struct sensor_read {
    struct fetch fetch; /* first */
    struct sensor_read *next;
    struct sensor *sensor;
    struct driver_request *request;
    struct harvest *harvest;
    size_t at; /* in the sensor's resources */
    json_t *shown;
};

static int ask_next(struct sensor_read *read);

static bool is_asked(const struct driver_request *request, size_t point)
{
    for (size_t i = 0; i < request->point_count && request->points != NULL; i++) {
        if (request->points[i] == point) {
            return true;
        }
    }
    return request->points == NULL;
}

static bool is_mine(const struct sensor_read *read, const struct resource *resource, size_t point)
{
    bool by_path = coap_point(read->sensor->device->config, point)->by_path;
    bool belongs = resource->by_name ? !by_path : point == resource->point;
    return belongs && is_asked(read->request, point);
}

static void forget(struct sensor_read *read)
{
    struct sensor_read **at = &read->sensor->reads;
    while (*at != NULL && *at != read) {
        at = &(*at)->next;
    }
    if (*at != NULL) {
        *at = read->next;
    }
    fetch_cancel(&read->fetch);
    fetch_finish(&read->fetch);
    harvest_destroy(read->harvest);
    json_decref(read->shown);
    free(read);
}

static void finish(struct sensor_read *read, int error, const char *why)
{
    struct driver_request *request = read->request;
    json_t *result = NULL;
    if (error == 0) {
        result = json_pack("{s:s, s:O}", "device", read->sensor->device->config->name, "points",
                           read->shown);
    }
    forget(read);
    request->done(request, result == NULL && error == 0 ? -ENOMEM : error, why, result);
}

/* The message as it came, for whoever looks at a sensor's raw side: text, or hex. */
static json_t *show_body(const struct fetch_result *result)
{
    auto_buffer struct buffer text = {.max = 4 * SHOWN_BYTES_MAX};
    size_t len = result->len < SHOWN_BYTES_MAX ? result->len : SHOWN_BYTES_MAX;
    bool is_text = result->format == PAYLOAD_TEXT || result->format == PAYLOAD_SENML_JSON ||
                   result->format == PAYLOAD_SENSML_JSON;
    if (is_text && len == result->len) {
        return json_stringn((const char *)result->body, len);
    }
    for (size_t i = 0; i < len; i++) {
        buffer_printf(&text, "%02x", result->body[i]);
    }
    return json_string(buffer_text(&text));
}

static json_t *show_value(const struct scan *scan, const struct reading *reading)
{
    auto_buffer struct buffer text = {0};
    reading_write_json(&text, scan, reading);
    const char *json = buffer_text(&text);
    return json == NULL ? json_null() : json_loads(json, JSON_DECODE_ANY, NULL);
}

static json_t *describe_point(const struct config_point *config)
{
    return json_pack("{s:s, s:s, s:s}", "name", config->name, "source", config->source, "unit",
                     config->unit != NULL ? config->unit : "");
}

static int show_scan(void *user, struct scan *scan)
{
    struct sensor_read *read = user;
    char time[CLOCK_TEXT_SIZE];
    clock_format_utc(scan->time_ms, time);
    for (size_t i = 0; i < scan->count; i++) {
        const struct reading *reading = &scan->readings[i];
        const struct config_point *config =
            &read->sensor->device->config->points.list[reading->point];
        if (!is_asked(read->request, reading->point)) {
            continue;
        }
        json_t *shown = describe_point(config);
        json_object_set_new(shown, "raw_value", show_value(scan, reading));
        json_object_set_new(shown, "quality",
                            json_string(quality_name((enum quality)reading->quality)));
        json_object_set_new(shown, "time", json_string(time));
        if (reading->kind == VALUE_DECIMAL || reading->kind == VALUE_REAL ||
            reading->kind == VALUE_FLOAT) {
            double scaled = reading_double(reading) * decimal_to_double(config->scale) +
                            decimal_to_double(config->offset);
            json_object_set_new(shown, "value", json_real(scaled));
        }
        if (json_array_append_new(read->shown, shown) != 0) {
            return -ENOMEM;
        }
    }
    return 0;
}

/* An answer without what was asked for, or a refusal: said for each point. */
static void show_error(struct sensor_read *read, const struct resource *resource, const char *why,
                       const struct fetch_result *result)
{
    const struct config_device *config = read->sensor->device->config;
    for (size_t i = 0; i < config->points.count; i++) {
        if (is_mine(read, resource, i)) {
            json_t *shown = describe_point(&config->points.list[i]);
            json_object_set_new(shown, "error", json_string(why));
            if (result->len > 0) {
                json_object_set_new(shown, "format", json_integer(result->format));
                json_object_set_new(shown, "payload", show_body(result));
            }
            json_array_append_new(read->shown, shown);
        }
    }
}

static int take(struct sensor_read *read, const struct resource *resource,
                const struct fetch_result *result)
{
    struct senml_pack pack;
    harvest_clear(read->harvest);
    if (payload_parse(result->format, result->body, result->len, clock_wall_ms(), &pack) != 0) {
        return -EINVAL;
    }
    int r = resource->by_name ? harvest_add(read->harvest, &pack)
                              : harvest_add_value(read->harvest, resource->point, &pack);
    senml_finish(&pack);
    if (r < 0 || harvest_count(read->harvest) == 0) {
        return -EINVAL;
    }
    return harvest_each(read->harvest, clock_wall_ms(), show_scan, read);
}

static void on_answer(struct fetch *fetch, const struct fetch_result *result)
{
    struct sensor_read *read = (struct sensor_read *)fetch;
    const struct resource *resource = &read->sensor->resources[read->at];
    char why[64];
    if (result->error == DEVICE_ERROR_EXCEPTION) {
        snprintf(why, sizeof(why), "exception: %d.%02d", result->detail / 100,
                 result->detail % 100);
        show_error(read, resource, why, result);
    } else if (result->error == DEVICE_ERROR_PAYLOAD ||
               (result->error == DEVICE_ERROR_NONE && take(read, resource, result) != 0)) {
        show_error(read, resource, "payload: does not decode, or lacks the point", result);
    } else if (result->error != DEVICE_ERROR_NONE) {
        snprintf(why, sizeof(why), "%s", device_error_name(result->error));
        finish(read, -EIO, why);
        return;
    }
    read->at++;
    int r = ask_next(read);
    if (r != 0) {
        finish(read, r, r == -ETIMEDOUT ? "the deadline has passed" : "too many requests");
    }
}

/* 0 too when nothing is left to ask for: the read has finished then. */
static int ask_next(struct sensor_read *read)
{
    const struct sensor *sensor = read->sensor;
    for (; read->at < sensor->resource_count; read->at++) {
        for (size_t i = 0; i < sensor->device->config->points.count; i++) {
            if (!is_mine(read, &sensor->resources[read->at], i)) {
                continue;
            }
            int64_t left_ms = read->request->deadline_ms - clock_mono_ms();
            if (left_ms <= 0) {
                return -ETIMEDOUT;
            }
            read->fetch.path = sensor->resources[read->at].fetch.path;
            read->fetch.timeout_ms = left_ms;
            return peer_begin(sensor->peer, &read->fetch);
        }
    }
    finish(read, 0, NULL);
    return 0;
}

int sensor_read_now(struct sensor *sensor, struct driver_request *request)
{
    unsigned open = 0;
    for (const struct sensor_read *other = sensor->reads; other != NULL; other = other->next) {
        open++;
    }
    if (open >= SENSOR_READS_MAX) {
        return -EBUSY;
    }
    struct sensor_read *read = calloc(1, sizeof(*read));
    if (read == NULL) {
        return -ENOMEM;
    }
    read->sensor = sensor;
    read->request = request;
    read->fetch.done = on_answer;
    read->shown = json_array();
    int r = read->shown == NULL ? -ENOMEM : harvest_create(sensor->device->config, &read->harvest);
    if (r == 0) {
        read->next = sensor->reads;
        sensor->reads = read;
        r = ask_next(read);
    }
    if (r != 0) {
        forget(read);
    }
    return r;
}

void sensor_read_cancel_all(struct sensor *sensor)
{
    while (sensor->reads != NULL) {
        finish(sensor->reads, -ECANCELED, "the device was taken out of service");
    }
}
