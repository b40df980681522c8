#include "gateway/store/dictionary.h"

#include "gateway/base/crc32c.h"
#include "gateway/store/state.h"

#include <errno.h>
#include <pthread.h>
#include <string.h>

enum { DICTIONARY_VERSION = 1, DICTIONARY_HEADER_SIZE = 8 };

/* One copy of each text: points of the same profile share their names. */
struct text {
    struct text *next;
    uint32_t hash;
    char bytes[];
};

struct entry {
    const char *name, *tags;
    struct store_point_name *points;
    size_t count, capacity;
    uint32_t version;
    bool changed;              /* since the last save */
    struct store_names *shown; /* what readers were given; NULL: to be made anew */
};

/* Memory that a reader may still look at. */
struct retired {
    struct retired *next;
    void *memory;
};

struct dictionary {
    pthread_mutex_t lock; /* the writer while it changes, readers while they ask */
    struct entry *entries;
    size_t count, capacity;
    uint32_t *table; /* open addressing by device name: id */
    size_t table_size;
    struct text **texts;
    size_t text_count, text_buckets;
    struct retired *retired;
    bool changed;
};

static uint32_t hash_text(const char *text, size_t len)
{
    uint32_t hash = 2166136261u; /* FNV-1a */
    for (size_t i = 0; i < len; i++) {
        hash = (hash ^ (uint8_t)text[i]) * 16777619u;
    }
    return hash;
}

int dictionary_create(struct dictionary **ret_dictionary)
{
    struct dictionary *dictionary = calloc(1, sizeof(*dictionary));
    if (dictionary == NULL) {
        return -ENOMEM;
    }
    pthread_mutex_init(&dictionary->lock, NULL);
    *ret_dictionary = dictionary;
    return 0;
}

void dictionary_destroy(struct dictionary *dictionary)
{
    if (dictionary == NULL) {
        return;
    }
    for (size_t i = 0; i < dictionary->count; i++) {
        free(dictionary->entries[i].points);
        free(dictionary->entries[i].shown);
    }
    for (size_t i = 0; i < dictionary->text_buckets; i++) {
        while (dictionary->texts[i] != NULL) {
            struct text *text = dictionary->texts[i];
            dictionary->texts[i] = text->next;
            free(text);
        }
    }
    while (dictionary->retired != NULL) {
        struct retired *retired = dictionary->retired;
        dictionary->retired = retired->next;
        free(retired->memory);
        free(retired);
    }
    free(dictionary->texts);
    free(dictionary->entries);
    free(dictionary->table);
    pthread_mutex_destroy(&dictionary->lock);
    free(dictionary);
}

static int grow_texts(struct dictionary *dictionary)
{
    size_t buckets = dictionary->text_buckets == 0 ? 64 : dictionary->text_buckets * 4;
    struct text **texts = calloc(buckets, sizeof(struct text *));
    if (texts == NULL) {
        return -ENOMEM;
    }
    for (size_t i = 0; i < dictionary->text_buckets; i++) {
        while (dictionary->texts[i] != NULL) {
            struct text *text = dictionary->texts[i];
            dictionary->texts[i] = text->next;
            text->next = texts[text->hash & (buckets - 1)];
            texts[text->hash & (buckets - 1)] = text;
        }
    }
    free(dictionary->texts);
    dictionary->texts = texts;
    dictionary->text_buckets = buckets;
    return 0;
}

/* The kept copy of a text, or NULL without memory. */
static const char *intern(struct dictionary *dictionary, const char *bytes, size_t len)
{
    if (dictionary->text_count >= dictionary->text_buckets && grow_texts(dictionary) < 0) {
        return NULL;
    }
    uint32_t hash = hash_text(bytes, len);
    struct text **bucket = &dictionary->texts[hash & (dictionary->text_buckets - 1)];
    for (struct text *text = *bucket; text != NULL; text = text->next) {
        if (text->hash == hash && strncmp(text->bytes, bytes, len) == 0 &&
            text->bytes[len] == '\0') {
            return text->bytes;
        }
    }
    struct text *text = malloc(sizeof(*text) + len + 1);
    if (text == NULL) {
        return NULL;
    }
    text->hash = hash;
    memcpy(text->bytes, bytes, len);
    text->bytes[len] = '\0';
    text->next = *bucket;
    *bucket = text;
    dictionary->text_count++;
    return text->bytes;
}

