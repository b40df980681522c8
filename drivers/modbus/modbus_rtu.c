#include "drivers/modbus/modbus_rtu.h"

#include "drivers/modbus/bus.h"
#include "drivers/modbus/load.h"
#include "drivers/modbus/poller.h"
#include "drivers/modbus/read_now.h"
#include "drivers/modbus/write_now.h"
#include "gateway/base/log.h"

#include <errno.h>
#include <string.h>

/* --- [bus NAME] --- */

#define KEY(member) .offset = offsetof(struct serial_settings, member)

static const char *const parities[] = {"none", "even", "odd", NULL};
static const char *const rs485_modes[] = {"off", "rts-on-send", "rts-after-send", NULL};

static const struct config_key bus_keys[] = {
    {.name = "port",
     .type = CONFIG_PATH,
     KEY(port),
     .required = true,
     .example = "/dev/serial/by-id/usb-FTDI-port0",
     .help = "the serial port, best by a name that stays the same when it is plugged in again"},
    {.name = "baud",
     .type = CONFIG_INT,
     KEY(baud),
     .fallback = "19200",
     .min = 300,
     .max = 1000000,
     .help = "bits a second"},
    {.name = "parity",
     .type = CONFIG_CHOICE,
     KEY(parity),
     .fallback = "even",
     .choices = parities,
     .help = "parity bit; without one, devices that follow the standard want two stop bits"},
    {.name = "stop_bits",
     .type = CONFIG_INT,
     KEY(stop_bits),
     .fallback = "1",
     .min = 1,
     .max = 2,
     .help = "stop bits"},
    {.name = "data_bits",
     .type = CONFIG_INT,
     KEY(data_bits),
     .fallback = "8",
     .min = 7,
     .max = 8,
     .help = "data bits; Modbus RTU needs 8"},
    {.name = "rs485",
     .type = CONFIG_CHOICE,
     KEY(rs485),
     .fallback = "off",
     .choices = rs485_modes,
     .help = "let the kernel switch the transmitter by RTS; most adapters do it themselves"},
    {.name = "rs485_delay_before",
     .type = CONFIG_DURATION,
     KEY(rts_before_ms),
     .fallback = "0 ms",
     .max = 100,
     .help = "from switching the transmitter on to the first bit"},
    {.name = "rs485_delay_after",
     .type = CONFIG_DURATION,
     KEY(rts_after_ms),
     .fallback = "0 ms",
     .max = 100,
     .help = "from the last bit to switching it off"},
    {.name = "frame_gap",
     .type = CONFIG_DURATION,
     KEY(frame_gap_ms),
     .fallback = "0 ms",
     .max = 1000,
     .help = "least silence before a request; 3.5 characters are kept anyway"},
    {.name = "broadcast_pause",
     .type = CONFIG_DURATION,
     KEY(broadcast_pause_ms),
     .fallback = "100 ms",
     .max = 10000,
     .help = "how long devices may take over a broadcast, which nobody answers"},
};

static bool has_prefix(const char *text, const char *prefix)
{
    return strncmp(text, prefix, strlen(prefix)) == 0;
}

static void check_bus(const void *data, struct config_errors *errors)
{
    const struct serial_settings *settings = data;
    if (!serial_knows_baud(settings->baud)) {
        config_complain(errors, "baud", "%lld is no standard rate", (long long)settings->baud);
    }
    if (settings->data_bits != 8) {
        config_warn(errors, "data_bits", "Modbus RTU needs 8 data bits");
    }
    if (has_prefix(settings->port, "/dev/ttyUSB") || has_prefix(settings->port, "/dev/ttyACM")) {
        config_warn(errors, "port",
                    "this name changes when adapters are plugged in in another order; take the one "
                    "in /dev/serial/by-id/");
    }
    bool delays = settings->rts_before_ms > 0 || settings->rts_after_ms > 0;
    if (delays && settings->rs485 == SERIAL_RS485_OFF) {
        config_warn(errors, "rs485", "is off, so the delays have no effect");
    }
}

