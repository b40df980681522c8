#include "uplink/file/file.h"
#include "uplink/probe/probe.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>

enum { TRIAL_BYTES = 4096 };

static char *folder_of(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash == NULL ? strdup(".") : strndup(path, slash == path ? 1 : (size_t)(slash - path));
}

static bool say_folder(struct probe *probe, const char *folder)
{
    struct stat st;
    if (stat(folder, &st) < 0) {
        probe_say(probe, "folder", PROBE_BAD,
                  "is the stick mounted there? Otherwise make the folder", "%s: %s", folder,
                  strerror(errno));
        return false;
    }
    if (!S_ISDIR(st.st_mode)) {
        probe_say(probe, "folder", PROBE_BAD, "path must lie in a folder", "%s is no folder",
                  folder);
        return false;
    }
    probe_say(probe, "folder", PROBE_GOOD, NULL, "%s is there", folder);
    return true;
}

static void say_room(struct probe *probe, const struct file_settings *s, const char *folder)
{
    struct statvfs disk;
    if (statvfs(folder, &disk) < 0) {
        probe_say(probe, "room", PROBE_BAD, NULL, "%s: %s", folder, strerror(errno));
        return;
    }
    double free_mib = (double)disk.f_bavail * (double)disk.f_frsize / 0x1p20;
    double least_mib = (double)s->min_free / 0x1p20;
    bool enough = free_mib >= least_mib;
    probe_say(probe, "room", enough ? PROBE_GOOD : PROBE_BAD,
              enough ? NULL : "make room there, or lower min_free",
              "%.0f MiB are free, min_free leaves %.0f MiB to others", free_mib, least_mib);
}

static int try_writing(int fd)
{
    static const char bytes[TRIAL_BYTES];
    ssize_t n = write(fd, bytes, sizeof bytes);
    if (n != (ssize_t)sizeof bytes) {
        return n < 0 ? -errno : -ENOSPC;
    }
    return fsync(fd) < 0 ? -errno : 0;
}

/* A file beside the one that readings go to, which is not touched: a gateway may be writing it. */
static void say_writing(struct probe *probe, const char *folder)
{
    auto_buffer struct buffer name = {0};
    buffer_printf(&name, "%s/.windrow-test-%d", folder, (int)getpid());
    const char *path = buffer_text(&name);
    probe_begin(probe);
    auto_close int fd = path == NULL ? -1
                                     : open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    int r = fd < 0 ? -errno : try_writing(fd);
    bool read_only = r == -EROFS;
    if (r < 0) {
        probe_say(probe, "write", PROBE_BAD,
                  read_only ? "the file system is mounted read-only: is the stick's lock on, or is "
                              "it damaged?"
                  : r == -EACCES ? "the service's user (windrow) needs to write there, and the "
                                   "unit's ReadWritePaths must name it"
                                 : NULL,
                  "%s: %s", folder, strerror(-r));
    } else {
        probe_say(probe, "write", PROBE_GOOD, NULL,
                  "a small file was written and made durable there, and removed");
    }
    if (fd >= 0) {
        unlink(path);
    }
}

static void before(struct probe *probe)
{
    const struct file_settings *s = probe->settings;
    auto_free char *folder = folder_of(s->path);
    if (folder != NULL && say_folder(probe, folder)) {
        say_room(probe, s, folder);
        say_writing(probe, folder);
    }
}

/* All that can be tried was tried above. */
static void write_nothing(struct probe *probe)
{
    (void)probe;
}

const struct uplink_probe file_probe = {.before = before, .write = write_nothing};
