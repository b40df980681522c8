#include "record.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <lmdb.h>
#include <stdarg.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>

enum { DESCRIPTORS = 1024, PARTS_MAX = 256 };

/* What a descriptor stands for; handle 0: nothing that is recorded. */
struct watched {
    uint32_t handle;
    bool forced; /* O_DSYNC: each write is a barrier for itself */
    bool append;
};

static struct watched watched[DESCRIPTORS];
static uint32_t next_handle;
static char folder[512];
static size_t folder_len;
static int trace_fd = -1;
static pid_t recording;
unsigned record_lmdb_flags;

#define NEXT(name)                                                                                 \
    ({                                                                                             \
        static __typeof__(&(name)) found_;                                                         \
        if (found_ == NULL) {                                                                      \
            found_ = (__typeof__(&(name)))dlsym(RTLD_NEXT, #name);                                 \
        }                                                                                          \
        found_;                                                                                    \
    })

static bool active(void)
{
    return trace_fd >= 0 && getpid() == recording;
}

static bool is_watched(int fd)
{
    return fd >= 0 && fd < DESCRIPTORS && watched[fd].handle != 0 && active();
}

static void put(struct trace_event event, const struct iovec *parts, int count)
{
    struct iovec all[PARTS_MAX + 1] = {{.iov_base = &event, .iov_len = sizeof(event)}};
    if (count > PARTS_MAX) {
        abort();
    }
    for (int i = 0; i < count; i++) {
        all[i + 1] = parts[i];
        event.len += parts[i].iov_len;
    }
    if (syscall(SYS_writev, trace_fd, all, (long)count + 1) != (long)(sizeof(event) + event.len)) {
        abort(); /* a record with holes proves nothing */
    }
}

static void put_plain(enum trace_type type, uint32_t handle, uint64_t offset, uint64_t number)
{
    put((struct trace_event){.type = type, .handle = handle, .offset = offset, .number = number},
        NULL, 0);
}

/* The path below the folder, or NULL; LMDB's lock file does not outlive a boot. */
static const char *below(const char *path)
{
    if (!active() || strncmp(path, folder, folder_len) != 0) {
        return NULL;
    }
    const char *rest = path + folder_len;
    size_t len = strlen(rest);
    bool lock = (len >= 8 && strcmp(rest + len - 8, "lock.mdb") == 0) ||
                (len >= 10 && strcmp(rest + len - 10, "store.lock") == 0);
    if (lock || (rest[0] != '/' && rest[0] != '\0')) {
        return NULL;
    }
    return rest[0] == '/' ? rest + 1 : rest;
}

static void put_path(enum trace_type type, uint32_t handle, uint64_t flags, const char *path,
                     const char *second)
{
    union {
        const char *in;
        void *out;
    } a = {.in = path}, b = {.in = second};
    struct iovec parts[] = {
        {.iov_base = a.out, .iov_len = strlen(path) + 1},
        {.iov_base = b.out, .iov_len = second == NULL ? 0 : strlen(second) + 1}};
    put((struct trace_event){.type = type, .handle = handle, .offset = flags}, parts, 2);
}

int record_start(const char *path, const char *trace)
{
    folder_len = (size_t)snprintf(folder, sizeof(folder), "%s", path);
    memset(watched, 0, sizeof(watched));
    next_handle = 1;
    recording = getpid();
    int fd = (int)syscall(SYS_openat, AT_FDCWD, trace,
                          O_WRONLY | O_CREAT | O_TRUNC | O_APPEND | O_CLOEXEC, 0600);
    if (fd < 0) {
        return -errno;
    }
    trace_fd = fd;
    return 0;
}

void record_stop(void)
{
    if (trace_fd >= 0) {
        syscall(SYS_close, trace_fd);
    }
    trace_fd = -1;
}

void record_promise(enum promise promise, uint32_t commit)
{
    if (active()) {
        put_plain(promise == PROMISE_KEPT ? TRACE_KEPT : TRACE_BEGUN, 0, 0, commit);
    }
}

static bool exists(const char *path)
{
    return syscall(SYS_faccessat, AT_FDCWD, path, F_OK) == 0;
}

static void watch(int fd, const char *rest, int flags, bool existed)
{
    if (fd < 0 || fd >= DESCRIPTORS) {
        return;
    }
    struct stat st = {0};
    (void)fstat(fd, &st);
    watched[fd] = (struct watched){.handle = next_handle++,
                                   .forced = (flags & O_DSYNC) != 0,
                                   .append = (flags & O_APPEND) != 0};
    uint64_t how = (existed ? 0u : (unsigned)TRACE_CREATED) |
                   (S_ISDIR(st.st_mode) ? (unsigned)TRACE_FOLDER : 0u) |
                   ((flags & O_TRUNC) != 0 ? (unsigned)TRACE_TRUNCATED : 0u);
    put_path(TRACE_OPEN, watched[fd].handle, how, rest, NULL);
}

static int open_recorded(const char *path, int flags, mode_t mode)
{
    const char *rest = below(path);
    bool existed = rest == NULL || exists(path);
    int fd = (int)syscall(SYS_openat, AT_FDCWD, path, flags, mode);
    if (rest != NULL && fd >= 0) {
        watch(fd, rest, flags, existed);
    }
    return fd;
}

/* The library's own names follow: what they do is in its manual pages. */

static mode_t mode_of(int flags, va_list args)
{
    return (flags & (O_CREAT | O_TMPFILE)) != 0 ? va_arg(args, mode_t) : 0;
}

int open(const char *path, int flags, ...)
{
    va_list args;
    va_start(args, flags);
    mode_t mode = mode_of(flags, args);
    va_end(args);
    return open_recorded(path, flags, mode);
}

int open64(const char *path, int flags, ...)
{
    va_list args;
    va_start(args, flags);
    mode_t mode = mode_of(flags, args);
    va_end(args);
    return open_recorded(path, flags, mode);
}

int close(int fd)
{
    if (is_watched(fd)) {
        watched[fd].handle = 0;
    }
    return (int)syscall(SYS_close, fd);
}

static ssize_t write_recorded(int fd, const struct iovec *parts, int count, off_t offset)
{
    struct watched *file = &watched[fd];
    put((struct trace_event){.type = TRACE_WRITE,
                             .handle = file->handle,
                             .offset = (uint64_t)offset},
        parts, count);
    size_t want = 0;
    for (int i = 0; i < count; i++) {
        want += parts[i].iov_len;
    }
    ssize_t n = syscall(SYS_pwritev, fd, parts, (long)count, (long)offset, 0L);
    if (n != (ssize_t)want) {
        abort(); /* the record says that it was written */
    }
    if (file->forced) {
        put_plain(TRACE_FORCED, file->handle, (uint64_t)offset, want);
    }
    return n;
}

static ssize_t write_here(int fd, const struct iovec *parts, int count)
{
    off_t at = lseek(fd, 0, watched[fd].append ? SEEK_END : SEEK_CUR);
    ssize_t n = write_recorded(fd, parts, count, at);
    lseek(fd, at + n, SEEK_SET);
    return n;
}

static struct iovec part(const void *bytes, size_t len)
{
    union {
        const void *in;
        void *out;
    } pointer = {.in = bytes};
    return (struct iovec){.iov_base = pointer.out, .iov_len = len};
}

ssize_t write(int fd, const void *bytes, size_t len)
{
    struct iovec one = part(bytes, len);
    return is_watched(fd) ? write_here(fd, &one, 1) : syscall(SYS_write, fd, bytes, len);
}

ssize_t writev(int fd, const struct iovec *parts, int count)
{
    return is_watched(fd) ? write_here(fd, parts, count)
                          : syscall(SYS_writev, fd, parts, (long)count);
}

ssize_t pwrite(int fd, const void *bytes, size_t len, off_t offset)
{
    struct iovec one = part(bytes, len);
    return is_watched(fd) ? write_recorded(fd, &one, 1, offset)
                          : syscall(SYS_pwrite64, fd, bytes, len, offset);
}

ssize_t pwritev(int fd, const struct iovec *parts, int count, off_t offset)
{
    return is_watched(fd) ? write_recorded(fd, parts, count, offset)
                          : syscall(SYS_pwritev, fd, parts, (long)count, (long)offset, 0L);
}

static int sync_recorded(int fd, long number)
{
    if (!is_watched(fd)) {
        return (int)syscall(number, fd);
    }
    put_plain(TRACE_SYNC_BEGIN, watched[fd].handle, 0, 0);
    int rc = (int)syscall(number, fd);
    if (rc == 0) {
        put_plain(TRACE_SYNC_END, watched[fd].handle, 0, 0);
    }
    return rc;
}

int fsync(int fd)
{
    return sync_recorded(fd, SYS_fsync);
}

int fdatasync(int fd)
{
    return sync_recorded(fd, SYS_fdatasync);
}

int ftruncate(int fd, off_t size)
{
    if (is_watched(fd)) {
        put_plain(TRACE_RESIZE, watched[fd].handle, (uint64_t)size, 0);
    }
    return (int)syscall(SYS_ftruncate, fd, size);
}

void *mmap(void *at, size_t len, int protection, int flags, int fd, off_t offset)
{
    if (is_watched(fd) && (protection & PROT_WRITE) != 0 && (flags & MAP_SHARED) != 0) {
        abort(); /* writes through memory cannot be recorded */
    }
    return NEXT(mmap)(at, len, protection, flags, fd, offset);
}

int mkdir(const char *path, mode_t mode)
{
    const char *rest = below(path);
    bool existed = rest != NULL && exists(path);
    if (rest != NULL && rest[0] != '\0' && !existed) {
        put_path(TRACE_MKDIR, 0, 0, rest, NULL);
    }
    return (int)syscall(SYS_mkdirat, AT_FDCWD, path, mode);
}

int rename(const char *from, const char *to)
{
    const char *rest = below(from), *rest_to = below(to);
    if (rest != NULL && rest_to != NULL) {
        put_path(TRACE_RENAME, 0, 0, rest, rest_to);
    }
    return (int)syscall(SYS_renameat2, AT_FDCWD, from, AT_FDCWD, to, 0u);
}

int unlink(const char *path)
{
    const char *rest = below(path);
    if (rest != NULL && exists(path)) {
        put_path(TRACE_REMOVE, 0, 0, rest, NULL);
    }
    return (int)syscall(SYS_unlinkat, AT_FDCWD, path, 0);
}

int rmdir(const char *path)
{
    const char *rest = below(path);
    if (rest != NULL && exists(path)) {
        put_path(TRACE_REMOVE, 0, 0, rest, NULL);
    }
    return (int)syscall(SYS_unlinkat, AT_FDCWD, path, AT_REMOVEDIR);
}

int mdb_env_open(MDB_env *env, const char *path, unsigned int flags, mdb_mode_t mode)
{
    bool writes = (flags & MDB_RDONLY) == 0;
    return NEXT(mdb_env_open)(env, path, flags | (writes ? record_lmdb_flags : 0), mode);
}
