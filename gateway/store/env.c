#include "gateway/store/env.h"

#include <errno.h>
#include <pthread.h>
#include <string.h>

/* The unnamed database and the free list have fixed handles in LMDB. */
enum { FREE_DBI = 0, MAIN_DBI = 1 };

struct env {
    MDB_env *mdb;
    pthread_rwlock_t map_lock; /* a read transaction holds it shared, a resize alone */
    size_t map_bytes, page_size;
    bool lost; /* the map could not be made anew: LMDB would follow pointers into the old one */
};

int env_error(int rc)
{
    switch (rc) {
    case 0:
        return 0;
    case MDB_NOTFOUND:
        return -ENOENT;
    case MDB_KEYEXIST:
        return -EEXIST;
    case MDB_MAP_FULL:
        return -ENOBUFS; /* not the file system's ENOSPC: only this one may be tried again */
    case MDB_PAGE_NOTFOUND:
    case MDB_CORRUPTED:
    case MDB_PANIC:
    case MDB_VERSION_MISMATCH:
    case MDB_INVALID:
    case MDB_PAGE_FULL:
    case MDB_CURSOR_FULL:
    case MDB_INCOMPATIBLE:
    case MDB_BAD_VALSIZE:
        return -EBADMSG;
    case MDB_READERS_FULL:
        return -EAGAIN;
    default:
        return rc > 0 ? -rc : -EIO;
    }
}

static unsigned mode_flags(enum env_mode mode)
{
    switch (mode) {
    case ENV_READER:
        return MDB_NOTLS | MDB_RDONLY;
    case ENV_CHECKER:
        return MDB_NOTLS | MDB_RDONLY | MDB_NOLOCK;
    default:
        return MDB_NOTLS;
    }
}

/* The handle of the unnamed database must be opened once before it is used. */
static int open_main(struct env *env, enum env_mode mode)
{
    MDB_txn *txn = NULL;
    int rc = env_error(mdb_txn_begin(env->mdb, NULL, mode == ENV_WRITER ? 0 : MDB_RDONLY, &txn));
    if (rc < 0) {
        return rc;
    }
    MDB_dbi dbi;
    rc = env_error(mdb_dbi_open(txn, NULL, 0, &dbi));
    MDB_stat stat;
    if (rc == 0) {
        rc = env_error(mdb_stat(txn, dbi, &stat));
        env->page_size = stat.ms_psize;
    }
    mdb_txn_abort(txn);
    return rc == 0 && dbi != MAIN_DBI ? -EBADMSG : rc;
}

int env_open(const char *path, size_t map_bytes, enum env_mode mode, struct env **ret_env)
{
    struct env *env = calloc(1, sizeof(*env));
    if (env == NULL) {
        return -ENOMEM;
    }
    pthread_rwlock_init(&env->map_lock, NULL);
    int rc = env_error(mdb_env_create(&env->mdb));
    if (rc == 0 && mode == ENV_WRITER) {
        rc = env_error(mdb_env_set_mapsize(env->mdb, map_bytes));
        env->map_bytes = map_bytes;
    }
    if (rc == 0) {
        rc = env_error(mdb_env_open(env->mdb, path, mode_flags(mode), 0640));
    }
    if (rc == 0) {
        rc = open_main(env, mode);
    }
    if (rc < 0) {
        env_close(env);
        return rc;
    }
    *ret_env = env;
    return 0;
}

void env_close(struct env *env)
{
    if (env == NULL) {
        return;
    }
    if (env->mdb != NULL) {
        mdb_env_close(env->mdb);
    }
    pthread_rwlock_destroy(&env->map_lock);
    free(env);
}

/* Under map_lock, alone. LMDB lets go of the old map before it asks for the new one. */
static int set_map_size(struct env *env, size_t map_bytes)
{
    int rc = env->lost ? EIO : mdb_env_set_mapsize(env->mdb, map_bytes);
    env->lost = rc != 0;
    return rc;
}

int env_read(struct env *env, MDB_txn **ret_txn)
{
    pthread_rwlock_rdlock(&env->map_lock);
    int rc = env->lost ? EIO : mdb_txn_begin(env->mdb, NULL, MDB_RDONLY, ret_txn);
    if (rc == MDB_MAP_RESIZED) {
        /* The writer is another process and has enlarged its map: take over its size. */
        pthread_rwlock_unlock(&env->map_lock);
        pthread_rwlock_wrlock(&env->map_lock);
        rc = set_map_size(env, 0);
        pthread_rwlock_unlock(&env->map_lock);
        pthread_rwlock_rdlock(&env->map_lock);
        if (rc == 0) {
            rc = mdb_txn_begin(env->mdb, NULL, MDB_RDONLY, ret_txn);
        }
    }
    if (rc != 0) {
        pthread_rwlock_unlock(&env->map_lock);
    }
    return env_error(rc);
}

void env_read_end(struct env *env, MDB_txn *txn)
{
    mdb_txn_abort(txn);
    pthread_rwlock_unlock(&env->map_lock);
}

int env_write(struct env *env, MDB_txn **ret_txn)
{
    return env->lost ? -EIO : env_error(mdb_txn_begin(env->mdb, NULL, 0, ret_txn));
}

