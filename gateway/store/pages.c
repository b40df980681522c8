#include "gateway/store/pages.h"

#include "gateway/store/pages_layout.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

static const size_t map_bytes_most = sizeof(size_t) < 8 ? SIZE_MAX : SIZE_MAX >> 20;
/* Pages at the end that were given back before they were written are in no file. */
static const size_t unwritten_max = 1 << 20;

struct walk {
    const uint8_t *file;
    size_t page_size, file_pages, end; /* end: the first page number beyond */
    uint8_t *seen;                     /* a bit a page */
    int tree_index;
    const struct lmdb_tree *tree;
    size_t branches, leaves, overflows, entries;
    unsigned heads;
    struct lmdb_tree barn;
    bool has_barn;
    uint8_t last_key[LMDB_KEY_MAX];
    size_t last_key_len;
    bool has_key;
};

static const struct lmdb_page *page_at(const struct walk *walk, size_t number)
{
    return (const struct lmdb_page *)(const void *)(walk->file + number * walk->page_size);
}

/* Takes note of pages that are used, or free; each only once. */
static bool claim(struct walk *walk, size_t number, size_t count, bool in_file)
{
    size_t end = in_file && walk->file_pages < walk->end ? walk->file_pages : walk->end;
    if (number < 2 || count == 0 || number >= end || count > end - number) {
        return false;
    }
    for (size_t i = number; i < number + count; i++) {
        uint8_t bit = (uint8_t)(1u << i % 8);
        if ((walk->seen[i / 8] & bit) != 0) {
            return false;
        }
        walk->seen[i / 8] |= bit;
    }
    return true;
}

static size_t number_at(const uint8_t *at)
{
    size_t number;
    memcpy(&number, at, sizeof(number));
    return number;
}

/* The pages of one transaction that are free: how many, then their numbers, descending. */
static bool check_free(struct walk *walk, const uint8_t *list, size_t len)
{
    size_t count = len < sizeof(count) ? SIZE_MAX : number_at(list);
    if (count > len / sizeof(count) - 1) {
        return false;
    }
    size_t last = SIZE_MAX;
    for (size_t i = 1; i <= count; i++) {
        size_t number = number_at(list + i * sizeof(number));
        if (number >= last || !claim(walk, number, 1, false)) {
            return false;
        }
        last = number;
    }
    return true;
}

/* A run of overflow pages; its head may tell of more pages than the value needs by now. */
static bool check_big(struct walk *walk, const uint8_t *at, size_t len)
{
    size_t number = number_at(at);
    size_t count = (LMDB_HEADER - 1 + len) / walk->page_size + 1;
    bool free_list = walk->tree_index == LMDB_FREE_TREE;
    if (number >= walk->file_pages) {
        return false;
    }
    if (free_list || walk->heads < PAGES_HEADS_MAX) {
        const struct lmdb_page *head = page_at(walk, number);
        if (head->number != number || head->flags != LMDB_PAGE_OVERFLOW || head->pages < count) {
            return false;
        }
        count = head->pages;
    }
    walk->heads++;
    walk->overflows += count;
    const uint8_t *data = walk->file + number * walk->page_size + LMDB_HEADER;
    return claim(walk, number, count, true) && (!free_list || check_free(walk, data, len));
}

/* Keys ascend over all leaves; those of the free list are numbers. */
static bool check_order(struct walk *walk, const struct lmdb_node *node)
{
    bool ascends = true;
    if (walk->has_key && walk->tree_index == LMDB_FREE_TREE) {
        ascends = number_at(walk->last_key) < number_at(node->key);
    } else if (walk->has_key) {
        size_t len = node->key_len < walk->last_key_len ? node->key_len : walk->last_key_len;
        int order = memcmp(walk->last_key, node->key, len);
        ascends = order < 0 || (order == 0 && walk->last_key_len < node->key_len);
    }
    memcpy(walk->last_key, node->key, node->key_len);
    walk->last_key_len = node->key_len;
    walk->has_key = true;
    return ascends;
}

