#include "gateway/store/wreck.h"

#include "gateway/base/scan.h"
#include "gateway/store/pages_layout.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

enum { BEAT_PAGES = 256 };

struct wreck {
    int fd;
    size_t page_size, pages;
    uint8_t *seen;   /* a bit a page that the tree has led to */
    uint8_t *levels; /* a page for each level of the tree, and one for values */
    struct wreck_entry *entries;
    size_t count, capacity;
    struct lmdb_tree barn;
    bool broken, has_barn, state_beside_barn;
    unsigned looked;
    void (*beat)(void *user);
    void *user;
};

int wreck_order(const struct wreck_entry *a, const struct wreck_entry *b)
{
    if (a->part != b->part) {
        return a->part < b->part ? -1 : 1;
    }
    if (a->number != b->number) {
        return a->number < b->number ? -1 : 1;
    }
    return a->leaf < b->leaf ? -1 : a->leaf > b->leaf;
}

static int by_order(const void *a, const void *b)
{
    return wreck_order(a, b);
}

static int read_at(const struct wreck *wreck, size_t at, void *to, size_t len)
{
    for (size_t have = 0; have < len;) {
        ssize_t n = pread(wreck->fd, (uint8_t *)to + have, len - have, (off_t)(at + have));
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n <= 0) {
            return n < 0 ? -EIO : -EBADMSG;
        }
        have += (size_t)n;
    }
    return 0;
}

static const struct lmdb_page *read_page(struct wreck *wreck, size_t number, unsigned level)
{
    uint8_t *to = wreck->levels + level * wreck->page_size;
    if (++wreck->looked % BEAT_PAGES == 0) {
        wreck->beat(wreck->user);
    }
    return read_at(wreck, number * wreck->page_size, to, wreck->page_size) < 0
               ? NULL
               : (const struct lmdb_page *)(const void *)to;
}

static bool claim(struct wreck *wreck, size_t number)
{
    uint8_t bit = (uint8_t)(1u << number % 8);
    if (number < 2 || number >= wreck->pages || (wreck->seen[number / 8] & bit) != 0) {
        return false;
    }
    wreck->seen[number / 8] |= bit;
    return true;
}

/* How many nodes a page says it has; 0: it is no page of that kind. */
static size_t node_count(const struct wreck *wreck, const struct lmdb_page *page, unsigned flags)
{
    bool good = page->flags == flags && page->lower >= LMDB_HEADER && page->lower <= page->upper &&
                page->upper <= wreck->page_size && page->lower % 2 == 0;
    return good ? (page->lower - (size_t)LMDB_HEADER) / 2 : 0;
}

/* The node, with its key and what lies behind it within the page; NULL: it is not. */
static const struct lmdb_node *node_at(const struct wreck *wreck, const struct lmdb_page *page,
                                       size_t i, size_t *ret_room)
{
    size_t offset = page->offsets[i];
    if (offset < page->upper || offset + sizeof(struct lmdb_node) > wreck->page_size ||
        offset % 2 != 0) {
        return NULL;
    }
    const struct lmdb_node *node = (const struct lmdb_node *)(const void *)((const uint8_t *)page +
                                                                            offset);
    size_t room = wreck->page_size - offset - sizeof(*node);
    if (node->key_len > LMDB_KEY_MAX || node->key_len > room) {
        return NULL;
    }
    *ret_room = room - node->key_len;
    return node;
}

static uint64_t part_of(bool orphan, enum wreck_kind kind, unsigned stream, uint32_t device)
{
    return (uint64_t)orphan << 48 | (uint64_t)kind << 40 | (uint64_t)stream << 32 | device;
}

