/* build.h - the state of one config_load(), from files to the immutable struct config.
 *
 * One thread, for the length of a call. `arena` is what the config keeps; everything else is
 * scratch. */
#pragma once

#include "config/complain.h"
#include "config/config.h"
#include "config/files.h"
#include "config/ini.h"
#include "config/tables.h"
#include "config/value.h"

enum { BUILD_DEVICES_MAX = 16384, BUILD_FILES_MAX = 256, BUILD_NAME_MAX = 63 };

/* One [section] that says something about a named thing, as member `index` of its range. */
struct layer {
    const struct ini_section *from;
    size_t index, members;
    bool ranged; /* its name has a range: those in its values are walked in step */
};

/* A thing: what all layers together say about it, and the profile behind it. */
struct section {
    const struct section_kind *kind;
    const char *name;     /* "" where the kind has none */
    struct layer *layers; /* later ones win */
    size_t layer_count;
    const struct section *parent; /* the profile, or NULL */
    bool used;                    /* a profile that some device has */
};

/* What a section says to a key. */
struct setting {
    const char *key, *value; /* ranges expanded; equal texts have equal pointers */
    const struct ini_section *from;
    unsigned line;
    bool broken; /* its range is wrong, and that was said */
};

struct build {
    struct config_errors *errors;
    struct arena *arena;
    struct strings strings; /* texts that are kept */
    struct arena scratch;
    struct strings expanded; /* texts in scratch */
    struct files files;
    struct vector ini;      /* struct ini_section, of all files in order */
    struct vector sections; /* struct section, in order of first mention */
    struct section **slots; /* the same, hashed by kind and name */
    size_t slot_count;
    struct vector point_sets;
    size_t file_count;
    size_t faults; /* values that could not be taken, so far */
};

/* sections.c */
void sections_make(struct build *build);
struct section *section_find(const struct build *build, const char *kind, const char *name);
struct section *section_add(struct build *build, const struct section_kind *kind, const char *name);
void section_add_layer(struct build *build, struct section *section, const struct layer *layer);
bool section_get(struct build *build, const struct section *section, const char *key,
                 struct setting *ret_setting);
/* All settings whose key begins with prefix, the profile's first; an array in scratch. */
size_t section_family(struct build *build, const struct section *section, const char *prefix,
                      struct setting **ret_settings);
struct config_spot section_spot(const struct section *section, const char *key);
struct config_spot setting_spot(const struct setting *setting);
/* The valid section or thing that looks like the name. */
const char *section_nearest(const struct build *build, const char *kind, const char *name);

/* fill.c */
/* Fills `out` (table->size bytes) from the section; adds what it says to *hash. Everything wrong is
 * reported and counted in build->faults. */
void fill_table(struct build *build, const struct section *section,
                const struct config_table *table, void *out, uint64_t *hash);
/* Complains about keys that are in none of the tables. */
void fill_check_keys(struct build *build, const struct section *section,
                     const struct config_table *const *tables, size_t table_count);
/* Runs a table's check when nothing was wrong since `faults_before`. */
void fill_check(struct build *build, const struct section *section,
                const struct config_table *table, const void *settings, size_t faults_before);
/* The section is the one that config_complain() speaks of, until scene_leave(). */
void scene_enter(struct build *build, const struct section *section);
void scene_leave(struct build *build);

/* points.c */
struct driver;
/* The points of a device, shared with earlier devices where they are the same; adds to *hash.
 * settings NULL: they have errors, so only what needs no driver is checked. */
struct config_points points_of(struct build *build, const struct section *section,
                               const struct driver *driver, const void *settings, uint64_t *hash);
/* Checks the point lines of an unused profile or of a device whose driver is unknown. */
void points_check(struct build *build, const struct section *section);
void points_finish(struct build *build);

/* profiles.c */
/* The profile of that name from the files, or a shipped one; NULL after a complaint. */
struct section *profile_find(struct build *build, const char *name,
                             const struct setting *wanted_by);
/* Where shipped profiles are: $WINDROW_PROFILES, the source tree for a program that is not
 * installed, or /usr/share/windrow/profiles. */
const char *profiles_folder(void);
void profiles_check_unused(struct build *build);

/* advice.c: warnings about a config without errors. */
void advise(struct build *build, const struct config *config);

/* devices.c, parts.c */
void build_devices(struct build *build, struct config *config);
void build_parts(struct build *build, struct config *config);
