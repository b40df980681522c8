#include "gateway/base/clock.h"
#include "gateway/base/log.h"
#include "uplink/file/file.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>

enum { WORDS = 200, PACK_AGAIN_MS = 60000 };

struct job {
    const struct uplink_request *request;
    void (*done)(void *user, const struct uplink_reply *reply); /* NULL: the place is free */
    void *user;
};

struct file_transport {
    const struct file_settings *settings;
    int fd;               /* -1: not open */
    off_t len;            /* whole, durable lines */
    int64_t rotate_at_ms; /* CLOCK_MONOTONIC */
    int64_t pack_at_ms;   /* not before; INT64_MAX: nothing to pack */
    struct file_packer packer;
    uint64_t bytes_sent;
    size_t job_count;
    struct job jobs[];
};

static void close_file(struct file_transport *t)
{
    cleanup_close(&t->fd);
    t->fd = -1;
}

static off_t header_len(const struct file_transport *t)
{
    return t->settings->format == FILE_CSV ? (off_t)strlen(file_csv_header) : 0;
}

static int write_at(int fd, const void *bytes, size_t len, off_t offset)
{
    const char *at = bytes;
    while (len > 0) {
        ssize_t n = pwrite(fd, at, len, offset);
        if (n < 0 && errno != EINTR) {
            return -errno;
        }
        if (n == 0) {
            return -ENOSPC;
        }
        if (n > 0) {
            at += n;
            offset += n;
            len -= (size_t)n;
        }
    }
    return 0;
}

/* What a power cut has torn off or never written goes; its readings were not delivered and come
 * again. */
static int repair(struct file_transport *t, off_t size)
{
    size_t window = size < FILE_TAIL_MAX ? (size_t)size : FILE_TAIL_MAX, got = 0;
    off_t from = size - (off_t)window;
    auto_free uint8_t *tail = malloc(window + 1);
    if (tail == NULL) {
        return -ENOMEM;
    }
    while (got < window) {
        ssize_t n = pread(t->fd, tail + got, window - got, from + (off_t)got);
        if (n <= 0) {
            return n < 0 ? -errno : -EIO;
        }
        got += (size_t)n;
    }
    size_t whole = file_whole_lines(tail, window);
    if (whole == 0 && from > 0) {
        return -EBADMSG; /* no lines at all: this is somebody else's file */
    }
    t->len = from + (off_t)whole;
    if (t->len == size) {
        return 0;
    }
    log_warning("%s: %lld torn bytes at its end are cut off; their readings are sent again",
                t->settings->path, (long long)(size - t->len));
    return ftruncate(t->fd, t->len) == 0 && fdatasync(t->fd) == 0 ? 0 : -errno;
}

/* How long ago the file began, where the file system remembers it. */
static int64_t age_ms(int fd)
{
    struct statx st;
    if (statx(fd, "", AT_EMPTY_PATH, STATX_BTIME, &st) < 0 || (st.stx_mask & STATX_BTIME) == 0) {
        return 0;
    }
    int64_t age = clock_wall_ms() - st.stx_btime.tv_sec * 1000;
    return age > 0 ? age : 0;
}

static int begin(struct file_transport *t)
{
    struct stat st;
    if (flock(t->fd, LOCK_EX | LOCK_NB) < 0) {
        return errno == EWOULDBLOCK ? -EBUSY : -errno;
    }
    if (fstat(t->fd, &st) < 0) {
        return -errno;
    }
    if (!S_ISREG(st.st_mode)) {
        return -EBADMSG;
    }
    int r = repair(t, st.st_size);
    if (r == 0 && t->len == 0) {
        r = write_at(t->fd, file_csv_header, (size_t)header_len(t), 0);
        t->len = header_len(t);
    }
    if (r == 0 && fdatasync(t->fd) < 0) {
        r = -errno;
    }
    t->rotate_at_ms = clock_mono_ms() + t->settings->rotate_interval_ms - age_ms(t->fd);
    return r < 0 ? r : file_sync_directory(t->settings->path);
}