/* What a key names; false: nothing that salvage asks for. */
static bool parse_key(const struct lmdb_node *node, bool orphan, struct wreck_entry *ret_entry)
{
    unsigned stream;
    uint32_t device, version;
    uint64_t number;
    const void *key = node->key;
    size_t len = node->key_len;
    if (len == 1 && (node->key[0] == (uint8_t)KEY_STATE || node->key[0] == KEY_STATE_FLAT)) {
        *ret_entry = (struct wreck_entry){.part = part_of(orphan, WRECK_STATE, 0, 0)};
    } else if (key_parse_number(KEY_ANCHOR, key, len, &number)) {
        *ret_entry = (struct wreck_entry){part_of(orphan, WRECK_ANCHOR, 0, 0), number, 0};
    } else if (key_parse_pair(KEY_DEVICE, key, len, &device, &version) ||
               key_parse_pair(KEY_NAME, key, len, &device, &version)) {
        *ret_entry = (struct wreck_entry){part_of(orphan, WRECK_DEVICE, 0, device), version, 0};
    } else if (key_parse_large(key, len, &stream, &device, &number) && stream < STREAM_COUNT) {
        *ret_entry = (struct wreck_entry){part_of(orphan, WRECK_LARGE, stream, device), number, 0};
    } else if (key_parse_number(KEY_WAL, key, len, &number)) {
        *ret_entry = (struct wreck_entry){part_of(orphan, WRECK_LOG, 0, 0), number, 0};
    } else if (key_parse_number(KEY_DEAD, key, len, &number)) {
        *ret_entry = (struct wreck_entry){part_of(orphan, WRECK_LETTER, 0, 0), number, 0};
    } else if (key_parse_number(KEY_RECORD, key, len, &number)) {
        *ret_entry = (struct wreck_entry){part_of(orphan, WRECK_RECORD, 0, 0), number, 0};
    } else {
        return false;
    }
    return true;
}

static int add_entry(struct wreck *wreck, const struct wreck_entry *entry)
{
    if (wreck->count == WRECK_ENTRIES_MAX) {
        wreck->broken = true;
        return 0;
    }
    if (wreck->count == wreck->capacity) {
        size_t capacity = wreck->capacity == 0 ? 1024 : wreck->capacity * 2;
        struct wreck_entry *entries = reallocarray(wreck->entries, capacity, sizeof(*entries));
        if (entries == NULL) {
            return -ENOMEM;
        }
        wreck->entries = entries;
        wreck->capacity = capacity;
    }
    wreck->entries[wreck->count++] = *entry;
    return 0;
}

static size_t node_number(const uint8_t *at)
{
    size_t number;
    memcpy(&number, at, sizeof(number));
    return number;
}

/* Where the pages of a value begin and how many they are; 0: it lies in the leaf, or nowhere. */
static size_t big_pages(const struct wreck *wreck, const struct lmdb_node *node, size_t room,
                        size_t *ret_first)
{
    size_t len = node->low | (size_t)node->high << 16;
    if ((node->flags & LMDB_NODE_BIG) == 0 || room < sizeof(size_t)) {
        return 0;
    }
    *ret_first = node_number(node->key + node->key_len);
    size_t count = (LMDB_HEADER - 1 + len) / wreck->page_size + 1;
    return *ret_first < 2 || *ret_first >= wreck->pages || count > wreck->pages - *ret_first
               ? 0
               : count;
}

/* Keeps the tree that the node tells of, while the main one is walked; false: it tells of none. */
static bool take_barn(struct wreck *wreck, const struct lmdb_node *node, size_t room, bool orphan)
{
    bool named = node->key_len == strlen(ENV_BARN) &&
                 memcmp(node->key, ENV_BARN, node->key_len) == 0;
    bool tree = node->flags == LMDB_NODE_TREE;
    if (!named && !tree) {
        return false;
    }
    bool good = named && tree && room >= sizeof(wreck->barn);
    wreck->broken |= !good;
    if (good && !orphan && !wreck->has_barn) {
        memcpy(&wreck->barn, node->key + node->key_len, sizeof(wreck->barn));
        wreck->has_barn = true;
    }
    return true;
}

