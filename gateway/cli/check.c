#include "config/config.h"
#include "drivers/driver.h"
#include "gateway/cli/cli.h"
#include "gateway/store/store.h"

#include <jansson.h>
#include <string.h>
#include <sys/statvfs.h>

static void print_error(const struct config_error *error)
{
    auto_buffer struct buffer line = {0};
    config_error_write(error, &line);
    fwrite(line.data, 1, line.len, stdout);
    putchar('\n');
}

static json_t *error_json(const struct config_error *error)
{
    json_t *object = json_pack("{s:s, s:I, s:s, s:s, s:s}", "file", error->file, "line",
                               (json_int_t)error->line, "section", error->section, "key",
                               error->key, "why", error->why);
    if (object != NULL && error->nearest != NULL) {
        json_object_set_new(object, "nearest", json_string(error->nearest));
    }
    return object;
}

static json_t *errors_json(const struct config_errors *errors, bool warnings)
{
    json_t *list = json_array();
    const struct config_error *error;
    for (size_t i = 0; (error = config_errors_at(errors, i)) != NULL; i++) {
        if (error->warning == warnings) {
            json_array_append_new(list, error_json(error));
        }
    }
    return list;
}

/* What the configuration will bring in, and what the store makes of it. */
struct load {
    size_t points;
    double readings_s;
    double days; /* of buffer */
};

/* The large blocks of turbine channels take 0.5 to 0.7 bytes a reading, noisy ones up to 2. */
static const double BYTES_A_READING = 1;

/* The file system of a folder, or of the nearest one above it that is there already. */
static int find_disk(const char *folder, struct statvfs *ret_disk)
{
    char path[4096];
    snprintf(path, sizeof path, "%s", folder);
    int error = statvfs(path, ret_disk);
    while (error != 0 && strlen(path) > 1) {
        char *slash = strrchr(path, '/');
        if (slash == NULL) {
            return -1;
        }
        slash[slash == path ? 1 : 0] = '\0';
        error = statvfs(path, ret_disk);
    }
    return error;
}

static double store_bytes(const struct config *config)
{
    const struct store_settings *store = config->store;
    struct statvfs disk;
    if (store->max_size_bytes > 0) {
        return (double)store->max_size_bytes;
    }
    if (find_disk(config->gateway->data_dir, &disk) != 0) {
        return 0;
    }
    double half = (double)disk.f_blocks * (double)disk.f_frsize / 2;
    double most = sizeof(void *) == 4 ? 0x1p30 : 0x1p34;
    return half < most ? half : most;
}

static struct load load_of(const struct config *config)
{
    struct load load = {0};
    for (size_t i = 0; i < config->device_count; i++) {
        const struct config_device *device = &config->devices[i];
        for (size_t j = 0; j < device->points.count; j++) {
            load.readings_s += 1000.0 / (double)device->poll_ms / device->points.list[j].every;
        }
        load.points += device->points.count;
    }
    if (load.readings_s > 0) {
        load.days = store_bytes(config) / (load.readings_s * BYTES_A_READING) / 86400;
    }
    return load;
}

/* The driver's lines; "" where it has none to say. */
static const char *plan_of(const struct config_device *device, struct buffer *text)
{
    const struct driver *driver = driver_find(device->driver);
    if (driver == NULL || driver->describe_plan == NULL ||
        driver->describe_plan(device, text) != 0) {
        buffer_clear(text);
    }
    const char *plan = buffer_text(text);
    return plan == NULL ? "" : plan;
}

/* What the devices of each bus want of it, a line each. */
static const char *buses_of(const struct config *config, struct buffer *text)
{
    for (size_t i = 0; i < config->bus_count; i++) {
        for (size_t j = 0; j < drivers_count; j++) {
            const struct driver *driver = drivers[j];
            if (driver->describe_section != NULL && strcmp(driver->section->section, "bus") == 0) {
                buffer_printf(text, "bus %s: ", config->buses[i].name);
                driver->describe_section(config, config->buses[i].name, text, NULL);
            }
        }
    }
    const char *lines = buffer_text(text);
    return lines == NULL ? "" : lines;
}

