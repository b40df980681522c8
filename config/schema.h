/* schema.h - how a module says which keys it understands.
 *
 * A module (a driver, an uplink type, the store, ...) owns one `const struct config_table`: the
 * section it belongs to, its keys with type, default, bounds and help, and the size of the plain
 * struct that the values go to. config/ gathers the tables and does all parsing and complaining;
 * the example file, the manual page and `windrow keys` come out of the same tables. Immutable, any
 * thread. */
#pragma once

#include "gateway/base/cleanup.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum config_type {                  /* what lies at `offset` in the module's struct */
                   CONFIG_BOOL,     /* bool: yes no true false on off 1 0 */
                   CONFIG_INT,      /* int64_t, min..max */
                   CONFIG_REAL,     /* double, min..max */
                   CONFIG_TEXT,     /* const char *, NULL when absent */
                   CONFIG_CHOICE,   /* int: the index in `choices` */
                   CONFIG_DURATION, /* int64_t milliseconds, min..max: "500 ms", "1 s", "10 min", "7
                                       d" */
                   CONFIG_SIZE,     /* int64_t bytes, min..max: "64 KiB", "4 GiB" */
                   CONFIG_RATE,     /* int64_t bytes a minute: "20 MiB/min", "64 KiB/s" */
                   CONFIG_LIST,     /* struct config_list: words separated by blanks */
                   CONFIG_ENDPOINT, /* const char *: HOST:PORT, [V6]:PORT */
                   CONFIG_URL,      /* const char *: scheme and host checked */
                   CONFIG_FILE,     /* const char *: a path that must be readable */
                   CONFIG_PRIVATE_FILE, /* the same, and its mode must be 0600 or stricter */
                   CONFIG_PATH, /* const char *: a path that need not exist yet, made absolute */
                   CONFIG_SECRET_FILE, /* struct config_secret: a path; mode 0600 or stricter, or
                                          refused */
};

struct config_list {
    const char *const *items;
    size_t count;
};

struct config_secret {
    const char *path; /* NULL when absent */
    const char *text; /* the content without trailing white space; never printed, shown as *** */
};

struct config_key {
    const char *name; /* a name that ends in '.' is a family: "tag." takes tag.ANYTHING */
    enum config_type type;
    size_t offset;        /* offsetof() in the module's struct */
    const char *fallback; /* default as text; NULL: absent (0, NULL) unless `required` */
    bool required;
    double min, max; /* in the base unit of the type; both 0: no bounds; max 0: only min */
    const char *const *choices; /* CONFIG_CHOICE: NULL-terminated */
    const char *word;    /* a word taken instead of a value, stored as -1 (or NULL): "auto" */
    const char *example; /* shown in the example file; the fallback when NULL */
    const char *help;    /* one line, lower case, no full stop */
};

struct config_errors;

struct config_table {
    const char *section; /* "store", "device", "uplink", ... */
    const char *variant; /* driver or uplink type these keys belong to; NULL: all of the section */
    size_t size;         /* of the module's struct */
    const struct config_key *keys;
    size_t key_count;
    /* Optional: looks at the filled struct as a whole (one key needs another); complains through
     * config_complain() with the key it means. */
    void (*check)(const void *settings, struct config_errors *errors);
};

/* For config_table.check: reports at the line of that key in the section at hand (or the section's
 * own line when the key is absent). */
void config_complain(struct config_errors *errors, const char *key, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* The same, but a warning: `windrow check` shows it, and nothing is refused. */
void config_warn(struct config_errors *errors, const char *key, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
