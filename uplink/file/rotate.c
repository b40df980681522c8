#include "gateway/base/clock.h"
#include "uplink/file/file.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>

static const char stamp_form[FILE_STAMP_LEN + 1] = "ddddddddTdddddd.dddZ";

static size_t directory_len(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash != NULL ? (size_t)(slash - path) + 1 : 0;
}

char *file_beside(const char *path, const char *name)
{
    char *whole = NULL;
    return asprintf(&whole, "%.*s%s", (int)directory_len(path), path, name) < 0 ? NULL : whole;
}

static DIR *open_directory(const char *path)
{
    auto_free char *name = file_beside(path, ".");
    return name != NULL ? opendir(name) : NULL;
}

int file_sync_directory(const char *path)
{
    DIR *directory = open_directory(path);
    if (directory == NULL) {
        return -errno;
    }
    /* Not every file system of a USB stick can; then there is nothing more to be done. */
    int r = fsync(dirfd(directory)) < 0 && errno != EINVAL ? -errno : 0;
    closedir(directory);
    return r;
}

/* What stands behind the time in a rotated file's name; NULL: it is none of ours. */
static const char *behind_stamp(const char *name, const char *base)
{
    size_t len = strlen(base);
    if (strncmp(name, base, len) != 0 || name[len] != '.') {
        return NULL;
    }
    const char *stamp = name + len + 1;
    for (size_t i = 0; i < FILE_STAMP_LEN; i++) {
        bool digit = stamp[i] >= '0' && stamp[i] <= '9';
        if (stamp_form[i] == 'd' ? !digit : stamp[i] != stamp_form[i]) {
            return NULL;
        }
    }
    return stamp + FILE_STAMP_LEN;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(((const struct file_rotated *)a)->name, ((const struct file_rotated *)b)->name);
}

void file_list_free(struct file_rotated *list, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        free(list[i].name);
    }
    free(list);
}

static int list_add(struct file_rotated **list, size_t *count, const char *name, int64_t bytes,
                    bool packed)
{
    struct file_rotated *more = realloc(*list, (*count + 1) * sizeof *more);
    if (more == NULL) {
        return -ENOMEM;
    }
    *list = more;
    more[*count] = (struct file_rotated){.name = strdup(name), .bytes = bytes, .packed = packed};
    if (more[*count].name == NULL) {
        return -ENOMEM;
    }
    ++*count;
    return 0;
}

static int look_at(int directory, const char *name, const char *base, struct file_rotated **list,
                   size_t *count)
{
    const char *ending = behind_stamp(name, base);
    struct stat st;
    if (ending == NULL || fstatat(directory, name, &st, AT_SYMLINK_NOFOLLOW) < 0 ||
        !S_ISREG(st.st_mode)) {
        return 0;
    }
    bool packed = strcmp(ending, ".gz") == 0;
    return packed || ending[0] == '\0' ? list_add(list, count, name, st.st_size, packed) : 0;
}

int file_list(const char *path, struct file_rotated **ret_list, size_t *ret_count)
{
    DIR *directory = open_directory(path);
    if (directory == NULL) {
        return -errno;
    }
    struct file_rotated *list = NULL;
    size_t count = 0;
    const char *base = path + directory_len(path);
    int r = 0;
    for (struct dirent *e; r == 0 && (e = readdir(directory)) != NULL;) {
        r = look_at(dirfd(directory), e->d_name, base, &list, &count);
    }
    closedir(directory);
    if (r < 0) {
        file_list_free(list, count);
        return r;
    }
    if (count > 0) {
        qsort(list, count, sizeof *list, by_name);
    }
    *ret_list = list;
    *ret_count = count;
    return 0;
}

/* 20260131T103000.123Z: what RFC 3339 gives without what a FAT file system forbids in names. */
static void write_stamp(int64_t now_ms, char stamp[FILE_STAMP_LEN + 1])
{
    char text[CLOCK_TEXT_SIZE];
    size_t n = 0;
    clock_format_utc(now_ms, text);
    for (const char *at = text; *at != '\0' && n < FILE_STAMP_LEN; at++) {
        if (*at != '-' && *at != ':') {
            stamp[n++] = *at;
        }
    }
    stamp[n] = '\0';
}

static int name_for(const char *path, int64_t now_ms, char **ret_name)
{
    enum { TRIES = 1000 };
    for (int64_t i = 0; i < TRIES; i++) {
        char stamp[FILE_STAMP_LEN + 1];
        write_stamp(now_ms + i, stamp);
        auto_free char *plain = NULL;
        auto_free char *packed = NULL;
        if (asprintf(&plain, "%s.%s", path, stamp) < 0 || asprintf(&packed, "%s.gz", plain) < 0) {
            return -ENOMEM;
        }
        if (access(plain, F_OK) < 0 && access(packed, F_OK) < 0) {
            *ret_name = take_ptr(plain);
            return 0;
        }
    }
    return -EEXIST;
}

int file_rotate(const char *path, int64_t now_ms)
{
    auto_free char *name = NULL;
    int r = name_for(path, now_ms, &name);
    if (r < 0) {
        return r;
    }
    return rename(path, name) == 0 ? file_sync_directory(path) : -errno;
}

int file_prune(const char *path, const struct file_settings *settings)
{
    struct file_rotated *list = NULL;
    size_t count = 0;
    if (settings->keep_files == 0 && settings->max_total == 0) {
        return 0;
    }
    int r = file_list(path, &list, &count);
    if (r < 0) {
        return r;
    }
    int64_t total = 0;
    for (size_t i = 0; i < count; i++) {
        total += list[i].bytes;
    }
    for (size_t i = 0; i < count; i++) {
        bool many = settings->keep_files > 0 && (int64_t)(count - i) > settings->keep_files;
        bool large = settings->max_total > 0 && total > settings->max_total;
        auto_free char *victim = many || large ? file_beside(path, list[i].name) : NULL;
        if (victim == NULL) {
            break;
        }
        if (unlink(victim) < 0 && errno != ENOENT) {
            r = -errno;
        }
        total -= list[i].bytes;
    }
    file_list_free(list, count);
    return r;
}
