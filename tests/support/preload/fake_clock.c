/* Loaded before a program (LD_PRELOAD), it answers for the kernel what libfaketime does not:
 * whether the clock is synchronised, which boot this is, and for how long it has run. The file that
 * WINDROW_FAKE_CLOCK names holds three words: 1 or 0, the boot's id, and the milliseconds that
 * CLOCK_BOOTTIME is behind the real one. It is read at each call; tests replace it whole. */
#include <dlfcn.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <sys/timex.h>
#include <time.h>
#include <unistd.h>

struct answer {
    int synchronised;
    char boot[40];
    long long behind_ms;
};

int open(const char *path, int flags, ...);
int open64(const char *path, int flags, ...);

static struct answer ask(void)
{
    struct answer answer = {0};
    char text[128];
    const char *path = getenv("WINDROW_FAKE_CLOCK");
    long fd = path == NULL ? -1 : syscall(SYS_openat, AT_FDCWD, path, O_RDONLY | O_CLOEXEC);
    ssize_t len = fd < 0 ? -1 : read((int)fd, text, sizeof text - 1);
    if (fd >= 0) {
        close((int)fd);
    }
    text[len < 0 ? 0 : len] = '\0';
    if (sscanf(text, "%d %39s %lld", &answer.synchronised, answer.boot, &answer.behind_ms) != 3) {
        fprintf(stderr, "fake_clock: %s does not say what time it is\n", path);
        abort();
    }
    return answer;
}

int adjtimex(struct timex *state)
{
    memset(state, 0, sizeof *state);
    bool good = ask().synchronised != 0;
    state->status = good ? 0 : STA_UNSYNC;
    return good ? TIME_OK : TIME_ERROR;
}

int clock_gettime(clockid_t id, struct timespec *at)
{
    static int (*next)(clockid_t, struct timespec *);
    if (id != CLOCK_REALTIME && id != CLOCK_REALTIME_COARSE && id != CLOCK_BOOTTIME) {
        return (int)syscall(SYS_clock_gettime, id, at); /* libfaketime fakes the coarse ones */
    }
    if (id == CLOCK_BOOTTIME) {
        long r = syscall(SYS_clock_gettime, id, at);
        int64_t ns = (int64_t)at->tv_sec * 1000000000 + at->tv_nsec - ask().behind_ms * 1000000;
        at->tv_sec = (time_t)(ns / 1000000000);
        at->tv_nsec = (long)(ns % 1000000000);
        return (int)r;
    }
    if (next == NULL) {
        void *found = dlsym(RTLD_NEXT, "clock_gettime");
        memcpy(&next, &found, sizeof next);
    }
    return next(id, at);
}

/* The timers of an event base run on monotonic time; libfaketime moves them with the time of day.
 */
int timerfd_settime(int fd, int flags, const struct itimerspec *to, struct itimerspec *from)
{
    return (int)syscall(SYS_timerfd_settime, fd, flags, to, from);
}

static int boot_id(void)
{
    struct answer answer = ask();
    int fd = memfd_create("boot_id", MFD_CLOEXEC);
    if (fd >= 0 &&
        (write(fd, answer.boot, strlen(answer.boot)) < 0 || lseek(fd, 0, SEEK_SET) < 0)) {
        close(fd);
        return -1;
    }
    return fd;
}

static int open_any(const char *path, int flags, mode_t mode)
{
    return strcmp(path, "/proc/sys/kernel/random/boot_id") == 0
               ? boot_id()
               : (int)syscall(SYS_openat, AT_FDCWD, path, flags, mode);
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
    return open_any(path, flags | O_LARGEFILE, mode);
}
