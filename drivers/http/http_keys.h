/* http_keys.h - what windrow.ini says about a device that speaks HTTP, and its points.
 *
 * Pure, any thread. In mode pull the gateway asks a JSON API; in mode listen the device posts to
 * the API listener (gateway/api/push.h) and nothing is asked. */
#pragma once

#include "config/config.h"
#include "config/schema.h"

enum http_mode { HTTP_MODE_PULL, HTTP_MODE_LISTEN };

struct http_device_settings {
    int mode;
    const char *url;
    struct config_secret token;
    const char *ca_file, *cert_file, *key_file;
    const char *time; /* JSON pointer to when the values were taken, NULL: on arrival */
};

extern const struct config_table http_device_table;

/* Of a point: points into its `source`. */
struct http_point {
    const char *pointer; /* RFC 6901; "" is the whole document, in mode listen the point's name */
};

static inline const char *http_pointer(const struct config_device *device, size_t i)
{
    return ((const struct http_point *)device->points.list[i].address)->pointer;
}

/* For struct driver. */
must_check int http_parse_point(const struct config_point *point, const void *settings,
                                void *ret_address, char *ret_why, size_t why_size);
void http_check_device(const struct config_device *device, struct config_errors *errors);
must_check int http_describe_plan(const struct config_device *device, struct buffer *ret_text);
