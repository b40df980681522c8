#include "disk.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

enum { ROOT = 0, NONE = -1 };

struct entries {
    uint32_t count;
    struct {
        char name[48];
        uint32_t inode;
    } list[DISK_NAMES_MAX];
};

static void *sure(void *memory)
{
    if (memory == NULL) {
        abort();
    }
    return memory;
}

static void push(struct cell *cell, struct version version)
{
    cell->versions = sure(reallocarray(cell->versions, cell->count + 1, sizeof(*cell->versions)));
    cell->versions[cell->count++] = version;
}

static void drop_version(const struct cell *cell, const struct version *version)
{
    if (cell->kind == CELL_SECTOR) {
        free(version->bytes);
    } else if (cell->kind == CELL_FOLDER) {
        free(version->folder);
    }
}

/* What was written up to that event is on the disk. */
static void force(struct cell *cell, uint64_t upto)
{
    uint32_t k = 0;
    while (k + 1 < cell->count && cell->versions[k + 1].event <= upto) {
        drop_version(cell, &cell->versions[k++]);
    }
    cell->count -= k;
    memmove(cell->versions, cell->versions + k, cell->count * sizeof(*cell->versions));
}

static const struct version *newest(const struct cell *cell)
{
    return &cell->versions[cell->count - 1];
}

static uint32_t add_inode(struct disk *disk, bool folder)
{
    if (disk->inode_count == DISK_INODES_MAX) {
        abort();
    }
    struct inode *inode = &disk->inodes[disk->inode_count];
    inode->self.kind = folder ? CELL_FOLDER : CELL_SIZE;
    struct version first = {.event = 0};
    if (folder) {
        first.folder = sure(calloc(1, sizeof(*first.folder)));
    }
    push(&inode->self, first);
    return disk->inode_count++;
}

struct disk *disk_create(void)
{
    struct disk *disk = sure(calloc(1, sizeof(*disk)));
    (void)add_inode(disk, true);
    return disk;
}

static void finish_cell(struct cell *cell)
{
    for (uint32_t i = 0; i < cell->count; i++) {
        drop_version(cell, &cell->versions[i]);
    }
    free(cell->versions);
}

void disk_destroy(struct disk *disk)
{
    for (uint32_t i = 0; i < disk->inode_count; i++) {
        struct inode *inode = &disk->inodes[i];
        finish_cell(&inode->self);
        for (size_t s = 0; s < inode->sector_count; s++) {
            finish_cell(&inode->sectors[s]);
        }
        free(inode->sectors);
    }
    free(disk->dirty);
    free(disk);
}

static int entry_of(const struct entries *folder, const char *name, size_t len)
{
    for (uint32_t i = 0; i < folder->count; i++) {
        if (strlen(folder->list[i].name) == len && memcmp(folder->list[i].name, name, len) == 0) {
            return (int)i;
        }
    }
    return NONE;
}

/* Walks down from the recorded folder; *ret_name is the last part, the folder of it is returned. */
static uint32_t parent_of(const struct disk *disk, const char *path, const char **ret_name)
{
    uint32_t at = ROOT;
    const char *slash;
    while ((slash = strchr(path, '/')) != NULL) {
        const struct entries *folder = newest(&disk->inodes[at].self)->folder;
        int entry = entry_of(folder, path, (size_t)(slash - path));
        if (entry == NONE) {
            abort();
        }
        at = folder->list[entry].inode;
        path = slash + 1;
    }
    *ret_name = path;
    return at;
}

static struct entries *changed_folder(struct disk *disk, uint32_t inode, uint64_t number)
{
    struct cell *cell = &disk->inodes[inode].self;
    struct entries *copy = sure(malloc(sizeof(*copy)));
    memcpy(copy, newest(cell)->folder, sizeof(*copy));
    push(cell, (struct version){.event = number, .folder = copy});
    return copy;
}

static void add_entry(struct entries *folder, const char *name, uint32_t inode)
{
    if (folder->count == DISK_NAMES_MAX || strlen(name) >= sizeof(folder->list[0].name)) {
        abort();
    }
    snprintf(folder->list[folder->count].name, sizeof(folder->list[0].name), "%s", name);
    folder->list[folder->count++].inode = inode;
}

static uint32_t remove_entry(struct entries *folder, const char *name)
{
    int entry = entry_of(folder, name, strlen(name));
    if (entry == NONE) {
        abort();
    }
    uint32_t inode = folder->list[entry].inode;
    folder->list[entry] = folder->list[--folder->count];
    return inode;
}

static void make_entry(struct disk *disk, uint64_t number, const char *path, bool is_folder)
{
    const char *name;
    uint32_t parent = parent_of(disk, path, &name);
    add_entry(changed_folder(disk, parent, number), name, add_inode(disk, is_folder));
}

