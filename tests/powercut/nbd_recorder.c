/* An nbdkit plugin: a disk in a file that writes down what is done to it, in the form of record.h.
 *
 *     nbdkit -s nbd_recorder.so disk=FILE trace=FILE
 *
 * The trace is appended to, so that whoever drives the disk can write its promises between. Every
 * write is logged before it is made, every flush as begin and end. One request at a time. */
#include "record.h"

#define NBDKIT_API_VERSION 2
#include <errno.h>
#include <fcntl.h>
#include <nbdkit-plugin.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>

#define THREAD_MODEL NBDKIT_THREAD_MODEL_SERIALIZE_ALL_REQUESTS

enum { DISK_HANDLE = 1 }; /* in the trace; powercut_ext4 has opened it */

static int disk_fd = -1, trace_fd = -1;

static int recorder_config(const char *key, const char *value)
{
    bool disk = strcmp(key, "disk") == 0;
    if (!disk && strcmp(key, "trace") != 0) {
        nbdkit_error("nbd_recorder knows disk and trace, not %s", key);
        return -1;
    }
    int fd = open(value, (disk ? O_RDWR : O_WRONLY | O_APPEND) | O_CLOEXEC);
    if (fd < 0) {
        nbdkit_error("%s: %m", value);
        return -1;
    }
    *(disk ? &disk_fd : &trace_fd) = fd;
    return 0;
}

static int recorder_config_complete(void)
{
    if (disk_fd < 0 || trace_fd < 0) {
        nbdkit_error("disk and trace must be given");
        return -1;
    }
    return 0;
}

static void *recorder_open(int readonly)
{
    (void)readonly;
    return NBDKIT_HANDLE_NOT_NEEDED;
}

static int64_t recorder_size(void *handle)
{
    (void)handle;
    struct stat st;
    return fstat(disk_fd, &st) < 0 ? -1 : st.st_size;
}

static int put(struct trace_event event, const void *bytes)
{
    union {
        const void *in;
        void *out;
    } pointer = {.in = bytes};
    struct iovec parts[] = {{.iov_base = &event, .iov_len = sizeof(event)},
                            {.iov_base = pointer.out, .iov_len = (size_t)event.len}};
    if (writev(trace_fd, parts, 2) != (ssize_t)(sizeof(event) + event.len)) {
        nbdkit_error("the trace cannot be written: %m");
        return -1;
    }
    return 0;
}

static int put_plain(enum trace_type type)
{
    return put((struct trace_event){.type = type, .handle = DISK_HANDLE}, NULL);
}

static int recorder_pread(void *handle, void *bytes, uint32_t len, uint64_t offset, uint32_t flags)
{
    (void)handle;
    (void)flags;
    return pread(disk_fd, bytes, len, (off_t)offset) == (ssize_t)len ? 0 : -1;
}

static int recorder_pwrite(void *handle, const void *bytes, uint32_t len, uint64_t offset,
                           uint32_t flags)
{
    (void)handle;
    struct trace_event event = {
        .type = TRACE_WRITE, .handle = DISK_HANDLE, .offset = offset, .len = len};
    if (put(event, bytes) < 0 || pwrite(disk_fd, bytes, len, (off_t)offset) != (ssize_t)len) {
        return -1;
    }
    event = (struct trace_event){
        .type = TRACE_FORCED, .handle = DISK_HANDLE, .offset = offset, .number = len};
    return (flags & NBDKIT_FLAG_FUA) != 0 ? put(event, NULL) : 0;
}

static int recorder_flush(void *handle, uint32_t flags)
{
    (void)handle;
    (void)flags;
    return put_plain(TRACE_SYNC_BEGIN) < 0 ? -1 : put_plain(TRACE_SYNC_END);
}

static int recorder_can_fua(void *handle)
{
    (void)handle;
    return NBDKIT_FUA_NATIVE;
}

static struct nbdkit_plugin plugin = {
    .name = "recorder",
    .config = recorder_config,
    .config_complete = recorder_config_complete,
    .open = recorder_open,
    .get_size = recorder_size,
    .can_fua = recorder_can_fua,
    .pread = recorder_pread,
    .pwrite = recorder_pwrite,
    .flush = recorder_flush,
};

struct nbdkit_plugin *plugin_init(void); /* what NBDKIT_REGISTER_PLUGIN defines */
NBDKIT_REGISTER_PLUGIN(plugin)
