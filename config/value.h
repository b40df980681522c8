/* value.h - one value's text to what its key's type says.
 *
 * Pure but for the types that are files, which read the disk; one thread at a time. Every function
 * returns 0 or -EINVAL, and then `why` says what is wrong, in words that follow the key's name. */
#pragma once

#include "config/arena.h"
#include "config/schema.h"
#include "gateway/base/cleanup.h"

struct files;

enum { VALUE_WHY_SIZE = 256 };

struct value_fault {
    char why[VALUE_WHY_SIZE];
    const char *nearest; /* a valid word near the given one, or NULL */
};

/* Where texts are kept, where files are found. */
struct value_home {
    struct strings *strings;
    struct files *files;
    const char *folder;
};

must_check int value_duration(const char *text, int64_t *ret_ms, struct value_fault *fault);
must_check int value_size(const char *text, int64_t *ret_bytes, struct value_fault *fault);
must_check int value_rate(const char *text, int64_t *ret_bytes_min, struct value_fault *fault);
must_check int value_integer(const char *text, int64_t *ret_value, struct value_fault *fault);
must_check int value_real(const char *text, double *ret_value, struct value_fault *fault);
must_check int value_endpoint(const char *text, struct value_fault *fault);
must_check int value_url(const char *text, struct value_fault *fault);

/* Parses text by the key's type, word and bounds and writes it to `out` (the key's place in the
 * module's struct). */
must_check int value_parse(const struct config_key *key, const char *text,
                           const struct value_home *home, void *out, struct value_fault *fault);

/* The value of a key that is not given and has no fallback. */
void value_absent(const struct config_key *key, void *out);
/* The size of what lies at a key's offset. */
size_t value_width(enum config_type type);
/* A key's bounds as a user writes them: "10 ms to 1 min", "at least 64 KiB", "". */
enum { VALUE_BOUNDS_SIZE = 128 };
void value_show_bounds(const struct config_key *key, char text[VALUE_BOUNDS_SIZE]);
const char *value_type_name(enum config_type type);