static size_t node_size(const struct lmdb_node *node, bool leaf)
{
    size_t len = (node->flags & LMDB_NODE_BIG) != 0 ? sizeof(size_t)
                                                    : node->low | (size_t)node->high << 16;
    size_t size = sizeof(*node) + node->key_len + (leaf ? len : 0);
    return size + size % 2;
}

/* The one tree that the main one may lead to; it is looked at afterwards. */
static bool check_barn(struct walk *walk, const struct lmdb_node *node, size_t len)
{
    if (walk->tree_index != LMDB_MAIN_TREE || walk->has_barn || node->flags != LMDB_NODE_TREE ||
        node->key_len != strlen(ENV_BARN) || memcmp(node->key, ENV_BARN, node->key_len) != 0 ||
        len != sizeof(walk->barn)) {
        return false;
    }
    memcpy(&walk->barn, node->key + node->key_len, sizeof(walk->barn));
    walk->has_barn = true;
    return true;
}

static bool check_leaf_node(struct walk *walk, const struct lmdb_node *node, size_t room)
{
    size_t len = node->low | (size_t)node->high << 16;
    bool big = (node->flags & LMDB_NODE_BIG) != 0;
    size_t kept = big ? sizeof(size_t) : len;
    bool free_key = walk->tree_index == LMDB_FREE_TREE;
    if ((node->flags & ~(LMDB_NODE_BIG | LMDB_NODE_TREE)) != 0 || node->key_len == 0 ||
        node->key_len > LMDB_KEY_MAX || (free_key && node->key_len != sizeof(size_t)) ||
        sizeof(*node) + node->key_len + kept > room || !check_order(walk, node)) {
        return false;
    }
    walk->entries++;
    if ((node->flags & LMDB_NODE_TREE) != 0) {
        return check_barn(walk, node, len);
    }
    const uint8_t *data = node->key + node->key_len;
    return big ? check_big(walk, data, len) : !free_key || check_free(walk, data, len);
}

static bool check_page(struct walk *walk, size_t number, unsigned depth);

/* The first key of a branch is empty; the others only lead, and are held to their bounds. */
static bool check_branch_node(struct walk *walk, const struct lmdb_node *node, size_t room,
                              unsigned depth)
{
    size_t number = node->low | (size_t)node->high << 16;
    if (sizeof(size_t) > 4) {
        number |= (size_t)node->flags << 16 << 16;
    }
    return sizeof(*node) + node->key_len <= room && node->key_len <= LMDB_KEY_MAX &&
           check_page(walk, number, depth + 1);
}

/* Where the tree leads to by a key, there the keys are not below it. */
static bool leads(const struct walk *walk, const struct lmdb_node *node)
{
    if (node->key_len == 0 || walk->tree_index == LMDB_FREE_TREE) {
        return true;
    }
    size_t len = node->key_len < walk->last_key_len ? node->key_len : walk->last_key_len;
    return memcmp(node->key, walk->last_key, len) <= 0;
}

static const struct lmdb_node *node_at(const struct walk *walk, const struct lmdb_page *page,
                                       size_t i, size_t *ret_room)
{
    size_t offset = page->offsets[i];
    if (offset < page->upper || offset + sizeof(struct lmdb_node) > walk->page_size ||
        offset % 2 != 0) {
        return NULL;
    }
    *ret_room = walk->page_size - offset;
    return (const struct lmdb_node *)(const void *)((const uint8_t *)page + offset);
}

static bool check_page(struct walk *walk, size_t number, unsigned depth)
{
    if (depth > walk->tree->depth || !claim(walk, number, 1, true)) {
        return false;
    }
    const struct lmdb_page *page = page_at(walk, number);
    bool leaf = depth == walk->tree->depth;
    if (page->number != number || page->flags != (leaf ? LMDB_PAGE_LEAF : LMDB_PAGE_BRANCH) ||
        page->lower < LMDB_HEADER || page->lower > page->upper || page->upper > walk->page_size ||
        page->lower % 2 != 0) {
        return false;
    }
    size_t count = (page->lower - (size_t)LMDB_HEADER) / 2, room = 0, used = 0;
    bool good = count >= 1;
    for (size_t i = 0; i < count && good; i++) {
        const struct lmdb_node *node = node_at(walk, page, i, &room);
        good = node != NULL &&
               (leaf ? check_leaf_node(walk, node, room)
                     : check_branch_node(walk, node, room, depth) && leads(walk, node));
        used += good ? node_size(node, leaf) : 0;
    }
    good = good && used <= walk->page_size - page->upper; /* none lies upon another */
    walk->leaves += leaf;
    walk->branches += !leaf;
    return good;
}

