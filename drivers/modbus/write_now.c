#include "drivers/modbus/write_now.h"

#include "drivers/modbus/poller.h"
#include "drivers/modbus/write_value.h"
#include "gateway/base/clock.h"
#include "gateway/pipeline/scale.h"

#include <errno.h>
#include <math.h>
#include <string.h>

enum step { READ_OLD, WRITE, READ_BACK };

enum { WHY_SIZE = 200 };

struct write_now {
    struct poller *poller;
    struct driver_request *request;
    const struct config_point *config;
    struct session_request ask;
    enum step step;
    struct reading raw;
    uint8_t data[WRITE_VALUE_BYTES];

    char doubt[WHY_SIZE]; /* why it is not known whether it was executed; "": it was */
    json_t *result;
};

static const struct registers_point *address_of(const struct write_now *write)
{
    return write->config->address;
}

static void finish(struct write_now *write, int error, const char *why)
{
    struct driver_request *request = write->request;
    json_t *result = write->result;
    write->poller->write = NULL;
    free(write);
    if (error != 0) {
        json_decref(result);
        result = NULL;
    }
    request->done(request, error, why, result);
}

/* The write request went out: whatever happened, the result says it. */
static void conclude(struct write_now *write, const char *outcome, const char *why)
{
    json_object_set_new(write->result, "outcome", json_string(outcome));
    if (why != NULL) {
        json_object_set_new(write->result, "why", json_string(why));
    }
    finish(write, 0, NULL);
}

/* The value in scaled units as JSON text, as the pipeline would have it. */
static void show(struct write_now *write, const char *key, const uint8_t *data)
{
    const struct registers_point *address = address_of(write);
    struct config_point unbounded = *write->config;
    char text[REGISTERS_TEXT_MAX];
    struct reading reading = {0};
    auto_buffer struct buffer b = {0};
    if (registers_table_has_bits(address->table)) {
        registers_decode_bit(data, 0, &reading);
    } else {
        registers_decode(address, data, &reading, text);
    }
    unbounded.min = -INFINITY;
    unbounded.max = INFINITY;
    scale_reading(&unbounded, &reading);
    reading_write_json(&b, NULL, &reading);
    const char *shown = buffer_text(&b);
    json_object_set_new(write->result, key, json_string(shown != NULL ? shown : "null"));
}

static void describe(const struct session_result *result, char why[WHY_SIZE])
{
    if (result->error == DEVICE_ERROR_EXCEPTION) {
        snprintf(why, WHY_SIZE, "the device refuses: %s (%d)",
                 mbap_exception_name((unsigned)result->detail), result->detail);
    } else if (result->error == DEVICE_ERROR_CONNECT && result->detail != 0) {
        snprintf(why, WHY_SIZE, "no connection: %s", strerror(result->detail));
    } else {
        snprintf(why, WHY_SIZE, "no answer (%s)", device_error_name(result->error));
    }
}

static int ask(struct write_now *write, const struct mbap_request *request)
{
    write->ask.ask = *request;
    write->ask.timeout_ms = write->poller->device->config->timeout_ms;
    return wire_submit(write->poller->wire, &write->ask, true);
}

static int ask_read(struct write_now *write, enum step step)
{
    const struct registers_point *address = address_of(write);
    const struct mbap_request request = {
        .function = registers_read_function(address->table),
        .first = address->first,
        .count = address->width,
    };
    write->step = step;
    write->ask.not_after_ms = step == READ_OLD ? write->request->deadline_ms : 0;
    return ask(write, &request);
}

/* Old value known: the one request that changes something. */
static void send_write(struct write_now *write, const uint8_t *old)
{
    const struct registers_point *address = address_of(write);
    struct mbap_request request;
    if (!registers_table_has_bits(address->table)) {
        memcpy(write->data, old, 2 * (size_t)address->width);
    }
    int r = write_value_request(address, &write->raw, write->poller->settings->write_multiple,
                                write->data, &request);
    write->step = WRITE;
    write->ask.not_after_ms = write->request->deadline_ms;
    r = r < 0 ? r : clock_mono_ms() > write->request->deadline_ms ? -ETIMEDOUT : 0;
    r = r < 0 ? r : ask(write, &request);
    if (r < 0) {
        finish(write, r,
               r == -ETIMEDOUT ? "the deadline passed before anything was written" : strerror(-r));
    }
}

static void read_back(struct write_now *write)
{
    int r = ask_read(write, READ_BACK);
    if (r < 0) {
        conclude(write, "unknown",
                 write->doubt[0] != '\0' ? write->doubt : "it could not be read back");
    }
}