static int open_file(struct file_transport *t)
{
    /* Non-blocking: a FIFO of that name must not hold the thread. */
    t->fd = open(t->settings->path,
                 O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY, 0640);
    if (t->fd < 0) {
        return -errno;
    }
    int r = begin(t);
    if (r < 0) {
        close_file(t);
    }
    return r;
}

/* Whether the open file is still the one of that name and ends where we left it: a technician may
 * have moved it away, or pulled the medium. */
static bool still_ours(const struct file_transport *t)
{
    struct stat named, own;
    return t->fd >= 0 && stat(t->settings->path, &named) == 0 && fstat(t->fd, &own) == 0 &&
           named.st_ino == own.st_ino && named.st_dev == own.st_dev && own.st_size == t->len;
}

static bool due_for_rotation(const struct file_transport *t)
{
    return t->fd >= 0 && t->len > header_len(t) &&
           (t->len >= t->settings->rotate_size || clock_mono_ms() >= t->rotate_at_ms);
}

static int rotate(struct file_transport *t)
{
    int r = file_rotate(t->settings->path, clock_wall_ms());
    close_file(t);
    if (r < 0) {
        return r;
    }
    t->pack_at_ms = t->settings->compress == FILE_GZIP ? 0 : INT64_MAX;
    r = file_prune(t->settings->path, t->settings);
    if (r < 0) {
        log_warning("%s: removing old files: %s", t->settings->path, strerror(-r));
    }
    return 0;
}

static int make_ready(struct file_transport *t)
{
    if (!still_ours(t)) {
        close_file(t);
    } else if (due_for_rotation(t)) {
        int r = rotate(t);
        if (r < 0) {
            return r;
        }
    }
    return t->fd >= 0 ? 0 : open_file(t);
}

static int check_room(const struct file_transport *t, size_t needed)
{
    struct statvfs vfs;
    if (fstatvfs(t->fd, &vfs) < 0) {
        return -errno;
    }
    uint64_t left = (uint64_t)vfs.f_bavail * vfs.f_frsize;
    return left < (uint64_t)t->settings->min_free + needed ? -ENOSPC : 0;
}

/* Appends what waits, all of it or none. */
static int append(struct file_transport *t, off_t *ret_len)
{
    size_t needed = 0;
    for (size_t i = 0; i < t->job_count; i++) {
        needed += t->jobs[i].done != NULL ? t->jobs[i].request->body.len : 0;
    }
    int r = check_room(t, needed);
    off_t at = t->len;
    for (size_t i = 0; r == 0 && i < t->job_count; i++) {
        if (t->jobs[i].done != NULL) {
            const struct buffer *body = &t->jobs[i].request->body;
            r = write_at(t->fd, body->data, body->len, at);
            at += (off_t)body->len;
        }
    }
    if (r == 0 && fdatasync(t->fd) < 0) {
        r = -errno;
    }
    *ret_len = at;
    return r;
}

static int append_jobs(struct file_transport *t)
{
    off_t end = 0;
    int r = make_ready(t);
    if (r < 0) {
        return r;
    }
    r = append(t, &end);
    if (r == 0) {
        t->bytes_sent += (uint64_t)(end - t->len);
        t->len = end;
        return 0;
    }
    /* After a failed fsync nobody knows what is on the disk: cut off, open and look again. */
    if (ftruncate(t->fd, t->len) < 0) {
        log_warning("%s: %s", t->settings->path, strerror(errno));
    }
    close_file(t);
    return r;
}

static void write_words(int r, const char *path, char text[WORDS])
{
    const char *what = r == -ENOSPC || r == -EDQUOT ? "the file system is full (or at min_free)"
                       : r == -ENOENT  ? "its directory is not there: is the medium mounted?"
                       : r == -EROFS   ? "the file system is read-only"
                       : r == -EACCES  ? "it may not be written: owner and mode of the directory"
                       : r == -EBUSY   ? "another process writes to it"
                       : r == -ELOOP   ? "it is a symbolic link, which is not followed"
                       : r == -EBADMSG ? "it exists, and is no file of lines"
                                       : strerror(-r);
    snprintf(text, WORDS, "%.120s: %s", path, what);
}

