#include "ext4.h"

#include "record.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <time.h>

enum { TRIES = 500, TRY_NS = 10000000 };

/* A shell command in ext4->dir; what it says is seen only where it fails. */
__attribute__((format(printf, 2, 3))) static int shell(const struct ext4 *ext4, const char *format,
                                                       ...)
{
    char words[512], command[700];
    va_list args;
    va_start(args, format);
    vsnprintf(words, sizeof(words), format, args);
    va_end(args);
    snprintf(command, sizeof(command), "cd %s && { %s; } >said 2>&1 </dev/null", ext4->dir, words);
    return system(command) == 0 ? 0 : -EPERM;
}

const char *ext4_prepare(struct ext4 *ext4, const char *plugin)
{
    *ext4 = (struct ext4){.dir = "/dev/shm/powercut.XXXXXX"};
    if (mkdtemp(ext4->dir) == NULL) {
        return "no folder below /dev/shm";
    }
    snprintf(ext4->trace, sizeof(ext4->trace), "%s/trace", ext4->dir);
    snprintf(ext4->mounted, sizeof(ext4->mounted), "%s/mounted", ext4->dir);
    snprintf(ext4->data, sizeof(ext4->data), "%s/data", ext4->mounted);
    snprintf(ext4->recorder, sizeof(ext4->recorder), "%s", plugin);
    if (access(plugin, R_OK) < 0) {
        return "nbd_recorder.so was not built (nbdkit-plugin-dev)";
    }
    if (shell(ext4, "mkdir mounted fuse && command -v nbdkit nbdfuse mkfs.ext4") < 0) {
        return "nbdkit, nbdfuse or mkfs.ext4 is missing";
    }
    if (access("/dev/fuse", R_OK | W_OK) < 0) {
        return "/dev/fuse is not there, or not for this user";
    }
    if (unshare(CLONE_NEWNS) < 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0) {
        return "nothing may be mounted here";
    }
    if (shell(ext4,
              "truncate -s %d base && mkfs.ext4 -q -F -b 4096 -J size=4 -m0 -E "
              "nodiscard,lazy_itable_init=0,lazy_journal_init=0 base && "
              "mount -o loop base mounted && mkdir mounted/data && umount mounted",
              EXT4_BYTES) < 0) {
        return "no loop device may be mounted here";
    }
    return NULL;
}

void ext4_finish(struct ext4 *ext4)
{
    if (ext4->nbdfuse > 0) {
        kill(ext4->nbdfuse, SIGKILL);
        waitpid(ext4->nbdfuse, NULL, 0);
    }
    (void)umount2(ext4->mounted, MNT_DETACH);
    (void)shell(ext4, "umount -l fuse; true");
    (void)shell(ext4, "rm -rf base disk trace image mounted fuse said");
    (void)rmdir(ext4->dir);
}

static void start_nbdfuse(struct ext4 *ext4)
{
    char file[128], disk[128], trace[128], log[128];
    snprintf(file, sizeof(file), "%s/fuse/disk", ext4->dir);
    snprintf(disk, sizeof(disk), "disk=%s/disk", ext4->dir);
    snprintf(trace, sizeof(trace), "trace=%s", ext4->trace);
    snprintf(log, sizeof(log), "%s/said", ext4->dir);
    ext4->nbdfuse = fork();
    if (ext4->nbdfuse == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (freopen(log, "w", stderr) != NULL) {
            execlp("nbdfuse", "nbdfuse", file, "--command", "nbdkit", "-s", "--exit-with-parent",
                   ext4->recorder, disk, trace, NULL);
        }
        _exit(127);
    }
}

static int wait_for_disk(const struct ext4 *ext4)
{
    char file[128];
    struct stat st;
    snprintf(file, sizeof(file), "%s/fuse/disk", ext4->dir);
    for (unsigned i = 0; i < TRIES; i++) {
        if (stat(file, &st) == 0 && st.st_size == EXT4_BYTES) {
            return 0;
        }
        nanosleep(&(struct timespec){.tv_nsec = TRY_NS}, NULL);
    }
    return -ETIMEDOUT;
}

