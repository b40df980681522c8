#include "config/build.h"
#include "config/nearest.h"
#include "config/range.h"

#include <ctype.h>
#include <errno.h>
#include <string.h>

static size_t slot_of(const struct build *build, const char *kind, const char *name)
{
    uint64_t hash = hash_text(hash_text(HASH_START, kind), name);
    size_t at = (size_t)hash & (build->slot_count - 1);
    while (build->slots[at] != NULL && (strcmp(build->slots[at]->name, name) != 0 ||
                                        strcmp(build->slots[at]->kind->name, kind) != 0)) {
        at = (at + 1) & (build->slot_count - 1);
    }
    return at;
}

struct section *section_find(const struct build *build, const char *kind, const char *name)
{
    return build->slot_count == 0 ? NULL : build->slots[slot_of(build, kind, name)];
}

static void grow_slots(struct build *build)
{
    free(build->slots);
    build->slot_count = build->slot_count == 0 ? 64 : build->slot_count * 2;
    build->slots = arena_must(calloc(build->slot_count, sizeof(void *)));
    for (size_t i = 0; i < build->sections.count; i++) {
        struct section *section = build->sections.items[i];
        build->slots[slot_of(build, section->kind->name, section->name)] = section;
    }
}

struct section *section_add(struct build *build, const struct section_kind *kind, const char *name)
{
    if (build->sections.count * 2 >= build->slot_count) {
        grow_slots(build);
    }
    struct section *section = arena_take(&build->scratch, sizeof *section);
    section->kind = kind;
    section->name = strings_keep(&build->strings, name, strlen(name));
    vector_add(&build->sections, section);
    build->slots[slot_of(build, kind->name, name)] = section;
    return section;
}

void section_add_layer(struct build *build, struct section *section, const struct layer *layer)
{
    struct layer *layers = arena_take(&build->scratch,
                                      (section->layer_count + 1) * sizeof *section->layers);
    if (section->layer_count > 0) {
        memcpy(layers, section->layers, section->layer_count * sizeof *layers);
    }
    layers[section->layer_count++] = *layer;
    section->layers = layers;
}

struct config_spot section_spot(const struct section *section, const char *key)
{
    struct config_spot spot = {.file = "", .section = section->kind->name, .key = key};
    if (section->layer_count > 0) {
        spot.file = section->layers[0].from->file;
        spot.line = section->layers[0].from->line;
        spot.section = section->layers[0].from->title;
    }
    return spot;
}

struct config_spot setting_spot(const struct setting *setting)
{
    return (struct config_spot){
        .file = setting->from->file,
        .line = setting->line,
        .section = setting->from->title,
        .key = setting->key,
    };
}

const char *section_nearest(const struct build *build, const char *kind, const char *name)
{
    struct nearest nearest = {.given = name};
    for (size_t i = 0; i < build->sections.count; i++) {
        const struct section *section = build->sections.items[i];
        if (strcmp(section->kind->name, kind) == 0) {
            nearest_try(&nearest, section->name);
        }
    }
    return nearest.best;
}

/* Reading a header: "KIND LABEL" to things. */

static struct config_spot header_spot(const struct ini_section *from)
{
    return (struct config_spot){.file = from->file, .line = from->line, .section = from->title};
}

#define complain(build, from, nearest, ...)                                                        \
    do {                                                                                           \
        struct config_spot spot_ = header_spot(from);                                              \
        config_report((build)->errors, &spot_, nearest, __VA_ARGS__);                              \
    } while (0)

static const struct section_kind *read_kind(struct build *build, const struct ini_section *from,
                                            const char *word)
{
    const struct section_kind *kind = section_kind_find(word);
    if (kind == NULL) {
        struct nearest nearest = {.given = word};
        for (size_t i = 0; i < section_kinds_count; i++) {
            nearest_try(&nearest, section_kinds[i].name);
        }
        complain(build, from, nearest.best, "no such section: '%.60s'", word);
        return NULL;
    }
    bool variants = strcmp(word, "device") == 0 || strcmp(word, "profile") == 0 ||
                    strcmp(word, "uplink") == 0;
    if (!kind->present || (!variants && tables_section(word) == NULL)) {
        complain(build, from, NULL, "this version has no [%s]", word);
        return NULL;
    }
    return kind;
}

