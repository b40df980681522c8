#include "drivers/modbus/read_now.h"

#include "drivers/modbus/poller.h"
#include "drivers/modbus/show.h"
#include "gateway/base/clock.h"

#include <errno.h>

struct read_now {
    struct read_now *next; /* of the poller */
    struct poller *poller;
    struct driver_request *request;
    struct session_request ask;
    struct registers_point point; /* asked for now */
    size_t *points;
    size_t count, at;
    json_t *shown; /* array */
};

static int ask_next(struct read_now *read);

static void unlink_read(struct read_now *read)
{
    struct read_now **at = &read->poller->reads;
    while (*at != NULL && *at != read) {
        at = &(*at)->next;
    }
    *at = read->next;
}

static void destroy(struct read_now *read)
{
    json_decref(read->shown);
    free(read->points);
    free(read);
}

static void finish(struct read_now *read, int error, const char *why)
{
    struct driver_request *request = read->request;
    json_t *result = NULL;
    if (error == 0) {
        result = json_pack("{s:s, s:O}", "device", read->poller->device->config->name, "points",
                           read->shown);
    }
    unlink_read(read);
    destroy(read);
    request->done(request, result == NULL && error == 0 ? -ENOMEM : error, why, result);
}

static const struct config_point *point_at(const struct read_now *read)
{
    return &read->poller->device->config->points.list[read->points[read->at]];
}

static json_t *show_point(const struct config_point *config, const struct registers_point *point,
                          const uint8_t *data)
{
    bool bits = registers_table_has_bits(point->table);
    char text[REGISTERS_TEXT_MAX];
    struct reading reading = {0};
    if (bits) {
        registers_decode_bit(data, 0, &reading);
    } else {
        registers_decode(point, data, &reading, text);
    }
    json_t *shown = json_pack(
        "{s:s, s:s, s:s, s:i, s:s, s:o, s:s}", "name", config->name, "source", config->source,
        "table", registers_table_name(point->table), "address", (int)point->first, "unit",
        config->unit != NULL ? config->unit : "", "raw_value", show_reading(&reading, text),
        "quality", quality_name((enum quality)reading.quality));
    if (shown == NULL || bits) {
        return shown;
    }
    json_object_set_new(shown, "order", json_string(registers_order_name(point->order)));
    unsigned width = registers_width(point->type, point->detail);
    const uint8_t *value = data + 2 * (size_t)point->value_at;
    json_object_set_new(shown, "registers", show_words(data, point->width));
    json_object_set_new(shown, "decodings", show_decodings(value, width));
    if (reading.kind == VALUE_DECIMAL || reading.kind == VALUE_REAL ||
        reading.kind == VALUE_FLOAT) {
        double scaled = reading_double(&reading) * decimal_to_double(config->scale) +
                        decimal_to_double(config->offset);
        json_object_set_new(shown, "value", json_real(scaled));
    }
    return shown;
}

static json_t *show_failure(const struct config_point *config, const struct registers_point *point,
                            const struct session_result *result)
{
    char why[96];
    if (result->error == DEVICE_ERROR_EXCEPTION) {
        snprintf(why, sizeof(why), "exception: %s (%d)",
                 mbap_exception_name((unsigned)result->detail), result->detail);
    } else {
        snprintf(why, sizeof(why), "%s", device_error_name(result->error));
    }
    return json_pack("{s:s, s:s, s:s, s:i, s:s}", "name", config->name, "source", config->source,
                     "table", registers_table_name(point->table), "address", (int)point->first,
                     "error", why);
}

