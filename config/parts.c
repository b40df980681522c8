#include "config/build.h"
#include "config/nearest.h"
#include "uplink/uplink.h"

#include <ctype.h>
#include <string.h>

/* A section without a name: [store], [api], ... */
static void *build_single(struct build *build, const char *kind, uint64_t *ret_fingerprint)
{
    const struct config_table *table = tables_section(kind);
    *ret_fingerprint = HASH_START;
    if (table == NULL) {
        return NULL;
    }
    const struct section *section = section_find(build, kind, "");
    void *settings = arena_take(build->arena, table->size);
    size_t before = build->faults;
    fill_check_keys(build, section, &table, 1);
    fill_table(build, section, table, settings, ret_fingerprint);
    fill_check(build, section, table, settings, before);
    return settings;
}

/* The host name, made fit for a name on the wire. */
static const char *host_name(struct build *build)
{
    char name[BUILD_NAME_MAX + 1] = "";
    if (gethostname(name, sizeof name - 1) != 0 || name[0] == '\0') {
        return "windrow";
    }
    for (char *at = name; *at != '\0'; at++) {
        if (!isalnum((unsigned char)*at) && *at != '-' && *at != '_' && *at != '.') {
            *at = '-';
        }
    }
    return strings_keep(&build->strings, name, strlen(name));
}

static void build_gateway(struct build *build, struct config *config)
{
    const struct core_gateway *core = build_single(build, "gateway", &config->gateway_fingerprint);
    struct config_gateway *gateway = arena_take(build->arena, sizeof *gateway);
    gateway->name = core->name == NULL ? host_name(build) : core->name;
    gateway->data_dir = core->data_dir;
    gateway->run_dir = core->run_dir;
    gateway->log_level = core->log_level;
    gateway->clock_wait_ms = core->clock_wait_ms;
    gateway->allow_writes = core->allow_writes;
    gateway->write_interval_ms = core->write_interval_ms;
    gateway->clock = core->clock;
    config->gateway_fingerprint = hash_text(config->gateway_fingerprint, gateway->name);
    config->gateway = gateway;
}

/* Calls fn for each section of the kind, after ret_list has room for `size` each. */
static size_t each(struct build *build, const char *kind, size_t size, void **ret_list,
                   void (*fn)(struct build *build, struct section *section, void *item))
{
    size_t count = 0;
    for (size_t i = 0; i < build->sections.count; i++) {
        const struct section *section = build->sections.items[i];
        count += strcmp(section->kind->name, kind) == 0;
    }
    char *list = arena_take(build->arena, count * size);
    *ret_list = list;
    for (size_t i = 0, n = 0; n < count; i++) {
        struct section *section = build->sections.items[i];
        if (strcmp(section->kind->name, kind) == 0) {
            fn(build, section, list + n++ * size);
        }
    }
    return count;
}

static void build_bus(struct build *build, struct section *section, void *item)
{
    struct config_bus *bus = item;
    const struct config_table *table = tables_section("bus");
    void *settings = arena_take(build->arena, table->size);
    size_t before = build->faults;
    bus->name = section->name;
    bus->settings = settings;
    bus->fingerprint = hash_text(HASH_START, section->name);
    fill_check_keys(build, section, &table, 1);
    fill_table(build, section, table, settings, &bus->fingerprint);
    fill_check(build, section, table, settings, before);
}

static unsigned read_functions(struct build *build, const struct section *section,
                               const struct config_list *words)
{
    unsigned bits = 0;
    for (size_t i = 0; i < words->count; i++) {
        unsigned bit = core_function_bit(words->items[i]);
        struct setting setting;
        if (bit == 0 && section_get(build, section, "functions", &setting)) {
            struct nearest nearest = {.given = words->items[i]};
            for (size_t j = 0; core_function_word(j) != NULL; j++) {
                nearest_try(&nearest, core_function_word(j));
            }
            struct config_spot spot = setting_spot(&setting);
            config_report(build->errors, &spot, nearest.best, "no such function: '%.60s'",
                          words->items[i]);
        }
        bits |= bit;
    }
    return bits;
}