/* Within one folder a rename is one change, as a journal makes it. */
static void rename_entry(struct disk *disk, uint64_t number, const char *from, const char *to)
{
    const char *name, *name_to;
    uint32_t parent = parent_of(disk, from, &name);
    if (parent_of(disk, to, &name_to) != parent) {
        abort();
    }
    struct entries *folder = changed_folder(disk, parent, number);
    uint32_t inode = remove_entry(folder, name);
    if (entry_of(folder, name_to, strlen(name_to)) != NONE) {
        (void)remove_entry(folder, name_to);
    }
    add_entry(folder, name_to, inode);
}

static void open_file(struct disk *disk, uint64_t number, const struct trace_event *event,
                      const char *path)
{
    if (event->handle >= DISK_HANDLES_MAX || (event->offset & TRACE_TRUNCATED) != 0) {
        abort();
    }
    if ((event->offset & TRACE_CREATED) != 0) {
        make_entry(disk, number, path, false);
    }
    const char *name;
    uint32_t at = parent_of(disk, path, &name);
    if (name[0] != '\0') {
        const struct entries *folder = newest(&disk->inodes[at].self)->folder;
        int entry = entry_of(folder, name, strlen(name));
        if (entry == NONE) {
            abort();
        }
        at = folder->list[entry].inode;
    }
    disk->handles[event->handle].inode = at;
}

static void need_sectors(struct inode *inode, uint64_t bytes)
{
    size_t need = (size_t)((bytes + DISK_SECTOR - 1) / DISK_SECTOR);
    if (need <= inode->sector_count) {
        return;
    }
    inode->sectors = sure(reallocarray(inode->sectors, need, sizeof(*inode->sectors)));
    for (size_t s = inode->sector_count; s < need; s++) {
        inode->sectors[s] = (struct cell){.kind = CELL_SECTOR};
        push(&inode->sectors[s],
             (struct version){.event = 0, .bytes = sure(calloc(1, DISK_SECTOR))});
    }
    inode->sector_count = need;
}

static void set_size(struct inode *inode, uint64_t number, uint64_t size)
{
    if (size < newest(&inode->self)->size) {
        abort(); /* what regrown files show is not modelled */
    }
    if (size > newest(&inode->self)->size) {
        push(&inode->self, (struct version){.event = number, .size = size});
    }
}

static void write_file(struct inode *inode, uint64_t number, uint64_t offset, const uint8_t *bytes,
                       uint64_t len)
{
    uint64_t end = offset + len;
    need_sectors(inode, end);
    while (offset < end) {
        struct cell *cell = &inode->sectors[offset / DISK_SECTOR];
        size_t in = offset % DISK_SECTOR;
        size_t n = DISK_SECTOR - in < end - offset ? DISK_SECTOR - in : (size_t)(end - offset);
        uint8_t *sector = sure(malloc(DISK_SECTOR));
        memcpy(sector, newest(cell)->bytes, DISK_SECTOR);
        memcpy(sector + in, bytes, n);
        push(cell, (struct version){.event = number, .bytes = sector});
        bytes += n;
        offset += n;
    }
    if (end > newest(&inode->self)->size) {
        set_size(inode, number, end);
    }
}

static void force_range(struct inode *inode, uint64_t upto, uint64_t offset, uint64_t len)
{
    force(&inode->self, upto);
    for (uint64_t s = offset / DISK_SECTOR; s * DISK_SECTOR < offset + len; s++) {
        force(&inode->sectors[s], upto);
    }
}

void disk_apply(struct disk *disk, uint64_t number, const struct trace_event *event,
                const uint8_t *bytes)
{
    const char *path = (const char *)bytes;
    struct inode *inode = &disk->inodes[disk->handles[event->handle % DISK_HANDLES_MAX].inode];
    const char *name;
    uint32_t parent;
    switch ((enum trace_type)event->type) {
    case TRACE_OPEN:
        open_file(disk, number, event, path);
        break;
    case TRACE_WRITE:
        write_file(inode, number, event->offset, bytes, event->len);
        break;
    case TRACE_FORCED:
        force_range(inode, number, event->offset, event->number);
        break;
    case TRACE_SYNC_BEGIN:
        disk->handles[event->handle].sync_begin = number;
        break;
    case TRACE_SYNC_END:
        force_range(inode, disk->handles[event->handle].sync_begin, 0,
                    (uint64_t)inode->sector_count * DISK_SECTOR);
        break;
    case TRACE_RESIZE:
        need_sectors(inode, event->offset);
        set_size(inode, number, event->offset);
        break;
    case TRACE_MKDIR:
        make_entry(disk, number, path, true);
        break;
    case TRACE_REMOVE:
        parent = parent_of(disk, path, &name);
        (void)remove_entry(changed_folder(disk, parent, number), name);
        break;
    case TRACE_RENAME:
        rename_entry(disk, number, path, path + strlen(path) + 1);
        break;
    case TRACE_BEGUN:
    case TRACE_KEPT:
        break;
    }
}

