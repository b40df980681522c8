/* settings.h - what windrow.ini says about a CoAP device, its points, and the section [coap].
 *
 * Pure, any thread. */
#pragma once

#include "config/config.h"
#include "config/schema.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum coap_mode { COAP_MODE_GET, COAP_MODE_OBSERVE, COAP_MODE_LISTEN };

struct coap_settings {
    const char *address; /* coap://HOST[:PORT][/PATH][?QUERY] or coaps://; NULL: listen */
    int mode;            /* enum coap_mode */
    const char *psk_identity;
    struct config_secret psk; /* of psk_file */
    const char *ca_file, *cert_file, *key_file;
    int64_t grace_ms;     /* beyond Max-Age, before an observation is made anew */
    int64_t keepalive_ms; /* of silence, before an observed device is pinged; 0: never */
};

struct coap_section {
    const char *listen;        /* HOST:PORT, NULL: nothing listens */
    struct config_secret psks; /* of psks_file: lines IDENTITY DEVICE KEY */
};

/* A point's words behind its first one, as a place in config_point.source. */
struct coap_point {
    uint8_t by_path; /* else by SenML name */
    uint16_t offset;
};

enum { COAP_IDENTITY_MAX = 64, COAP_KEY_MAX = 64, COAP_PATH_MAX = 255 };

/* One line of psks_file. Key is text, or bytes in hex behind 0x. */
struct coap_psk {
    char identity[COAP_IDENTITY_MAX + 1];
    char device[COAP_IDENTITY_MAX + 1];
    uint8_t key[COAP_KEY_MAX];
    size_t key_len;
};

extern const struct config_table coap_device_table;
extern const struct config_table coap_section_table;

must_check int coap_parse_point(const struct config_point *point, const void *settings,
                                void *ret_address, char *ret_why, size_t why_size);
void coap_check_device(const struct config_device *device, struct config_errors *errors);
must_check int coap_describe_plan(const struct config_device *device, struct buffer *ret_text);

/* "secret" or "0x5ec3e7" to bytes; -EINVAL: empty, too long, no hex. */
must_check int coap_parse_key(const char *text, uint8_t ret_key[COAP_KEY_MAX], size_t *ret_len);

/* The next line of psks_file that is no comment; moves *text on. 0, -ENOENT at the end, -EINVAL:
 * the line is broken (*text stands behind it). *line counts lines. */
must_check int coap_next_psk(const char **text, unsigned *line, struct coap_psk *ret_psk);

static inline const struct coap_point *coap_point(const struct config_device *device, size_t i)
{
    return device->points.list[i].address;
}

/* The SenML name or the path of a point. */
static inline const char *coap_point_text(const struct config_device *device, size_t i)
{
    return device->points.list[i].source + coap_point(device, i)->offset;
}
