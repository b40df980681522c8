#include "gateway/store/store.h"

static const char *const when_full_words[] = {"thin", "drop-oldest", "pause", NULL};

static const struct config_key keys[] = {
    {
        .name = "commit_interval",
        .type = CONFIG_DURATION,
        .offset = offsetof(struct store_settings, commit_interval_ms),
        .fallback = "1 s",
        .min = 10,
        .max = 60000,
        .word = "auto",
        .help = "time between durable writes; auto: 1 s, up to 10 s where little arrives",
    },
    {
        .name = "max_size",
        .type = CONFIG_SIZE,
        .offset = offsetof(struct store_settings, max_size_bytes),
        .fallback = "auto",
        .min = 1 << 20,
        .max = 1ll << 42,
        .word = "auto",
        .example = "4 GiB",
        .help = "auto: half the file system, at most 16 GiB (1 GiB on 32 bit)",
    },
    {
        .name = "keep",
        .type = CONFIG_DURATION,
        .offset = offsetof(struct store_settings, keep_ms),
        .fallback = "7 d",
        .min = 0,
        .max = 3650.0 * 86400000,
        .help = "local history after delivery",
    },
    {
        .name = "when_full",
        .type = CONFIG_CHOICE,
        .offset = offsetof(struct store_settings, when_full),
        .fallback = "thin",
        .choices = when_full_words,
        .help = "what goes when max_size is reached and nothing delivered is left",
    },
};

const struct config_table store_config_table = {
    .section = "store",
    .size = sizeof(struct store_settings),
    .keys = keys,
    .key_count = ARRAY_SIZE(keys),
};