static void on_old(struct write_now *write, const struct session_result *result)
{
    char why[WHY_SIZE];
    if (result->error == DEVICE_ERROR_NONE) {
        show(write, "old", result->data);
        send_write(write, result->data);
        return;
    }
    bool late = session_is_late(&write->ask) && !write->ask.sent;
    describe(result, why);
    finish(write, late || result->error == DEVICE_ERROR_TIMEOUT ? -ETIMEDOUT : -EIO,
           late ? "the deadline passed before anything was written" : why);
}

static void on_written(struct write_now *write, const struct session_result *result)
{
    char why[WHY_SIZE];
    if (!write->ask.sent) {
        bool late = session_is_late(&write->ask);
        describe(result, why);
        finish(write, late ? -ETIMEDOUT : -EIO,
               late ? "the deadline passed before anything was written" : why);
        return;
    }
    if (result->error == DEVICE_ERROR_EXCEPTION) {
        describe(result, why);
        json_object_del(write->result, "written");
        conclude(write, "failed", why);
        return;
    }
    if (result->error != DEVICE_ERROR_NONE) {
        describe(result, why);
        snprintf(write->doubt, sizeof write->doubt,
                 "the request went out, but %.100s: it may have been executed or not", why);
    }
    read_back(write);
}

static void on_read_back(struct write_now *write, const struct session_result *result)
{
    char why[WHY_SIZE];
    if (result->error != DEVICE_ERROR_NONE) {
        snprintf(why, sizeof why, "the device confirmed it, but it could not be read back");
        conclude(write, "unknown", write->doubt[0] != '\0' ? write->doubt : why);
        return;
    }
    show(write, "read_back", result->data);
    bool same = write_value_matches(address_of(write), &write->raw, result->data);
    if (write->doubt[0] != '\0') {
        conclude(write, "unknown", write->doubt);
    } else if (!same) {
        conclude(write, "failed", "the device confirmed it, but the point now has another value");
    } else {
        conclude(write, "done", NULL);
    }
}

static void on_result(struct session_request *asked, const struct session_result *result)
{
    struct write_now *write = (struct write_now *)((char *)asked - offsetof(struct write_now, ask));
    static void (*const steps[])(struct write_now *, const struct session_result *) = {
        [READ_OLD] = on_old, [WRITE] = on_written, [READ_BACK] = on_read_back};
    steps[write->step](write, result);
}

static int prepare(struct write_now *write, char *why)
{
    auto_buffer struct buffer b = {0};
    int r = write_value_raw(write->config, write->request->value, &write->raw, why);
    write->result = json_object();
    if (r == 0 && write->result == NULL) {
        r = -ENOMEM;
    }
    if (r == 0) {
        struct decimal value;
        if (write->raw.kind == VALUE_BOOL) {
            reading_write_json(&b, NULL, &write->raw);
        } else if (decimal_parse(write->request->value, &value) == 0) {
            decimal_write(&b, value);
        }
        const char *shown = buffer_text(&b);
        json_object_set_new(write->result, "written", json_string(shown != NULL ? shown : ""));
    }
    return r;
}

int write_now_begin(struct poller *poller, struct driver_request *request)
{
    const struct config_points *points = &poller->device->config->points;
    if (poller->write != NULL) {
        return -EBUSY;
    }
    if (request->point_count != 1 || request->points[0] >= points->count ||
        !points->list[request->points[0]].writable) {
        return -EINVAL;
    }
    struct write_now *write = calloc(1, sizeof *write);
    if (write == NULL) {
        return -ENOMEM;
    }
    char why[WRITE_VALUE_WHY] = "";
    *write = (struct write_now){
        .poller = poller,
        .request = request,
        .config = &points->list[request->points[0]],
        .ask = {.unit = (uint8_t)poller->settings->unit, .done = on_result},
    };
    poller->write = write;
    int r = prepare(write, why);
    if (r < 0) {
        finish(write, r, why[0] != '\0' ? why : strerror(-r));
        return 0;
    }
    r = clock_mono_ms() > request->deadline_ms ? -ETIMEDOUT : ask_read(write, READ_OLD);
    if (r < 0) {
        poller->write = NULL;
        json_decref(write->result);
        free(write);
    }
    return r;
}

void write_now_cancel(struct poller *poller)
{
    struct write_now *write = poller->write;
    if (write == NULL) {
        return;
    }
    wire_cancel(poller->wire, &write->ask);
    bool out = write->step == READ_BACK || (write->step == WRITE && write->ask.sent);
    if (out) {
        conclude(write, "unknown", "the device was taken out of service before it was read back");
    } else {
        finish(write, -ECANCELED, "the device was taken out of service");
    }
}
