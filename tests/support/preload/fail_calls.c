/* Loaded before a program (LD_PRELOAD), it lets the n-th call fail that the program makes on the
 * files below a folder. WINDROW_FAIL_BELOW names the folder, WINDROW_FAIL_PLAN a file of
 * sizeof(struct plan) that a test maps, too: it arms the plan and counts the calls while the
 * program runs. Children count as well; sockets, pipes and other files are left alone. */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

enum { DESCRIPTORS = 4096, SHORT = -1 };

/* tests/support/failing.py has the same. */
struct plan {
    _Atomic int64_t calls;    /* made so far */
    _Atomic int64_t from, to; /* those fail; 0: none */
    _Atomic int64_t error;    /* errno, or SHORT: half of what was to be written is */
    _Atomic int64_t failed;
    char last[24]; /* the name of the last one that failed */
};

static struct plan *plan;
static char below[512];
static _Atomic bool watched[DESCRIPTORS];

__attribute__((constructor)) static void begin(void)
{
    const char *path = getenv("WINDROW_FAIL_PLAN"), *folder = getenv("WINDROW_FAIL_BELOW");
    long fd = path == NULL || folder == NULL
                  ? -1
                  : syscall(SYS_openat, AT_FDCWD, path, O_RDWR | O_CLOEXEC);
    void *memory = fd < 0
                       ? MAP_FAILED
                       : mmap(NULL, sizeof *plan, PROT_READ | PROT_WRITE, MAP_SHARED, (int)fd, 0);
    if (memory == MAP_FAILED) {
        fprintf(stderr, "fail_calls: no plan\n");
        abort();
    }
    syscall(SYS_close, fd);
    snprintf(below, sizeof below, "%s/", folder);
    plan = memory;
}

/* Whether this call fails; errno is set then. */
static bool fails(const char *name)
{
    int64_t call = atomic_fetch_add(&plan->calls, 1) + 1;
    if (plan->from == 0 || call < plan->from || call > plan->to) {
        return false;
    }
    snprintf(plan->last, sizeof plan->last, "%s", name);
    atomic_fetch_add(&plan->failed, 1);
    errno = plan->error == SHORT ? EIO : (int)plan->error;
    return true;
}

static bool is_below(const char *path)
{
    return plan != NULL && strncmp(path, below, strlen(below)) == 0;
}

static bool is_watched(int fd)
{
    return plan != NULL && fd >= 0 && fd < DESCRIPTORS && watched[fd];
}

static bool path_fails(const char *name, const char *path)
{
    return is_below(path) && fails(name);
}

static bool fd_fails(const char *name, int fd)
{
    return is_watched(fd) && fails(name);
}

/* The library's own names follow: what they do is in its manual pages. */

static int open_any(const char *path, int flags, mode_t mode)
{
    if (path_fails("open", path)) {
        return -1;
    }
    int fd = (int)syscall(SYS_openat, AT_FDCWD, path, flags, mode);
    if (fd >= 0 && fd < DESCRIPTORS && is_below(path)) {
        watched[fd] = true;
    }
    return fd;
}

int open(const char *path, int flags, ...)
{
    va_list arguments;
    va_start(arguments, flags);
    mode_t mode = (flags & (O_CREAT | O_TMPFILE)) != 0 ? va_arg(arguments, mode_t) : 0;
    va_end(arguments);
    return open_any(path, flags, mode);
}

int open64(const char *path, int flags, ...)
{
    va_list arguments;
    va_start(arguments, flags);
    mode_t mode = (flags & (O_CREAT | O_TMPFILE)) != 0 ? va_arg(arguments, mode_t) : 0;
    va_end(arguments);
    return open_any(path, flags, mode);
}

int close(int fd)
{
    if (is_watched(fd)) {
        watched[fd] = false;
    }
    return (int)syscall(SYS_close, fd);
}

/* How much of `len` is to be written; -1: nothing, it fails. */
static ssize_t allowed(const char *name, int fd, size_t len)
{
    if (!fd_fails(name, fd)) {
        return (ssize_t)len;
    }
    return plan->error == SHORT && len > 1 ? (ssize_t)(len / 2) : -1;
}

ssize_t write(int fd, const void *bytes, size_t len)
{
    ssize_t n = allowed("write", fd, len);
    return n < 0 ? n : syscall(SYS_write, fd, bytes, n);
}

static ssize_t pwrite_any(int fd, const void *bytes, size_t len, off_t offset)
{
    ssize_t n = allowed("pwrite", fd, len);
    return n < 0 ? n : syscall(SYS_pwrite64, fd, bytes, n, offset);
}

ssize_t pwrite(int fd, const void *bytes, size_t len, off_t offset)
{
    return pwrite_any(fd, bytes, len, offset);
}

ssize_t pwrite64(int fd, const void *bytes, size_t len, off_t offset)
{
    return pwrite_any(fd, bytes, len, offset);
}

ssize_t writev(int fd, const struct iovec *parts, int count)
{
    size_t total = 0;
    for (int i = 0; i < count; i++) {
        total += parts[i].iov_len;
    }
    ssize_t n = allowed("writev", fd, total);
    if (n >= 0 && (size_t)n < total) {
        size_t first = parts[0].iov_len;
        return syscall(SYS_write, fd, parts[0].iov_base, (size_t)n < first ? (size_t)n : first);
    }
    return n < 0 ? n : syscall(SYS_writev, fd, parts, (long)count);
}

int fsync(int fd)
{
    return fd_fails("fsync", fd) ? -1 : (int)syscall(SYS_fsync, fd);
}

int fdatasync(int fd)
{
    return fd_fails("fdatasync", fd) ? -1 : (int)syscall(SYS_fdatasync, fd);
}

int ftruncate(int fd, off_t size)
{
    return fd_fails("ftruncate", fd) ? -1 : (int)syscall(SYS_ftruncate, fd, size);
}

off_t lseek(int fd, off_t offset, int whence)
{
    return fd_fails("lseek", fd) ? -1 : syscall(SYS_lseek, fd, offset, whence);
}

ssize_t pread(int fd, void *bytes, size_t len, off_t offset)
{
    return fd_fails("pread", fd) ? -1 : syscall(SYS_pread64, fd, bytes, len, offset);
}

void *mmap(void *at, size_t len, int protection, int flags, int fd, off_t offset)
{
    static void *(*next)(void *, size_t, int, int, int, off_t);
    if (next == NULL) {
        void *found = dlsym(RTLD_NEXT, "mmap");
        memcpy(&next, &found, sizeof next);
    }
    return fd_fails("mmap", fd) ? MAP_FAILED : next(at, len, protection, flags, fd, offset);
}

int msync(void *at, size_t len, int flags)
{
    return plan != NULL && fails("msync") ? -1 : (int)syscall(SYS_msync, at, len, flags);
}

int mkdir(const char *path, mode_t mode)
{
    return path_fails("mkdir", path) ? -1 : (int)syscall(SYS_mkdirat, AT_FDCWD, path, mode);
}

int rename(const char *from, const char *to)
{
    return path_fails("rename", from)
               ? -1
               : (int)syscall(SYS_renameat2, AT_FDCWD, from, AT_FDCWD, to, 0u);
}

int unlink(const char *path)
{
    return path_fails("unlink", path) ? -1 : (int)syscall(SYS_unlinkat, AT_FDCWD, path, 0);
}
