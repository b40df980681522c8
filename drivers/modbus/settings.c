#include "drivers/modbus/settings.h"

#include "drivers/modbus/layout.h"
#include "drivers/modbus/rtu.h"
#include "drivers/modbus/session.h"

#include <errno.h>
#include <string.h>

#define KEY(member) .offset = offsetof(struct modbus_settings, member)

static const char *const orders[] = {"ABCD", "CDAB", "BADC", "DCBA", NULL};

/* What every kind of line takes. */
#define MAP_KEYS                                                                                   \
    {.name = "address_base",                                                                       \
     .type = CONFIG_INT,                                                                           \
     KEY(address_base),                                                                            \
     .fallback = "0",                                                                              \
     .min = 0,                                                                                     \
     .max = 1,                                                                                     \
     .help = "how the register map counts: 0 as on the wire, 1 as in many manuals"},               \
        {.name = "byte_order",                                                                     \
         .type = CONFIG_CHOICE,                                                                    \
         KEY(byte_order),                                                                          \
         .fallback = "ABCD",                                                                       \
         .choices = orders,                                                                        \
         .help =                                                                                   \
             "order of the bytes of a 32-bit value, for points without an order of their own"},    \
        {.name = "max_gap",                                                                        \
         .type = CONFIG_INT,                                                                       \
         KEY(max_gap),                                                                             \
         .fallback = "16",                                                                         \
         .min = 0,                                                                                 \
         .max = 124,                                                                               \
         .help = "registers read and thrown away to save a request"},                              \
        {.name = "largest_request",                                                                \
         .type = CONFIG_INT,                                                                       \
         KEY(largest_request),                                                                     \
         .fallback = "125",                                                                        \
         .min = 1,                                                                                 \
         .max = MBAP_READ_REGISTERS_MAX,                                                           \
         .help = "registers that the device gives at once; sixteen times as many coils"},          \
        {.name = "request_pause",                                                                  \
         .type = CONFIG_DURATION,                                                                  \
         KEY(request_pause_ms),                                                                    \
         .fallback = "0 ms",                                                                       \
         .min = 0,                                                                                 \
         .max = 10000,                                                                             \
         .help = "how long it wants to be left alone between two requests"},                       \
        {.name = "write_multiple",                                                                 \
         .type = CONFIG_BOOL,                                                                      \
         KEY(write_multiple),                                                                      \
         .fallback = "no",                                                                         \
         .help = "write single values, too, with functions 15 and 16, for devices without 5, 6"},  \
    {                                                                                              \
        .name = "one_request_per_point", .type = CONFIG_BOOL, KEY(one_request_per_point),          \
        .fallback = "no", .help = "never read two points with one request"                         \
    }

static const struct config_key tcp_keys[] = {
    {.name = "address",
     .type = CONFIG_TEXT,
     KEY(address),
     .required = true,
     .example = "10.1.0.11:502",
     .help = "where the device listens, HOST or HOST:PORT; the port is 502 when not given"},
    {.name = "unit",
     .type = CONFIG_INT,
     KEY(unit),
     .fallback = "1",
     .min = 0,
     .max = 255,
     .help = "unit identifier; devices behind one gateway share its address and differ here"},
    MAP_KEYS,
    {.name = "connect_pause",
     .type = CONFIG_DURATION,
     KEY(connect_pause_ms),
     .fallback = "0 ms",
     .min = 0,
     .max = 60000,
     .help = "how long the device wants to be left alone after a connection is made"},
    {.name = "close_after_round",
     .type = CONFIG_BOOL,
     KEY(close_after_round),
     .fallback = "no",
     .help = "close the connection after each poll, for devices that serve one client at a time"},
};

static const struct config_key rtu_keys[] = {
    {.name = "bus",
     .type = CONFIG_TEXT,
     KEY(bus),
     .required = true,
     .example = "rs485-1",
     .help = "the [bus NAME] that the device stands on"},
    {.name = "unit",
     .type = CONFIG_INT,
     KEY(unit),
     .fallback = "1",
     .min = 1,
     .max = RTU_UNIT_MAX,
     .help = "address of the device on its line"},
    MAP_KEYS,
};

static const struct config_key rtu_tcp_keys[] = {
    {.name = "address",
     .type = CONFIG_TEXT,
     KEY(address),
     .required = true,
     .example = "10.1.0.60:4001",
     .help = "the serial server that the devices stand behind, HOST:PORT"},
    {.name = "unit",
     .type = CONFIG_INT,
     KEY(unit),
     .fallback = "1",
     .min = 1,
     .max = RTU_UNIT_MAX,
     .help = "address of the device on its line"},
    MAP_KEYS,
    {.name = "connect_pause",
     .type = CONFIG_DURATION,
     KEY(connect_pause_ms),
     .fallback = "0 ms",
     .min = 0,
     .max = 60000,
     .help = "how long the device wants to be left alone after a connection is made"},
    {.name = "close_after_round",
     .type = CONFIG_BOOL,
     KEY(close_after_round),
     .fallback = "no",
     .help = "close the connection after each poll, for devices that serve one client at a time"},
};

