/* ini.h - an INI file as sections and keys with their lines.
 *
 * One thread at a time. Reads with libini_config from memory, after the pass of lines.h. */
#pragma once

#include "config/lines.h"

struct ini_entry {
    const char *key, *value;
    unsigned line;
};

struct ini_section {
    const char *file;   /* as shown in errors */
    const char *folder; /* relative paths in its values start here */
    size_t file_index;
    const char *title; /* "device t{01..24}" */
    unsigned line;
    struct ini_entry *entries; /* in file order */
    size_t entry_count;
};

/* Appends the sections of a file to ret_sections, all memory in arena; everything wrong goes to
 * errors. file and folder must live as long as the arena. */
void ini_read(const char *file, const char *folder, size_t file_index, const char *bytes,
              size_t len, struct arena *arena, struct config_errors *errors,
              struct vector *ret_sections);

const struct ini_entry *ini_find(const struct ini_section *section, const char *key);
