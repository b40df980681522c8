#include "gateway/api/query.h"
#include "gateway/api/roster.h"
#include "gateway/api/views.h"
#include "gateway/base/clock.h"

#include <errno.h>
#include <string.h>

int latest_take(struct pipeline *pipeline, const struct device *device, struct latest *ret_latest)
{
    size_t count = device->config->points.count;
    size_t room = count > 0 ? count : 1;
    struct latest latest = {.readings = calloc(room, sizeof *latest.readings),
                            .times_ms = calloc(room, sizeof *latest.times_ms),
                            .count = count};
    if (latest.readings == NULL || latest.times_ms == NULL) {
        latest_finish(&latest);
        return -ENOMEM;
    }
    pipeline_latest(pipeline, device, latest.readings, latest.times_ms);
    *ret_latest = latest;
    return 0;
}

void latest_finish(struct latest *latest)
{
    free(latest->readings);
    free(latest->times_ms);
    *latest = (struct latest){0};
}

/* The live view keeps no texts. */
static void write_value(struct json_out *out, const char *key, const struct reading *reading)
{
    static const struct scan no_texts = {0};
    json_out_key(out, key);
    if (reading->kind == VALUE_TEXT) {
        buffer_add_text(out->b, "null");
    } else {
        reading_write_json(out->b, &no_texts, reading);
    }
}

static bool fits(const char *glob, const char *device, const char *point)
{
    if (glob == NULL) {
        return true;
    }
    char name[256];
    snprintf(name, sizeof name, "%s.%s", device, point);
    return query_glob(glob, name) || query_glob(glob, device);
}

static void write_point(struct json_out *out, const struct device *device,
                        const struct latest *latest, size_t i)
{
    const struct config_point *point = &device->config->points.list[i];
    const struct reading *reading = &latest->readings[i];
    json_out_open(out, NULL, '{');
    json_out_text(out, "device", device->config->name);
    json_out_text(out, "point", point->name);
    if (latest->times_ms[i] == 0) {
        json_out_null(out, "value");
    } else {
        write_value(out, "value", reading);
    }
    json_out_text(out, "unit", point->unit);
    json_out_time(out, "time", latest->times_ms[i]);
    json_out_text(out, "quality",
                  latest->times_ms[i] == 0 ? NULL : quality_name((enum quality)reading->quality));
    json_out_close(out, '}');
}

static int write_points(const struct api_host *host, const struct device *device, const char *glob,
                        struct json_out *out)
{
    auto_latest struct latest latest = {0};
    int r = latest_take(host->pipeline(host->user), device, &latest);
    for (size_t i = 0; r == 0 && i < latest.count; i++) {
        if (fits(glob, device->config->name, device->config->points.list[i].name)) {
            write_point(out, device, &latest, i);
        }
    }
    return r;
}

int view_points(const struct api_host *host, const char *glob, struct buffer *b)
{
    auto_roster struct roster roster = {0};
    int r = roster_take(host, ROSTER_DEVICES, &roster);
    if (r < 0) {
        return r;
    }
    struct json_out out = {.b = b};
    json_out_open(&out, NULL, '{');
    json_out_time(&out, "time", clock_wall_ms());
    json_out_open(&out, "points", '[');
    for (size_t i = 0; r == 0 && i < roster.device_count; i++) {
        r = write_points(host, roster.devices[i], glob, &out);
    }
    json_out_close(&out, ']');
    json_out_close(&out, '}');
    return r < 0 ? r : (buffer_failed(b) ? -ENOMEM : 0);
}

static void write_live_qualities(const struct device *device, const struct latest *latest,
                                 struct json_out *out)
{
    json_out_open(out, "quality", '{');
    for (size_t i = 0; i < latest->count; i++) {
        if (latest->times_ms[i] != 0 && latest->readings[i].quality != QUALITY_GOOD) {
            json_out_text(out, device->config->points.list[i].name,
                          quality_name((enum quality)latest->readings[i].quality));
        }
    }
    json_out_close(out, '}');
}

int64_t view_live_device(const struct api_host *host, const struct device *device,
                         struct json_out *out)
{
    auto_latest struct latest latest = {0};
    if (latest_take(host->pipeline(host->user), device, &latest) < 0) {
        out->b->failed = true;
        return 0;
    }
    int64_t newest_ms = 0;
    json_out_open(out, NULL, '{');
    json_out_text(out, "name", device->config->name);
    json_out_text(out, "state", device_state_name((enum device_state)device->health.state));
    json_out_open(out, "values", '{');
    for (size_t i = 0; i < latest.count; i++) {
        if (latest.times_ms[i] != 0) {
            write_value(out, device->config->points.list[i].name, &latest.readings[i]);
            newest_ms = latest.times_ms[i] > newest_ms ? latest.times_ms[i] : newest_ms;
        }
    }
    json_out_close(out, '}');
    write_live_qualities(device, &latest, out);
    json_out_time(out, "time", newest_ms);
    json_out_close(out, '}');
    return newest_ms;
}