static bool check_tree(struct walk *walk, const struct lmdb_tree *tree, int index)
{
    walk->tree = tree;
    walk->tree_index = index;
    walk->branches = walk->leaves = walk->overflows = walk->entries = 0;
    walk->has_key = false;
    if (tree->flags != (index == LMDB_FREE_TREE ? LMDB_INTEGER_KEYS : 0) ||
        tree->depth > LMDB_DEPTH_MAX) {
        return false;
    }
    if (tree->root == SIZE_MAX) {
        return tree->depth == 0 && tree->entries == 0;
    }
    return tree->depth > 0 && check_page(walk, tree->root, 1) && walk->branches == tree->branches &&
           walk->leaves == tree->leaves && walk->entries == tree->entries &&
           (walk->overflows == tree->overflows || walk->heads > PAGES_HEADS_MAX);
}

static const struct lmdb_meta *meta_of(const uint8_t *file, size_t page_size, size_t number)
{
    const struct lmdb_page *page = (const struct lmdb_page *)(const void *)(file +
                                                                            number * page_size);
    const struct lmdb_meta *meta = (const struct lmdb_meta *)(const void *)((const uint8_t *)page +
                                                                            LMDB_HEADER);
    bool good = page->number == number && page->flags == LMDB_PAGE_META &&
                meta->magic == LMDB_MAGIC && meta->version == 1 &&
                meta->trees[LMDB_FREE_TREE].page_size == page_size;
    return good ? meta : NULL;
}

static int check_mapped(const uint8_t *file, size_t size)
{
    size_t page_size = (size_t)sysconf(_SC_PAGESIZE);
    if (size < 2 * page_size) {
        return -EBADMSG;
    }
    const struct lmdb_meta *first = meta_of(file, page_size, 0),
                           *second = meta_of(file, page_size, 1);
    if (first == NULL || second == NULL) {
        return -EBADMSG;
    }
    const struct lmdb_meta *meta = first->transaction < second->transaction ? second : first;
    struct walk walk = {.file = file,
                        .page_size = page_size,
                        .file_pages = size / page_size,
                        .end = meta->last_page + 1};
    if (meta->last_page < 1 || walk.end > walk.file_pages + unwritten_max ||
        meta->map_bytes > map_bytes_most) {
        return -EBADMSG;
    }
    auto_free uint8_t *seen = calloc(1, walk.end / 8 + 1);
    if (seen == NULL) {
        return -ENOMEM;
    }
    walk.seen = seen;
    bool good = check_tree(&walk, &meta->trees[LMDB_FREE_TREE], LMDB_FREE_TREE) &&
                check_tree(&walk, &meta->trees[LMDB_MAIN_TREE], LMDB_MAIN_TREE) &&
                (!walk.has_barn || check_tree(&walk, &walk.barn, LMDB_NAMED_TREE));
    for (size_t i = walk.file_pages; i < walk.end && good; i++) {
        good = (seen[i / 8] >> i % 8 & 1) != 0; /* beyond the file there is nothing but free ones */
    }
    return good ? 0 : -EBADMSG;
}

int pages_check(const char *file)
{
    auto_close int fd = open(file, O_RDONLY | O_CLOEXEC);
    struct stat st;
    if (fd < 0 || fstat(fd, &st) < 0) {
        return -errno;
    }
    size_t size = (size_t)st.st_size;
    if (st.st_size < 0 || size == 0) {
        return -EBADMSG;
    }
    uint8_t *map = mmap(NULL, size, PROT_READ, MAP_SHARED, fd, 0);
    if (map == MAP_FAILED) {
        return -errno;
    }
    int rc = check_mapped(map, size);
    munmap(map, size);
    return rc;
}