static void on_result(struct session_request *ask, const struct session_result *result)
{
    struct read_now *read = (struct read_now *)((char *)ask - offsetof(struct read_now, ask));
    const struct config_point *config = point_at(read);
    const struct registers_point *point = &read->point;
    json_t *shown = result->error == DEVICE_ERROR_NONE ? show_point(config, point, result->data)
                                                       : show_failure(config, point, result);
    if (json_array_append_new(read->shown, shown) != 0) {
        finish(read, -ENOMEM, "out of memory");
        return;
    }
    /* An exception is an answer for one point; anything else holds for all of them. */
    if (result->error != DEVICE_ERROR_NONE && result->error != DEVICE_ERROR_EXCEPTION) {
        char why[96];
        snprintf(why, sizeof(why), "%s", json_string_value(json_object_get(shown, "error")));
        finish(read, -EIO, why);
        return;
    }
    read->at++;
    int r = ask_next(read);
    if (r == -ENODATA) {
        finish(read, 0, NULL);
    } else if (r != 0) {
        finish(read, r, r == -ETIMEDOUT ? "the deadline has passed" : "the queue is full");
    }
}

/* Points of SunSpec models that the device was not found to have, or not yet. */
static void skip_unplaced(struct read_now *read)
{
    const struct layout *layout = &read->poller->layout;
    while (read->at < read->count && !layout_is_placed(&layout->list[read->points[read->at]])) {
        const struct config_point *config = point_at(read);
        json_array_append_new(read->shown,
                              json_pack("{s:s, s:s, s:s}", "name", config->name, "source",
                                        config->source, "error",
                                        "its SunSpec model was not found in the device"));
        read->at++;
    }
}

/* -ENODATA: all have been asked for. */
static int ask_next(struct read_now *read)
{
    skip_unplaced(read);
    if (read->at >= read->count) {
        return -ENODATA;
    }
    const struct registers_point *point = &read->point;
    read->point = read->poller->layout.list[read->points[read->at]];
    int64_t left_ms = read->request->deadline_ms - clock_mono_ms();
    int64_t timeout_ms = read->poller->device->config->timeout_ms;
    if (left_ms <= 0) {
        return -ETIMEDOUT;
    }
    read->ask.timeout_ms = left_ms < timeout_ms ? left_ms : timeout_ms;
    read->ask.ask = (struct mbap_request){
        .function = registers_read_function(point->table),
        .first = point->first,
        .count = point->width,
    };
    return wire_submit(read->poller->wire, &read->ask, read->at > 0);
}

static int choose_points(struct read_now *read)
{
    size_t all = read->poller->device->config->points.count;
    const struct driver_request *request = read->request;
    read->count = request->points != NULL ? request->point_count : all;
    read->points = calloc(read->count + 1, sizeof(*read->points));
    if (read->points == NULL) {
        return -ENOMEM;
    }
    for (size_t i = 0; i < read->count; i++) {
        read->points[i] = request->points != NULL ? request->points[i] : i;
        if (read->points[i] >= all) {
            return -EINVAL;
        }
    }
    return read->count > 0 ? 0 : -EINVAL;
}

int read_now_begin(struct poller *poller, struct driver_request *request)
{
    unsigned open = 0;
    for (const struct read_now *other = poller->reads; other != NULL; other = other->next) {
        open++;
    }
    if (open >= READ_NOW_MAX) {
        return -ENOBUFS;
    }
    struct read_now *read = calloc(1, sizeof(*read));
    if (read == NULL) {
        return -ENOMEM;
    }
    *read = (struct read_now){
        .next = poller->reads,
        .poller = poller,
        .request = request,
        .ask = {.unit = (uint8_t)poller->settings->unit, .done = on_result},
        .shown = json_array(),
    };
    int r = read->shown == NULL ? -ENOMEM : choose_points(read);
    if (r == 0) {
        r = ask_next(read);
    }
    if (r != 0) {
        destroy(read);
        return r;
    }
    poller->reads = read;
    return 0;
}

void read_now_cancel_all(struct poller *poller)
{
    for (struct read_now *read = poller->reads, *next; read != NULL; read = next) {
        next = read->next;
        wire_cancel(poller->wire, &read->ask);
        finish(read, -ECANCELED, "the device was taken out of service");
    }
}
