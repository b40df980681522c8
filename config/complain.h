/* complain.h - how config/ itself reports what is wrong; modules use config_complain().
 *
 * One thread at a time. A second complaint about the same key in the same line is left out: a range
 * of 24 devices must not say one thing 24 times. At most CONFIG_ERRORS_MAX are kept. */
#pragma once

#include "config/errors.h"

enum { CONFIG_ERRORS_MAX = 1000 };

/* Where: section and key may be NULL. Texts are copied. */
struct config_spot {
    const char *file;
    unsigned line;
    const char *section, *key;
};

void config_report(struct config_errors *errors, const struct config_spot *spot,
                   const char *nearest, const char *format, ...)
    __attribute__((format(printf, 4, 5)));
void config_report_warning(struct config_errors *errors, const struct config_spot *spot,
                           const char *format, ...) __attribute__((format(printf, 3, 4)));

/* Files are shown in the order in which they are named here first. */
void config_errors_file(struct config_errors *errors, const char *file);

/* The section at hand for config_complain() and config_warn(): `find` tells where a key stands. */
struct config_scene {
    void (*find)(const void *user, const char *key, struct config_spot *ret_spot);
    const void *user;
};
void config_errors_scene(struct config_errors *errors, const struct config_scene *scene);
