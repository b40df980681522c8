#include "gateway/api/query.h"
#include "gateway/api/roster.h"
#include "gateway/api/views.h"
#include "gateway/base/clock.h"

#include <errno.h>
#include <string.h>

int snapshot_take(struct pipeline *pipeline, const struct device *device,
                  struct snapshot *ret_snapshot)
{
    size_t count = device->config->points.count;
    size_t room = count > 0 ? count : 1;
    struct snapshot snapshot = {.readings = calloc(room, sizeof *snapshot.readings),
                                .times_ms = calloc(room, sizeof *snapshot.times_ms),
                                .count = count};
    if (snapshot.readings == NULL || snapshot.times_ms == NULL) {
        snapshot_finish(&snapshot);
        return -ENOMEM;
    }
    pipeline_latest(pipeline, device, snapshot.readings, snapshot.times_ms);
    *ret_snapshot = snapshot;
    return 0;
}

void snapshot_finish(struct snapshot *snapshot)
{
    free(snapshot->readings);
    free(snapshot->times_ms);
    *snapshot = (struct snapshot){0};
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
                        const struct snapshot *snapshot, size_t i)
{
    const struct config_point *point = &device->config->points.list[i];
    const struct reading *reading = &snapshot->readings[i];
    json_out_open(out, NULL, '{');
    json_out_text(out, "device", device->config->name);
    json_out_text(out, "point", point->name);
    if (snapshot->times_ms[i] == 0) {
        json_out_null(out, "value");
    } else {
        write_value(out, "value", reading);
    }
    json_out_text(out, "unit", point->unit);
    json_out_time(out, "time", snapshot->times_ms[i]);
    json_out_text(out, "quality",
                  snapshot->times_ms[i] == 0 ? NULL : quality_name((enum quality)reading->quality));
    json_out_close(out, '}');
}

static int write_points(const struct api_host *host, const struct device *device, const char *glob,
                        struct json_out *out)
{
    auto_snapshot struct snapshot snapshot = {0};
    int r = snapshot_take(host->pipeline(host->user), device, &snapshot);
    for (size_t i = 0; r == 0 && i < snapshot.count; i++) {
        if (fits(glob, device->config->name, device->config->points.list[i].name)) {
            write_point(out, device, &snapshot, i);
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

static void write_live_qualities(const struct device *device, const struct snapshot *snapshot,
                                 struct json_out *out)
{
    json_out_open(out, "quality", '{');
    for (size_t i = 0; i < snapshot->count; i++) {
        if (snapshot->times_ms[i] != 0 && snapshot->readings[i].quality != QUALITY_GOOD) {
            json_out_text(out, device->config->points.list[i].name,
                          quality_name((enum quality)snapshot->readings[i].quality));
        }
    }
    json_out_close(out, '}');
}

int64_t view_live_device(const struct api_host *host, const struct device *device,
                         struct json_out *out)
{
    auto_snapshot struct snapshot snapshot = {0};
    if (snapshot_take(host->pipeline(host->user), device, &snapshot) < 0) {
        out->b->failed = true;
        return 0;
    }
    int64_t newest_ms = 0;
    json_out_open(out, NULL, '{');
    json_out_text(out, "name", device->config->name);
    json_out_text(out, "state", device_state_name((enum device_state)device->health.state));
    json_out_open(out, "values", '{');
    for (size_t i = 0; i < snapshot.count; i++) {
        if (snapshot.times_ms[i] != 0) {
            write_value(out, device->config->points.list[i].name, &snapshot.readings[i]);
            newest_ms = snapshot.times_ms[i] > newest_ms ? snapshot.times_ms[i] : newest_ms;
        }
    }
    json_out_close(out, '}');
    write_live_qualities(device, &snapshot, out);
    json_out_time(out, "time", newest_ms);
    json_out_close(out, '}');
    return newest_ms;
}
