#include "config/build.h"
#include "config/point.h"
#include "drivers/driver.h"

#include <string.h>

static const char prefix[] = "point.";

/* One list of addresses for a set of points; devices whose settings give the same ones share it. */
struct variant {
    struct variant *next;
    uint8_t *addresses;
    struct config_point *points;
};

/* The same point lines with the same driver, which devices of a profile or a range have. */
struct point_set {
    uint64_t signature;
    const struct driver *driver;
    const struct setting *settings;
    size_t count;
    struct config_point *points; /* without addresses */
    bool good;
    uint64_t text_hash;
    struct variant *variants;
};

/* Addresses stand at multiples of 16, so any type may lie there. */
static size_t stride_of(const struct driver *driver)
{
    return (driver->address_size + 15) & ~(size_t)15;
}

/* Equal texts have equal pointers within a load, but for lines of a file, which differ by place. */
static uint64_t sign(const struct driver *driver, const struct setting *settings, size_t count)
{
    uint64_t hash = hash_bytes(HASH_START, &driver, sizeof(void *));
    for (size_t i = 0; i < count; i++) {
        hash = hash_bytes(hash, &settings[i].key, sizeof(char *));
        hash = hash_bytes(hash, &settings[i].value, sizeof(char *));
    }
    return hash;
}

static bool is_same(const struct point_set *set, const struct setting *settings, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        if (set->settings[i].key != settings[i].key ||
            set->settings[i].value != settings[i].value) {
            return false;
        }
    }
    return set->count == count;
}

static bool parse_point(struct build *build, const struct setting *setting,
                        struct config_point *point)
{
    struct value_fault fault = {0};
    if (setting->broken) {
        return false;
    }
    if (point_parse(setting->key + sizeof prefix - 1, setting->value, &build->strings, point,
                    &fault) == 0) {
        return true;
    }
    struct config_spot spot = setting_spot(setting);
    config_report(build->errors, &spot, fault.nearest, "%s", fault.why);
    return false;
}

static struct point_set *make_set(struct build *build, const struct driver *driver,
                                  const struct setting *settings, size_t count)
{
    struct point_set *set = arena_take(&build->scratch, sizeof *set);
    *set = (struct point_set){.driver = driver,
                              .settings = settings,
                              .count = count,
                              .good = true,
                              .text_hash = HASH_START,
                              .signature = sign(driver, settings, count)};
    set->points = arena_take(&build->scratch, count * sizeof *set->points);
    for (size_t i = 0; i < count; i++) {
        set->good = parse_point(build, &settings[i], &set->points[i]) && set->good;
        set->text_hash = hash_text(hash_text(set->text_hash, settings[i].key), settings[i].value);
    }
    vector_add(&build->point_sets, set);
    return set;
}

static struct point_set *find_set(struct build *build, const struct driver *driver,
                                  const struct setting *settings, size_t count)
{
    uint64_t signature = sign(driver, settings, count);
    for (size_t i = build->point_sets.count; i > 0; i--) {
        struct point_set *set = build->point_sets.items[i - 1];
        if (set->signature == signature && set->driver == driver && is_same(set, settings, count)) {
            return set;
        }
    }
    return make_set(build, driver, settings, count);
}

/* Asks the driver for every address; false after a complaint. */
static bool read_addresses(struct build *build, const struct point_set *set, const void *settings,
                           uint8_t *addresses)
{
    bool good = true;
    for (size_t i = 0; i < set->count; i++) {
        char why[VALUE_WHY_SIZE] = "not understood";
        if (set->driver->parse_point(&set->points[i], settings,
                                     addresses + i * stride_of(set->driver), why,
                                     sizeof why) != 0) {
            struct config_spot spot = setting_spot(&set->settings[i]);
            config_report(build->errors, &spot, NULL, "%s", why);
            good = false;
        }
    }
    return good;
}

static struct variant *find_variant(struct build *build, struct point_set *set,
                                    const uint8_t *addresses)
{
    size_t stride = stride_of(set->driver), size = set->count * stride;
    for (struct variant *at = set->variants; at != NULL; at = at->next) {
        if (memcmp(at->addresses, addresses, size) == 0) {
            return at;
        }
    }
    struct variant *new = arena_take(&build->scratch, sizeof *new);
    new->addresses = arena_take(build->arena, size);
    memcpy(new->addresses, addresses, size);
    new->points = arena_take(build->arena, set->count * sizeof *new->points);
    memcpy(new->points, set->points, set->count * sizeof *new->points);
    for (size_t i = 0; i < set->count; i++) {
        new->points[i].address = new->addresses + i *stride;
    }
    new->next = set->variants;
    set->variants = new;
    return new;
}

struct config_points points_of(struct build *build, const struct section *section,
                               const struct driver *driver, const void *settings, uint64_t *hash)
{
    struct setting *list;
    size_t count = section_family(build, section, prefix, &list);
    struct config_points none = {0};
    if (count == 0) {
        return none;
    }
    if (count > SCAN_READINGS_MAX) {
        struct config_spot spot = section_spot(section, NULL);
        config_report(build->errors, &spot, NULL, "has more than %d points", SCAN_READINGS_MAX);
        build->faults++;
        return none;
    }
    struct point_set *set = find_set(build, driver, list, count);
    *hash = hash_bytes(*hash, &set->text_hash, sizeof set->text_hash);
    auto_free uint8_t *addresses = arena_must(calloc(count, stride_of(driver) + 1));
    if (!set->good || settings == NULL || !read_addresses(build, set, settings, addresses)) {
        build->faults++;
        return none;
    }
    return (struct config_points){find_variant(build, set, addresses)->points, count};
}

void points_check(struct build *build, const struct section *section)
{
    struct setting *list;
    size_t count = section_family(build, section, prefix, &list);
    for (size_t i = 0; i < count; i++) {
        struct config_point point;
        (void)parse_point(build, &list[i], &point);
    }
}

void points_finish(struct build *build)
{
    vector_finish(&build->point_sets);
}