/* Lists what the leaf holds of interest. */
static int collect(struct wreck *wreck, const struct lmdb_page *page, size_t number, bool orphan)
{
    size_t count = node_count(wreck, page, LMDB_PAGE_LEAF);
    wreck->broken |= count == 0;
    for (size_t i = 0; i < count; i++) {
        struct wreck_entry entry;
        size_t room = 0, first = 0;
        const struct lmdb_node *node = node_at(wreck, page, i, &room);
        wreck->broken |= node == NULL;
        if (node == NULL || take_barn(wreck, node, room, orphan) ||
            !parse_key(node, orphan, &entry)) {
            continue;
        }
        wreck->state_beside_barn |= node->key[0] == (uint8_t)KEY_STATE;
        entry.leaf = (uint64_t)number << 16 | i;
        for (size_t n = orphan ? 0 : big_pages(wreck, node, room, &first); n > 0; n--) {
            (void)claim(wreck, first + n - 1);
        }
        int rc = add_entry(wreck, &entry);
        if (rc < 0) {
            return rc;
        }
    }
    return 0;
}

static int walk(struct wreck *wreck, size_t number, unsigned depth, unsigned leaf_depth)
{
    const struct lmdb_page *page = claim(wreck, number) ? read_page(wreck, number, depth) : NULL;
    if (page == NULL || page->number != number) {
        wreck->broken = true;
        return 0;
    }
    if (depth == leaf_depth) {
        return collect(wreck, page, number, false);
    }
    size_t count = node_count(wreck, page, LMDB_PAGE_BRANCH);
    wreck->broken |= count == 0;
    int rc = 0;
    for (size_t i = 0; i < count && rc == 0; i++) {
        size_t room;
        const struct lmdb_node *node = node_at(wreck, page, i, &room);
        if (node == NULL) {
            wreck->broken = true;
            continue;
        }
        size_t child = node->low | (size_t)node->high << 16;
        if (sizeof(size_t) > 4) {
            child |= (size_t)node->flags << 16 << 16;
        }
        rc = walk(wreck, child, depth + 1, leaf_depth);
    }
    return rc;
}

/* The meta page of that number; false: it is none. */
static bool read_meta(struct wreck *wreck, size_t number, struct lmdb_meta *ret_meta)
{
    const struct lmdb_page *page = read_page(wreck, number, 0);
    if (page == NULL || page->number != number || page->flags != LMDB_PAGE_META) {
        return false;
    }
    memcpy(ret_meta, (const uint8_t *)page + LMDB_HEADER, sizeof(*ret_meta));
    return ret_meta->magic == LMDB_MAGIC && ret_meta->version == 1 &&
           ret_meta->trees[LMDB_FREE_TREE].page_size == wreck->page_size;
}

static void sort(struct wreck *wreck)
{
    if (wreck->count > 0) {
        qsort(wreck->entries, wreck->count, sizeof(*wreck->entries), by_order);
    }
}

static int walk_from_root(struct wreck *wreck, const struct lmdb_tree *tree)
{
    if (tree->root == SIZE_MAX) {
        return 0;
    }
    if (tree->depth < 1 || tree->depth > LMDB_DEPTH_MAX) {
        wreck->broken = true;
        return 0;
    }
    return walk(wreck, tree->root, 1, tree->depth);
}

static int walk_tree(struct wreck *wreck)
{
    struct lmdb_meta metas[2];
    bool have[2] = {read_meta(wreck, 0, &metas[0]), read_meta(wreck, 1, &metas[1])};
    /* With one meta page lost the other may be the older one. */
    wreck->broken = !have[0] || !have[1];
    if (!have[0] && !have[1]) {
        return 0;
    }
    unsigned newest = !have[0] || (have[1] && metas[1].transaction > metas[0].transaction);
    int rc = walk_from_root(wreck, &metas[newest].trees[LMDB_MAIN_TREE]);
    if (rc == 0 && wreck->has_barn) {
        struct lmdb_tree barn = wreck->barn;
        rc = walk_from_root(wreck, &barn);
    }
    wreck->broken |= wreck->state_beside_barn && !wreck->has_barn;
    sort(wreck);
    return rc;
}