static bool is_name(const char *text)
{
    size_t n = 0;
    while (isalnum((unsigned char)text[n]) || text[n] == '-' || text[n] == '_') {
        n++;
    }
    return n > 0 && n <= BUILD_NAME_MAX && text[n] == '\0';
}

/* 1: a range; 0: none; -1 after a complaint. */
static int read_range(struct build *build, const struct ini_section *from, const char *label,
                      struct range *ret_range)
{
    int found = range_find(label, 0, ret_range);
    struct range second;
    if (found == 1 && range_find(label, ret_range->end, &second) != 0) {
        complain(build, from, NULL, "only one range in a section's name");
        return -1;
    }
    if (found == -E2BIG) {
        complain(build, from, NULL, "the range has more than %d members", RANGE_MEMBERS_MAX);
        return -1;
    }
    if (found < 0) {
        complain(build, from, NULL, "not a range: write {01..24} or {a,b,c}");
        return -1;
    }
    return found;
}

/* The earlier layer of the same file that this one would repeat. Within a file a smaller section
 * may come after a larger one, to override for some of its members. */
static const struct layer *repeated_layer(const struct section *section, const struct layer *layer)
{
    for (size_t i = 0; section != NULL && i < section->layer_count; i++) {
        const struct layer *old = &section->layers[i];
        if (old->from->file_index == layer->from->file_index && old->members <= layer->members) {
            return old;
        }
    }
    return NULL;
}

static bool add_member(struct build *build, const struct section_kind *kind, const char *name,
                       const struct layer *layer)
{
    if (kind->named && !is_name(name)) {
        complain(build, layer->from, NULL,
                 "'%.80s' is not a name: letters, digits, '-' and '_', at most %d", name,
                 BUILD_NAME_MAX);
        return false;
    }
    struct section *section = section_find(build, kind->name, name);
    const struct layer *old = repeated_layer(section, layer);
    if (old != NULL && old->from == layer->from) {
        complain(build, layer->from, NULL, "'%s' is twice in the range", name);
        return false;
    }
    if (old != NULL) {
        complain(build, layer->from, NULL, "stands already in line %u, as [%s]", old->from->line,
                 old->from->title);
        return false;
    }
    if (section == NULL) {
        section = section_add(build, kind, name);
    }
    section_add_layer(build, section, layer);
    return true;
}

static void read_header(struct build *build, const struct ini_section *from)
{
    size_t word_len = strcspn(from->title, " ");
    const char *word = arena_text(&build->scratch, from->title, word_len);
    const char *label = from->title + word_len + (from->title[word_len] == ' ');
    const struct section_kind *kind = read_kind(build, from, word);
    if (kind == NULL) {
        return;
    }
    if (kind->named != (label[0] != '\0')) {
        complain(build, from, NULL, kind->named ? "needs a name: [%s NAME]" : "takes no name: [%s]",
                 word);
        return;
    }
    struct range range;
    int found = read_range(build, from, label, &range);
    struct layer layer = {.from = from, .members = found == 1 ? range.count : 1};
    layer.ranged = found == 1;
    for (; found >= 0 && layer.index < layer.members; layer.index++) {
        auto_buffer struct buffer name = {.max = LINES_LINE_MAX * 2};
        size_t ignored;
        int error = range_expand(label, layer.index, layer.members, &name, &ignored);
        if (error != 0 || buffer_text(&name) == NULL ||
            !add_member(build, kind, (const char *)name.data, &layer)) {
            return;
        }
    }
}

void sections_make(struct build *build)
{
    for (size_t i = 0; i < build->ini.count; i++) {
        read_header(build, build->ini.items[i]);
    }
}

/* Reading settings. */

