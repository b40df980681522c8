/* young.h - new blocks of the log, as long as they are small, lie in one page with the state.
 *
 * The writer's, within its transaction; for env.c, which looks for a block in both trees. A block
 * that fits into a leaf goes into the main tree, and when that would be more than a page, all such
 * blocks move into the barn with this commit. So most commits change one page beside the free list
 * and the meta page, and the barn's path is written once for several of them. A block that takes
 * pages of its own stays in the main tree, where it costs a few bytes: moving it would write it
 * again. */
#pragma once

#include "gateway/base/cleanup.h"

#include <lmdb.h>
#include <stdint.h>

enum {
    YOUNG_MAX = 256,       /* entries at the end of the main tree that are looked at */
    YOUNG_NAMES_SHARE = 4, /* of a page, for copies of the dictionary's entries */
};

/* name: of a block that is newer than those that are there. -errno as of env_error(). */
must_check int young_put(MDB_txn *txn, MDB_dbi main, MDB_dbi barn, const MDB_val *name,
                         const MDB_val *value);

/* A copy of an entry of the dictionary, where there is room for all of them; otherwise none stays.
 */
must_check int young_put_name(MDB_txn *txn, MDB_dbi main, uint32_t device, uint32_t version,
                              const MDB_val *value);
