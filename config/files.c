#include "config/files.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

static int read_all(int fd, size_t max, struct buffer *ret_bytes)
{
    for (;;) {
        uint8_t *to = buffer_reserve(ret_bytes, 16384);
        if (to == NULL) {
            return -ENOMEM;
        }
        ssize_t n = read(fd, to, 16384);
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n < 0) {
            return -errno;
        }
        if (n == 0) {
            return buffer_text(ret_bytes) == NULL ? -ENOMEM : 0;
        }
        ret_bytes->len += (size_t)n;
        if (ret_bytes->len > max) {
            return -EFBIG;
        }
    }
}

/* O_NONBLOCK: a FIFO in a configuration must not hang its reader. */
static int open_regular(const char *path, struct stat *ret_status)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
    if (fd < 0) {
        return -errno;
    }
    int error = fstat(fd, ret_status) != 0 ? -errno : S_ISREG(ret_status->st_mode) ? 0 : -EINVAL;
    if (error != 0) {
        close(fd);
        return error;
    }
    return fd;
}

int files_read(const char *path, size_t max, struct buffer *ret_bytes)
{
    struct stat status = {0};
    auto_close int fd = open_regular(path, &status);
    return fd < 0 ? fd : read_all(fd, max, ret_bytes);
}

const char *files_path(struct arena *arena, const char *folder, const char *value)
{
    if (value[0] == '/' || folder[0] == '\0') {
        return arena_text(arena, value, strlen(value));
    }
    return arena_printf(arena, "%s%s%s", folder, value[0] == '\0' ? "" : "/", value);
}

static const char *why_not(struct arena *arena, const char *path, int error)
{
    switch (error) {
    case -ENOENT:
        return arena_printf(arena, "%s does not exist", path);
    case -EINVAL:
        return arena_printf(arena, "%s is not a regular file", path);
    case -EFBIG:
        return arena_printf(arena, "%s is larger than %d bytes", path, FILES_SECRET_MAX);
    case -EACCES:
        return arena_printf(arena, "%s cannot be read by this user", path);
    default:
        return arena_printf(arena, "%s cannot be read: %s", path, strerror(-error));
    }
}

static void take_secret(struct files *files, struct files_entry *entry, struct buffer *content)
{
    while (content->len > 0 && isspace(content->data[content->len - 1])) {
        content->len--;
    }
    if (content->len == 0) {
        entry->why = arena_printf(files->arena, "%s is empty", entry->path);
    } else if (memchr(content->data, '\0', content->len) != NULL) {
        entry->why = arena_printf(files->arena, "%s holds a NUL byte", entry->path);
    } else {
        entry->text = arena_text(files->arena, (const char *)content->data, content->len);
    }
    explicit_bzero(content->data, content->capacity);
}

static void look(struct files *files, struct files_entry *entry, bool credential)
{
    struct stat status = {0};
    auto_close int fd = open_regular(entry->path, &status);
    if (fd < 0) {
        entry->why = why_not(files->arena, entry->path, fd);
        return;
    }
    if (entry->exclusive && !credential && (status.st_mode & 077) != 0) {
        entry->why = arena_printf(files->arena, "%s is open to others (mode %04o): chmod 600 it",
                                  entry->path, status.st_mode & 07777u);
        return;
    }
    auto_buffer struct buffer content = {0};
    int error = read_all(fd, entry->exclusive ? FILES_SECRET_MAX : FILES_HASHED_MAX, &content);
    if (error != 0 && (entry->exclusive || error != -EFBIG)) {
        entry->why = why_not(files->arena, entry->path, error);
        return;
    }
    entry->hash = hash_bytes(HASH_START, content.data, content.len);
    if (entry->exclusive) {
        take_secret(files, entry, &content);
    }
}

static const char *credential_path(struct files *files, const char *name, const char **ret_why)
{
    const char *folder = getenv("CREDENTIALS_DIRECTORY");
    if (folder == NULL) {
        *ret_why = "credential: works only in a unit with LoadCredential= "
                   "(CREDENTIALS_DIRECTORY is not set)";
        return name;
    }
    if (name[0] == '\0' || strchr(name, '/') != NULL) {
        *ret_why = "credential: needs the plain name of a credential";
        return name;
    }
    return files_path(files->arena, folder, name);
}

const struct files_entry *files_look(struct files *files, const char *folder, const char *value,
                                     bool exclusive)
{
    static const char prefix[] = "credential:";
    bool credential = strncmp(value, prefix, sizeof prefix - 1) == 0;
    const char *why = NULL;
    const char *path = credential ? credential_path(files, value + sizeof prefix - 1, &why)
                                  : files_path(files->arena, folder, value);
    for (size_t i = 0; i < files->seen.count; i++) {
        struct files_entry *entry = files->seen.items[i];
        if (entry->exclusive == exclusive && strcmp(entry->path, path) == 0) {
            return entry;
        }
    }
    struct files_entry *entry = arena_take(files->arena, sizeof *entry);
    *entry = (struct files_entry){.path = path, .exclusive = exclusive, .why = why};
    if (why == NULL) {
        look(files, entry, credential);
    }
    vector_add(&files->seen, entry);
    return entry;
}

void files_finish(struct files *files)
{
    vector_finish(&files->seen);
}
