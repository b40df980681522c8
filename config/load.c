#include "config/load.h"

#include "config/build.h"

#include <dirent.h>
#include <errno.h>
#include <stdatomic.h>
#include <string.h>

/* What a struct config of ours really is. */
struct loaded {
    struct config config;
    struct arena arena;
    _Atomic int references;
};

static struct loaded *loaded_of(const struct config *config)
{
    return (struct loaded *)config;
}

const struct config *config_ref(const struct config *config)
{
    atomic_fetch_add(&loaded_of(config)->references, 1);
    return config;
}

void config_unref(const struct config *config)
{
    if (config != NULL && atomic_fetch_sub(&loaded_of(config)->references, 1) == 1) {
        struct loaded *loaded = loaded_of(config);
        arena_finish(&loaded->arena);
        free(loaded);
    }
}

size_t config_memory(const struct config *config)
{
    return sizeof(struct loaded) + loaded_of(config)->arena.bytes;
}

const struct config_device *config_find_device(const struct config *config, const char *name)
{
    for (size_t i = 0; i < config->device_count; i++) {
        if (strcmp(config->devices[i].name, name) == 0) {
            return &config->devices[i];
        }
    }
    return NULL;
}

const struct config_uplink *config_find_uplink(const struct config *config, const char *name)
{
    for (size_t i = 0; i < config->uplink_count; i++) {
        if (strcmp(config->uplinks[i].name, name) == 0) {
            return &config->uplinks[i];
        }
    }
    return NULL;
}

static void build_finish(struct build *build)
{
    strings_finish(&build->strings);
    strings_finish(&build->expanded);
    files_finish(&build->files);
    vector_finish(&build->ini);
    vector_finish(&build->sections);
    points_finish(build);
    free(build->slots);
    arena_finish(&build->scratch);
}

int config_load_texts(const struct config_text *texts, size_t count, struct config_errors *errors,
                      const struct config **ret_config)
{
    struct loaded *loaded = arena_must(calloc(1, sizeof *loaded));
    loaded->references = 1;
    struct build build = {.errors = errors, .arena = &loaded->arena};
    build.strings.arena = &loaded->arena;
    build.files.arena = &loaded->arena;
    build.expanded.arena = &build.scratch;
    for (size_t i = 0; i < count; i++) {
        ini_read(texts[i].name, texts[i].folder, build.file_count++, texts[i].bytes, texts[i].len,
                 &build.scratch, errors, &build.ini);
    }
    sections_make(&build);
    build_parts(&build, &loaded->config);
    build_devices(&build, &loaded->config);
    profiles_check_unused(&build);
    if (config_errors_count(errors, false) == 0) {
        advise(&build, &loaded->config);
    }
    build_finish(&build);
    if (config_errors_count(errors, false) > 0) {
        config_unref(&loaded->config);
        return -EINVAL;
    }
    *ret_config = &loaded->config;
    return 0;
}

/* The files of one load. */
struct source {
    struct arena arena;
    struct vector texts; /* struct config_text */
};

static int add_file(struct source *source, const char *path, struct config_errors *errors)
{
    auto_buffer struct buffer bytes = {0};
    int error = files_read(path, LINES_FILE_MAX, &bytes);
    config_errors_file(errors, path);
    if (error != 0) {
        struct config_spot spot = {.file = path};
        config_report(errors, &spot, NULL, "cannot be read: %s",
                      error == -EINVAL  ? "not a regular file"
                      : error == -EFBIG ? "larger than 1 MiB"
                                        : strerror(-error));
        return error;
    }
    const char *slash = strrchr(path, '/');
    size_t folder_len = slash == NULL ? 1 : slash == path ? 1 : (size_t)(slash - path);
    struct config_text *text = arena_take(&source->arena, sizeof *text);
    text->name = arena_text(&source->arena, path, strlen(path));
    text->folder = arena_text(&source->arena, slash == NULL ? "." : path, folder_len);
    text->bytes = arena_text(&source->arena, (const char *)bytes.data, bytes.len);
    text->len = bytes.len;
    vector_add(&source->texts, text);
    return 0;
}

static int is_ini(const struct dirent *entry)
{
    size_t len = strlen(entry->d_name);
    return entry->d_name[0] != '.' && len > 4 && strcmp(entry->d_name + len - 4, ".ini") == 0;
}

static int by_name(const struct dirent **a, const struct dirent **b)
{
    return strcmp((*a)->d_name, (*b)->d_name);
}

static int add_folder(struct source *source, struct config_errors *errors)
{
    const struct config_text *first = source->texts.items[0];
    const char *folder = strcmp(first->folder, ".") == 0
                             ? "conf.d"
                             : files_path(&source->arena, first->folder, "conf.d");
    struct dirent **entries = NULL;
    int count = scandir(folder, &entries, is_ini, by_name);
    struct config_spot spot = {.file = folder};
    int error = count < 0 && errno != ENOENT && errno != ENOTDIR ? -errno : 0;
    if (error != 0) {
        config_report(errors, &spot, NULL, "cannot be read: %s", strerror(-error));
    }
    if (count >= BUILD_FILES_MAX) {
        config_report(errors, &spot, NULL, "holds more than %d files", BUILD_FILES_MAX);
        error = -EINVAL;
    }
    for (int i = 0; i < count; i++) {
        const char *file = files_path(&source->arena, folder, entries[i]->d_name);
        int wrong = count < BUILD_FILES_MAX ? add_file(source, file, errors) : 0;
        error = error != 0 ? error : wrong;
        free(entries[i]);
    }
    free(entries);
    return error;
}

/* Paths in the config must not depend on where the process stands later. */
static const char *absolute(struct source *source, const char *path)
{
    char here[4096];
    if (path[0] == '/' || getcwd(here, sizeof here) == NULL) {
        return path;
    }
    return files_path(&source->arena, here, strcmp(path, ".") == 0 ? "" : path);
}

/* A file that is being written may be empty for a moment: nobody means to drop all devices so. */
static int expect_something(const struct source *source, const char *path,
                            struct config_errors *errors)
{
    size_t bytes = 0;
    for (size_t i = 0; i < source->texts.count; i++) {
        bytes += ((const struct config_text *)source->texts.items[i])->len;
    }
    if (bytes > 0) {
        return 0;
    }
    struct config_spot spot = {.file = path};
    config_report(errors, &spot, NULL, "is empty; is it being written?");
    return -EINVAL;
}

int config_load(const char *path, struct config_errors *errors, const struct config **ret_config)
{
    struct source source = {0};
    int error = add_file(&source, path, errors);
    if (error == 0) {
        error = add_folder(&source, errors);
    }
    if (error == 0) {
        error = expect_something(&source, path, errors);
    }
    if (source.texts.count > 0) {
        struct config_text *texts = arena_take(&source.arena, source.texts.count * sizeof *texts);
        for (size_t i = 0; i < source.texts.count; i++) {
            texts[i] = *(const struct config_text *)source.texts.items[i];
            texts[i].folder = absolute(&source, texts[i].folder);
        }
        const struct config *config = NULL;
        int wrong = config_load_texts(texts, source.texts.count, errors, &config);
        error = error != 0 ? error : wrong;
        if (error == 0) {
            *ret_config = config;
        } else {
            config_unref(config);
        }
    }
    vector_finish(&source.texts);
    arena_finish(&source.arena);
    return error;
}
