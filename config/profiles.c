#include "config/build.h"
#include "config/nearest.h"
#include "drivers/driver.h"

#include <dirent.h>
#include <errno.h>
#include <string.h>

#define INSTALLED_PROFILES "/usr/share/windrow/profiles"

/* SOURCE_PROFILES comes from CMake: config/profiles of the tree that was built. */
const char *profiles_folder(void)
{
    const char *given = getenv("WINDROW_PROFILES");
    if (given != NULL && given[0] != '\0') {
        return given;
    }
    char program[4096];
    ssize_t n = readlink("/proc/self/exe", program, sizeof program - 1);
    bool installed = n > 0 && n < (ssize_t)sizeof program && strncmp(program, "/usr/", 5) == 0;
    return installed || access(SOURCE_PROFILES, R_OK) != 0 ? INSTALLED_PROFILES : SOURCE_PROFILES;
}

static const char *nearest_profile(struct build *build, const char *name)
{
    const char *best = section_nearest(build, "profile", name);
    DIR *folder = best == NULL ? opendir(profiles_folder()) : NULL;
    if (folder == NULL) {
        return best;
    }
    struct nearest nearest = {.given = name};
    for (struct dirent *entry = readdir(folder); entry != NULL; entry = readdir(folder)) {
        size_t len = strlen(entry->d_name);
        if (len > 4 && strcmp(entry->d_name + len - 4, ".ini") == 0) {
            nearest_try(&nearest, arena_text(&build->scratch, entry->d_name, len - 4));
        }
    }
    closedir(folder);
    return nearest.best;
}

/* A shipped profile is one file of one section: [profile NAME], NAME being the file's. */
static struct section *read_shipped(struct build *build, const char *path, const char *name,
                                    const struct buffer *bytes)
{
    struct vector sections = {0};
    ini_read(path, profiles_folder(), build->file_count++, (const char *)bytes->data, bytes->len,
             &build->scratch, build->errors, &sections);
    const char *title = arena_printf(&build->scratch, "profile %s", name);
    struct section *profile = NULL;
    for (size_t i = 0; i < sections.count; i++) {
        const struct ini_section *from = sections.items[i];
        if (profile == NULL && strcmp(from->title, title) == 0) {
            struct layer layer = {.from = from, .members = 1};
            profile = section_add(build, section_kind_find("profile"), name);
            section_add_layer(build, profile, &layer);
        } else {
            struct config_spot spot = {path, from->line, from->title, NULL};
            config_report(build->errors, &spot, NULL, "a profile's file holds [%s] only", title);
        }
    }
    vector_finish(&sections);
    return profile;
}

struct section *profile_find(struct build *build, const char *name, const struct setting *wanted_by)
{
    struct section *profile = section_find(build, "profile", name);
    if (profile != NULL) {
        return profile;
    }
    struct config_spot spot = setting_spot(wanted_by);
    if (strchr(name, '/') != NULL || name[0] == '.') {
        config_report(build->errors, &spot, NULL, "'%.80s' is not a profile's name", name);
        return NULL;
    }
    const char *path = arena_printf(&build->scratch, "%s/%s.ini", profiles_folder(), name);
    auto_buffer struct buffer bytes = {0};
    int error = files_read(path, LINES_FILE_MAX, &bytes);
    if (error == 0) {
        profile = read_shipped(build, path, name, &bytes);
    }
    if (error == -ENOENT) {
        config_report(build->errors, &spot, nearest_profile(build, name),
                      "no [profile %s] here, nor %s", name, path);
    } else if (error != 0) {
        config_report(build->errors, &spot, NULL, "%s cannot be read: %s", path, strerror(-error));
    } else if (profile == NULL) {
        config_report(build->errors, &spot, NULL, "%s has no [profile %s]", path, name);
    }
    return profile;
}

/* A profile belongs to no driver until a device uses it: any driver's keys may stand in it. */
static void check_unused(struct build *build, const struct section *profile)
{
    enum { DRIVERS_MAX = 63 };
    const struct config_table *tables[DRIVERS_MAX + 1] = {&core_device_table};
    size_t count = 1;
    for (size_t i = 0; i < drivers_count && i < DRIVERS_MAX; i++) {
        tables[count++] = drivers[i]->table;
    }
    /* The common table goes last: its missing variant makes "no such key" name no driver. */
    tables[0] = tables[count - 1];
    tables[count - 1] = &core_device_table;
    fill_check_keys(build, profile, tables, count);
    points_check(build, profile);
}

void profiles_check_unused(struct build *build)
{
    for (size_t i = 0; i < build->sections.count; i++) {
        const struct section *section = build->sections.items[i];
        if (strcmp(section->kind->name, "profile") == 0 && !section->used) {
            check_unused(build, section);
        }
    }
}
