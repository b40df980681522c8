/* What is no error but hardly meant: warnings that need the finished config. */
#include "config/build.h"
#include "drivers/driver.h"
#include "uplink/uplink.h"

#include <fnmatch.h>
#include <string.h>

/* A pattern that matches nothing costs a look at every point; a huge site gets no such advice. */
enum { LOOKS_MAX = 1000000 };

static bool matches_device(const char *pattern, const struct config_device *device, bool bare)
{
    char name[2 * BUILD_NAME_MAX + 2];
    for (size_t i = 0; i < device->points.count; i++) {
        const char *point = device->points.list[i].name;
        snprintf(name, sizeof name, "%s.%s", device->name, point);
        if (fnmatch(pattern, name, 0) == 0 || (bare && fnmatch(pattern, point, 0) == 0)) {
            return true;
        }
    }
    return false;
}

/* bare: the pattern may also stand for a point's name alone. */
static bool matches_any(const struct config *config, const char *pattern, bool bare, size_t *looks)
{
    for (size_t i = 0; i < config->device_count; i++) {
        *looks += config->devices[i].points.count;
        if (*looks > LOOKS_MAX || matches_device(pattern, &config->devices[i], bare)) {
            return true;
        }
    }
    return false;
}

static void check_patterns(struct build *build, const struct config *config, const char *kind,
                           const char *name, const struct config_list *patterns, size_t *looks)
{
    const struct section *section = section_find(build, kind, name);
    for (size_t i = 0; i < patterns->count && config->device_count > 0; i++) {
        if (!matches_any(config, patterns->items[i], strcmp(kind, "aggregate") == 0, looks)) {
            scene_enter(build, section);
            config_warn(build->errors, "points", "'%.80s' is the name of no point",
                        patterns->items[i]);
            scene_leave(build);
        }
    }
}

static bool sends_raw_only(const struct uplink_settings *uplink)
{
    return uplink->send.count == 1 && strcmp(uplink->send.items[0], "raw") == 0;
}

static void check_devices(struct build *build, const struct config *config)
{
    for (size_t i = 0; i < config->device_count; i++) {
        const struct config_device *device = &config->devices[i];
        if (device->points.count == 0) {
            struct config_spot spot = section_spot(section_find(build, "device", device->name),
                                                   NULL);
            config_report_warning(build->errors, &spot, "has no point: nothing is read from it");
        }
    }
}

/* What shared things, like serial buses, are asked for. */
static void check_shared(struct build *build, const struct config *config)
{
    for (size_t i = 0; i < config->bus_count; i++) {
        const char *name = config->buses[i].name;
        for (size_t j = 0; j < drivers_count; j++) {
            const struct config_table *table = drivers[j]->section;
            if (table == NULL || strcmp(table->section, "bus") != 0 ||
                drivers[j]->describe_section == NULL) {
                continue;
            }
            scene_enter(build, section_find(build, "bus", name));
            drivers[j]->describe_section(config, name, NULL, build->errors);
            scene_leave(build);
        }
    }
}

void advise(struct build *build, const struct config *config)
{
    size_t looks = 0;
    check_devices(build, config);
    check_shared(build, config);
    for (size_t i = 0; i < config->aggregate_count; i++) {
        const struct config_aggregate *aggregate = &config->aggregates[i];
        check_patterns(build, config, "aggregate", aggregate->name, &aggregate->points, &looks);
    }
    /* The names of aggregated points (power_mean) are not known here. */
    for (size_t i = 0; i < config->uplink_count; i++) {
        const struct uplink_settings *uplink = config->uplinks[i].common;
        if (sends_raw_only(uplink)) {
            check_patterns(build, config, "uplink", config->uplinks[i].name, &uplink->points,
                           &looks);
        }
    }
}
