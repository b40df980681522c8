#include "config/arena.h"
#include "config/complain.h"
#include "gateway/base/buffer.h"

#include <stdarg.h>
#include <string.h>

struct config_errors {
    struct arena arena;
    struct vector files; /* names in reading order */
    struct vector list;  /* struct config_error, in order */
    size_t warnings;
    struct config_scene scene;
};

struct config_errors *config_errors_create(void)
{
    return calloc(1, sizeof(struct config_errors));
}

void config_errors_destroy(struct config_errors *errors)
{
    if (errors != NULL) {
        vector_finish(&errors->files);
        vector_finish(&errors->list);
        arena_finish(&errors->arena);
        free(errors);
    }
}

size_t config_errors_count(const struct config_errors *errors, bool warnings)
{
    return warnings ? errors->warnings : errors->list.count - errors->warnings;
}

const struct config_error *config_errors_at(const struct config_errors *errors, size_t i)
{
    return i < errors->list.count ? errors->list.items[i] : NULL;
}

static size_t file_rank(const struct config_errors *errors, const char *file)
{
    size_t i = 0;
    while (i < errors->files.count && strcmp(errors->files.items[i], file) != 0) {
        i++;
    }
    return i;
}

void config_errors_file(struct config_errors *errors, const char *file)
{
    if (file_rank(errors, file) == errors->files.count) {
        vector_add(&errors->files, arena_text(&errors->arena, file, strlen(file)));
    }
}

static bool is_known(const struct config_errors *errors, const struct config_error *new)
{
    for (size_t i = 0; i < errors->list.count; i++) {
        const struct config_error *old = errors->list.items[i];
        if (old->line == new->line &&
            old->warning == new->warning &&strcmp(old->key, new->key) == 0 &&
            strcmp(old->file, new->file) == 0 &&
            (new->line != 0 || strcmp(old->why, new->why) == 0)) {
            return true;
        }
    }
    return false;
}

static bool comes_after(const struct config_errors *errors, const struct config_error *a,
                        const struct config_error *b)
{
    size_t rank_a = file_rank(errors, a->file), rank_b = file_rank(errors, b->file);
    return rank_a != rank_b ? rank_a > rank_b : a->line > b->line;
}

static const char *keep(struct config_errors *errors, const char *text)
{
    return text == NULL ? "" : arena_text(&errors->arena, text, strlen(text));
}

static void insert(struct config_errors *errors, const struct config_spot *spot,
                   const char *nearest, bool warning, const char *why)
{
    if (errors->list.count >= CONFIG_ERRORS_MAX) {
        return;
    }
    struct config_error new = {
        .file = spot->file == NULL ? "" : spot->file,
        .line = spot->line,
        .section = spot->section == NULL ? "" : spot->section,
        .key = spot->key == NULL ? "" : spot->key,
        .why = why,
        .warning = warning,
    };
    if (is_known(errors, &new)) {
        return;
    }
    config_errors_file(errors, new.file);
    struct config_error *kept = arena_take(&errors->arena, sizeof *kept);
    *kept = (struct config_error){
        .file = keep(errors, new.file),
        .line = new.line,
        .section = keep(errors, new.section),
        .key = keep(errors, new.key),
        .why = keep(errors, why),
        .nearest = nearest == NULL ? NULL : keep(errors, nearest),
        .warning = warning,
    };
    errors->warnings += warning;
    vector_add(&errors->list, kept);
    struct config_error **items = (struct config_error **)errors->list.items;
    for (size_t i = errors->list.count - 1; i > 0 && comes_after(errors, items[i - 1], kept); i--) {
        items[i] = items[i - 1];
        items[i - 1] = kept;
    }
}

static void insert_format(struct config_errors *errors, const struct config_spot *spot,
                          const char *nearest, bool warning, const char *format, va_list args)
{
    char why[512];
    vsnprintf(why, sizeof why, format, args);
    insert(errors, spot, nearest, warning, why);
}

void config_report(struct config_errors *errors, const struct config_spot *spot,
                   const char *nearest, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    insert_format(errors, spot, nearest, false, format, args);
    va_end(args);
}

void config_report_warning(struct config_errors *errors, const struct config_spot *spot,
                           const char *format, ...)
{
    va_list args;
    va_start(args, format);
    insert_format(errors, spot, NULL, true, format, args);
    va_end(args);
}

void config_errors_scene(struct config_errors *errors, const struct config_scene *scene)
{
    static const struct config_scene none;
    errors->scene = scene == NULL ? none : *scene;
}

static struct config_spot find_key(const struct config_errors *errors, const char *key)
{
    struct config_spot spot = {.file = "", .key = key};
    if (errors->scene.find != NULL) {
        errors->scene.find(errors->scene.user, key, &spot);
    }
    return spot;
}

void config_complain(struct config_errors *errors, const char *key, const char *format, ...)
{
    struct config_spot spot = find_key(errors, key);
    va_list args;
    va_start(args, format);
    insert_format(errors, &spot, NULL, false, format, args);
    va_end(args);
}

void config_warn(struct config_errors *errors, const char *key, const char *format, ...)
{
    struct config_spot spot = find_key(errors, key);
    va_list args;
    va_start(args, format);
    insert_format(errors, &spot, NULL, true, format, args);
    va_end(args);
}

void config_error_write(const struct config_error *error, struct buffer *out)
{
    buffer_add_text(out, error->file);
    if (error->line != 0) {
        buffer_printf(out, ":%u", error->line);
    }
    buffer_add_text(out, error->file[0] == '\0' ? "" : ": ");
    if (error->section[0] != '\0') {
        buffer_printf(out, "[%s] ", error->section);
    }
    if (error->key[0] != '\0') {
        buffer_printf(out, "%s: ", error->key);
    }
    buffer_printf(out, "%s%s", error->warning ? "warning: " : "", error->why);
    if (error->nearest != NULL) {
        buffer_printf(out, " (did you mean %s?)", error->nearest);
    }
}