static const struct config_table bus_table = {
    .section = "bus",
    .size = sizeof(struct serial_settings),
    .keys = bus_keys,
    .key_count = ARRAY_SIZE(bus_keys),
    .check = check_bus,
};

static const struct config_bus *find_bus(const struct config *config, const char *name)
{
    for (size_t i = 0; i < config->bus_count; i++) {
        if (strcmp(config->buses[i].name, name) == 0) {
            return &config->buses[i];
        }
    }
    return NULL;
}

const struct config_bus *modbus_rtu_bus(const struct config *config,
                                        const struct config_device *device)
{
    const struct modbus_settings *settings = device->settings;
    return find_bus(config, settings->bus);
}

/* What the devices of a bus want of its line. */
static struct load load_of(const struct config *config, const struct config_bus *bus)
{
    struct load load = {0};
    for (size_t i = 0; i < config->device_count; i++) {
        const struct config_device *device = &config->devices[i];
        if (strcmp(device->driver, modbus_rtu_driver.name) == 0 &&
            modbus_rtu_bus(config, device) == bus &&
            load_add(&load, serial_line(bus->settings), device) != 0) {
            break;
        }
    }
    return load;
}

static void describe_load(const struct load *load, char *text, size_t size)
{
    snprintf(text, size, "%.0f ms a round, %.0f %% of the line%s", load->round_ms,
             100 * load->utilisation,
             load->utilisation > 1           ? ": impossible, polls will be skipped"
             : load->utilisation > LOAD_HIGH ? ": hardly any room for slow devices"
                                             : "");
}

/* Another bus that has the same port, or NULL. */
static const char *same_port(const struct config *config, const struct config_bus *bus)
{
    const struct serial_settings *settings = bus->settings;
    for (size_t i = 0; i < config->bus_count; i++) {
        const struct serial_settings *other = config->buses[i].settings;
        if (&config->buses[i] != bus && strcmp(other->port, settings->port) == 0) {
            return config->buses[i].name;
        }
    }
    return NULL;
}

static void describe_section(const struct config *config, const char *name, struct buffer *ret_text,
                             struct config_errors *errors)
{
    const struct config_bus *bus = find_bus(config, name);
    if (bus == NULL) {
        return;
    }
    const struct serial_settings *settings = bus->settings;
    const struct load load = load_of(config, bus);
    char text[120];
    describe_load(&load, text, sizeof(text));
    if (ret_text != NULL) {
        buffer_printf(ret_text, "%s, %lld baud: %zu devices, %zu requests, %s\n", settings->port,
                      (long long)settings->baud, load.devices, load.requests, text);
    }
    const char *twin = same_port(config, bus);
    if (errors != NULL && twin != NULL) {
        config_warn(errors, "port", "is also the port of [bus %s]: only one can have it", twin);
    }
    if (errors != NULL && load.utilisation > LOAD_HIGH) {
        config_warn(errors, "baud", "%zu devices want %s", load.devices, text);
    }
}

/* --- the driver --- */

/* A bus that is in use. */
struct line {
    struct line *next;
    struct bus *bus;
    uint64_t fingerprint;
    char name[64];
};

struct modbus_rtu {
    struct event_base *base;
    struct schedule *schedule;
    struct line *lines;
};

static void rtu_destroy(void *state)
{
    struct modbus_rtu *driver = state;
    if (driver != NULL) {
        schedule_destroy(driver->schedule);
        free(driver);
    }
}

static int rtu_create(struct event_base *base, const struct config *config, void **ret_state)
{
    (void)config;
    struct modbus_rtu *driver = calloc(1, sizeof(*driver));
    if (driver == NULL) {
        return -ENOMEM;
    }
    driver->base = base;
    int r = schedule_create(base, &driver->schedule);
    if (r != 0) {
        rtu_destroy(driver);
        return r;
    }
    *ret_state = driver;
    return 0;
}

