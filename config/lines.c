#include "config/lines.h"

#include <ctype.h>
#include <string.h>

/* The state of one pass. */
struct pass {
    const char *file;
    unsigned line;
    struct arena *arena;
    struct config_errors *errors;
    struct lines *out;
    struct line_section *section; /* the one at hand, NULL before the first header */
    struct vector keys;           /* of this section, struct seen_key in hash order */
    struct seen_key **slots;
    size_t slot_count;
};

struct seen_key {
    const char *name;
    unsigned line;
};

static struct config_spot here(const struct pass *pass, const char *key)
{
    return (struct config_spot){
        .file = pass->file,
        .line = pass->line,
        .section = pass->section == NULL ? NULL : pass->section->title,
        .key = key,
    };
}

#define complain(pass, key, ...)                                                                   \
    do {                                                                                           \
        struct config_spot spot_ = here(pass, key);                                                \
        config_report((pass)->errors, &spot_, NULL, __VA_ARGS__);                                  \
    } while (0)

/* The length of the UTF-8 sequence at text (RFC 3629 section 4), 0 when it is none. */
static size_t utf8_length(const unsigned char *text, size_t len)
{
    unsigned char lead = text[0];
    size_t n = lead < 0x80                   ? 1
               : lead >= 0xc2 && lead < 0xe0 ? 2
               : (lead & 0xf0) == 0xe0       ? 3
               : lead >= 0xf0 && lead < 0xf5 ? 4
                                             : 0;
    if (n == 0 || n > len) {
        return 0;
    }
    for (size_t i = 1; i < n; i++) {
        if ((text[i] & 0xc0) != 0x80) {
            return 0;
        }
    }
    bool overlong = (lead == 0xe0 && text[1] < 0xa0) || (lead == 0xf0 && text[1] < 0x90);
    bool surrogate = lead == 0xed && text[1] >= 0xa0;
    bool beyond = lead == 0xf4 && text[1] >= 0x90;
    return overlong || surrogate || beyond ? 0 : n;
}

bool lines_text_is_clean(const char *text, size_t len)
{
    for (size_t i = 0; i < len;) {
        unsigned char c = (unsigned char)text[i];
        size_t n = utf8_length((const unsigned char *)text + i, len - i);
        if (n == 0 || (c < 0x20 && c != '\t') || c == 0x7f) {
            return false;
        }
        i += n;
    }
    return true;
}

/* Cuts white space from both ends. */
static void trim(const char **text, size_t *len)
{
    while (*len > 0 && isspace((unsigned char)(*text)[0])) {
        (*text)++;
        (*len)--;
    }
    while (*len > 0 && isspace((unsigned char)(*text)[*len - 1])) {
        (*len)--;
    }
}

static size_t without_comment(const char *text, size_t len)
{
    for (size_t i = 0; i < len; i++) {
        if ((text[i] == '#' || text[i] == ';') && (i == 0 || isspace((unsigned char)text[i - 1]))) {
            return i;
        }
    }
    return len;
}

static void forget_keys(struct pass *pass)
{
    pass->keys.count = 0;
    memset(pass->slots, 0, pass->slot_count * sizeof(void *));
}

/* "device   t1" to "device t1". */
static const char *tidy_title(struct arena *arena, const char *text, size_t len)
{
    char *title = arena_text(arena, text, len);
    size_t n = 0;
    for (size_t i = 0; i < len; i++) {
        bool blank = isspace((unsigned char)title[i]);
        if (!blank) {
            title[n++] = title[i];
        } else if (n > 0 && title[n - 1] != ' ') {
            title[n++] = ' ';
        }
    }
    title[n] = '\0';
    return title;
}

static const char *header_fault(const char *text, size_t len, const char *close)
{
    if (close == NULL) {
        return "the section header has no ']'";
    }
    if (close != text + len - 1) {
        return "something stands behind the ']' of the section header";
    }
    const char *name = text + 1;
    size_t name_len = len - 2;
    trim(&name, &name_len);
    if (name_len == 0) {
        return "the section header is empty";
    }
    return memchr(name, '[', name_len) != NULL ? "a second '[' in the section header" : NULL;
}

static void read_header(struct pass *pass, const char *text, size_t len)
{
    struct line_section *section = arena_take(pass->arena, sizeof *section);
    section->line = pass->line;
    const char *close = memchr(text, ']', len);
    const char *fault = header_fault(text, len, close);
    pass->section = section;
    if (fault != NULL) {
        complain(pass, NULL, "%s", fault);
    } else {
        const char *name = text + 1;
        size_t name_len = len - 2;
        trim(&name, &name_len);
        section->title = tidy_title(pass->arena, name, name_len);
    }
    buffer_printf(&pass->out->clean, "[%zu]", pass->out->sections.count);
    vector_add(&pass->out->sections, section);
    forget_keys(pass);
}

static uint64_t hash_folded(const char *text)
{
    uint64_t hash = HASH_START;
    for (; *text != '\0'; text++) {
        char c = (char)tolower((unsigned char)*text);
        hash = hash_bytes(hash, &c, 1);
    }
    return hash;
}

