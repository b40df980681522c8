/* links.h - the list of a device's resources at /.well-known/core, in CoRE link format (RFC 6690).
 *
 * Pure, any thread. Foreign bytes: what does not follow the format ends the list. */
#pragma once

#include "gateway/base/cleanup.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { LINK_PATH_MAX = 255, LINK_FORMATS_MAX = 8, LINKS_MAX = 256 };

struct link {
    char path[LINK_PATH_MAX + 1]; /* "/senml" */
    char type[64];                /* rt, as it stands; cut */
    unsigned formats[LINK_FORMATS_MAX];
    size_t format_count;
    bool observable;
};

/* The next link at *text of *len bytes, which are moved on. -ENOENT: there is none. Links to other
 * hosts and over-long paths are left out. */
must_check int link_next(const char **text, size_t *len, struct link *ret_link);

bool link_has_format(const struct link *link, unsigned format);
