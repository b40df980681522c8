#include "config/config.h"
#include "config/tables.h"

#include <string.h>

#define DAY_MS (86400.0 * 1000)

static const char *const log_levels[] = {"error", "warning", "info", "debug", NULL};

/* enum config_clock */
static const char *const clocks[] = {"kernel", "trusted", NULL};

static const struct config_key gateway_keys[] = {
    {
        .name = "name",
        .type = CONFIG_TEXT,
        .offset = offsetof(struct core_gateway, name),
        .example = "borssele-1",
        .help = "how the clouds know this gateway; default: the host name",
    },
    {
        .name = "data_dir",
        .type = CONFIG_PATH,
        .offset = offsetof(struct core_gateway, data_dir),
        .fallback = "/var/lib/windrow",
        .help = "the store lies here",
    },
    {
        .name = "run_dir",
        .type = CONFIG_PATH,
        .offset = offsetof(struct core_gateway, run_dir),
        .fallback = "/run/windrow",
        .help = "control socket: windrow.sock",
    },
    {
        .name = "log_level",
        .type = CONFIG_CHOICE,
        .offset = offsetof(struct core_gateway, log_level),
        .fallback = "info",
        .choices = log_levels,
        .help = "lines above this level are not logged",
    },
    {
        .name = "clock_wait",
        .type = CONFIG_DURATION,
        .offset = offsetof(struct core_gateway, clock_wait_ms),
        .fallback = "5 min",
        .min = 0,
        .max = 7 * DAY_MS,
        .help = "how long readings wait for a synchronised clock before they go out as uncertain",
    },
    {
        .name = "allow_writes",
        .type = CONFIG_BOOL,
        .offset = offsetof(struct core_gateway, allow_writes),
        .fallback = "no",
        .help = "points that say `writable MIN MAX` may be written by `windrow write`",
    },
    {
        .name = "write_interval",
        .type = CONFIG_DURATION,
        .offset = offsetof(struct core_gateway, write_interval_ms),
        .fallback = "10 s",
        .min = 0,
        .max = DAY_MS,
        .help = "least time between two writes of one point; earlier ones are refused",
    },
    {
        .name = "clock",
        .type = CONFIG_CHOICE,
        .offset = offsetof(struct core_gateway, clock),
        .fallback = "kernel",
        .choices = clocks,
        .help = "who says that the clock is right: the kernel (NTP or the like set it), or it is "
                "trusted as it is (containers and virtual machines whose host keeps the time)",
    },
};

static bool is_name(const char *text)
{
    for (size_t i = 0; text[i] != '\0'; i++) {
        if ((unsigned char)text[i] <= ' ' || strchr("\"\\/", text[i]) != NULL) {
            return false;
        }
    }
    return strlen(text) <= 63;
}

static void check_gateway(const void *settings, struct config_errors *errors)
{
    const struct core_gateway *gateway = settings;
    if (gateway->name != NULL && !is_name(gateway->name)) {
        config_complain(errors, "name", "'%.80s': at most 63 characters, no blanks, quotes or '/'",
                        gateway->name);
    }
    /* sockaddr_un has room for 108 bytes, "windrow.sock" and a NUL among them. */
    if (strlen(gateway->run_dir) > 90) {
        config_complain(errors, "run_dir", "is too long for a socket's name (90 characters)");
    }
}

const struct config_table core_gateway_table = {
    .section = "gateway",
    .size = sizeof(struct core_gateway),
    .keys = gateway_keys,
    .key_count = ARRAY_SIZE(gateway_keys),
    .check = check_gateway,
};