static int retire(struct dictionary *dictionary, void *memory)
{
    if (memory == NULL) {
        return 0;
    }
    struct retired *retired = malloc(sizeof(*retired));
    if (retired == NULL) {
        return -ENOMEM;
    }
    *retired = (struct retired){dictionary->retired, memory};
    dictionary->retired = retired;
    return 0;
}

/* Readers keep what they have; the next one that asks gets the new state. */
static int touch(struct dictionary *dictionary, struct entry *entry)
{
    int rc = retire(dictionary, entry->shown);
    if (rc == 0) {
        entry->shown = NULL;
        entry->changed = true;
        dictionary->changed = true;
    }
    return rc;
}

static size_t find_slot(const struct dictionary *dictionary, const char *name)
{
    size_t mask = dictionary->table_size - 1;
    size_t slot = hash_text(name, strlen(name)) & mask;
    while (dictionary->table[slot] != 0 &&
           strcmp(dictionary->entries[dictionary->table[slot] - 1].name, name) != 0) {
        slot = (slot + 1) & mask;
    }
    return slot;
}

static int grow_devices(struct dictionary *dictionary)
{
    size_t capacity = dictionary->capacity == 0 ? 16 : dictionary->capacity * 2;
    struct entry *entries = reallocarray(dictionary->entries, capacity, sizeof(*entries));
    if (entries == NULL) {
        return -ENOMEM;
    }
    dictionary->entries = entries;
    uint32_t *table = calloc(capacity * 2, sizeof(*table));
    if (table == NULL) {
        return -ENOMEM;
    }
    free(dictionary->table);
    dictionary->table = table;
    dictionary->table_size = capacity * 2;
    dictionary->capacity = capacity;
    for (size_t i = 0; i < dictionary->count; i++) {
        table[find_slot(dictionary, entries[i].name)] = (uint32_t)i + 1;
    }
    return 0;
}

static int add_device(struct dictionary *dictionary, const char *name, uint32_t *ret_id)
{
    if (dictionary->count >= STATE_DEVICES_MAX) {
        return -ENOBUFS;
    }
    if (dictionary->count == dictionary->capacity && grow_devices(dictionary) < 0) {
        return -ENOMEM;
    }
    struct entry entry = {.tags = "", .version = 1};
    entry.name = intern(dictionary, name, strlen(name));
    if (entry.name == NULL) {
        return -ENOMEM;
    }
    size_t slot = find_slot(dictionary, name);
    dictionary->entries[dictionary->count++] = entry;
    dictionary->table[slot] = (uint32_t)dictionary->count;
    *ret_id = (uint32_t)dictionary->count;
    return 0;
}

static int device_locked(struct dictionary *dictionary, const char *name, const char *tags_json,
                         uint32_t *ret_id)
{
    uint32_t id = dictionary->count == 0 ? 0 : dictionary->table[find_slot(dictionary, name)];
    bool made = id == 0;
    int rc = made ? add_device(dictionary, name, &id) : 0;
    if (rc < 0) {
        return rc;
    }
    struct entry *entry = &dictionary->entries[id - 1];
    if (made || strcmp(entry->tags, tags_json) != 0) {
        const char *tags = intern(dictionary, tags_json, strlen(tags_json));
        rc = tags == NULL ? -ENOMEM : touch(dictionary, entry);
        if (rc < 0) {
            return rc;
        }
        entry->tags = tags;
        entry->version += made ? 0 : 1;
    }
    *ret_id = id;
    return 0;
}

int dictionary_device(struct dictionary *dictionary, const char *name, const char *tags_json,
                      uint32_t *ret_id)
{
    if (name[0] == '\0' || strlen(name) > DICTIONARY_TEXT_MAX ||
        strlen(tags_json) > DICTIONARY_TEXT_MAX) {
        return -EINVAL;
    }
    pthread_mutex_lock(&dictionary->lock);
    int rc = device_locked(dictionary, name, tags_json, ret_id);
    pthread_mutex_unlock(&dictionary->lock);
    return rc;
}

