#include "gateway/store/env.h"

#include "gateway/store/pages_layout.h"
#include "gateway/store/young.h"

#include <errno.h>
#include <pthread.h>
#include <string.h>

/* The unnamed database and the free list have fixed handles in LMDB. */
enum { FREE_DBI = 0, MAIN_DBI = 1 };

struct env {
    MDB_env *mdb;
    pthread_rwlock_t map_lock; /* a read transaction holds it shared, a resize alone */
    size_t map_bytes, page_size;
    MDB_dbi barn; /* MAIN_DBI: there is none */
    bool lost;    /* the map could not be made anew: LMDB would follow pointers into the old one */
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

static bool is_writer(enum env_mode mode)
{
    return mode == ENV_WRITER || mode == ENV_NEW;
}

/* The handles must be opened once before they are used, by a transaction that ends well. */
static int open_trees(struct env *env, enum env_mode mode)
{
    MDB_txn *txn = NULL;
    int rc = env_error(mdb_txn_begin(env->mdb, NULL, is_writer(mode) ? 0 : MDB_RDONLY, &txn));
    if (rc < 0) {
        return rc;
    }
    MDB_dbi dbi = MAIN_DBI;
    MDB_stat stat;
    rc = env_error(mdb_dbi_open(txn, NULL, 0, &dbi));
    rc = rc == 0 && dbi != MAIN_DBI ? -EBADMSG : rc;
    if (rc == 0) {
        rc = env_error(mdb_stat(txn, dbi, &stat));
        env->page_size = stat.ms_psize;
    }
    if (rc == 0) {
        unsigned flags = mode == ENV_NEW ? MDB_CREATE : 0;
        rc = env_error(mdb_dbi_open(txn, ENV_BARN, flags, &env->barn));
    }
    if (rc == -ENOENT) {
        env->barn = MAIN_DBI;
        rc = 0;
    }
    if (rc < 0) {
        mdb_txn_abort(txn);
        return rc;
    }
    return env_error(mdb_txn_commit(txn));
}

int env_open(const char *path, size_t map_bytes, enum env_mode mode, struct env **ret_env)
{
    struct env *env = calloc(1, sizeof(*env));
    if (env == NULL) {
        return -ENOMEM;
    }
    pthread_rwlock_init(&env->map_lock, NULL);
    int rc = env_error(mdb_env_create(&env->mdb));
    if (rc == 0) {
        rc = env_error(mdb_env_set_userctx(env->mdb, env));
    }
    if (rc == 0) {
        rc = env_error(mdb_env_set_maxdbs(env->mdb, 1));
    }
    if (rc == 0 && is_writer(mode)) {
        rc = env_error(mdb_env_set_mapsize(env->mdb, map_bytes));
        env->map_bytes = map_bytes;
    }
    if (rc == 0) {
        rc = env_error(mdb_env_open(env->mdb, path, mode_flags(mode), 0640));
    }
    if (rc == 0) {
        rc = open_trees(env, mode);
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

static MDB_dbi barn_of(MDB_txn *txn)
{
    const struct env *env = mdb_env_get_userctx(mdb_txn_env(txn));
    return env->barn;
}

bool env_is_flat(const struct env *env)
{
    return env->barn == MAIN_DBI;
}

/* The name of an entry in the file, and the tree that it is in, unless it is in the log. */
static MDB_dbi place(MDB_txn *txn, const struct key *key, MDB_val *ret_name)
{
    static const uint8_t flat_state = KEY_STATE_FLAT;
    MDB_dbi barn = barn_of(txn);
    bool state = key->bytes[0] == (uint8_t)KEY_STATE;
    *ret_name = state && barn == MAIN_DBI ? given(&flat_state, 1) : given(key->bytes, key->len);
    return state ? MAIN_DBI : barn;
}

static bool is_log(const struct key *key)
{
    return key->bytes[0] == (uint8_t)KEY_WAL;
}

int env_get(MDB_txn *txn, const struct key *key, MDB_val *ret_value)
{
    MDB_val name;
    MDB_dbi dbi = place(txn, key, &name);
    return env_error(mdb_get(txn, dbi, &name, ret_value));
}

int env_put(MDB_txn *txn, const struct key *key, const void *value, size_t len, unsigned flags)
{
    MDB_val name, data = given(value, len), before;
    MDB_dbi dbi = place(txn, key, &name);
    if (is_log(key) && mdb_get(txn, MAIN_DBI, &name, &before) == 0) {
        dbi = MAIN_DBI;
    }
    return env_error(mdb_put(txn, dbi, &name, &data, flags));
}

int env_put_device(MDB_txn *txn, uint32_t device, uint32_t version, const void *value, size_t len)
{
    struct key key = key_pair(KEY_DEVICE, device, version);
    int rc = env_put(txn, &key, value, len, 0);
    if (rc < 0 || barn_of(txn) == MAIN_DBI) {
        return rc;
    }
    MDB_val data = given(value, len);
    return young_put_name(txn, MAIN_DBI, device, version, &data);
}

int env_append(MDB_txn *txn, uint64_t number, const void *value, size_t len)
{
    struct key key = key_number(KEY_WAL, number);
    MDB_val name, data = given(value, len), newer;
    MDB_dbi barn = place(txn, &key, &name);
    if (barn == MAIN_DBI) {
        return env_error(mdb_put(txn, MAIN_DBI, &name, &data, MDB_APPEND));
    }
    uint64_t found;
    int rc = env_seek(txn, KEY_WAL, number, &found, &newer);
    if (rc != -ENOENT) {
        return rc < 0 ? rc : -EEXIST;
    }
    return young_put(txn, MAIN_DBI, barn, &name, &data);
}

static int delete_from(MDB_txn *txn, MDB_dbi dbi, MDB_val *name)
{
    int rc = env_error(mdb_del(txn, dbi, name, NULL));
    return rc == -ENOENT ? 0 : rc;
}

int env_delete(MDB_txn *txn, const struct key *key)
{
    MDB_val name;
    MDB_dbi dbi = place(txn, key, &name);
    int rc = delete_from(txn, dbi, &name);
    return rc == 0 && is_log(key) && dbi != MAIN_DBI ? delete_from(txn, MAIN_DBI, &name) : rc;
}

static int seek_in(MDB_txn *txn, MDB_dbi dbi, enum key_type type, uint64_t from,
                   uint64_t *ret_number, MDB_val *ret_value)
{
    MDB_cursor *cursor = NULL;
    int rc = env_error(mdb_cursor_open(txn, dbi, &cursor));
    if (rc < 0) {
        return rc;
    }
    struct key key = key_number(type, from);
    MDB_val name = given(key.bytes, key.len);
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

int env_seek(MDB_txn *txn, enum key_type type, uint64_t from, uint64_t *ret_number,
             MDB_val *ret_value)
{
    MDB_dbi barn = barn_of(txn);
    if (type != KEY_WAL || barn == MAIN_DBI) {
        return seek_in(txn, barn, type, from, ret_number, ret_value);
    }
    uint64_t old = UINT64_MAX, young = UINT64_MAX;
    MDB_val old_value, young_value;
    int rc = seek_in(txn, barn, type, from, &old, &old_value);
    int young_rc = rc < 0 && rc != -ENOENT
                       ? rc
                       : seek_in(txn, MAIN_DBI, type, from, &young, &young_value);
    if ((young_rc < 0 && young_rc != -ENOENT) || (rc < 0 && young_rc < 0)) {
        return young_rc;
    }
    bool in_barn = young_rc < 0 || (rc == 0 && old < young);
    *ret_number = in_barn ? old : young;
    *ret_value = in_barn ? old_value : young_value;
    return 0;
}

int env_seek_key(MDB_txn *txn, const struct key *key, MDB_val *ret_name, MDB_val *ret_value)
{
    MDB_cursor *cursor = NULL;
    MDB_dbi dbi = place(txn, key, ret_name);
    int rc = env_error(mdb_cursor_open(txn, dbi, &cursor));
    if (rc < 0) {
        return rc;
    }
    rc = env_error(mdb_cursor_get(cursor, ret_name, ret_value, MDB_SET_RANGE));
    mdb_cursor_close(cursor);
    return rc;
}

int env_seek_before(MDB_txn *txn, const struct key *key, MDB_val *ret_name, MDB_val *ret_value)
{
    MDB_cursor *cursor = NULL;
    MDB_dbi dbi = place(txn, key, ret_name);
    int rc = env_error(mdb_cursor_open(txn, dbi, &cursor));
    if (rc < 0) {
        return rc;
    }
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

int env_cursor(MDB_txn *txn, enum key_type type, MDB_cursor **ret_cursor, MDB_val *ret_name,
               MDB_val *ret_value)
{
    MDB_cursor *cursor = NULL;
    int rc = env_error(mdb_cursor_open(txn, barn_of(txn), &cursor));
    if (rc < 0) {
        return rc;
    }
    struct key key = key_plain(type);
    *ret_name = given(key.bytes, key.len);
    rc = env_error(mdb_cursor_get(cursor, ret_name, ret_value, MDB_SET_RANGE));
    if (rc < 0) {
        mdb_cursor_close(cursor);
        return rc;
    }
    *ret_cursor = cursor;
    return 0;
}

static bool is_barn(const MDB_val *name)
{
    return name->mv_size == strlen(ENV_BARN) &&
           memcmp(name->mv_data, ENV_BARN, strlen(ENV_BARN)) == 0;
}

/* No more of them than the tree says, since a damaged one may go round in circles. */
static int walk_tree(MDB_txn *txn, MDB_dbi dbi,
                     int (*visit)(void *user, const MDB_val *name, const MDB_val *value),
                     void *user)
{
    MDB_stat stat;
    MDB_cursor *cursor = NULL;
    int rc = env_error(mdb_stat(txn, dbi, &stat));
    if (rc == 0) {
        rc = env_error(mdb_cursor_open(txn, dbi, &cursor));
    }
    if (rc < 0) {
        return rc;
    }
    MDB_val name, value;
    size_t entries = 0;
    while (rc == 0 && (rc = env_error(mdb_cursor_get(cursor, &name, &value, MDB_NEXT))) == 0) {
        rc = ++entries > stat.ms_entries         ? -EBADMSG
             : dbi == MAIN_DBI && is_barn(&name) ? 0
                                                 : visit(user, &name, &value);
    }
    mdb_cursor_close(cursor);
    return rc != -ENOENT ? rc : entries == stat.ms_entries ? 0 : -EBADMSG;
}

int env_walk(MDB_txn *txn, int (*visit)(void *user, const MDB_val *name, const MDB_val *value),
             void *user)
{
    MDB_dbi barn = barn_of(txn);
    int rc = walk_tree(txn, MAIN_DBI, visit, user);
    return rc == 0 && barn != MAIN_DBI ? walk_tree(txn, barn, visit, user) : rc;
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