static void complain_range(struct build *build, const struct setting *setting, size_t members,
                           int error, size_t count)
{
    struct config_spot spot = setting_spot(setting);
    if (error == -ERANGE) {
        config_report(build->errors, &spot, NULL, "a range of %zu beside a section of %zu", count,
                      members);
    } else if (error == -E2BIG) {
        config_report(build->errors, &spot, NULL, "the range has more than %d members",
                      RANGE_MEMBERS_MAX);
    } else {
        config_report(build->errors, &spot, NULL, "not a range: write {01..24} or {a,b,c}");
    }
    build->faults++;
}

static void expand(struct build *build, const struct layer *layer, struct setting *setting)
{
    if (strchr(setting->value, '{') == NULL) {
        return;
    }
    if (!layer->ranged) {
        struct range range;
        int found = range_find(setting->value, 0, &range);
        if (found == 1 && range.numeric) {
            struct config_spot spot = setting_spot(setting);
            config_report(build->errors, &spot, NULL,
                          "a range, but the name of its section has none");
            build->faults++;
            setting->broken = true;
        }
        return;
    }
    auto_buffer struct buffer text = {.max = LINES_LINE_MAX * 2};
    size_t count = 0;
    int error = range_expand(setting->value, layer->index, layer->members, &text, &count);
    if (error != 0) {
        complain_range(build, setting, layer->members, error, count);
        setting->broken = true;
    } else {
        setting->value = strings_keep(&build->expanded, (const char *)text.data, text.len);
    }
}

static void make_setting(struct build *build, const struct layer *layer,
                         const struct ini_entry *entry, struct setting *ret_setting)
{
    *ret_setting = (struct setting){
        .key = entry->key, .value = entry->value, .from = layer->from, .line = entry->line};
    expand(build, layer, ret_setting);
}

bool section_get(struct build *build, const struct section *section, const char *key,
                 struct setting *ret_setting)
{
    for (; section != NULL; section = section->parent) {
        for (size_t i = section->layer_count; i > 0; i--) {
            const struct layer *layer = &section->layers[i - 1];
            const struct ini_entry *entry = ini_find(layer->from, key);
            if (entry != NULL) {
                make_setting(build, layer, entry, ret_setting);
                return true;
            }
        }
    }
    return false;
}

static size_t count_family(const struct section *section, const char *prefix)
{
    size_t count = 0, len = strlen(prefix);
    for (; section != NULL; section = section->parent) {
        for (size_t i = 0; i < section->layer_count; i++) {
            const struct ini_section *from = section->layers[i].from;
            for (size_t j = 0; j < from->entry_count; j++) {
                count += strncmp(from->entries[j].key, prefix, len) == 0;
            }
        }
    }
    return count;
}

/* A key that an earlier layer has keeps its place there and takes the new value. */
static size_t add_family(struct build *build, const struct layer *layer, const char *prefix,
                         struct setting *list, size_t count)
{
    size_t earlier = count, len = strlen(prefix);
    for (size_t j = 0; j < layer->from->entry_count; j++) {
        const struct ini_entry *entry = &layer->from->entries[j];
        if (strncmp(entry->key, prefix, len) != 0) {
            continue;
        }
        size_t at = 0;
        while (at < earlier && strcmp(list[at].key, entry->key) != 0) {
            at++;
        }
        make_setting(build, layer, entry, &list[at < earlier ? at : count++]);
    }
    return count;
}

size_t section_family(struct build *build, const struct section *section, const char *prefix,
                      struct setting **ret_settings)
{
    size_t most = count_family(section, prefix), count = 0;
    *ret_settings = NULL;
    if (most == 0) {
        return 0;
    }
    struct setting *list = arena_take(&build->scratch, most * sizeof *list);
    const struct section *order[] = {section->parent, section};
    for (size_t s = 0; s < ARRAY_SIZE(order); s++) {
        for (size_t i = 0; order[s] != NULL && i < order[s]->layer_count; i++) {
            count = add_family(build, &order[s]->layers[i], prefix, list, count);
        }
    }
    *ret_settings = list;
    return count;
}
