#include "gateway/api/query.h"
#include "gateway/api/roster.h"
#include "gateway/api/views.h"
#include "gateway/base/clock.h"

#include <errno.h>
#include <math.h>
#include <string.h>

static void write_errors(struct json_out *out, const struct device *device)
{
    json_out_open(out, "errors", '{');
    for (int kind = 1; kind < DEVICE_ERRORS; kind++) {
        uint64_t count = device->health.errors[kind];
        if (count > 0) {
            json_out_uint(out, device_error_name((enum device_error)kind), count);
        }
    }
    json_out_close(out, '}');
}

static void write_device(struct json_out *out, const struct device *device)
{
    const struct device_health *health = &device->health;
    char error[200] = "";
    if (health->last_error != DEVICE_ERROR_NONE) {
        device_describe_error(device, error, sizeof error);
    }
    int64_t rtt_us = health->rtt_us;
    json_out_open(out, NULL, '{');
    json_out_text(out, "name", device->config->name);
    json_out_text(out, "driver", device->config->driver);
    json_out_text(out, "profile", device->config->profile);
    json_out_text(out, "state", device_state_name((enum device_state)health->state));
    json_out_time(out, "last_good", health->last_good_ms);
    json_out_real(out, "rtt_ms", rtt_us > 0 ? (double)rtt_us / 1e3 : NAN);
    json_out_uint(out, "polls", health->polls);
    json_out_uint(out, "failures", health->failures);
    json_out_int(out, "poll_ms", device->config->poll_ms);
    json_out_real(out, "late_ms_max", (double)health->late_us_max / 1e3);
    json_out_uint(out, "points", device->config->points.count);
    json_out_uint(out, "seq", device->seq[STREAM_RAW]);
    write_errors(out, device);
    json_out_text(out, "last_error", error[0] != '\0' ? error : NULL);
    json_out_close(out, '}');
}

int view_devices(const struct api_host *host, const char *name, struct buffer *b)
{
    auto_roster struct roster roster = {0};
    int r = roster_take(host, ROSTER_DEVICES, &roster);
    if (r < 0) {
        return r;
    }
    if (name != NULL && roster_find(&roster, name) == NULL) {
        return -ENOENT;
    }
    struct json_out out = {.b = b};
    json_out_open(&out, NULL, '{');
    json_out_time(&out, "time", clock_wall_ms());
    json_out_open(&out, "devices", '[');
    for (size_t i = 0; i < roster.device_count; i++) {
        if (name == NULL || strcmp(roster.devices[i]->config->name, name) == 0) {
            write_device(&out, roster.devices[i]);
        }
    }
    json_out_close(&out, ']');
    json_out_close(&out, '}');
    return buffer_failed(b) ? -ENOMEM : 0;
}