static void check_settings(const void *data, struct config_errors *errors)
{
    const struct modbus_settings *settings = data;
    char host[256];
    uint16_t port;
    if (settings->address != NULL && session_split_address(settings->address, host, &port) != 0) {
        config_complain(errors, "address", "'%.80s' is not HOST, HOST:PORT or [V6]:PORT",
                        settings->address);
    }
}

const struct config_table modbus_tcp_table = {
    .section = "device",
    .variant = "modbus-tcp",
    .size = sizeof(struct modbus_settings),
    .keys = tcp_keys,
    .key_count = ARRAY_SIZE(tcp_keys),
    .check = check_settings,
};

const struct config_table modbus_rtu_table = {
    .section = "device",
    .variant = "modbus-rtu",
    .size = sizeof(struct modbus_settings),
    .keys = rtu_keys,
    .key_count = ARRAY_SIZE(rtu_keys),
};

const struct config_table modbus_rtu_tcp_table = {
    .section = "device",
    .variant = "modbus-rtu-tcp",
    .size = sizeof(struct modbus_settings),
    .keys = rtu_tcp_keys,
    .key_count = ARRAY_SIZE(rtu_tcp_keys),
    .check = check_settings,
};

enum { SOURCE_MAX = 80, WORDS_MAX = 4 };

/* Cuts source into words; returns how many, or WORDS_MAX when it has too many. */
static size_t split_words(const char *source, char copy[SOURCE_MAX], char *words[WORDS_MAX])
{
    size_t count = 0;
    snprintf(copy, SOURCE_MAX, "%s", source);
    char *rest = copy;
    for (char *word; count < WORDS_MAX && (word = strsep(&rest, " \t")) != NULL;) {
        if (*word != '\0') {
            words[count++] = word;
        }
    }
    return count;
}

/* "12" or "0x0C", as the map counts, to the address on the wire. */
static int parse_address(const char *word, int64_t base, uint16_t *ret_first)
{
    char *end = NULL;
    if (word[0] < '0' || word[0] > '9') {
        return -EINVAL;
    }
    bool hex = word[0] == '0' && (word[1] == 'x' || word[1] == 'X');
    errno = 0;
    long number = strtol(word, &end, hex ? 16 : 10);
    if (errno != 0 || *end != '\0' || number < base || number - base > UINT16_MAX) {
        return -EINVAL;
    }
    *ret_first = (uint16_t)(number - base);
    return 0;
}

static int parse_order(const struct config_point *point, const struct modbus_settings *settings,
                       struct registers_point *ret_point, char *ret_why, size_t why_size)
{
    ret_point->order = (uint8_t)settings->byte_order;
    if (point->order != NULL && registers_parse_order(point->order, &ret_point->order) != 0) {
        snprintf(ret_why, why_size, "order '%.20s' is none of ABCD CDAB BADC DCBA", point->order);
        return -EINVAL;
    }
    return 0;
}

static int parse_type(const struct registers_point *given, char *const *words, size_t count,
                      struct registers_point *ret_point, char *ret_why, size_t why_size)
{
    if (registers_table_has_bits(given->table)) {
        ret_point->type = REGISTERS_BIT;
        ret_point->width = 1;
        if (count != 2) {
            snprintf(ret_why, why_size, "a %s is one bit and takes no type",
                     registers_table_name(given->table));
            return -EINVAL;
        }
        return 0;
    }
    if (count != 3) {
        snprintf(ret_why, why_size, "expected '%s ADDRESS TYPE'",
                 registers_table_name(given->table));
        return -EINVAL;
    }
    if (registers_parse_type(words[2], &ret_point->type, &ret_point->detail) != 0) {
        snprintf(ret_why, why_size,
                 "type '%.20s' is none of int16 uint16 int32 uint32 int64 uint64 float32 float64 "
                 "bcd16 bcd32 string:1..%d bit:0..15",
                 words[2], REGISTERS_TEXT_MAX);
        return -EINVAL;
    }
    ret_point->width = registers_width(ret_point->type, ret_point->detail);
    return 0;
}

static int parse_model_point(const struct config_point *point, char *const *words, size_t count,
                             struct registers_point *parsed, char *ret_why, size_t why_size)
{
    if (count != 3 || point->order != NULL || point->writable) {
        snprintf(ret_why, why_size,
                 "expected 'sunspec MODEL POINT', without an order, and not writable");
        return -EINVAL;
    }
    return sunspec_parse_point(words[1], words[2], parsed, ret_why, why_size);
}

