/* route.h - which device a post belongs to, and to which of its points.
 *
 * Pure, any thread. Over DTLS the pre-shared key names the device, and it may post as no other.
 * A plain post belongs to the device that its path begins with, "/DEVICE" or "/DEVICE/PATH", or,
 * where the path begins with no device's name, to the one that the first SenML base name names
 * ("DEVICE", "DEVICE/" or "DEVICE:"). Devices with a key take no plain posts. */
#pragma once

#include "gateway/base/cleanup.h"

#include <stdbool.h>
#include <stddef.h>

/* What is known of the names: whether a device of that name listens, and whether it has a key. */
struct route_names {
    bool (*listens)(void *user, const char *name, size_t len);
    bool (*has_key)(void *user, const char *name, size_t len);
    void *user;
};

struct route {
    const char *device; /* NULL: not told by the path; ask the base name */
    size_t device_len;
    const char *rest; /* of the path, without '/' at its begin */
};

/* The device by path. key_device: that of the key, NULL: a plain post. path has no leading '/' and
 * must outlive the route. -EACCES: it belongs to another device, or to one with a key. */
must_check int route_path(const struct route_names *names, const char *key_device, const char *path,
                          struct route *ret_route);

/* The same by the base name of the first record, where route_path() left it open; and for a post
 * with a key a check that the base name is not another device's. -ENOENT: no such device. */
must_check int route_base_name(const struct route_names *names, const char *key_device,
                               const char *base, size_t base_len, struct route *route);