static const struct config_key device_keys[] = {
    {
        .name = "driver",
        .type = CONFIG_TEXT,
        .offset = offsetof(struct core_device, driver),
        .required = true,
        .example = "modbus-tcp",
        .help = "how the device is spoken to",
    },
    {
        .name = "profile",
        .type = CONFIG_TEXT,
        .offset = offsetof(struct core_device, profile),
        .example = "demo-turbine",
        .help = "a [profile NAME], or a shipped one",
    },
    {
        .name = "poll",
        .type = CONFIG_DURATION,
        .offset = offsetof(struct core_device, poll_ms),
        .fallback = "1 s",
        .min = 10,
        .max = DAY_MS,
        .help = "time from one scan to the next",
    },
    {
        .name = "timeout",
        .type = CONFIG_DURATION,
        .offset = offsetof(struct core_device, timeout_ms),
        .fallback = "1 s",
        .min = 1,
        .max = 600e3,
        .help = "longest wait for an answer",
    },
    {
        .name = "tag.",
        .type = CONFIG_TEXT,
        .example = "tag.type = V90",
        .help = "goes with every record of the device",
    },
    {
        .name = "point.",
        .type = CONFIG_TEXT,
        .example = "point.power = holding 1 int32, scale 0.1, unit kW, min -100, max 4000",
        .help = "a quantity: where it stands, then attributes (scale offset unit invalid min max "
                "circular on-change deadband order every writable)",
    },
};

const struct config_table core_device_table = {
    .section = "device",
    .size = sizeof(struct core_device),
    .keys = device_keys,
    .key_count = ARRAY_SIZE(device_keys),
};

static const struct {
    const char *word;
    unsigned bit;
} functions[] = {
    {"mean", FUNCTION_MEAN}, {"min", FUNCTION_MIN},     {"max", FUNCTION_MAX},
    {"std", FUNCTION_STD},   {"count", FUNCTION_COUNT}, {"first", FUNCTION_FIRST},
    {"last", FUNCTION_LAST}, {"sum", FUNCTION_SUM},     {"median", FUNCTION_MEDIAN},
    {"p95", FUNCTION_P95},   {"ti", FUNCTION_TI},
};

unsigned core_function_bit(const char *word)
{
    for (size_t i = 0; i < ARRAY_SIZE(functions); i++) {
        if (strcmp(functions[i].word, word) == 0) {
            return functions[i].bit;
        }
    }
    return 0;
}

const char *core_function_word(size_t i)
{
    return i < ARRAY_SIZE(functions) ? functions[i].word : NULL;
}

static const struct config_key aggregate_keys[] = {
    {
        .name = "window",
        .type = CONFIG_DURATION,
        .offset = offsetof(struct core_aggregate, window_ms),
        .fallback = "10 min",
        .min = 1000,
        .max = DAY_MS,
        .help = "length of a window; a day is a whole number of them",
    },
    {
        .name = "points",
        .type = CONFIG_LIST,
        .offset = offsetof(struct core_aggregate, points),
        .fallback = "*",
        .help = "which points, patterns over POINT or DEVICE.POINT",
    },
    {
        .name = "functions",
        .type = CONFIG_LIST,
        .offset = offsetof(struct core_aggregate, functions),
        .fallback = "mean min max std count",
        .help = "any of: mean min max std count first last sum median p95 ti",
    },
};

static void check_aggregate(const void *settings, struct config_errors *errors)
{
    const struct core_aggregate *aggregate = settings;
    if ((int64_t)DAY_MS % aggregate->window_ms != 0) {
        config_complain(errors, "window", "a day is not a whole number of such windows");
    }
}

const struct config_table core_aggregate_table = {
    .section = "aggregate",
    .size = sizeof(struct core_aggregate),
    .keys = aggregate_keys,
    .key_count = ARRAY_SIZE(aggregate_keys),
    .check = check_aggregate,
};

static const struct config_key uplink_keys[] = {
    {
        .name = "type",
        .type = CONFIG_TEXT,
        .offset = offsetof(struct core_uplink, type),
        .required = true,
        .example = "http",
        .help = "what stands at the other end",
    },
};

const struct config_table core_uplink_table = {
    .section = "uplink",
    .size = sizeof(struct core_uplink),
    .keys = uplink_keys,
    .key_count = ARRAY_SIZE(uplink_keys),
};
