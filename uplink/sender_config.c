#include "uplink/uplink.h"

#include <string.h>

static const char *const replay_words[] = {"live-and-backfill", "oldest-first", NULL};

static const struct config_key keys[] = {
    {
        .name = "send",
        .type = CONFIG_LIST,
        .offset = offsetof(struct uplink_settings, send),
        .fallback = "raw",
        .help = "any of: raw aggregates events",
    },
    {
        .name = "points",
        .type = CONFIG_LIST,
        .offset = offsetof(struct uplink_settings, points),
        .example = "*.wind_speed *.power",
        .help = "which points, patterns over DEVICE.POINT; default: all",
    },
    {
        .name = "batch_records",
        .type = CONFIG_INT,
        .offset = offsetof(struct uplink_settings, batch_records),
        .fallback = "500",
        .min = 1,
        .max = UPLINK_BATCH_RECORDS_MAX,
        .help = "most records in one request",
    },
    {
        .name = "batch_interval",
        .type = CONFIG_DURATION,
        .offset = offsetof(struct uplink_settings, batch_interval_ms),
        .fallback = "30 s",
        .min = 10,
        .max = 86400000,
        .help = "longest time a record waits for its batch to fill",
    },
    {
        .name = "parallel",
        .type = CONFIG_INT,
        .offset = offsetof(struct uplink_settings, parallel),
        .fallback = "4",
        .min = 1,
        .max = UPLINK_PARALLEL_MAX,
        .help = "requests in flight, never two of one device and lane",
    },
    {
        .name = "max_age",
        .type = CONFIG_DURATION,
        .offset = offsetof(struct uplink_settings, max_age_ms),
        .min = 60000,
        .max = 3650.0 * 86400000,
        .example = "30 d",
        .help = "older readings are not sent any more; default: no limit",
    },
    {
        .name = "replay",
        .type = CONFIG_CHOICE,
        .offset = offsetof(struct uplink_settings, replay),
        .fallback = "live-and-backfill",
        .choices = replay_words,
        .help = "order after an outage",
    },
    {
        .name = "backfill_rate",
        .type = CONFIG_RATE,
        .offset = offsetof(struct uplink_settings, backfill_rate),
        .min = 1024,
        .max = 1e12,
        .example = "20 MiB/min",
        .help = "limit of the backfill lane; default: no limit",
    },
};

static void check(const void *settings, struct config_errors *errors)
{
    const struct uplink_settings *uplink = settings;
    for (size_t i = 0; i < uplink->send.count; i++) {
        const char *word = uplink->send.items[i];
        if (strcmp(word, "raw") != 0 && strcmp(word, "aggregates") != 0 &&
            strcmp(word, "events") != 0) {
            config_complain(errors, "send", "'%s' is none of: raw aggregates events", word);
        }
    }
}

const struct config_table uplink_config_table = {
    .section = "uplink",
    .size = sizeof(struct uplink_settings),
    .keys = keys,
    .key_count = ARRAY_SIZE(keys),
    .check = check,
};

unsigned uplink_streams(const struct uplink_settings *settings)
{
    static const char *const words[STREAM_COUNT] = {"raw", "aggregates", "events"};
    unsigned streams = 0;
    for (size_t i = 0; i < settings->send.count; i++) {
        for (unsigned s = 0; s < STREAM_COUNT; s++) {
            streams |= strcmp(settings->send.items[i], words[s]) == 0 ? 1u << s : 0;
        }
    }
    return streams != 0 ? streams : 1u << STREAM_RAW;
}
