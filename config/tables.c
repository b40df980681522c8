#include "config/tables.h"

#include "config/config.h"
#include "drivers/driver.h"
#include "gateway/api/api.h"
#include "gateway/store/store.h"
#include "uplink/uplink.h"

#include <string.h>

const struct section_kind section_kinds[] = {
    {"gateway", false, true, "the gateway itself"},
    {"store", false, true, "what is kept on this disk, and for how long"},
    {"api", false, true, "the local API and its page"},
    {"coap", false, true, "where CoAP devices post to"},
    {"bus", true, true, "a serial line with devices on it"},
    {"profile", true, true, "defaults for devices of one make: any key of [device], and points"},
    {"device", true, true, "what is polled; a range in the name makes many of it"},
    {"aggregate", true, true, "statistics over windows aligned to UTC"},
    {"uplink", true, true, "where readings go"},
    {"derive", true, false, ""},
    {"alert", true, false, ""},
    {"notify", true, false, ""},
};
const size_t section_kinds_count = ARRAY_SIZE(section_kinds);

const struct section_kind *section_kind_find(const char *name)
{
    for (size_t i = 0; i < section_kinds_count; i++) {
        if (strcmp(section_kinds[i].name, name) == 0) {
            return &section_kinds[i];
        }
    }
    return NULL;
}

static const struct config_table *driver_section(const char *kind)
{
    for (size_t i = 0; i < drivers_count; i++) {
        const struct config_table *table = drivers[i]->section;
        if (table != NULL && strcmp(table->section, kind) == 0) {
            return table;
        }
    }
    return NULL;
}

const struct config_table *tables_section(const char *kind)
{
    static const struct config_table *const own[] = {
        &core_gateway_table,
        &store_config_table,
        &api_config_table,
        &core_aggregate_table,
    };
    for (size_t i = 0; i < ARRAY_SIZE(own); i++) {
        if (strcmp(own[i]->section, kind) == 0) {
            return own[i];
        }
    }
    return driver_section(kind);
}

static bool is_one_of(const char *name, const char *const *names, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        if (strcmp(names[i], name) == 0) {
            return true;
        }
    }
    return false;
}

bool tables_driver_is_planned(const char *name)
{
    static const char *const names[] = {"modbus-tcp", "modbus-rtu", "modbus-rtu-tcp", "coap",
                                        "http"};
    return is_one_of(name, names, ARRAY_SIZE(names));
}

bool tables_uplink_is_planned(const char *name)
{
    static const char *const names[] = {"http",     "timestream", "influx",   "mqtt",
                                        "dynamodb", "kinesis",    "postgres", "file"};
    return is_one_of(name, names, ARRAY_SIZE(names));
}

/* Tables of drivers that share one (modbus-rtu and its TCP twin) are shown once. */
static bool is_repeat(size_t driver)
{
    for (size_t i = 0; i < driver; i++) {
        if (drivers[i]->table == drivers[driver]->table) {
            return true;
        }
    }
    return false;
}

static size_t list_drivers(const struct config_table **list, size_t n)
{
    for (size_t i = 0; i < drivers_count; i++) {
        if (!is_repeat(i)) {
            list[n++] = drivers[i]->table;
        }
    }
    return n;
}

static size_t list_all(const struct config_table **list)
{
    static const char *const first[] = {"gateway", "store", "api", "coap", "bus"};
    size_t n = 0;
    for (size_t i = 0; i < ARRAY_SIZE(first); i++) {
        const struct config_table *table = tables_section(first[i]);
        if (table != NULL) {
            list[n++] = table;
        }
    }
    list[n++] = &core_device_table;
    n = list_drivers(list, n);
    list[n++] = &core_aggregate_table;
    list[n++] = &core_uplink_table;
    list[n++] = &uplink_config_table;
    for (size_t i = 0; i < uplinks_count; i++) {
        list[n++] = uplinks[i]->table;
    }
    return n;
}

const struct config_table *tables_at(size_t i)
{
    enum { MODULES_MAX = 64 };
    const struct config_table *list[16 + MODULES_MAX];
    if (drivers_count + uplinks_count > MODULES_MAX) {
        return NULL;
    }
    return i < list_all(list) ? list[i] : NULL;
}

bool key_is_family(const struct config_key *key)
{
    return key->name[strlen(key->name) - 1] == '.';
}

const struct config_key *table_key(const struct config_table *table, const char *name)
{
    for (size_t i = 0; i < table->key_count; i++) {
        const struct config_key *key = &table->keys[i];
        size_t len = strlen(key->name);
        if (strcmp(key->name, name) == 0 && !key_is_family(key)) {
            return key;
        }
        if (key_is_family(key) && strncmp(key->name, name, len) == 0 && name[len] != '\0') {
            return key;
        }
    }
    return NULL;
}
