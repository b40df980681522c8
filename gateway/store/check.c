#include "gateway/store/check.h"

#include "gateway/store/dictionary.h"
#include "gateway/store/env.h"
#include "gateway/store/large.h"
#include "gateway/store/pages.h"
#include "gateway/store/state.h"
#include "gateway/store/wal.h"

#include <errno.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>

/* So many blocks at either end of the log are checked against their checksum. */
enum { CHECK_BLOCKS = 64 };

static int check_block(struct wal_decoder *decoder, const MDB_val *value)
{
    struct wal_header header;
    const struct wal_row *rows;
    return wal_open(decoder, value->mv_data, value->mv_size, &header, &rows);
}

/* Only of a file that is too short: there may be more large blocks than a start has time for. */
static int check_large(const MDB_val *name, const MDB_val *value)
{
    struct large large;
    auto_buffer struct buffer scans = {0};
    return large_read(name, value, &large)
               ? large_decode(&large, value->mv_data, value->mv_size, &scans)
               : -EBADMSG;
}

struct look {
    struct wal_decoder *decoder;
    struct state state;
    bool whole;
};

static int check_entry(void *user, const MDB_val *name, const MDB_val *value)
{
    const struct look *look = user;
    const struct state *state = &look->state;
    uint64_t number;
    uint32_t device, version;
    if (key_parse_number(KEY_WAL, name->mv_data, name->mv_size, &number)) {
        if (look->whole || number < state->tail + CHECK_BLOCKS ||
            number + CHECK_BLOCKS >= state->next) {
            return check_block(look->decoder, value);
        }
    } else if (look->whole && ((const uint8_t *)name->mv_data)[0] == KEY_LARGE) {
        return check_large(name, value);
    } else if (key_parse_pair(KEY_DEVICE, name->mv_data, name->mv_size, &device, &version)) {
        return dictionary_check(value->mv_data, value->mv_size);
    }
    return 0;
}

static int check_state(MDB_txn *txn, struct state *state)
{
    struct key key = key_plain(KEY_STATE);
    MDB_val value;
    int rc = env_get(txn, &key, &value);
    return rc < 0 ? rc : state_decode(value.mv_data, value.mv_size, state);
}

static int check_within(struct env *env, const char *path)
{
    struct look look = {0};
    MDB_txn *txn = NULL;
    int rc = wal_decoder_create(&look.decoder);
    if (rc == 0) {
        rc = env_read(env, &txn);
    }
    if (rc < 0) {
        wal_decoder_destroy(look.decoder);
        return rc;
    }
    uint64_t pages = env_pages(env), free_pages = 0;
    rc = env_free_pages(txn, &free_pages);
    if (rc == 0) {
        rc = check_state(txn, &look.state);
    }
    /* A file that is shorter than its pages may have lost blocks anywhere: look at all of them. */
    char file[4096];
    struct stat st;
    snprintf(file, sizeof(file), "%s/data.mdb", path);
    if (rc == 0 && stat(file, &st) == 0) {
        look.whole = (uint64_t)st.st_size < pages * env_page_size(env);
        rc = free_pages > pages ? -EBADMSG : env_walk(txn, check_entry, &look);
    }
    env_read_end(env, txn);
    wal_decoder_destroy(look.decoder);
    state_finish(&look.state);
    return rc;
}

/* In the child: 0 sound, 1 damaged, otherwise an errno. */
static int child(const char *path, int locked)
{
    /* The writer's lock is among them: it must not outlive a writer that is killed now. */
    close_range(STDERR_FILENO + 1, UINT_MAX, 0);
    struct rlimit no_core = {0, 0};
    setrlimit(RLIMIT_CORE, &no_core);
    static const int fatal[] = {SIGBUS, SIGSEGV, SIGABRT, SIGFPE, SIGILL};
    for (size_t i = 0; i < ARRAY_SIZE(fatal); i++) {
        signal(fatal[i], SIG_DFL);
    }
    if (freopen("/dev/null", "w", stderr) == NULL) {
        return EIO; /* LMDB and sanitizers write there when they meet damage */
    }
    char file[4096];
    snprintf(file, sizeof(file), "%s/data.mdb", path);
    struct env *env = NULL;
    /* Beside a writer the pages move while one looks. */
    int rc = locked ? 0 : pages_check(file);
    if (rc == 0) {
        rc = env_open(path, 0, locked ? ENV_READER : ENV_CHECKER, &env);
    }
    if (rc == 0) {
        rc = check_within(env, path);
        env_close(env);
    }
    switch (rc) {
    case -EBADMSG:
    case -ENOENT:
    case -EINVAL:
    case -EBADF: /* LMDB takes an empty file for a new one and tries to write */
        return 1;
    case -EPERM:
        return EACCES;
    default:
        return -rc;
    }
}

int check_environment(const char *path, int locked)
{
    fflush(NULL);
    pid_t pid = fork();
    if (pid < 0) {
        return -errno;
    }
    if (pid == 0) {
        _exit(child(path, locked));
    }
    int status;
    while (waitpid(pid, &status, 0) < 0) {
        if (errno != EINTR) {
            return -errno;
        }
    }
    if (WIFSIGNALED(status)) {
        /* A kill from outside says nothing about the file. */
        return WTERMSIG(status) == SIGKILL || WTERMSIG(status) == SIGTERM ? -EINTR : -EBADMSG;
    }
    int code = WEXITSTATUS(status);
    return code == 0 ? 0 : code == 1 ? -EBADMSG : -code;
}
