/* load.h - a configuration from texts instead of files: for tests and fuzzing.
 *
 * Like config_load(), which is made of it. */
#pragma once

#include "config/config.h"

struct config_text {
    const char *name;   /* as shown in errors */
    const char *folder; /* relative paths start here */
    const char *bytes;
    size_t len;
};

/* The first text is the main file, the others come after it like conf.d. 0 or -EINVAL. */
must_check int config_load_texts(const struct config_text *texts, size_t count,
                                 struct config_errors *errors, const struct config **ret_config);

/* Bytes of memory that a config holds. */
size_t config_memory(const struct config *config);
