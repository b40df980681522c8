/* scratch.h - for tests: folders of their own, below $TMPDIR or /tmp. */
#pragma once

#include <stdio.h>
#include <stdlib.h>

/* Makes one; `name` is what it begins with. NULL with errno when it cannot be made. */
static inline char *scratch_dir(char *to, size_t size, const char *name)
{
    const char *below = getenv("TMPDIR");
    int len = snprintf(to, size, "%s/%s.XXXXXX", below == NULL ? "/tmp" : below, name);
    return len < 0 || (size_t)len >= size ? NULL : mkdtemp(to);
}