static void print_plan(const struct config *config)
{
    for (size_t i = 0; i < config->device_count; i++) {
        const struct config_device *device = &config->devices[i];
        auto_buffer struct buffer text = {0};
        const char *plan = plan_of(device, &text);
        printf("%s (%s, every %.10g s)\n", device->name, device->driver,
               (double)device->poll_ms / 1000);
        for (const char *line = plan; *line != '\0';) {
            size_t len = strcspn(line, "\n");
            printf("  %.*s\n", (int)len, line);
            line += len + (line[len] == '\n');
        }
    }
    auto_buffer struct buffer buses = {0};
    fputs(buses_of(config, &buses), stdout);
    struct load load = load_of(config);
    printf("%.1f readings/s", load.readings_s);
    if (load.days > 0) {
        printf("; the store holds about %.0f days of them without an uplink", load.days);
    }
    putchar('\n');
}

static json_t *plan_json(const struct config *config)
{
    json_t *list = json_array();
    for (size_t i = 0; i < config->device_count; i++) {
        const struct config_device *device = &config->devices[i];
        auto_buffer struct buffer text = {0};
        json_t *lines = json_array();
        for (const char *line = plan_of(device, &text); *line != '\0';) {
            size_t len = strcspn(line, "\n");
            json_array_append_new(lines, json_stringn(line, len));
            line += len + (line[len] == '\n');
        }
        json_array_append_new(list, json_pack("{s:s, s:s, s:I, s:o}", "device", device->name,
                                              "driver", device->driver, "poll_ms",
                                              (json_int_t)device->poll_ms, "requests", lines));
    }
    return list;
}

static void print_json(const char *path, const struct config *config,
                       const struct config_errors *errors, bool plan)
{
    json_t *object = json_pack("{s:s, s:b, s:o, s:o}", "file", path, "good", config != NULL,
                               "errors", errors_json(errors, false), "warnings",
                               errors_json(errors, true));
    if (config != NULL) {
        struct load load = load_of(config);
        json_object_set_new(object, "devices", json_integer((json_int_t)config->device_count));
        json_object_set_new(object, "points", json_integer((json_int_t)load.points));
        json_object_set_new(object, "uplinks", json_integer((json_int_t)config->uplink_count));
        json_object_set_new(object, "readings_s", json_real(load.readings_s));
        json_object_set_new(object, "buffer_days", json_real(load.days));
    }
    if (config != NULL && plan) {
        auto_buffer struct buffer buses = {0};
        json_object_set_new(object, "plan", plan_json(config));
        json_object_set_new(object, "buses", json_string(buses_of(config, &buses)));
    }
    json_dumpf(object, stdout, JSON_INDENT(2));
    putchar('\n');
    json_decref(object);
}

static void print_text(const char *path, const struct config *config,
                       const struct config_errors *errors, bool plan)
{
    const struct config_error *error;
    for (size_t i = 0; (error = config_errors_at(errors, i)) != NULL; i++) {
        print_error(error);
    }
    if (config == NULL) {
        size_t count = config_errors_count(errors, false);
        fprintf(stderr, "%s: %zu error%s\n", path, count, count == 1 ? "" : "s");
        return;
    }
    if (plan) {
        print_plan(config);
    }
    struct load load = load_of(config);
    printf("%s: good: %zu devices, %zu points, %zu uplinks\n", path, config->device_count,
           load.points, config->uplink_count);
}

extern const struct command command_check;

static int run(int argc, char **argv)
{
    bool plan = false;
    const struct cli_option options[] = {{.name = "--plan", .flag = &plan}};
    struct cli cli;
    int r = cli_parse(&command_check, argc, argv, options, ARRAY_SIZE(options), 0, 1, &cli);
    if (r != CLI_GO) {
        return r;
    }
    const char *path = cli.count > 0 ? cli.words[0] : cli.config_path;
    struct config_errors *errors = config_errors_create();
    const struct config *config = NULL;
    if (errors == NULL) {
        return COMMAND_NOT_WELL;
    }
    int error = config_load(path, errors, &config);
    if (cli.json) {
        print_json(path, config, errors, plan);
    } else {
        print_text(path, config, errors, plan);
    }
    config_unref(config);
    config_errors_destroy(errors);
    return error == 0 ? COMMAND_GOOD : COMMAND_USAGE;
}

const struct command command_check = {
    .name = "check",
    .arguments = "[FILE]",
    .summary = "all errors of a configuration, with line, reason and remedy",
    .help = "  --plan          also the exact requests each device will get, and days of buffer\n",
    .run = run,
};