static void on_bus_gone(void *user, struct bus *bus)
{
    struct modbus_rtu *driver = user;
    struct line **at = &driver->lines;
    while ((*at)->bus != bus) {
        at = &(*at)->next;
    }
    struct line *line = *at;
    *at = line->next;
    free(line);
}

static void warn_of_load(const struct config *config, const struct config_bus *bus)
{
    const struct load load = load_of(config, bus);
    char text[120];
    describe_load(&load, text, sizeof(text));
    if (load.utilisation > 1) {
        log_warning("bus %s: %zu devices want %s", bus->name, load.devices, text);
    } else {
        log_info("bus %s: %zu devices, %s", bus->name, load.devices, text);
    }
}

static int open_line(struct modbus_rtu *driver, const struct config *config,
                     const struct config_bus *bus, struct line **ret_line)
{
    struct line *line = calloc(1, sizeof(*line));
    if (line == NULL) {
        return -ENOMEM;
    }
    int r = bus_create(driver->base, bus->name, bus->settings, &line->bus);
    if (r != 0) {
        free(line);
        return r;
    }
    bus_on_gone(line->bus, on_bus_gone, driver);
    snprintf(line->name, sizeof(line->name), "%s", bus->name);
    line->fingerprint = bus->fingerprint;
    line->next = driver->lines;
    driver->lines = line;
    warn_of_load(config, bus);
    *ret_line = line;
    return 0;
}

/* One use of the bus. After a reload has changed it, its old and new self may live side by side for
 * a moment: the new one gets the port when the old one has left it. */
static int get_wire(struct modbus_rtu *driver, const struct config *config,
                    const struct config_bus *bus, struct wire **ret_wire)
{
    struct line *line = driver->lines;
    while (line != NULL &&
           (line->fingerprint != bus->fingerprint || strcmp(line->name, bus->name) != 0)) {
        line = line->next;
    }
    if (line != NULL) {
        bus_wire(line->bus)->users++;
    } else {
        int r = open_line(driver, config, bus, &line);
        if (r != 0) {
            return r;
        }
    }
    *ret_wire = bus_wire(line->bus);
    return 0;
}

static int rtu_add(void *state, struct device *device)
{
    struct modbus_rtu *driver = state;
    const struct modbus_settings *settings = device->config->settings;
    const struct config_bus *bus = modbus_rtu_bus(device->owner, device->config);
    struct wire *wire;
    struct poller *poller;
    if (bus == NULL) {
        return -ENOENT;
    }
    int r = get_wire(driver, device->owner, bus, &wire);
    if (r == 0) {
        bus_ask_pause((struct bus *)wire, settings->request_pause_ms);
        r = poller_create(driver->schedule, wire, device, &poller);
    }
    if (r == 0) {
        device->driver_data = poller;
    }
    return r;
}

static void rtu_remove(void *state, struct device *device)
{
    (void)state;
    poller_destroy(device->driver_data);
    device->driver_data = NULL;
}

static int rtu_write(void *state, struct device *device, struct driver_request *request)
{
    (void)state;
    return write_now_begin(device->driver_data, request);
}

static int rtu_read_now(void *state, struct device *device, struct driver_request *request)
{
    (void)state;
    return read_now_begin(device->driver_data, request);
}

const struct driver modbus_rtu_driver = {
    .name = "modbus-rtu",
    .table = &modbus_rtu_table,
    .section = &bus_table,
    .address_size = sizeof(struct registers_point),
    .parse_point = modbus_parse_point,
    .check_device = modbus_check_device,
    .describe_section = describe_section,
    .create = rtu_create,
    .destroy = rtu_destroy,
    .add = rtu_add,
    .remove = rtu_remove,
    .read_now = rtu_read_now,
    .write = rtu_write,
    .describe_plan = modbus_describe_plan,
};