/* Another array with room for one more point; the old one may still be looked at. */
static int copy_points(struct dictionary *dictionary, struct entry *entry)
{
    size_t capacity = entry->count < 4 ? 8 : entry->count * 2;
    struct store_point_name *points = calloc(capacity, sizeof(*points));
    if (points == NULL) {
        return -ENOMEM;
    }
    if (entry->count > 0) {
        memcpy(points, entry->points, entry->count * sizeof(*points));
    }
    int rc = retire(dictionary, entry->points);
    if (rc < 0) {
        free(points);
        return rc;
    }
    entry->points = points;
    entry->capacity = capacity;
    return 0;
}

static int add_point(struct dictionary *dictionary, struct entry *entry, const char *name,
                     const char *unit)
{
    if (entry->count >= DICTIONARY_POINTS_MAX) {
        return -ENOBUFS;
    }
    struct store_point_name point = {.name = intern(dictionary, name, strlen(name)),
                                     .unit = intern(dictionary, unit, strlen(unit)),
                                     .name_len = (uint16_t)strlen(name)};
    int rc = point.name == NULL || point.unit == NULL ? -ENOMEM : touch(dictionary, entry);
    if (rc == 0 && entry->count == entry->capacity) {
        rc = copy_points(dictionary, entry);
    }
    if (rc == 0) {
        entry->points[entry->count++] = point;
    }
    return rc;
}

static int change_unit(struct dictionary *dictionary, struct entry *entry, size_t i,
                       const char *unit)
{
    const char *kept = intern(dictionary, unit, strlen(unit));
    int rc = kept == NULL ? -ENOMEM : touch(dictionary, entry);
    if (rc == 0) {
        rc = copy_points(dictionary, entry);
    }
    if (rc == 0) {
        entry->points[i].unit = kept;
        entry->version++;
    }
    return rc;
}

static int point_locked(struct dictionary *dictionary, struct entry *entry, const char *name,
                        const char *unit, uint16_t *ret_id)
{
    for (size_t i = 0; i < entry->count; i++) {
        if (strcmp(entry->points[i].name, name) == 0) {
            *ret_id = (uint16_t)i;
            return strcmp(entry->points[i].unit, unit) == 0
                       ? 0
                       : change_unit(dictionary, entry, i, unit);
        }
    }
    int rc = add_point(dictionary, entry, name, unit);
    if (rc == 0) {
        *ret_id = (uint16_t)(entry->count - 1);
    }
    return rc;
}

int dictionary_point(struct dictionary *dictionary, uint32_t device, const char *name,
                     const char *unit, uint16_t *ret_id)
{
    if (device == 0 || device > dictionary->count || name[0] == '\0' ||
        strlen(name) > DICTIONARY_TEXT_MAX || strlen(unit) > DICTIONARY_TEXT_MAX) {
        return -EINVAL;
    }
    pthread_mutex_lock(&dictionary->lock);
    int rc = point_locked(dictionary, &dictionary->entries[device - 1], name, unit, ret_id);
    pthread_mutex_unlock(&dictionary->lock);
    return rc;
}

size_t dictionary_count(const struct dictionary *dictionary)
{
    return dictionary->count;
}

bool dictionary_changed(const struct dictionary *dictionary)
{
    return dictionary->changed;
}

const struct store_names *dictionary_names(struct dictionary *dictionary, uint32_t device)
{
    pthread_mutex_lock(&dictionary->lock);
    struct store_names *names = NULL;
    if (device > 0 && device <= dictionary->count) {
        struct entry *entry = &dictionary->entries[device - 1];
        if (entry->shown == NULL && (entry->shown = malloc(sizeof(*names))) != NULL) {
            *entry->shown = (struct store_names){.device = entry->name,
                                                 .tags_json = entry->tags,
                                                 .point_count = entry->count,
                                                 .points = entry->points};
        }
        names = entry->shown;
    }
    pthread_mutex_unlock(&dictionary->lock);
    return names;
}

static void add_text(struct buffer *record, const char *text)
{
    size_t len = strlen(text);
    buffer_add_varint(record, len);
    buffer_add(record, text, len);
}

