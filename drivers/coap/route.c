#include "drivers/coap/route.h"

#include <errno.h>
#include <string.h>

static bool is_named(const char *device, const char *name, size_t len)
{
    return strlen(device) == len && memcmp(device, name, len) == 0;
}

/* A name that belongs to somebody: is it this sender? */
static int claim(const struct route_names *names, const char *key_device, const char *name,
                 size_t len)
{
    if (key_device != NULL) {
        return is_named(key_device, name, len) ? 0 : -EACCES;
    }
    return names->has_key(names->user, name, len) ? -EACCES : 0;
}

int route_path(const struct route_names *names, const char *key_device, const char *path,
               struct route *ret_route)
{
    size_t first = strcspn(path, "/");
    struct route route = {.rest = path};
    if (key_device != NULL) {
        route.device = key_device;
        route.device_len = strlen(key_device);
    }
    bool claimed = first > 0 && (names->listens(names->user, path, first) ||
                                 names->has_key(names->user, path, first));
    if (claimed) {
        int r = claim(names, key_device, path, first);
        if (r != 0) {
            return r;
        }
        route.device = path;
        route.device_len = first;
        route.rest = path[first] == '/' ? path + first + 1 : path + first;
    }
    *ret_route = route;
    return 0;
}

int route_base_name(const struct route_names *names, const char *key_device, const char *base,
                    size_t base_len, struct route *route)
{
    size_t len = base_len;
    while (len > 0 && (base[len - 1] == '/' || base[len - 1] == ':')) {
        len--;
    }
    bool claimed = len > 0 && (names->listens(names->user, base, len) ||
                               names->has_key(names->user, base, len));
    if (claimed) {
        int r = claim(names, key_device, base, len);
        if (r != 0) {
            return r;
        }
        if (route->device == NULL) {
            route->device = base;
            route->device_len = len;
        }
    }
    return route->device == NULL ? -ENOENT : 0;
}
