#include "config/build.h"
#include "config/nearest.h"
#include "drivers/driver.h"

#include <string.h>

static const struct driver *find_driver(struct build *build, const struct section *section,
                                        const char *name)
{
    const struct driver *driver = driver_find(name);
    struct setting setting;
    if (driver != NULL || !section_get(build, section, "driver", &setting)) {
        return driver;
    }
    struct config_spot spot = setting_spot(&setting);
    struct nearest nearest = {.given = name};
    for (size_t i = 0; i < drivers_count; i++) {
        nearest_try(&nearest, drivers[i]->name);
    }
    if (tables_driver_is_planned(name)) {
        config_report(build->errors, &spot, NULL, "this version has no driver '%s'", name);
    } else {
        config_report(build->errors, &spot, nearest.best, "no such driver: '%.80s'", name);
    }
    return NULL;
}

static void find_profile(struct build *build, struct section *section)
{
    struct setting setting;
    if (!section_get(build, section, "profile", &setting) || setting.broken) {
        return;
    }
    struct section *profile = profile_find(build, setting.value, &setting);
    if (profile == NULL) {
        build->faults++;
        return;
    }
    profile->used = true;
    section->parent = profile;
    struct setting nested;
    struct section alone = *profile;
    if (section_get(build, &alone, "profile", &nested)) {
        struct config_spot spot = setting_spot(&nested);
        config_report(build->errors, &spot, NULL, "a profile cannot build on another");
        build->faults++;
    }
}

static void take_tags(struct build *build, const struct section *section,
                      struct config_device *device, uint64_t *hash)
{
    static const char prefix[] = "tag.";
    struct setting *list;
    size_t count = section_family(build, section, prefix, &list);
    if (count == 0) {
        return;
    }
    struct config_tag *tags = arena_take(build->arena, count * sizeof *tags);
    for (size_t i = 0; i < count; i++) {
        const char *name = list[i].key + sizeof prefix - 1;
        tags[i].name = strings_keep(&build->strings, name, strlen(name));
        tags[i].value = strings_keep(&build->strings, list[i].value, strlen(list[i].value));
        *hash = hash_text(hash_text(*hash, tags[i].name), tags[i].value);
    }
    device->tags = tags;
    device->tag_count = count;
}

/* `bus = NAME` of a driver that has [bus NAME] sections must name one of them; a changed bus makes
 * its devices changed too. */
static void check_reference(struct build *build, const struct section *section,
                            const struct driver *driver, uint64_t *hash)
{
    struct setting setting;
    const struct config_table *table = driver->section;
    const char *kind = table == NULL ? "" : table->section;
    const struct section_kind *found = section_kind_find(kind);
    if (table == NULL || found == NULL || !found->named ||
        !section_get(build, section, kind, &setting) || setting.broken) {
        return;
    }
    const struct section *target = section_find(build, kind, setting.value);
    if (target == NULL) {
        struct config_spot spot = setting_spot(&setting);
        config_report(build->errors, &spot, section_nearest(build, kind, setting.value),
                      "there is no [%s %.80s]", kind, setting.value);
        build->faults++;
        return;
    }
    for (size_t i = 0; i < table->key_count; i++) {
        if (section_get(build, target, table->keys[i].name, &setting)) {
            *hash = hash_text(hash_text(*hash, setting.key), setting.value);
        }
    }
}

static void fill_driver(struct build *build, const struct section *section,
                        const struct driver *driver, struct config_device *device)
{
    const struct config_table *tables[] = {&core_device_table, driver->table};
    fill_check_keys(build, section, tables, ARRAY_SIZE(tables));
    void *settings = arena_take(build->arena, driver->table->size);
    size_t before = build->faults;
    fill_table(build, section, driver->table, settings, &device->fingerprint);
    check_reference(build, section, driver, &device->fingerprint);
    fill_check(build, section, driver->table, settings, before);
    device->settings = settings;
    device->points = points_of(build, section, driver, build->faults == before ? settings : NULL,
                               &device->fingerprint);
    if (driver->check_device != NULL && build->faults == before) {
        scene_enter(build, section);
        driver->check_device(device, build->errors);
        scene_leave(build);
    }
}

static void build_device(struct build *build, struct section *section, struct config_device *device)
{
    find_profile(build, section);
    struct core_device core = {0};
    device->fingerprint = hash_text(HASH_START, section->name);
    fill_table(build, section, &core_device_table, &core, &device->fingerprint);
    struct config_spot spot = section_spot(section, NULL);
    device->name = section->name;
    device->driver = core.driver;
    device->profile = core.profile;
    device->poll_ms = core.poll_ms;
    device->timeout_ms = core.timeout_ms;
    device->file = strings_keep(&build->strings, spot.file, strlen(spot.file));
    device->line = spot.line;
    take_tags(build, section, device, &device->fingerprint);
    const struct driver *driver = core.driver == NULL ? NULL
                                                      : find_driver(build, section, core.driver);
    if (driver != NULL) {
        fill_driver(build, section, driver, device);
    } else {
        points_check(build, section);
    }
}

static size_t count_kind(const struct build *build, const char *kind)
{
    size_t count = 0;
    for (size_t i = 0; i < build->sections.count; i++) {
        const struct section *section = build->sections.items[i];
        count += strcmp(section->kind->name, kind) == 0;
    }
    return count;
}

static void check_name(struct build *build, const struct config *config,
                       const struct section *section)
{
    if (config->gateway->name != NULL && strcmp(config->gateway->name, section->name) == 0) {
        struct config_spot spot = section_spot(section, NULL);
        config_report(build->errors, &spot, NULL,
                      "the gateway itself has this name; its events are kept under it");
    }
}

void build_devices(struct build *build, struct config *config)
{
    size_t count = count_kind(build, "device");
    if (count > BUILD_DEVICES_MAX) {
        struct config_spot spot = {.file = ""};
        config_report(build->errors, &spot, NULL, "%zu devices are more than %d", count,
                      BUILD_DEVICES_MAX);
        return;
    }
    struct config_device *devices = arena_take(build->arena, count * sizeof *devices);
    config->devices = devices;
    /* Shipped profiles join build->sections on the way, behind all that stood there before. */
    for (size_t i = 0; i < build->sections.count; i++) {
        struct section *section = build->sections.items[i];
        if (strcmp(section->kind->name, "device") == 0) {
            build_device(build, section, &devices[config->device_count++]);
            check_name(build, config, section);
        }
    }
}