static int encode(const struct entry *entry, struct buffer *record)
{
    static const uint8_t header[DICTIONARY_HEADER_SIZE] = {DICTIONARY_VERSION};
    buffer_clear(record);
    buffer_add(record, header, sizeof(header));
    add_text(record, entry->name);
    add_text(record, entry->tags);
    buffer_add_varint(record, entry->count);
    for (size_t i = 0; i < entry->count; i++) {
        add_text(record, entry->points[i].name);
    }
    for (size_t i = 0; i < entry->count; i++) {
        add_text(record, entry->points[i].unit);
    }
    if (buffer_failed(record)) {
        return -ENOMEM;
    }
    field_put32(record->data + 4, crc32c(0, record->data + DICTIONARY_HEADER_SIZE,
                                         record->len - DICTIONARY_HEADER_SIZE));
    return 0;
}

int dictionary_save(struct dictionary *dictionary, MDB_txn *txn)
{
    auto_buffer struct buffer record = {0};
    int rc = 0;
    for (size_t i = 0; i < dictionary->count && rc == 0 && dictionary->changed; i++) {
        struct entry *entry = &dictionary->entries[i];
        if (entry->changed) {
            rc = encode(entry, &record);
            if (rc == 0) {
                rc = env_put_device(txn, (uint32_t)i + 1, entry->version, record.data, record.len);
            }
        }
    }
    return rc;
}

void dictionary_saved(struct dictionary *dictionary)
{
    for (size_t i = 0; i < dictionary->count && dictionary->changed; i++) {
        dictionary->entries[i].changed = false;
    }
    dictionary->changed = false;
}

static int open_record(const void *record, size_t len, struct cursor *ret_cursor)
{
    const uint8_t *at = record;
    if (len < DICTIONARY_HEADER_SIZE || at[0] != DICTIONARY_VERSION ||
        crc32c(0, at + DICTIONARY_HEADER_SIZE, len - DICTIONARY_HEADER_SIZE) !=
            field_get32(at + 4)) {
        return -EBADMSG;
    }
    *ret_cursor = (struct cursor){at + DICTIONARY_HEADER_SIZE, at + len, false};
    return 0;
}

/* The next text, kept; without a dictionary it is only checked. */
static int take_text(struct cursor *c, struct dictionary *dictionary, const char **ret_text)
{
    uint64_t len = cursor_take_varint(c);
    const uint8_t *from = len > DICTIONARY_TEXT_MAX ? NULL : cursor_take(c, len);
    if (from == NULL || memchr(from, 0, len) != NULL) {
        return -EBADMSG;
    }
    *ret_text = dictionary == NULL ? "" : intern(dictionary, (const char *)from, len);
    return *ret_text == NULL ? -ENOMEM : 0;
}

static int take_points(struct cursor *c, struct dictionary *dictionary, struct entry *entry)
{
    int rc = 0;
    const char *text;
    for (size_t i = 0; i < entry->count && rc == 0; i++) {
        rc = take_text(c, dictionary, &text);
        if (rc == 0 && dictionary != NULL) {
            entry->points[i].name = text;
            entry->points[i].name_len = (uint16_t)strlen(text);
        }
    }
    for (size_t i = 0; i < entry->count && rc == 0; i++) {
        rc = take_text(c, dictionary, &text);
        if (rc == 0 && dictionary != NULL) {
            entry->points[i].unit = text;
        }
    }
    return rc;
}

static int take_record(const void *record, size_t len, struct dictionary *dictionary,
                       struct entry *entry)
{
    struct cursor c;
    int rc = open_record(record, len, &c);
    if (rc == 0) {
        rc = take_text(&c, dictionary, &entry->name);
    }
    if (rc == 0) {
        rc = take_text(&c, dictionary, &entry->tags);
    }
    if (rc < 0) {
        return rc;
    }
    entry->count = entry->capacity = cursor_take_varint(&c);
    if (c.failed || entry->count > DICTIONARY_POINTS_MAX || entry->count > (size_t)(c.end - c.at)) {
        return -EBADMSG;
    }
    if (dictionary != NULL && entry->count > 0) {
        entry->points = calloc(entry->count, sizeof(*entry->points));
        if (entry->points == NULL) {
            return -ENOMEM;
        }
    }
    rc = take_points(&c, dictionary, entry);
    return rc == 0 && c.at != c.end ? -EBADMSG : rc;
}