static int put(int fd, struct trace_event event, void *bytes)
{
    struct iovec parts[] = {{.iov_base = &event, .iov_len = sizeof(event)},
                            {.iov_base = bytes, .iov_len = (size_t)event.len}};
    return writev(fd, parts, 2) == (ssize_t)(sizeof(event) + event.len) ? 0 : -EIO;
}

/* The disk is one file for disk.h, with handle 1; everything that is on it is forced. */
static int begin_trace(const struct ext4 *ext4)
{
    static char name[] = "disk";
    char base[96];
    snprintf(base, sizeof(base), "%s/base", ext4->dir);
    auto_close int in = open(base, O_RDONLY | O_CLOEXEC);
    auto_close int out = open(ext4->trace, O_WRONLY | O_CREAT | O_TRUNC | O_APPEND | O_CLOEXEC,
                              0600);
    auto_free void *bytes = malloc(EXT4_BYTES);
    if (in < 0 || out < 0 || bytes == NULL || read(in, bytes, EXT4_BYTES) != EXT4_BYTES) {
        return -EIO;
    }
    struct trace_event opened = {
        .type = TRACE_OPEN, .handle = 1, .offset = TRACE_CREATED, .len = sizeof(name)};
    struct trace_event written = {.type = TRACE_WRITE, .handle = 1, .len = EXT4_BYTES};
    struct trace_event forced = {.type = TRACE_FORCED, .handle = 1, .number = EXT4_BYTES};
    struct trace_event begin = {.type = TRACE_SYNC_BEGIN}, end = {.type = TRACE_SYNC_END};
    int rc = put(out, opened, name);
    rc = rc < 0 ? rc : put(out, written, bytes);
    rc = rc < 0 ? rc : put(out, forced, NULL);
    /* The folder that the disk lies in, which is handle 0. */
    rc = rc < 0 ? rc : put(out, begin, NULL);
    return rc < 0 ? rc : put(out, end, NULL);
}

int ext4_record(struct ext4 *ext4)
{
    int rc = shell(ext4, "cp base disk");
    rc = rc < 0 ? rc : begin_trace(ext4);
    if (rc < 0) {
        return rc;
    }
    start_nbdfuse(ext4);
    rc = wait_for_disk(ext4);
    return rc < 0 ? rc : shell(ext4, "mount -o loop fuse/disk mounted");
}

int ext4_unmount(struct ext4 *ext4)
{
    for (unsigned i = 0; i < TRIES; i++) {
        if (umount(ext4->mounted) == 0) {
            return 0;
        }
        if (errno != EBUSY) {
            break;
        }
        nanosleep(&(struct timespec){.tv_nsec = TRY_NS}, NULL);
    }
    return -errno;
}

int ext4_recorded(struct ext4 *ext4)
{
    int rc = ext4_unmount(ext4);
    for (unsigned i = 0; i < TRIES && rc == 0; i++) {
        if (shell(ext4, "umount fuse") == 0) {
            break; /* the loop device lets go of it in its own time */
        }
        nanosleep(&(struct timespec){.tv_nsec = TRY_NS}, NULL);
    }
    if (rc == 0) {
        waitpid(ext4->nbdfuse, NULL, 0);
        ext4->nbdfuse = 0;
    }
    return rc;
}

int ext4_mount_image(struct ext4 *ext4, const uint8_t *bytes)
{
    char path[96];
    snprintf(path, sizeof(path), "%s/image", ext4->dir);
    (void)unlink(path); /* a loop device may not have let go of the last one yet */
    {
        auto_close int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
        if (fd < 0 || write(fd, bytes, EXT4_BYTES) != EXT4_BYTES) {
            return -EIO;
        }
    }
    return shell(ext4, "mount -o loop image mounted");
}