int env_resize(struct env *env, size_t map_bytes)
{
    pthread_rwlock_wrlock(&env->map_lock);
    int rc = env_error(set_map_size(env, map_bytes));
    if (rc == 0) {
        env->map_bytes = map_bytes;
    }
    pthread_rwlock_unlock(&env->map_lock);
    return rc;
}

size_t env_map_bytes(const struct env *env)
{
    return env->map_bytes;
}

size_t env_page_size(const struct env *env)
{
    return env->page_size;
}

void env_clear_readers(struct env *env)
{
    int dead = 0;
    (void)mdb_reader_check(env->mdb, &dead);
}

/* LMDB does not write to what it is given, but does not say so in its types. */
static MDB_val given(const void *bytes, size_t len)
{
    union {
        const void *in;
        void *out;
    } pointer = {.in = bytes};
    return (MDB_val){.mv_size = len, .mv_data = pointer.out};
}

static MDB_val key_value(const struct key *key)
{
    return given(key->bytes, key->len);
}

int env_get(MDB_txn *txn, const struct key *key, MDB_val *ret_value)
{
    MDB_val name = key_value(key);
    return env_error(mdb_get(txn, MAIN_DBI, &name, ret_value));
}

int env_put(MDB_txn *txn, const struct key *key, const void *value, size_t len, unsigned flags)
{
    MDB_val name = key_value(key);
    MDB_val data = given(value, len);
    return env_error(mdb_put(txn, MAIN_DBI, &name, &data, flags));
}

int env_delete(MDB_txn *txn, const struct key *key)
{
    MDB_val name = key_value(key);
    int rc = env_error(mdb_del(txn, MAIN_DBI, &name, NULL));
    return rc == -ENOENT ? 0 : rc;
}

int env_seek(MDB_txn *txn, enum key_type type, uint64_t from, uint64_t *ret_number,
             MDB_val *ret_value)
{
    MDB_cursor *cursor = NULL;
    int rc = env_error(mdb_cursor_open(txn, MAIN_DBI, &cursor));
    if (rc < 0) {
        return rc;
    }
    struct key key = key_number(type, from);
    MDB_val name = key_value(&key);
    rc = env_error(mdb_cursor_get(cursor, &name, ret_value, MDB_SET_RANGE));
    if (rc == 0 && !key_parse_number(type, name.mv_data, name.mv_size, ret_number)) {
        rc = -ENOENT;
    }
    if (rc == 0 && *ret_number < from) {
        rc = -EIO; /* keys out of order: whoever walks on would walk in circles */
    }
    mdb_cursor_close(cursor);
    return rc;
}

int env_seek_key(MDB_txn *txn, const struct key *key, MDB_val *ret_name, MDB_val *ret_value)
{
    MDB_cursor *cursor = NULL;
    int rc = env_error(mdb_cursor_open(txn, MAIN_DBI, &cursor));
    if (rc < 0) {
        return rc;
    }
    *ret_name = key_value(key);
    rc = env_error(mdb_cursor_get(cursor, ret_name, ret_value, MDB_SET_RANGE));
    mdb_cursor_close(cursor);
    return rc;
}

int env_seek_before(MDB_txn *txn, const struct key *key, MDB_val *ret_name, MDB_val *ret_value)
{
    MDB_cursor *cursor = NULL;
    int rc = env_error(mdb_cursor_open(txn, MAIN_DBI, &cursor));
    if (rc < 0) {
        return rc;
    }
    *ret_name = key_value(key);
    rc = env_error(mdb_cursor_get(cursor, ret_name, ret_value, MDB_SET_RANGE));
    if (rc == 0 || rc == -ENOENT) {
        rc = env_error(mdb_cursor_get(cursor, ret_name, ret_value, rc == 0 ? MDB_PREV : MDB_LAST));
    }
    mdb_cursor_close(cursor);
    return rc;
}

int env_copy(struct env *env, enum key_type type, uint64_t from, uint64_t *ret_number,
             struct buffer *ret_value)
{
    MDB_txn *txn = NULL;
    int rc = env_read(env, &txn);
    if (rc < 0) {
        return rc;
    }
    MDB_val value;
    rc = env_seek(txn, type, from, ret_number, &value);
    if (rc == 0) {
        buffer_clear(ret_value);
        buffer_add(ret_value, value.mv_data, value.mv_size);
        rc = buffer_failed(ret_value) ? -ENOMEM : 0;
    }
    env_read_end(env, txn);
    return rc;
}

uint64_t env_pages(struct env *env)
{
    MDB_envinfo info;
    return env->lost || mdb_env_info(env->mdb, &info) != 0 ? 0 : (uint64_t)info.me_last_pgno + 1;
}

int env_free_pages(MDB_txn *txn, uint64_t *ret_pages)
{
    MDB_cursor *cursor = NULL;
    int rc = env_error(mdb_cursor_open(txn, FREE_DBI, &cursor));
    if (rc < 0) {
        return rc;
    }
    uint64_t pages = 0;
    MDB_val name, list;
    while ((rc = mdb_cursor_get(cursor, &name, &list, MDB_NEXT)) == 0) {
        size_t count = 0; /* an entry begins with the number of page numbers that follow */
        if (list.mv_size >= sizeof(count)) {
            memcpy(&count, list.mv_data, sizeof(count));
        }
        pages += count;
    }
    mdb_cursor_close(cursor);
    if (rc != MDB_NOTFOUND) {
        return env_error(rc);
    }
    *ret_pages = pages;
    return 0;
}