int dictionary_check(const void *record, size_t len)
{
    struct entry entry = {0};
    return take_record(record, len, NULL, &entry);
}

static int find_point(const struct entry *entry, const char *name, uint16_t *ret_id)
{
    for (size_t i = 0; i < entry->count; i++) {
        if (strcmp(entry->points[i].name, name) == 0) {
            *ret_id = (uint16_t)i;
            return 0;
        }
    }
    return -ENOENT;
}

static int adopt_points(struct dictionary *dictionary, uint32_t id, const struct entry *from,
                        uint16_t *points)
{
    int rc = 0;
    for (size_t i = 0; i < from->count && rc == 0; i++) {
        const struct store_point_name *point = &from->points[i];
        struct entry *entry = &dictionary->entries[id - 1];
        if (find_point(entry, point->name, &points[i]) < 0) {
            rc = add_point(dictionary, entry, point->name, point->unit);
            points[i] = (uint16_t)(entry->count - 1);
        }
    }
    return rc;
}

static int adopt_locked(struct dictionary *dictionary, const struct entry *from, uint32_t *ret_id,
                        uint16_t *points)
{
    if (from->name[0] == '\0') {
        return -EBADMSG;
    }
    uint32_t id = dictionary->count == 0 ? 0 : dictionary->table[find_slot(dictionary, from->name)];
    int rc = id == 0 ? device_locked(dictionary, from->name, from->tags, &id) : 0;
    rc = rc < 0 ? rc : adopt_points(dictionary, id, from, points);
    if (rc == 0) {
        *ret_id = id;
    }
    return rc;
}

int dictionary_adopt(struct dictionary *dictionary, const void *record, size_t len,
                     uint32_t *ret_id, uint16_t **ret_points, size_t *ret_count)
{
    struct entry from = {0};
    auto_free uint16_t *points = NULL;
    pthread_mutex_lock(&dictionary->lock);
    int rc = take_record(record, len, dictionary, &from);
    if (rc == 0) {
        points = calloc(from.count + 1, sizeof(*points));
        rc = points == NULL ? -ENOMEM : adopt_locked(dictionary, &from, ret_id, points);
    }
    pthread_mutex_unlock(&dictionary->lock);
    free(from.points);
    if (rc == 0) {
        *ret_points = take_ptr(points);
        *ret_count = from.count;
    }
    return rc;
}

/* A record of the next device, or of a newer version of the one loaded last. */
static int load_record(struct dictionary *dictionary, uint32_t device, uint32_t version,
                       const MDB_val *value)
{
    struct entry entry = {.version = version};
    int rc = take_record(value->mv_data, value->mv_size, dictionary, &entry);
    uint32_t id = device;
    if (rc == 0 && device == dictionary->count + 1) {
        rc = add_device(dictionary, entry.name, &id);
    }
    if (rc == 0 && (id != device || device != dictionary->count ||
                    strcmp(dictionary->entries[id - 1].name, entry.name) != 0)) {
        rc = -EBADMSG;
    }
    if (rc < 0) {
        free(entry.points);
        return rc;
    }
    free(dictionary->entries[id - 1].points);
    dictionary->entries[id - 1] = entry;
    return 0;
}

int dictionary_load(struct dictionary *dictionary, MDB_txn *txn)
{
    MDB_cursor *cursor = NULL;
    MDB_val name, value;
    uint32_t device, version;
    int rc = env_cursor(txn, KEY_DEVICE, &cursor, &name, &value);
    if (rc < 0) {
        return rc == -ENOENT ? 0 : rc;
    }
    while (rc == 0 && key_parse_pair(KEY_DEVICE, name.mv_data, name.mv_size, &device, &version)) {
        rc = load_record(dictionary, device, version, &value);
        if (rc == 0) {
            rc = env_error(mdb_cursor_get(cursor, &name, &value, MDB_NEXT));
        }
    }
    mdb_cursor_close(cursor);
    return rc == -ENOENT ? 0 : rc;
}
