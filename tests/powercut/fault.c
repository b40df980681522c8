#include "fault.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>

static struct fault_plan *armed;

#define NEXT(name)                                                                                 \
    ({                                                                                             \
        static __typeof__(&(name)) found_;                                                         \
        if (found_ == NULL) {                                                                      \
            found_ = (__typeof__(&(name)))dlsym(RTLD_NEXT, #name);                                 \
        }                                                                                          \
        found_;                                                                                    \
    })

void fault_arm(struct fault_plan *plan)
{
    armed = plan;
}

void fault_disarm(void)
{
    armed = NULL;
}

/* Whether this one fails; errno is set then. */
static bool fails(enum fault_kind kind, const char *name)
{
    struct fault_plan *plan = armed;
    if (plan == NULL || plan->kind != kind) {
        return false;
    }
    uint64_t call = ++plan->calls;
    bool hit = plan->at != 0 && (call == plan->at || (plan->onwards && call > plan->at));
    if (hit) {
        if (plan->failed++ == 0) {
            size_t len = strnlen(name, sizeof(plan->first) - 1);
            memcpy(plan->first, name, len);
            plan->first[len] = '\0';
        }
        errno = kind == FAULT_ALLOCATIONS ? ENOMEM : plan->error == FAULT_SHORT ? EIO : plan->error;
    }
    return hit;
}

static bool call_fails(const char *name)
{
    return fails(FAULT_CALLS, name);
}

/* The library's own names follow: what they do is in its manual pages. */

#define OPEN_BODY(path, flags)                                                                     \
    mode_t mode = 0;                                                                               \
    if (((flags) & (O_CREAT | O_TMPFILE)) != 0) {                                                  \
        va_list args;                                                                              \
        va_start(args, flags);                                                                     \
        mode = va_arg(args, mode_t);                                                               \
        va_end(args);                                                                              \
    }                                                                                              \
    return call_fails("open") ? -1 : (int)syscall(SYS_openat, AT_FDCWD, path, flags, mode)

int open(const char *path, int flags, ...)
{
    OPEN_BODY(path, flags);
}

int open64(const char *path, int flags, ...)
{
    OPEN_BODY(path, flags);
}

/* As Linux does it: the descriptor is gone all the same. */
int close(int fd)
{
    int rc = (int)syscall(SYS_close, fd);
    return rc == 0 && call_fails("close") ? -1 : rc;
}

/* How much of `len` is to be written; -1: nothing, it fails. */
static ssize_t allowed(const char *name, size_t len)
{
    if (!call_fails(name)) {
        return (ssize_t)len;
    }
    return armed->error == FAULT_SHORT && len > 1 ? (ssize_t)(len / 2) : -1;
}

ssize_t write(int fd, const void *bytes, size_t len)
{
    ssize_t n = allowed("write", len);
    return n < 0 ? n : syscall(SYS_write, fd, bytes, n);
}

ssize_t pwrite(int fd, const void *bytes, size_t len, off_t offset)
{
    ssize_t n = allowed("pwrite", len);
    return n < 0 ? n : syscall(SYS_pwrite64, fd, bytes, n, offset);
}

static size_t total(const struct iovec *parts, int count)
{
    size_t sum = 0;
    for (int i = 0; i < count; i++) {
        sum += parts[i].iov_len;
    }
    return sum;
}

ssize_t writev(int fd, const struct iovec *parts, int count)
{
    ssize_t n = allowed("writev", total(parts, count));
    if (n >= 0 && (size_t)n < total(parts, count)) {
        return syscall(SYS_write, fd, parts[0].iov_base,
                       (size_t)n < parts[0].iov_len ? (size_t)n : parts[0].iov_len);
    }
    return n < 0 ? n : syscall(SYS_writev, fd, parts, (long)count);
}

ssize_t pread(int fd, void *bytes, size_t len, off_t offset)
{
    return call_fails("pread") ? -1 : syscall(SYS_pread64, fd, bytes, len, offset);
}

int fsync(int fd)
{
    return call_fails("fsync") ? -1 : (int)syscall(SYS_fsync, fd);
}

int fdatasync(int fd)
{
    return call_fails("fdatasync") ? -1 : (int)syscall(SYS_fdatasync, fd);
}

int ftruncate(int fd, off_t size)
{
    return call_fails("ftruncate") ? -1 : (int)syscall(SYS_ftruncate, fd, size);
}

off_t lseek(int fd, off_t offset, int whence)
{
    return call_fails("lseek") ? -1 : syscall(SYS_lseek, fd, offset, whence);
}

void *mmap(void *at, size_t len, int protection, int flags, int fd, off_t offset)
{
    /* Anonymous ones belong to the allocator. */
    if (fd >= 0 && call_fails("mmap")) {
        return MAP_FAILED;
    }
    return NEXT(mmap)(at, len, protection, flags, fd, offset);
}

int mkdir(const char *path, mode_t mode)
{
    return call_fails("mkdir") ? -1 : (int)syscall(SYS_mkdirat, AT_FDCWD, path, mode);
}

int rename(const char *from, const char *to)
{
    return call_fails("rename") ? -1
                                : (int)syscall(SYS_renameat2, AT_FDCWD, from, AT_FDCWD, to, 0u);
}

int unlink(const char *path)
{
    return call_fails("unlink") ? -1 : (int)syscall(SYS_unlinkat, AT_FDCWD, path, 0);
}

int rmdir(const char *path)
{
    return call_fails("rmdir") ? -1 : (int)syscall(SYS_unlinkat, AT_FDCWD, path, AT_REMOVEDIR);
}

int stat(const char *path, struct stat *st)
{
    return call_fails("stat") ? -1 : NEXT(stat)(path, st);
}

int lstat(const char *path, struct stat *st)
{
    return call_fails("lstat") ? -1 : NEXT(lstat)(path, st);
}

int statvfs(const char *path, struct statvfs *fs)
{
    return call_fails("statvfs") ? -1 : NEXT(statvfs)(path, fs);
}

int flock(int fd, int operation)
{
    return call_fails("flock") ? -1 : (int)syscall(SYS_flock, fd, operation);
}

pid_t fork(void)
{
    return call_fails("fork") ? -1 : NEXT(fork)();
}

pid_t waitpid(pid_t pid, int *status, int options)
{
    return call_fails("waitpid") ? -1 : NEXT(waitpid)(pid, status, options);
}

ssize_t getrandom(void *bytes, size_t len, unsigned flags)
{
    return call_fails("getrandom") ? -1 : syscall(SYS_getrandom, bytes, len, flags);
}

int eventfd(unsigned count, int flags)
{
    return call_fails("eventfd") ? -1 : (int)syscall(SYS_eventfd2, count, flags);
}

/* glibc's own allocator, under the names that it keeps for replacements like this one. */
void *__libc_malloc(size_t size);
void *__libc_calloc(size_t count, size_t size);
void *__libc_realloc(void *memory, size_t size);
void *__libc_memalign(size_t alignment, size_t size);

static bool allocation_fails(const char *name)
{
    return fails(FAULT_ALLOCATIONS, name);
}

void *malloc(size_t size)
{
    return allocation_fails("malloc") ? NULL : __libc_malloc(size);
}

void *calloc(size_t count, size_t size)
{
    return allocation_fails("calloc") ? NULL : __libc_calloc(count, size);
}

void *realloc(void *memory, size_t size)
{
    return allocation_fails("realloc") ? NULL : __libc_realloc(memory, size);
}

int posix_memalign(void **ret_memory, size_t alignment, size_t size)
{
    void *memory = allocation_fails("posix_memalign") ? NULL : __libc_memalign(alignment, size);
    if (memory == NULL) {
        return ENOMEM;
    }
    *ret_memory = memory;
    return 0;
}
