#include "config/ini.h"

#include <ini_configobj.h>
#include <ini_valueobj.h>
#include <string.h>

struct parsed {
    struct ini_cfgobj *object;
    struct ini_cfgfile *file;
};

static void parsed_finish(struct parsed *parsed)
{
    if (parsed->file != NULL) {
        ini_config_file_destroy(parsed->file);
    }
    if (parsed->object != NULL) {
        ini_config_destroy(parsed->object);
    }
}

/* NOWRAP and NO_C_COMMENTS: a line is a line, as lines.c saw it. */
static int parse(struct buffer *clean, struct parsed *ret_parsed)
{
    int error = ini_config_create(&ret_parsed->object);
    if (error == 0) {
        error = ini_config_file_from_mem(clean->data, (uint32_t)clean->len, &ret_parsed->file);
    }
    if (error == 0) {
        error = ini_config_parse(ret_parsed->file, INI_STOP_ON_ANY, INI_MV1S_ALLOW | INI_MS_MERGE,
                                 INI_PARSE_NOWRAP | INI_PARSE_NO_C_COMMENTS, ret_parsed->object);
    }
    return error;
}

static int by_line(const void *a, const void *b)
{
    const struct ini_entry *x = a, *y = b;
    return x->line < y->line ? -1 : x->line > y->line;
}

static void read_entry(struct ini_cfgobj *object, const char *name, const char *key,
                       struct arena *arena, struct ini_section *section)
{
    struct value_obj *value = NULL;
    int error = ini_get_config_valueobj(name, key, object, INI_GET_FIRST_VALUE, &value);
    if (error != 0 || value == NULL) {
        return;
    }
    const char *text = ini_get_const_string_config_value(value, &error);
    uint32_t line = 0;
    if (text == NULL || error != 0 || value_get_line(value, &line) != 0) {
        return;
    }
    section->entries[section->entry_count++] = (struct ini_entry){
        .key = arena_text(arena, key, strlen(key)),
        .value = arena_text(arena, text, strlen(text)),
        .line = line,
    };
}

static void read_entries(struct ini_cfgobj *object, size_t index, size_t key_count,
                         struct arena *arena, struct ini_section *section)
{
    if (key_count == 0) {
        return;
    }
    char name[24];
    snprintf(name, sizeof name, "%zu", index);
    int count = 0, error = 0;
    char **keys = ini_get_attribute_list(object, name, &count, &error);
    section->entries = arena_take(arena, key_count * sizeof *section->entries);
    for (int i = 0; keys != NULL && i < count && section->entry_count < key_count; i++) {
        read_entry(object, name, keys[i], arena, section);
    }
    ini_free_attribute_list(keys);
    qsort(section->entries, section->entry_count, sizeof *section->entries, by_line);
}

void ini_read(const char *file, const char *folder, size_t file_index, const char *bytes,
              size_t len, struct arena *arena, struct config_errors *errors,
              struct vector *ret_sections)
{
    struct lines lines;
    config_errors_file(errors, file);
    lines_read(file, bytes, len, arena, errors, &lines);
    struct parsed parsed = {0};
    int error = lines.sections.count == 0 ? 0 : parse(&lines.clean, &parsed);
    if (error != 0 || buffer_failed(&lines.clean)) {
        struct config_spot spot = {.file = file};
        config_report(errors, &spot, NULL, "libini_config cannot read it: %s", strerror(error));
    }
    for (size_t i = 0; error == 0 && i < lines.sections.count; i++) {
        const struct line_section *from = lines.sections.items[i];
        if (from->title == NULL) {
            continue;
        }
        struct ini_section *section = arena_take(arena, sizeof *section);
        *section = (struct ini_section){.file = file,
                                        .folder = folder,
                                        .file_index = file_index,
                                        .title = from->title,
                                        .line = from->line};
        read_entries(parsed.object, i, from->key_count, arena, section);
        vector_add(ret_sections, section);
    }
    parsed_finish(&parsed);
    lines_finish(&lines);
}

const struct ini_entry *ini_find(const struct ini_section *section, const char *key)
{
    for (size_t i = 0; i < section->entry_count; i++) {
        if (strcmp(section->entries[i].key, key) == 0) {
            return &section->entries[i];
        }
    }
    return NULL;
}
