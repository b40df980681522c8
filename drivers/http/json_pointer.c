#include "drivers/http/json_pointer.h"

#include <errno.h>
#include <string.h>

struct walk {
    const struct json_pointer_set *set;
    struct json_in json;
    void (*found)(void *user, size_t index, const struct reading *reading,
                  struct json_in_text text);
    void *user;
    char path[JSON_POINTER_MAX + 2]; /* where the walk stands, as a pointer; room for a '/' */
    size_t len;
};

int json_pointer_check(const char *pointer, const char **ret_why)
{
    if (pointer[0] != '\0' && pointer[0] != '/') {
        *ret_why = "a JSON pointer begins with '/'";
        return -EINVAL;
    }
    if (strlen(pointer) > JSON_POINTER_MAX) {
        *ret_why = "a JSON pointer has at most 255 characters here";
        return -EINVAL;
    }
    for (const char *at = pointer; *at != '\0'; at++) {
        if (*at == '~' && at[1] != '0' && at[1] != '1') {
            *ret_why = "in a JSON pointer '~' is written ~0, and '/' within a name ~1";
            return -EINVAL;
        }
        if ((unsigned char)*at < 0x20) {
            *ret_why = "a control character in a JSON pointer";
            return -EINVAL;
        }
    }
    return 0;
}

static int by_pointer(const void *a, const void *b)
{
    const struct json_pointer_entry *left = a, *right = b;
    return strcmp(left->pointer, right->pointer);
}

int json_pointer_set_init(struct json_pointer_set *set, const char *const *pointers, size_t count)
{
    set->entries = calloc(count + 1, sizeof *set->entries);
    if (set->entries == NULL) {
        return -ENOMEM;
    }
    set->count = count;
    for (size_t i = 0; i < count; i++) {
        set->entries[i] = (struct json_pointer_entry){.pointer = pointers[i], .index = i};
    }
    qsort(set->entries, count, sizeof *set->entries, by_pointer);
    return 0;
}

void json_pointer_set_finish(struct json_pointer_set *set)
{
    free(set->entries);
    *set = (struct json_pointer_set){0};
}

/* The first entry that is not before `text`. */
static size_t lower_bound(const struct json_pointer_set *set, const char *text)
{
    size_t low = 0, high = set->count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (strcmp(set->entries[middle].pointer, text) < 0) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low;
}

/* Appends "/token" in its escaped form; false when no pointer is that long. */
static bool push_token(struct walk *w, struct json_in_text token)
{
    size_t len = w->len;
    if (len >= JSON_POINTER_MAX) {
        return false;
    }
    w->path[len++] = '/';
    for (size_t i = 0; i < token.len; i++) {
        char c = token.at[i];
        bool escaped = c == '~' || c == '/';
        if (len + (escaped ? 2 : 1) > JSON_POINTER_MAX) {
            return false;
        }
        w->path[len++] = escaped ? '~' : c;
        if (escaped) {
            w->path[len++] = c == '~' ? '0' : '1';
        }
    }
    w->len = len;
    return true;
}

/* Whether a pointer leads to, or through, the place at hand. */
static bool leads_here(struct walk *w, bool *ret_through)
{
    w->path[w->len] = '\0';
    size_t at = lower_bound(w->set, w->path);
    bool here = at < w->set->count && strcmp(w->set->entries[at].pointer, w->path) == 0;
    w->path[w->len] = '/';
    w->path[w->len + 1] = '\0';
    at = lower_bound(w->set, w->path);
    *ret_through = at < w->set->count &&
                   strncmp(w->set->entries[at].pointer, w->path, w->len + 1) == 0;
    w->path[w->len] = '\0';
    return here;
}

static void tell(struct walk *w, const struct reading *reading, struct json_in_text text)
{
    for (size_t at = lower_bound(w->set, w->path);
         at < w->set->count && strcmp(w->set->entries[at].pointer, w->path) == 0; at++) {
        w->found(w->user, w->set->entries[at].index, reading, text);
    }
}

static bool walk_value(struct walk *w);

static bool walk_child(struct walk *w, struct json_in_text token)
{
    size_t len = w->len;
    bool good = push_token(w, token) ? walk_value(w) : json_in_skip(&w->json);
    w->len = len;
    w->path[len] = '\0';
    return good;
}

static bool walk_object(struct walk *w)
{
    struct json_in_text name;
    if (!json_in_enter(&w->json, JSON_IN_OBJECT)) {
        return false;
    }
    while (json_in_member(&w->json, &name) && walk_child(w, name)) {
    }
    return !json_in_failed(&w->json);
}

static bool walk_array(struct walk *w)
{
    if (!json_in_enter(&w->json, JSON_IN_ARRAY)) {
        return false;
    }
    bool good = true;
    for (size_t i = 0; good && json_in_element(&w->json); i++) {
        char number[24];
        int len = snprintf(number, sizeof number, "%zu", i);
        good = walk_child(w, (struct json_in_text){.at = number, .len = (size_t)len});
    }
    return !json_in_failed(&w->json);
}

/* The depth is bounded by json_in's own. */
static bool walk_value(struct walk *w)
{
    bool through = false, here = leads_here(w, &through);
    enum json_in_type type = json_in_peek(&w->json);
    if (through && (type == JSON_IN_OBJECT || type == JSON_IN_ARRAY)) {
        if (here) {
            struct reading bad = {.kind = VALUE_NULL, .quality = QUALITY_BAD_TYPE};
            tell(w, &bad, (struct json_in_text){0});
        }
        return type == JSON_IN_OBJECT ? walk_object(w) : walk_array(w);
    }
    if (!here) {
        return json_in_skip(&w->json);
    }
    struct reading reading = {0};
    struct json_in_text text;
    if (!json_reading_take(&w->json, &reading, &text)) {
        return false;
    }
    tell(w, &reading, text);
    return true;
}

int json_pointer_walk(const struct json_pointer_set *set, const char *text, size_t len,
                      void (*found)(void *user, size_t index, const struct reading *reading,
                                    struct json_in_text text),
                      void *user, const char **ret_why)
{
    struct json_in_arena arena = {0};
    struct walk w = {.set = set, .found = found, .user = user};
    json_in_init(&w.json, text, len, &arena);
    bool good = walk_value(&w) && json_in_end(&w.json);
    *ret_why = w.json.why;
    json_in_arena_finish(&arena);
    return good ? 0 : -EBADMSG;
}
