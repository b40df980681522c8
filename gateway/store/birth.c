#include "gateway/base/clock.h"
#include "gateway/store/internal.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/file.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <time.h>

/* The limits of max_size: 32-bit address spaces hold a map of 1 GiB, 2047 MiB does not open. */
static const uint64_t max_bytes_most = sizeof(size_t) < 8 ? 960ull << 20 : 1ull << 42;
static const uint64_t max_bytes_default = sizeof(size_t) < 8 ? 960ull << 20 : 16ull << 30;
static const uint64_t map_bytes_most = sizeof(size_t) < 8 ? 1ull << 30 : 1ull << 43;
static const uint64_t max_bytes_least = 512 * 1024;

/* The child that checks for a writer shares its lock for a moment, also when that is killed. */
enum { LOCK_TRIES = 10, LOCK_PAUSE_NS = 20000000 };

int birth_lock(const char *dir, int *ret_fd)
{
    char path[4096];
    if (snprintf(path, sizeof(path), "%s/store.lock", dir) >= (int)sizeof(path)) {
        return -ENAMETOOLONG;
    }
    auto_close int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0640);
    if (fd < 0) {
        return -errno;
    }
    int rc = -EBUSY;
    for (unsigned i = 0; i < LOCK_TRIES && rc == -EBUSY; i++) {
        rc = flock(fd, LOCK_EX | LOCK_NB) == 0 ? 0 : errno == EWOULDBLOCK ? -EBUSY : -errno;
        if (rc == -EBUSY) {
            struct timespec pause = {.tv_nsec = LOCK_PAUSE_NS};
            nanosleep(&pause, NULL);
        }
    }
    if (rc < 0) {
        return rc;
    }
    *ret_fd = take_fd(fd);
    return 0;
}

static int sync_path(const char *path, int flags)
{
    auto_close int fd = open(path, flags | O_CLOEXEC);
    if (fd < 0 || fsync(fd) < 0) {
        return -errno;
    }
    return 0;
}

static int first_record(struct buffer *record)
{
    struct state state = {.made_ms = clock_wall_ms(), .tail = 1, .next = 1};
    uint8_t id[(STATE_ID_SIZE - 1) / 2];
    if (getrandom(id, sizeof(id), 0) != (ssize_t)sizeof(id)) {
        return -EIO;
    }
    for (size_t i = 0; i < sizeof(id); i++) {
        snprintf(state.id + 2 * i, 3, "%02x", id[i]);
    }
    return state_encode(&state, NULL, record);
}

static int first_commit(const char *path, size_t map_bytes)
{
    auto_buffer struct buffer record = {0};
    struct env *env = NULL;
    MDB_txn *txn = NULL;
    int rc = first_record(&record);
    if (rc == 0) {
        rc = env_open(path, map_bytes, ENV_NEW, &env);
    }
    if (rc == 0) {
        rc = env_write(env, &txn);
    }
    if (rc == 0) {
        struct key key = key_plain(KEY_STATE);
        rc = env_put(txn, &key, record.data, record.len, 0);
        if (rc == 0) {
            rc = env_error(mdb_txn_commit(txn));
        } else {
            mdb_txn_abort(txn);
        }
    }
    env_close(env);
    return rc;
}

/* What a start that was cut off has left. */
static void remove_half_made(const char *path)
{
    char file[4096 + 16];
    static const char *const names[] = {"data.mdb", "lock.mdb"};
    for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
        snprintf(file, sizeof(file), "%s/%s", path, names[i]);
        unlink(file);
    }
    rmdir(path);
}

/* LMDB's creation is not atomic: made under another name, forced to the disk, then renamed. */
int birth_create(const char *dir, size_t map_bytes)
{
    char made[4000], file[4096], path[4096];
    if (snprintf(made, sizeof(made), "%s/store.new", dir) >= (int)sizeof(made)) {
        return -ENAMETOOLONG;
    }
    snprintf(file, sizeof(file), "%s/data.mdb", made);
    snprintf(path, sizeof(path), "%s/store", dir);
    remove_half_made(made);
    if (mkdir(made, 0750) < 0) {
        return -errno;
    }
    int rc = first_commit(made, map_bytes);
    if (rc == 0) {
        rc = sync_path(file, O_RDWR);
    }
    if (rc == 0) {
        rc = sync_path(made, O_RDONLY | O_DIRECTORY);
    }
    if (rc == 0 && rename(made, path) < 0) {
        rc = -errno;
    }
    return rc < 0 ? rc : sync_path(dir, O_RDONLY | O_DIRECTORY);
}

int birth_quarantine(const char *dir, char **ret_name)
{
    char from[4096], date[CLOCK_TEXT_SIZE];
    snprintf(from, sizeof(from), "%s/store", dir);
    clock_format_utc(clock_wall_ms(), date);
    for (unsigned i = 0; i < 100; i++) {
        auto_free char *name = NULL;
        int n = i == 0 ? asprintf(&name, "store.damaged-%.10sT%.2s%.2s%.2sZ", date, date + 11,
                                  date + 14, date + 17)
                       : asprintf(&name, "store.damaged-%.10sT%.2s%.2s%.2sZ-%u", date, date + 11,
                                  date + 14, date + 17, i);
        char to[4096];
        if (n < 0) {
            name = NULL;
            return -ENOMEM;
        }
        snprintf(to, sizeof(to), "%s/%s", dir, name);
        if (access(to, F_OK) == 0) {
            continue;
        }
        if (rename(from, to) < 0) {
            return -errno;
        }
        *ret_name = take_ptr(name);
        return sync_path(dir, O_RDONLY | O_DIRECTORY);
    }
    return -EEXIST;
}

uint64_t birth_max_bytes(const char *dir, int64_t max_size_bytes)
{
    uint64_t max = (uint64_t)max_size_bytes;
    if (max_size_bytes <= 0) {
        struct statvfs fs;
        max = max_bytes_default;
        if (statvfs(dir, &fs) == 0) {
            uint64_t half = (uint64_t)fs.f_blocks * fs.f_frsize / 2;
            max = half < max ? half : max;
        }
    }
    max = max < max_bytes_least ? max_bytes_least : max;
    return max > max_bytes_most ? max_bytes_most : max;
}

size_t birth_map_bytes(uint64_t max_bytes, size_t file_bytes)
{
    uint64_t most = max_bytes > file_bytes ? max_bytes : file_bytes;
    uint64_t map = most + most / 8 + (16ull << 20);
    map = map > map_bytes_most ? map_bytes_most : map;
    return (size_t)(map & ~(uint64_t)0xffff);
}
