#include "gateway/api/api.h"

#include <string.h>

static const struct config_key keys[] = {
    {
        .name = "listen",
        .type = CONFIG_ENDPOINT,
        .offset = offsetof(struct api_settings, listen),
        .fallback = "127.0.0.1:8080",
        .word = "off",
        .help = "or off; beyond loopback cert_file, key_file and tokens_file are required",
    },
    {
        .name = "cert_file",
        .type = CONFIG_FILE,
        .offset = offsetof(struct api_settings, cert_file),
        .example = "/etc/windrow/api.pem",
        .help = "certificate chain (PEM): serve over TLS",
    },
    {
        .name = "key_file",
        .type = CONFIG_PRIVATE_FILE,
        .offset = offsetof(struct api_settings, key_file),
        .example = "/etc/windrow/api.key",
        .help = "private key (PEM) of cert_file",
    },
    {
        .name = "tokens_file",
        .type = CONFIG_SECRET_FILE,
        .offset = offsetof(struct api_settings, tokens),
        .example = "/etc/windrow/tokens",
        .help = "lines: NAME read|write TOKEN",
    },
    {
        .name = "allow_writes",
        .type = CONFIG_BOOL,
        .offset = offsetof(struct api_settings, allow_writes),
        .fallback = "no",
        .help = "who has a write token may write points over `listen`, not only over the socket",
    },
};

static bool is_loopback(const char *endpoint)
{
    return strncmp(endpoint, "127.", 4) == 0 || strncmp(endpoint, "[::1]", 5) == 0 ||
           strncmp(endpoint, "localhost:", 10) == 0;
}

static void check(const void *settings, struct config_errors *errors)
{
    const struct api_settings *api = settings;
    if (api->cert_file != NULL && api->key_file == NULL) {
        config_complain(errors, "cert_file", "needs key_file beside it");
    }
    if (api->key_file != NULL && api->cert_file == NULL) {
        config_complain(errors, "key_file", "needs cert_file beside it");
    }
    if (api->allow_writes && api->tokens.path == NULL) {
        config_complain(errors, "allow_writes", "needs tokens_file with a write token");
    }
    if (api->listen == NULL || is_loopback(api->listen)) {
        return;
    }
    if (api->cert_file == NULL && api->key_file == NULL) {
        config_complain(errors, "listen", "beyond loopback cert_file and key_file are required");
    }
    if (api->tokens.path == NULL) {
        config_complain(errors, "listen", "beyond loopback tokens_file is required");
    }
}

const struct config_table api_config_table = {
    .section = "api",
    .size = sizeof(struct api_settings),
    .keys = keys,
    .key_count = ARRAY_SIZE(keys),
    .check = check,
};
