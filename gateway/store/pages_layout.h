/* pages_layout.h - how an LMDB file looks: data format 1 (LMDB 0.9, mdb.c), with its names where
 * they help.
 *
 * Byte order and word size are those of this machine. Pages have a number and flags; a leaf holds
 * nodes with a key and a value, or with the number of the first of the pages that hold the value.
 * For those who read the file without LMDB: pages.c before it is opened, wreck.c afterwards. */
#pragma once

#include <stddef.h>
#include <stdint.h>

struct lmdb_page {
    size_t number;
    uint16_t unused, flags;
    union {
        struct {
            uint16_t lower, upper; /* bounds of the free space */
        };
        uint32_t pages; /* of an overflow run */
    };
    uint16_t offsets[]; /* of the nodes */
};

struct lmdb_node {
    uint16_t low, high, flags, key_len; /* low, high: of the value's length, or a page number */
    uint8_t key[];
};

struct lmdb_tree {
    uint32_t page_size; /* of the free list's tree only */
    uint16_t flags, depth;
    size_t branches, leaves, overflows, entries, root; /* root SIZE_MAX: an empty tree */
};

struct lmdb_meta {
    uint32_t magic, version;
    size_t address, map_bytes;
    struct lmdb_tree trees[2];
    size_t last_page, transaction;
};

#define LMDB_MAGIC 0xBEEFC0DEu

enum { LMDB_PAGE_BRANCH = 1, LMDB_PAGE_LEAF = 2, LMDB_PAGE_OVERFLOW = 4, LMDB_PAGE_META = 8 };
enum {
    LMDB_NODE_BIG = 1,  /* the value lies in an overflow run */
    LMDB_NODE_TREE = 2, /* the value is a struct lmdb_tree */
};
enum { LMDB_FREE_TREE, LMDB_MAIN_TREE, LMDB_NAMED_TREE };

/* The only tree beside the two of the meta page: its name in the main one. */
#define ENV_BARN "barn"
enum {
    LMDB_INTEGER_KEYS = 8,
    LMDB_KEY_MAX = 511,
    LMDB_DEPTH_MAX = 32,
    LMDB_HEADER = sizeof(size_t) + 8, /* of a page, before its nodes or its bytes */
};
