#include "uplink/file/file.h"

#include <errno.h>
#include <fcntl.h>
#include <zlib.h>

enum { PIECE = 256 * 1024 };

static void let_go(struct file_packer *p)
{
    if (p->stream != NULL) {
        gzclose(p->stream);
    }
    if (p->from != NULL) {
        cleanup_close(&p->from_fd);
        cleanup_close(&p->to_fd);
    }
    free(p->from);
    free(p->to);
    *p = (struct file_packer){0};
}

void file_pack_stop(struct file_packer *p)
{
    if (p->to != NULL) {
        unlink(p->to);
    }
    let_go(p);
}

/* The oldest rotated file that is not compressed. */
static int choose(const char *path, char **ret_name)
{
    struct file_rotated *list = NULL;
    size_t count = 0;
    int r = file_list(path, &list, &count);
    if (r < 0) {
        return r;
    }
    for (size_t i = 0; i < count && *ret_name == NULL && r == 0; i++) {
        if (!list[i].packed) {
            *ret_name = file_beside(path, list[i].name);
            r = *ret_name == NULL ? -ENOMEM : 0;
        }
    }
    file_list_free(list, count);
    return r;
}

static int open_both(struct file_packer *p)
{
    if (asprintf(&p->to, "%s.gz.part", p->from) < 0) {
        p->to = NULL;
        return -ENOMEM;
    }
    p->from_fd = open(p->from, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    /* What a power cut left of an earlier attempt goes by O_TRUNC. */
    p->to_fd = open(p->to, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0640);
    if (p->from_fd < 0 || p->to_fd < 0) {
        return -errno;
    }
    int own = fcntl(p->to_fd, F_DUPFD_CLOEXEC, 0); /* gzclose() closes this one */
    p->stream = own >= 0 ? gzdopen(own, "wb6") : NULL;
    if (p->stream == NULL) {
        cleanup_close(&own);
        return -ENOMEM;
    }
    return 0;
}

static int start(struct file_packer *p, const char *path)
{
    int r = choose(path, &p->from);
    if (r < 0 || p->from == NULL) {
        return r;
    }
    p->from_fd = p->to_fd = -1;
    r = open_both(p);
    return r < 0 ? r : 1;
}

/* The plain file goes only when the compressed one is on the disk under its name. */
static int complete(struct file_packer *p)
{
    auto_free char *name = NULL;
    int z = gzclose(take_ptr(p->stream));
    if (z != Z_OK || fsync(p->to_fd) < 0) {
        return -EIO;
    }
    if (asprintf(&name, "%s.gz", p->from) < 0) {
        return -ENOMEM;
    }
    if (rename(p->to, name) < 0) {
        return -errno;
    }
    int r = file_sync_directory(name);
    if (r == 0 && unlink(p->from) < 0) {
        r = -errno;
    }
    let_go(p);
    return r < 0 ? r : 1;
}

static int piece(struct file_packer *p)
{
    auto_free uint8_t *bytes = malloc(PIECE);
    if (bytes == NULL) {
        return -ENOMEM;
    }
    ssize_t n = read(p->from_fd, bytes, PIECE);
    if (n < 0) {
        return -errno;
    }
    if (n == 0) {
        return complete(p);
    }
    return gzwrite(p->stream, bytes, (unsigned)n) == (int)n ? 1 : -ENOSPC;
}

int file_pack_step(struct file_packer *p, const char *path)
{
    int r = p->from == NULL ? start(p, path) : piece(p);
    if (r < 0) {
        file_pack_stop(p);
    }
    return r;
}