int wreck_open(const char *file, void (*beat)(void *user), void *user, struct wreck **ret_wreck)
{
    struct wreck *wreck = calloc(1, sizeof(*wreck));
    struct stat st = {0};
    if (wreck == NULL) {
        return -ENOMEM;
    }
    wreck->beat = beat;
    wreck->user = user;
    wreck->fd = open(file, O_RDONLY | O_CLOEXEC);
    int rc = wreck->fd < 0 || fstat(wreck->fd, &st) < 0 ? -errno : 0;
    if (rc == 0) {
        wreck->page_size = (size_t)sysconf(_SC_PAGESIZE);
        wreck->pages = (size_t)st.st_size / wreck->page_size;
        wreck->seen = calloc(1, wreck->pages / 8 + 1);
        wreck->levels = calloc(LMDB_DEPTH_MAX + 2, wreck->page_size);
        rc = wreck->seen == NULL || wreck->levels == NULL ? -ENOMEM : walk_tree(wreck);
    }
    if (rc < 0) {
        wreck_close(wreck);
        return rc;
    }
    *ret_wreck = wreck;
    return 0;
}

void wreck_close(struct wreck *wreck)
{
    if (wreck == NULL) {
        return;
    }
    if (wreck->fd >= 0) {
        close(wreck->fd);
    }
    free(wreck->entries);
    free(wreck->levels);
    free(wreck->seen);
    free(wreck);
}

bool wreck_is_broken(const struct wreck *wreck)
{
    return wreck->broken;
}

int wreck_add_orphans(struct wreck *wreck)
{
    int rc = 0;
    for (size_t number = 2; number < wreck->pages && rc == 0; number++) {
        if (!claim(wreck, number)) {
            continue;
        }
        /* Its own number may be another: pages that were exchanged are whole, each. */
        const struct lmdb_page *page = read_page(wreck, number, 0);
        if (page != NULL && node_count(wreck, page, LMDB_PAGE_LEAF) > 0) {
            rc = collect(wreck, page, number, true);
        }
    }
    sort(wreck);
    return rc;
}

size_t wreck_count(const struct wreck *wreck)
{
    return wreck->count;
}

const struct wreck_entry *wreck_at(const struct wreck *wreck, size_t i)
{
    return &wreck->entries[i];
}

int wreck_read(struct wreck *wreck, const struct wreck_entry *entry, struct buffer *ret_value)
{
    size_t i = entry->leaf & 0xffff, room = 0, first = 0;
    const struct lmdb_page *page = read_page(wreck, (size_t)(entry->leaf >> 16), 0);
    if (page == NULL) {
        return -EIO;
    }
    const struct lmdb_node *node = i < node_count(wreck, page, LMDB_PAGE_LEAF)
                                       ? node_at(wreck, page, i, &room)
                                       : NULL;
    size_t len = node == NULL ? SIZE_MAX : node->low | (size_t)node->high << 16;
    if (len > WRECK_VALUE_MAX) {
        return -EBADMSG;
    }
    buffer_clear(ret_value);
    uint8_t *to = buffer_reserve(ret_value, len + 1);
    if (to == NULL) {
        return -ENOMEM;
    }
    ret_value->len = len;
    if ((node->flags & LMDB_NODE_BIG) == 0) {
        if (len > room) {
            return -EBADMSG;
        }
        memcpy(to, node->key + node->key_len, len);
        return 0;
    }
    return big_pages(wreck, node, room, &first) == 0
               ? -EBADMSG
               : read_at(wreck, first * wreck->page_size + LMDB_HEADER, to, len);
}
