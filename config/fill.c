#include "config/build.h"
#include "config/nearest.h"

#include <string.h>

static void find_in_section(const void *user, const char *key, struct config_spot *ret_spot)
{
    const struct section *section = user;
    *ret_spot = section_spot(section, key);
    for (const struct section *at = section; at != NULL; at = at->parent) {
        for (size_t i = at->layer_count; i > 0; i--) {
            const struct ini_section *from = at->layers[i - 1].from;
            const struct ini_entry *entry = ini_find(from, key);
            if (entry != NULL) {
                *ret_spot = (struct config_spot){
                    .file = from->file, .line = entry->line, .section = from->title, .key = key};
                return;
            }
        }
    }
}

void scene_enter(struct build *build, const struct section *section)
{
    struct config_scene scene = {.find = find_in_section, .user = section};
    config_errors_scene(build->errors, &scene);
}

void scene_leave(struct build *build)
{
    config_errors_scene(build->errors, NULL);
}

static void take_setting(struct build *build, const struct config_key *key,
                         const struct setting *setting, void *out)
{
    struct value_fault fault = {0};
    struct value_home home = {&build->strings, &build->files, setting->from->folder};
    if (value_parse(key, setting->value, &home, out, &fault) != 0) {
        struct config_spot spot = setting_spot(setting);
        config_report(build->errors, &spot, fault.nearest, "%s", fault.why);
        build->faults++;
    }
}

/* Defaults are texts of ours, which a unit test holds valid. */
static void take_fallback(struct build *build, const struct config_key *key, void *out)
{
    struct value_fault fault = {0};
    struct value_home home = {&build->strings, &build->files, ""};
    if (value_parse(key, key->fallback, &home, out, &fault) != 0) {
        struct config_spot spot = {.file = "", .key = key->name};
        config_report(build->errors, &spot, NULL, "default: %s", fault.why);
        build->faults++;
    }
}

static uint64_t add_file(struct build *build, const struct config_key *key,
                         const struct setting *setting, uint64_t hash)
{
    bool exclusive = key->type != CONFIG_FILE;
    const struct files_entry *entry = files_look(&build->files, setting->from->folder,
                                                 setting->value, exclusive);
    return hash_bytes(hash_text(hash, entry->path), &entry->hash, sizeof entry->hash);
}

static bool is_file(const struct config_key *key)
{
    return key->type == CONFIG_FILE || key->type == CONFIG_PRIVATE_FILE ||
           key->type == CONFIG_SECRET_FILE;
}

static bool is_word(const struct config_key *key, const char *value)
{
    return key->word != NULL && strcmp(key->word, value) == 0;
}

static void fill_key(struct build *build, const struct section *section,
                     const struct config_key *key, void *out, uint64_t *hash)
{
    struct setting setting;
    value_absent(key, out);
    if (section != NULL && section_get(build, section, key->name, &setting)) {
        *hash = hash_text(hash_text(*hash, key->name), setting.value);
        if (!setting.broken) {
            take_setting(build, key, &setting, out);
        }
        if (is_file(key) && !setting.broken && !is_word(key, setting.value)) {
            *hash = add_file(build, key, &setting, *hash);
        }
    } else if (key->fallback != NULL) {
        take_fallback(build, key, out);
    } else if (key->required && section != NULL) {
        struct config_spot spot = section_spot(section, key->name);
        config_report(build->errors, &spot, NULL, "is required and missing");
        build->faults++;
    }
}

void fill_table(struct build *build, const struct section *section,
                const struct config_table *table, void *out, uint64_t *hash)
{
    for (size_t i = 0; i < table->key_count; i++) {
        const struct config_key *key = &table->keys[i];
        if (!key_is_family(key)) {
            fill_key(build, section, key, (char *)out + key->offset, hash);
        }
    }
}

void fill_check(struct build *build, const struct section *section,
                const struct config_table *table, const void *settings, size_t faults_before)
{
    if (table->check == NULL || build->faults != faults_before || section == NULL) {
        return;
    }
    scene_enter(build, section);
    table->check(settings, build->errors);
    scene_leave(build);
}

static const struct config_key *find_key(const struct config_table *const *tables, size_t count,
                                         const char *name)
{
    const struct config_key *key = NULL;
    for (size_t i = 0; i < count && key == NULL; i++) {
        key = table_key(tables[i], name);
    }
    return key;
}

static const char *nearest_key(const struct config_table *const *tables, size_t count,
                               const char *name)
{
    /* Of a family only the part up to the dot can be mistyped: "piont.power". */
    const char *dot = strchr(name, '.');
    char part[BUILD_NAME_MAX + 1];
    snprintf(part, sizeof part, "%.*s", dot == NULL ? BUILD_NAME_MAX : (int)(dot + 1 - name), name);
    struct nearest nearest = {.given = part};
    for (size_t i = 0; i < count; i++) {
        for (size_t j = 0; j < tables[i]->key_count; j++) {
            if (key_is_family(&tables[i]->keys[j]) == (dot != NULL)) {
                nearest_try(&nearest, tables[i]->keys[j].name);
            }
        }
    }
    return nearest.best;
}

static void check_layer(struct build *build, const struct ini_section *from,
                        const struct config_table *const *tables, size_t table_count)
{
    for (size_t i = 0; i < from->entry_count; i++) {
        const struct ini_entry *entry = &from->entries[i];
        if (find_key(tables, table_count, entry->key) != NULL) {
            continue;
        }
        struct config_spot spot = {from->file, entry->line, from->title, entry->key};
        const char *variant = tables[table_count - 1]->variant;
        const char *nearest = nearest_key(tables, table_count, entry->key);
        if (variant != NULL) {
            config_report(build->errors, &spot, nearest, "no such key for '%s'", variant);
        } else {
            config_report(build->errors, &spot, nearest, "no such key");
        }
        build->faults++;
    }
}

void fill_check_keys(struct build *build, const struct section *section,
                     const struct config_table *const *tables, size_t table_count)
{
    for (; section != NULL; section = section->parent) {
        for (size_t i = 0; i < section->layer_count; i++) {
            check_layer(build, section->layers[i].from, tables, table_count);
        }
    }
}