static struct seen_key **key_slot(struct seen_key **slots, size_t slot_count, const char *name)
{
    size_t at = (size_t)hash_folded(name) & (slot_count - 1);
    while (slots[at] != NULL && strcasecmp(slots[at]->name, name) != 0) {
        at = (at + 1) & (slot_count - 1);
    }
    return &slots[at];
}

static void grow_slots(struct pass *pass)
{
    free(pass->slots);
    pass->slot_count = pass->slot_count == 0 ? 64 : pass->slot_count * 2;
    pass->slots = arena_must(calloc(pass->slot_count, sizeof(void *)));
    for (size_t i = 0; i < pass->keys.count; i++) {
        struct seen_key *key = pass->keys.items[i];
        *key_slot(pass->slots, pass->slot_count, key->name) = key;
    }
}

/* Whether the key is new in this section; complains when it is not. */
static bool is_new_key(struct pass *pass, const char *name)
{
    if (pass->keys.count * 2 >= pass->slot_count) {
        grow_slots(pass);
    }
    struct seen_key **slot = key_slot(pass->slots, pass->slot_count, name);
    if (*slot != NULL && strcmp((*slot)->name, name) == 0) {
        complain(pass, name, "stands already in line %u", (*slot)->line);
        return false;
    }
    if (*slot != NULL) {
        complain(pass, name, "'%s' stands already in line %u; letter case does not make it another",
                 (*slot)->name, (*slot)->line);
        return false;
    }
    struct seen_key *key = arena_take(pass->arena, sizeof *key);
    *key = (struct seen_key){.name = name, .line = pass->line};
    *slot = key;
    vector_add(&pass->keys, key);
    return true;
}

static bool is_key_text(const char *text, size_t len)
{
    for (size_t i = 0; i < len; i++) {
        if (!isalnum((unsigned char)text[i]) && strchr("_-.", text[i]) == NULL) {
            return false;
        }
    }
    return len > 0;
}

static void read_key(struct pass *pass, const char *text, size_t len)
{
    const char *equal = memchr(text, '=', len);
    if (equal == NULL) {
        complain(pass, NULL, "neither a [section] nor KEY = VALUE");
        return;
    }
    const char *key = text, *value = equal + 1;
    size_t key_len = (size_t)(equal - text), value_len = len - key_len - 1;
    trim(&key, &key_len);
    trim(&value, &value_len);
    if (key_len == 0) {
        complain(pass, NULL, "no key before the '='");
        return;
    }
    const char *name = arena_text(pass->arena, key, key_len);
    if (!is_key_text(key, key_len)) {
        complain(pass, name, "a key holds letters, digits, '_', '-' and '.' only");
    } else if (pass->section == NULL) {
        complain(pass, name, "stands before the first [section]");
    } else if (pass->section->key_count >= LINES_KEYS_MAX) {
        complain(pass, name, "more than %d keys in one section", LINES_KEYS_MAX);
    } else if (!is_new_key(pass, name)) {
        return;
    } else if (value_len == 0) {
        complain(pass, name, "has no value");
    } else {
        pass->section->key_count++;
        buffer_add_text(&pass->out->clean, name);
        buffer_add_byte(&pass->out->clean, '=');
        buffer_add(&pass->out->clean, value, value_len);
    }
}

static void read_line(struct pass *pass, const char *text, size_t len)
{
    if (len > LINES_LINE_MAX) {
        complain(pass, NULL, "the line is longer than %d characters", LINES_LINE_MAX);
        return;
    }
    if (len > 0 && text[len - 1] == '\r') {
        len--;
    }
    if (!lines_text_is_clean(text, len)) {
        complain(pass, NULL, "the line holds control characters or is not UTF-8");
        return;
    }
    len = without_comment(text, len);
    trim(&text, &len);
    if (len > 0 && text[0] == '[') {
        read_header(pass, text, len);
    } else if (len > 0) {
        read_key(pass, text, len);
    }
}

void lines_read(const char *file, const char *bytes, size_t len, struct arena *arena,
                struct config_errors *errors, struct lines *ret_lines)
{
    struct pass pass = {.file = file, .arena = arena, .errors = errors, .out = ret_lines};
    *ret_lines = (struct lines){.clean.max = 2 * LINES_FILE_MAX + LINES_LINE_MAX};
    if (len > LINES_FILE_MAX) {
        complain(&pass, NULL, "the file is larger than %d bytes", LINES_FILE_MAX);
        return;
    }
    if (len >= 3 && memcmp(bytes, "\xef\xbb\xbf", 3) == 0) {
        bytes += 3; /* the byte order mark that editors of Windows leave */
        len -= 3;
    }
    grow_slots(&pass);
    const char *end = bytes + len;
    while (bytes < end) {
        const char *newline = memchr(bytes, '\n', (size_t)(end - bytes));
        const char *line_end = newline == NULL ? end : newline;
        pass.line++;
        read_line(&pass, bytes, (size_t)(line_end - bytes));
        buffer_add_byte(&ret_lines->clean, '\n');
        bytes = newline == NULL ? end : newline + 1;
    }
    free(pass.slots);
    vector_finish(&pass.keys);
}

void lines_finish(struct lines *lines)
{
    buffer_finish(&lines->clean);
    vector_finish(&lines->sections);
}