static void note_dirty(struct disk *disk, struct cell *cell, size_t *count)
{
    cell->pick = 0;
    if (cell->count < 2) {
        return;
    }
    if (*count == disk->dirty_capacity) {
        disk->dirty_capacity = disk->dirty_capacity == 0 ? 256 : disk->dirty_capacity * 2;
        disk->dirty = sure(reallocarray(disk->dirty, disk->dirty_capacity, sizeof(struct cell *)));
    }
    disk->dirty[(*count)++] = cell;
}

size_t disk_dirty(struct disk *disk)
{
    size_t count = 0;
    for (uint32_t i = 0; i < disk->inode_count; i++) {
        note_dirty(disk, &disk->inodes[i].self, &count);
    }
    for (uint32_t i = 0; i < disk->inode_count; i++) {
        for (size_t s = 0; s < disk->inodes[i].sector_count; s++) {
            note_dirty(disk, &disk->inodes[i].sectors[s], &count);
        }
    }
    return count;
}

static const struct version *picked(const struct cell *cell)
{
    return &cell->versions[cell->pick];
}

static void pad(struct buffer *image)
{
    static const uint8_t zeros[8];
    buffer_add(image, zeros, (8 - image->len % 8) % 8);
}

static void add_node(struct buffer *image, bool folder, const char *path, uint64_t size)
{
    struct image_node node = {
        .is_folder = folder, .path_len = (uint32_t)strlen(path) + 1, .size = size};
    buffer_add(image, &node, sizeof(node));
    buffer_add(image, path, node.path_len);
    pad(image);
}

static void add_file(const struct inode *inode, const char *path, struct buffer *image)
{
    uint64_t size = picked(&inode->self)->size, done = 0;
    add_node(image, false, path, size);
    uint8_t *to = buffer_reserve(image, (size_t)size + DISK_SECTOR);
    (void)sure(to);
    for (; done < size; done += DISK_SECTOR) {
        size_t s = (size_t)(done / DISK_SECTOR);
        size_t n = size - done < DISK_SECTOR ? (size_t)(size - done) : DISK_SECTOR;
        memcpy(to + done, picked(&inode->sectors[s])->bytes, n);
    }
    image->len += (size_t)size;
    pad(image);
}

/* The store's folders are two deep. */
static void add_folder(const struct disk *disk, const struct inode *folder, const char *prefix,
                       struct buffer *image, bool deeper)
{
    const struct entries *entries = picked(&folder->self)->folder;
    for (uint32_t i = 0; i < entries->count; i++) {
        const struct inode *inode = &disk->inodes[entries->list[i].inode];
        char path[128];
        snprintf(path, sizeof(path), "%s%s%s", prefix, prefix[0] == '\0' ? "" : "/",
                 entries->list[i].name);
        if (inode->self.kind == CELL_SIZE) {
            add_file(inode, path, image);
        } else if (deeper) {
            add_node(image, true, path, 0);
            add_folder(disk, inode, path, image, false);
        } else {
            abort();
        }
    }
}

void disk_image(const struct disk *disk, struct buffer *image)
{
    add_folder(disk, &disk->inodes[ROOT], "", image, true);
    if (buffer_failed(image)) {
        abort();
    }
}

int image_clear(const char *root)
{
    DIR *dir = opendir(root);
    if (dir == NULL) {
        return mkdir(root, 0700) < 0 ? -errno : 0;
    }
    int rc = 0;
    struct dirent *entry;
    while (rc == 0 && (entry = readdir(dir)) != NULL) {
        char path[512];
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0) {
            continue;
        }
        snprintf(path, sizeof(path), "%s/%.255s", root, entry->d_name);
        if (unlinkat(AT_FDCWD, path, 0) < 0) {
            rc = image_clear(path);
            rc = rc == 0 && unlinkat(AT_FDCWD, path, AT_REMOVEDIR) < 0 ? -errno : rc;
        }
    }
    closedir(dir);
    return rc;
}

static int write_node(const char *path, const uint8_t *bytes, size_t len)
{
    auto_close int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    return fd < 0 ? -errno : write(fd, bytes, len) != (ssize_t)len ? -EIO : 0;
}

int image_write(const char *root, const uint8_t *image, size_t len)
{
    int rc = image_clear(root);
    for (size_t at = 0; at < len && rc == 0;) {
        const struct image_node *node = (const struct image_node *)(const void *)(image + at);
        char path[512];
        at += sizeof(*node);
        snprintf(path, sizeof(path), "%s/%.255s", root, (const char *)image + at);
        at = (at + node->path_len + 7) & ~(size_t)7;
        if (node->is_folder) {
            rc = mkdir(path, 0700) < 0 ? -errno : 0;
        } else {
            rc = write_node(path, image + at, (size_t)node->size);
            at = (at + (size_t)node->size + 7) & ~(size_t)7;
        }
    }
    return rc;
}
