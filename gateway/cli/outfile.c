#include "gateway/cli/outfile.h"

#include <errno.h>
#include <fcntl.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

struct outfile {
    const char *command;
    char *path, *trial; /* NULL: stdout */
    int fd, error;
    EVP_MD_CTX *sum;
};

static void destroy(struct outfile *out)
{
    if (out->trial != NULL && out->fd >= 0) {
        close(out->fd);
    }
    EVP_MD_CTX_free(out->sum);
    free(out->path);
    free(out->trial);
    free(out);
}

static int complain(const struct outfile *out, int error)
{
    fprintf(stderr, "windrow %s: %s: %s\n", out->command, out->path != NULL ? out->path : "stdout",
            strerror(-error));
    return error;
}

static int begin(struct outfile *out, const char *path)
{
    out->sum = EVP_MD_CTX_new();
    if (out->sum == NULL || EVP_DigestInit_ex(out->sum, EVP_sha256(), NULL) != 1) {
        return -ENOMEM;
    }
    if (path == NULL) {
        out->fd = STDOUT_FILENO;
        return 0;
    }
    out->path = strdup(path);
    if (out->path == NULL || asprintf(&out->trial, "%s.part", path) < 0) {
        out->trial = NULL;
        return -ENOMEM;
    }
    out->fd = open(out->trial, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0640);
    return out->fd < 0 ? -errno : 0;
}

struct outfile *outfile_open(const char *command, const char *path)
{
    struct outfile *out = calloc(1, sizeof *out);
    if (out == NULL) {
        return NULL;
    }
    out->command = command;
    out->fd = -1;
    int r = begin(out, path);
    if (r < 0) {
        complain(out, r);
        destroy(out);
        return NULL;
    }
    return out;
}

static int write_all(int fd, const char *at, size_t len)
{
    while (len > 0) {
        ssize_t n = write(fd, at, len);
        if (n < 0 && errno != EINTR) {
            return -errno;
        }
        if (n > 0) {
            at += n;
            len -= (size_t)n;
        }
    }
    return 0;
}

int outfile_write(struct outfile *out, const void *bytes, size_t len)
{
    if (out->error == 0 && EVP_DigestUpdate(out->sum, bytes, len) != 1) {
        out->error = -ENOMEM;
    }
    if (out->error == 0) {
        out->error = write_all(out->fd, bytes, len);
    }
    return out->error;
}

static int sync_folder(const char *path)
{
    auto_free char *folder = strdup(path);
    if (folder == NULL) {
        return -ENOMEM;
    }
    char *slash = strrchr(folder, '/');
    if (slash != NULL) {
        slash[slash == folder] = '\0';
    }
    auto_close int fd = open(slash != NULL ? folder : ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    /* Some file systems cannot (vfat of old kernels): the names are then durable a little later. */
    return fd < 0 ? -errno : fsync(fd) == 0 || errno == EINVAL ? 0 : -errno;
}

static int write_sum(const struct outfile *out, const char *sum)
{
    auto_free char *path = NULL;
    auto_buffer struct buffer line = {0};
    const char *slash = strrchr(out->path, '/');
    buffer_printf(&line, "%s  %s\n", sum, slash != NULL ? slash + 1 : out->path);
    if (buffer_failed(&line) || asprintf(&path, "%s.sha256", out->path) < 0) {
        path = NULL;
        return -ENOMEM;
    }
    auto_close int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0640);
    int r = fd < 0 ? -errno : write_all(fd, (const char *)line.data, line.len);
    return r == 0 && fsync(fd) < 0 ? -errno : r;
}

static void take_sum(struct outfile *out, char ret_sum[65])
{
    unsigned char digest[EVP_MAX_MD_SIZE];
    unsigned len = 0;
    ret_sum[0] = '\0';
    if (EVP_DigestFinal_ex(out->sum, digest, &len) == 1) {
        for (unsigned i = 0; i < len && i < 32; i++) {
            snprintf(ret_sum + (size_t)i * 2, 3, "%02x", digest[i]);
        }
    }
}

static int make_durable(struct outfile *out, bool sums, const char *sum)
{
    int r = fsync(out->fd) < 0 ? -errno : 0;
    if (r == 0 && rename(out->trial, out->path) < 0) {
        r = -errno;
    }
    if (r == 0 && sums) {
        r = write_sum(out, sum);
    }
    return r < 0 ? r : sync_folder(out->path);
}

int outfile_finish(struct outfile *out, bool sums, char ret_sum[65])
{
    take_sum(out, ret_sum);
    int r = out->error;
    if (r == 0 && out->path != NULL) {
        r = make_durable(out, sums, ret_sum);
    }
    if (r < 0) {
        complain(out, r);
        outfile_abandon(out);
        return r;
    }
    destroy(out);
    return 0;
}

void outfile_abandon(struct outfile *out)
{
    if (out == NULL) {
        return;
    }
    if (out->trial != NULL) {
        unlink(out->trial);
    }
    destroy(out);
}