static bool has_jobs(const struct file_transport *t)
{
    for (size_t i = 0; i < t->job_count; i++) {
        if (t->jobs[i].done != NULL) {
            return true;
        }
    }
    return false;
}

static void work(struct file_transport *t)
{
    char words[WORDS] = "";
    int r = append_jobs(t);
    if (r < 0) {
        write_words(r, t->settings->path, words);
    }
    struct uplink_reply reply = {.status = r == 0 ? 200 : 0,
                                 .body = "",
                                 .content_type = "",
                                 .retry_after_ms = -1,
                                 .error = words};
    for (size_t i = 0; i < t->job_count; i++) {
        struct job job = t->jobs[i];
        t->jobs[i].done = NULL;
        if (job.done != NULL) {
            job.done(job.user, &reply);
        }
    }
}

/* One piece of the work that nobody waits for; the time when the next is due. */
static int64_t tidy(struct file_transport *t, int64_t now_ms)
{
    if (still_ours(t) && due_for_rotation(t)) {
        int r = rotate(t);
        if (r < 0) {
            log_warning("%s: rotating: %s", t->settings->path, strerror(-r));
            t->rotate_at_ms = now_ms + PACK_AGAIN_MS;
        }
    }
    if (now_ms >= t->pack_at_ms) {
        int r = file_pack_step(&t->packer, t->settings->path);
        t->pack_at_ms = r > 0 ? 0 : r == 0 ? INT64_MAX : now_ms + PACK_AGAIN_MS;
        if (r < 0) {
            log_warning("%s: compressing: %s", t->settings->path, strerror(-r));
        }
    }
    bool idle = t->fd < 0 || t->len <= header_len(t);
    return idle || t->pack_at_ms < t->rotate_at_ms ? t->pack_at_ms : t->rotate_at_ms;
}

static int run(void *state, int wake_fd, int64_t timeout_ms)
{
    struct file_transport *t = state;
    int64_t deadline_ms = timeout_ms < 0 ? INT64_MAX : clock_mono_ms() + timeout_ms;
    if (has_jobs(t)) {
        work(t);
        return 0;
    }
    for (;;) {
        int64_t due_ms = tidy(t, clock_mono_ms()), now_ms = clock_mono_ms();
        int64_t until_ms = due_ms < deadline_ms ? due_ms : deadline_ms;
        int64_t left_ms = until_ms > now_ms ? until_ms - now_ms : 0;
        struct pollfd wake = {.fd = wake_fd, .events = POLLIN};
        int n = poll(&wake, 1, left_ms > INT_MAX ? INT_MAX : (int)left_ms);
        if (n < 0 && errno != EINTR) {
            return -errno;
        }
        if (n > 0 || clock_mono_ms() >= deadline_ms) {
            return 0;
        }
    }
}

static int send_request(void *state, const struct uplink_request *request,
                        void (*done)(void *user, const struct uplink_reply *reply), void *user)
{
    struct file_transport *t = state;
    for (size_t i = 0; i < t->job_count; i++) {
        if (t->jobs[i].done == NULL) {
            t->jobs[i] = (struct job){.request = request, .done = done, .user = user};
            return 0;
        }
    }
    return -EBUSY;
}

static void destroy(void *state)
{
    struct file_transport *t = state;
    if (t != NULL) {
        file_pack_stop(&t->packer);
        close_file(t);
        free(t);
    }
}

static int create(const void *settings, const char *gateway, size_t parallel, void **ret_state)
{
    (void)gateway; /* every line names it */
    struct file_transport *t = calloc(1, sizeof *t + parallel * sizeof t->jobs[0]);
    if (t == NULL) {
        return -ENOMEM;
    }
    t->settings = settings;
    t->fd = -1;
    t->job_count = parallel;
    t->pack_at_ms = t->settings->compress == FILE_GZIP ? 0 : INT64_MAX;
    *ret_state = t;
    return 0;
}

static uint64_t bytes_sent(const void *state)
{
    return ((const struct file_transport *)state)->bytes_sent;
}

const struct transport transport_file = {
    .name = "file",
    .create = create,
    .destroy = destroy,
    .send = send_request,
    .run = run,
    .bytes_sent = bytes_sent,
};
