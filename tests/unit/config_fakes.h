/* config_fakes.h - drivers and an uplink type that need no network, for tests of config/.
 *
 * The definitions here stand in for drivers/registry.c and uplink/registry.c: a program that
 * includes this header once never takes those out of the library. The fakes have a key of every
 * type and the names of the real ones, so that the broken configurations serve both. */
#pragma once

#include "drivers/driver.h"
#include "uplink/uplink.h"

#include <errno.h>
#include <string.h>

struct fake_device {
    const char *address, *url, *file, *private_file, *path, *note, *bus;
    int64_t unit, limit, rate, pause_ms;
    double ratio;
    int address_base, byte_order;
    bool close;
    struct config_list words;
    struct config_secret secret;
};

static const char *const fake_bases[] = {"0", "1", NULL};
static const char *const fake_orders[] = {"ABCD", "CDAB", "BADC", "DCBA", NULL};

#define FAKE(key_name, key_type, member, ...)                                                      \
    {                                                                                              \
        .name = key_name, .type = key_type, .offset = offsetof(struct fake_device, member),        \
        .help = "a fake", __VA_ARGS__                                                              \
    }

#define FAKE_COMMON                                                                                \
    FAKE("unit", CONFIG_INT, unit, .fallback = "1", .max = 255),                                   \
        FAKE("address_base", CONFIG_CHOICE, address_base, .fallback = "0", .choices = fake_bases), \
        FAKE("byte_order", CONFIG_CHOICE, byte_order, .fallback = "ABCD", .choices = fake_orders)

static const struct config_key fake_tcp_keys[] = {
    FAKE("address", CONFIG_ENDPOINT, address, .required = true),
    FAKE_COMMON,
    FAKE("url", CONFIG_URL, url, .word = "none"),
    FAKE("file", CONFIG_FILE, file, .word = "none"),
    FAKE("private", CONFIG_PRIVATE_FILE, private_file),
    FAKE("path", CONFIG_PATH, path),
    FAKE("note", CONFIG_TEXT, note),
    FAKE("limit", CONFIG_SIZE, limit, .fallback = "auto", .word = "auto"),
    FAKE("rate", CONFIG_RATE, rate, .min = 60),
    FAKE("pause", CONFIG_DURATION, pause_ms),
    FAKE("ratio", CONFIG_REAL, ratio, .fallback = "0.5", .max = 1),
    FAKE("close", CONFIG_BOOL, close),
    FAKE("words", CONFIG_LIST, words),
    FAKE("secret", CONFIG_SECRET_FILE, secret),
};

static void fake_check(const void *settings, struct config_errors *errors)
{
    const struct fake_device *device = settings;
    if (device->secret.path != NULL && !device->close) {
        config_complain(errors, "close", "must be yes with a secret");
    }
    if (device->unit == 42) {
        config_warn(errors, "unit", "is a strange unit");
    }
}

static const struct config_table fake_tcp_table = {
    .section = "device",
    .variant = "modbus-tcp",
    .size = sizeof(struct fake_device),
    .keys = fake_tcp_keys,
    .key_count = ARRAY_SIZE(fake_tcp_keys),
    .check = fake_check,
};

static const struct config_key fake_rtu_keys[] = {
    FAKE("bus", CONFIG_TEXT, bus, .required = true),
    FAKE_COMMON,
};

static const struct config_table fake_rtu_table = {
    .section = "device",
    .variant = "modbus-rtu",
    .size = sizeof(struct fake_device),
    .keys = fake_rtu_keys,
    .key_count = ARRAY_SIZE(fake_rtu_keys),
};

static const struct config_key fake_bus_keys[] = {
    FAKE("port", CONFIG_PATH, path, .required = true),
    FAKE("baud", CONFIG_INT, limit, .fallback = "9600", .min = 300, .max = 230400),
};

static const struct config_table fake_bus_table = {
    .section = "bus",
    .size = sizeof(struct fake_device),
    .keys = fake_bus_keys,
    .key_count = ARRAY_SIZE(fake_bus_keys),
};

struct fake_address {
    int base;
    unsigned address;
};

/* "holding N ...": the number as this device counts. */
static int fake_parse_point(const struct config_point *point, const void *settings,
                            void *ret_address, char *ret_why, size_t why_size)
{
    const struct fake_device *device = settings;
    struct fake_address *address = ret_address;
    address->base = device->address_base;
    if (sscanf(point->source, "holding %u", &address->address) != 1 &&
        sscanf(point->source, "discrete %u", &address->address) != 1) {
        snprintf(ret_why, why_size, "'%s' is no register", point->source);
        return -EINVAL;
    }
    return 0;
}

static void fake_check_device(const struct config_device *device, struct config_errors *errors)
{
    for (size_t i = 0; i < device->points.count; i++) {
        const struct fake_address *address = device->points.list[i].address;
        if (address->address == 4711) {
            config_complain(errors, "point.x", "there is no 4711");
        }
    }
}

static const struct driver fake_tcp = {
    .name = "modbus-tcp",
    .table = &fake_tcp_table,
    .address_size = sizeof(struct fake_address),
    .parse_point = fake_parse_point,
    .check_device = fake_check_device,
};

static const struct driver fake_rtu = {
    .name = "modbus-rtu",
    .table = &fake_rtu_table,
    .section = &fake_bus_table,
    .address_size = sizeof(struct fake_address),
    .parse_point = fake_parse_point,
};

const struct driver *const drivers[] = {&fake_tcp, &fake_rtu};
const size_t drivers_count = ARRAY_SIZE(drivers);

const struct driver *driver_find(const char *name)
{
    for (size_t i = 0; i < drivers_count; i++) {
        if (strcmp(drivers[i]->name, name) == 0) {
            return drivers[i];
        }
    }
    return NULL;
}

static const struct config_key fake_uplink_keys[] = {
    FAKE("url", CONFIG_URL, url, .required = true),
    FAKE("token_file", CONFIG_SECRET_FILE, secret),
};

static const struct config_table fake_uplink_table = {
    .section = "uplink",
    .variant = "http",
    .size = sizeof(struct fake_device),
    .keys = fake_uplink_keys,
    .key_count = ARRAY_SIZE(fake_uplink_keys),
};

static const struct uplink fake_http = {.name = "http", .table = &fake_uplink_table};
const struct uplink *const uplinks[] = {&fake_http};
const size_t uplinks_count = ARRAY_SIZE(uplinks);

const struct uplink *uplink_find(const char *type)
{
    return strcmp(type, "http") == 0 ? &fake_http : NULL;
}