static void build_aggregate(struct build *build, struct section *section, void *item)
{
    struct config_aggregate *aggregate = item;
    const struct config_table *table = &core_aggregate_table;
    struct core_aggregate core = {0};
    size_t before = build->faults;
    aggregate->fingerprint = hash_text(HASH_START, section->name);
    fill_check_keys(build, section, &table, 1);
    fill_table(build, section, table, &core, &aggregate->fingerprint);
    fill_check(build, section, table, &core, before);
    aggregate->name = section->name;
    aggregate->window_ms = core.window_ms;
    aggregate->points = core.points;
    aggregate->functions = read_functions(build, section, &core.functions);
}

static const struct uplink *find_type(struct build *build, const struct section *section,
                                      const char *name)
{
    const struct uplink *type = uplink_find(name);
    struct setting setting;
    if (type != NULL || !section_get(build, section, "type", &setting)) {
        return type;
    }
    struct config_spot spot = setting_spot(&setting);
    struct nearest nearest = {.given = name};
    for (size_t i = 0; i < uplinks_count; i++) {
        nearest_try(&nearest, uplinks[i]->name);
    }
    if (tables_uplink_is_planned(name)) {
        config_report(build->errors, &spot, NULL, "this version has no uplink type '%s'", name);
    } else {
        config_report(build->errors, &spot, nearest.best, "no such uplink type: '%.80s'", name);
    }
    return NULL;
}

static void fill_uplink(struct build *build, struct section *section, const struct uplink *type,
                        struct config_uplink *uplink)
{
    const struct config_table *tables[] = {&core_uplink_table, &uplink_config_table, type->table};
    void *common = arena_take(build->arena, uplink_config_table.size);
    void *settings = arena_take(build->arena, type->table->size);
    size_t before = build->faults;
    fill_check_keys(build, section, tables, ARRAY_SIZE(tables));
    fill_table(build, section, &uplink_config_table, common, &uplink->fingerprint);
    fill_check(build, section, &uplink_config_table, common, before);
    before = build->faults;
    fill_table(build, section, type->table, settings, &uplink->fingerprint);
    fill_check(build, section, type->table, settings, before);
    uplink->common = common;
    uplink->settings = settings;
}

static void build_uplink(struct build *build, struct section *section, void *item)
{
    struct config_uplink *uplink = item;
    struct core_uplink core = {0};
    uplink->fingerprint = hash_text(HASH_START, section->name);
    fill_table(build, section, &core_uplink_table, &core, &uplink->fingerprint);
    struct config_spot spot = section_spot(section, NULL);
    uplink->name = section->name;
    uplink->type = core.type;
    uplink->file = strings_keep(&build->strings, spot.file, strlen(spot.file));
    uplink->line = spot.line;
    const struct uplink *type = core.type == NULL ? NULL : find_type(build, section, core.type);
    if (type != NULL) {
        fill_uplink(build, section, type, uplink);
    }
}

static void check_uplink_count(struct build *build, size_t count)
{
    size_t seen = 0;
    for (size_t i = 0; count > STORE_UPLINKS_MAX && i < build->sections.count; i++) {
        const struct section *section = build->sections.items[i];
        if (strcmp(section->kind->name, "uplink") == 0 && ++seen > STORE_UPLINKS_MAX) {
            struct config_spot spot = section_spot(section, NULL);
            config_report(build->errors, &spot, NULL, "more than %d uplinks", STORE_UPLINKS_MAX);
            return;
        }
    }
}

void build_parts(struct build *build, struct config *config)
{
    void *list;
    build_gateway(build, config);
    config->store = build_single(build, "store", &config->store_fingerprint);
    config->api = build_single(build, "api", &config->api_fingerprint);
    config->coap = build_single(build, "coap", &config->coap_fingerprint);
    config->bus_count = each(build, "bus", sizeof(struct config_bus), &list, build_bus);
    config->buses = list;
    config->aggregate_count = each(build, "aggregate", sizeof(struct config_aggregate), &list,
                                   build_aggregate);
    config->aggregates = list;
    config->uplink_count = each(build, "uplink", sizeof(struct config_uplink), &list, build_uplink);
    config->uplinks = list;
    check_uplink_count(build, config->uplink_count);
}
