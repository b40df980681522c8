/* env.h - the one LMDB environment of a store; LMDB's codes end here.
 *
 * Read transactions from any thread, the write transaction from the writer's. Default, synchronous
 * commits: no MDB_NOSYNC, MDB_NOMETASYNC or MDB_WRITEMAP, each of which loses acknowledged data at
 * a power cut. The map is larger than the store may become, since at MDB_MAP_FULL even deletes
 * fail: the writer counts free pages and keeps to its own limit.
 *
 * A commit writes each page that it changed, up to the root of its tree, the free list and a meta
 * page. So what each commit changes lies in the main tree, which remains a leaf or two deep, and
 * the rest in a tree of its own, which grows with what waits: the barn. In the main tree are the
 * state, blocks of the log that take pages of their own, and the small ones that are new
 * (young.h). Stores made before there was a barn stay as they are, everything in the main tree. */
#pragma once

#include "gateway/base/buffer.h"
#include "gateway/store/key.h"

#include <lmdb.h>

struct env;

enum env_mode {
    ENV_WRITER,
    ENV_NEW,     /* the writer of a file that is made by this */
    ENV_READER,  /* beside a writer in another process, or without one */
    ENV_CHECKER, /* reads without the lock file, while no writer can be there */
};

/* -errno for LMDB's return codes: -ENOENT not found, -ENOBUFS map full, -EBADMSG damaged. */
int env_error(int rc);

/* map_bytes: writers only. */
must_check int env_open(const char *path, size_t map_bytes, enum env_mode mode,
                        struct env **ret_env);
void env_close(struct env *env);

must_check int env_read(struct env *env, MDB_txn **ret_txn);
void env_read_end(struct env *env, MDB_txn *txn);
must_check int env_write(struct env *env, MDB_txn **ret_txn);

/* A larger map; no write transaction is open. Waits for read transactions of this process. After a
 * failure the environment is lost: every transaction is refused with -EIO. */
must_check int env_resize(struct env *env, size_t map_bytes);
size_t env_map_bytes(const struct env *env);
size_t env_page_size(const struct env *env);
/* Slots of readers that died are given back. */
void env_clear_readers(struct env *env);

/* Made before there was a barn. */
bool env_is_flat(const struct env *env);

must_check int env_get(MDB_txn *txn, const struct key *key, MDB_val *ret_value);
must_check int env_put(MDB_txn *txn, const struct key *key, const void *value, size_t len,
                       unsigned flags);
/* An entry of the dictionary. Without the names no block is of use: as long as they are few, a copy
 * lies beside the state, and so on many pages that were in use once. */
must_check int env_put_device(MDB_txn *txn, uint32_t device, uint32_t version, const void *value,
                              size_t len);
/* A block of the log that is newer than all others. -EEXIST: it is not. */
must_check int env_append(MDB_txn *txn, uint64_t number, const void *value, size_t len);
/* 0 also when it was not there. */
must_check int env_delete(MDB_txn *txn, const struct key *key);

/* The first entry with that type and a number of at least `from`. -ENOENT. */
must_check int env_seek(MDB_txn *txn, enum key_type type, uint64_t from, uint64_t *ret_number,
                        MDB_val *ret_value);
/* The same, copied out into ret_value (replaced). */
must_check int env_copy(struct env *env, enum key_type type, uint64_t from, uint64_t *ret_number,
                        struct buffer *ret_value);

/* The entry with the smallest key that is not before `key`, whatever its type. -ENOENT. Not for the
 * log and the state, nor is the next one. */
must_check int env_seek_key(MDB_txn *txn, const struct key *key, MDB_val *ret_name,
                            MDB_val *ret_value);
/* The entry with the greatest key before `key`. -ENOENT. */
must_check int env_seek_before(MDB_txn *txn, const struct key *key, MDB_val *ret_name,
                               MDB_val *ret_value);

/* From the first one of that type on, by mdb_cursor_get(); neither the log nor the state. The
 * caller closes it. */
must_check int env_cursor(MDB_txn *txn, enum key_type type, MDB_cursor **ret_cursor,
                          MDB_val *ret_name, MDB_val *ret_value);
/* All entries, until visit returns something below 0. -EBADMSG: they are not as many as the trees
 * say. */
must_check int env_walk(MDB_txn *txn,
                        int (*visit)(void *user, const MDB_val *name, const MDB_val *value),
                        void *user);

/* Pages of the file; and those of them that are free, counted through the free list, which LMDB
 * shows to read transactions only. */
uint64_t env_pages(struct env *env);
must_check int env_free_pages(MDB_txn *txn, uint64_t *ret_pages);