int modbus_parse_point(const struct config_point *point, const void *data, void *ret_address,
                       char *ret_why, size_t why_size)
{
    const struct modbus_settings *settings = data;
    struct registers_point parsed = {.has_invalid = point->has_invalid, .invalid = point->invalid};
    char copy[SOURCE_MAX], *words[WORDS_MAX];
    size_t count = split_words(point->source, copy, words);
    if (count > 0 && strcmp(words[0], "sunspec") == 0) {
        int r = parse_model_point(point, words, count, &parsed, ret_why, why_size);
        memcpy(ret_address, &parsed, sizeof(parsed));
        return r;
    }
    if (count < 2 || registers_parse_table(words[0], &parsed.table) != 0) {
        snprintf(ret_why, why_size,
                 "expected 'holding|input ADDRESS TYPE', 'coil|discrete ADDRESS' or "
                 "'sunspec MODEL POINT'");
        return -EINVAL;
    }
    if (parse_address(words[1], settings->address_base, &parsed.first) != 0) {
        snprintf(ret_why, why_size, "address '%.20s' is not a number from %lld to %lld", words[1],
                 (long long)settings->address_base, (long long)settings->address_base + UINT16_MAX);
        return -EINVAL;
    }
    if (parse_order(point, settings, &parsed, ret_why, why_size) != 0 ||
        parse_type(&parsed, words, count, &parsed, ret_why, why_size) != 0) {
        return -EINVAL;
    }
    if (parsed.first + parsed.width > UINT16_MAX + 1) {
        snprintf(ret_why, why_size, "its %u registers reach beyond the last address", parsed.width);
        return -EINVAL;
    }
    memcpy(ret_address, &parsed, sizeof(parsed));
    return 0;
}

void modbus_check_device(const struct config_device *device, struct config_errors *errors)
{
    const struct modbus_settings *settings = device->settings;
    if (device->points.count == 0) {
        config_complain(errors, "driver", "the device has no points: nothing would be read");
    }
    if (device->points.count > SCAN_READINGS_MAX) {
        config_complain(errors, "driver", "the device has %zu points, more than %d",
                        device->points.count, SCAN_READINGS_MAX);
    }
    for (size_t i = 0; i < device->points.count; i++) {
        const struct registers_point *point = modbus_point(device, i);
        char key[160];
        snprintf(key, sizeof(key), "point.%.140s", device->points.list[i].name);
        if (point->width > settings->largest_request && !registers_table_has_bits(point->table)) {
            config_complain(errors, key, "takes %u registers, largest_request is %lld",
                            point->width, (long long)settings->largest_request);
        }
        if (device->points.list[i].writable &&
            (point->table == REGISTERS_INPUT || point->table == REGISTERS_DISCRETE)) {
            config_complain(errors, key, "a point of table %s cannot be written",
                            registers_table_name(point->table));
        }
    }
}

int modbus_plan_device(const struct config_device *device, struct plan *ret_plan)
{
    struct layout layout;
    int r = layout_init(&layout, device);
    if (r == 0) {
        layout_place_nominally(&layout);
        r = layout_plan(&layout, ret_plan);
    }
    layout_finish(&layout);
    return r;
}

static bool has_models(const struct config_device *device)
{
    for (size_t i = 0; i < device->points.count; i++) {
        if (modbus_point(device, i)->model != 0) {
            return true;
        }
    }
    return false;
}

int modbus_describe_plan(const struct config_device *device, struct buffer *ret_text)
{
    const struct modbus_settings *settings = device->settings;
    struct plan plan;
    int r = modbus_plan_device(device, &plan);
    if (r != 0) {
        return r;
    }
    if (has_models(device)) {
        buffer_printf(ret_text,
                      "SunSpec models are looked for at 40000, 50000 and 0; if they stand one "
                      "behind the other from %d:\n",
                      SUNSPEC_FIRST);
    }
    for (size_t i = 0; i < plan.request_count; i++) {
        const struct plan_request *request = &plan.requests[i];
        buffer_printf(ret_text, "unit %lld %s %u", (long long)settings->unit,
                      registers_table_name(request->table), request->first);
        if (request->count > 1) {
            buffer_printf(ret_text, "..%u", request->first + request->count - 1U);
        }
        buffer_printf(ret_text, ": %u %s%s for %u point%s, each %.3g s\n", request->count,
                      registers_table_has_bits(request->table) ? "bit" : "register",
                      request->count > 1 ? "s" : "", request->parts, request->parts > 1 ? "s" : "",
                      (double)device->poll_ms * request->every / 1000);
    }
    plan_finish(&plan);
    return buffer_failed(ret_text) ? -ENOMEM : 0;
}
