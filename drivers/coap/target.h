/* target.h - a CoAP address in its parts (RFC 7252 section 6).
 *
 * Pure, any thread. */
#pragma once

#include "gateway/base/cleanup.h"

#include <stdbool.h>
#include <stdint.h>

enum { TARGET_HOST_MAX = 255, TARGET_PATH_MAX = 255 };

struct target {
    bool secure;
    uint16_t port; /* 5683, or 5684 when secure, where none is given */
    char host[TARGET_HOST_MAX + 1];
    char path[TARGET_PATH_MAX + 1];  /* without the leading '/', as in the address */
    char query[TARGET_PATH_MAX + 1]; /* without '?' */
};

/* "coap://HOST[:PORT][/PATH][?QUERY]", "coaps://..."; [V6] in brackets. -EINVAL. */
must_check int target_parse(const char *text, struct target *ret_target);

/* The path and query of a point: "/temp?x=1", with or without '/'. */
must_check int target_parse_path(const char *text, struct target *target);
