/* disk.h - what a disk may hold while writes are on their way: the model of a power cut.
 *
 * The page cache holds the newest content. The disk holds each 512-byte sector, each file size and
 * each folder, independently of one another, at any version between the last one that a completed
 * barrier forced and the newest one. Those are the cells; one with more than one version is dirty.
 * An image is one choice of a version for each dirty cell. Sectors do not tear: LMDB's pages of
 * meta data rely on it. Plain memory, one thread; a trace that it does not understand ends in
 * abort(). */
#pragma once

#include "record.h"

enum { DISK_SECTOR = 512, DISK_NAMES_MAX = 16, DISK_INODES_MAX = 256, DISK_HANDLES_MAX = 4096 };

struct version {
    uint64_t event; /* that made it */
    union {
        uint8_t *bytes;         /* of a sector */
        uint64_t size;          /* of a file */
        struct entries *folder; /* of a folder */
    };
};

enum cell_kind { CELL_SECTOR, CELL_SIZE, CELL_FOLDER };

struct cell {
    struct version *versions; /* [0]: forced; the last: newest */
    uint32_t count, pick;     /* pick: the version that the next image gets */
    enum cell_kind kind;
};

struct inode {
    struct cell self; /* size of a file, content of a folder */
    struct cell *sectors;
    size_t sector_count;
};

struct disk {
    struct inode inodes[DISK_INODES_MAX]; /* [0]: the folder that was recorded */
    uint32_t inode_count;
    struct {
        uint32_t inode;
        uint64_t sync_begin;
    } handles[DISK_HANDLES_MAX];
    struct cell **dirty; /* by disk_dirty() */
    size_t dirty_capacity;
};

struct disk *disk_create(void);
void disk_destroy(struct disk *disk);

/* The event happens; `bytes` is what follows it in the trace. */
void disk_apply(struct disk *disk, uint64_t number, const struct trace_event *event,
                const uint8_t *bytes);

/* The dirty cells: folders and sizes, then sectors in the order of their files. */
size_t disk_dirty(struct disk *disk);

/* Appends the tree that the picks make: for each folder and file an image_node, its path with a
 * NUL, padded to 8, then the file's bytes, padded to 8. */
struct image_node {
    uint32_t is_folder, path_len;
    uint64_t size;
};
void disk_image(const struct disk *disk, struct buffer *image);

/* Makes that tree below the folder `root`, which is emptied first. */
must_check int image_write(const char *root, const uint8_t *image, size_t len);
int image_clear(const char *root);
