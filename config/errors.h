/* errors.h - everything that is wrong with a configuration, collected before anything is refused.
 *
 * Filled while a configuration is read, then only read; one thread at a time. Texts belong to the
 * list. */
#pragma once

#include "config/schema.h"

/* One complaint; line 0 when it concerns a file as a whole. */
struct config_error {
    const char *file;
    unsigned line;
    const char *section, *key; /* "" when there is none */
    const char *why;
    const char *nearest; /* a valid name that looks like the given one, or NULL */
    bool warning;
};

struct config_errors *config_errors_create(void);
void config_errors_destroy(struct config_errors *errors);
size_t config_errors_count(const struct config_errors *errors, bool warnings);
/* The i-th of all, errors and warnings in file and line order. */
const struct config_error *config_errors_at(const struct config_errors *errors, size_t i);

/* "file:line: [section] key: why (did you mean name?)", as `windrow check` and a reload show it; no
 * newline. */
struct buffer;
void config_error_write(const struct config_error *error, struct buffer *out);
