/* check.h - is this environment sound enough to be opened?
 *
 * At start, by the thread that opens the store. LMDB trusts its file: a damaged or truncated one
 * ends in SIGBUS or an abort, so the looking is done in a child process. */
#pragma once

#include "gateway/base/cleanup.h"

/* Walks the trees, the free list, the state record, the dictionary and the first and last blocks of
 * the environment in the folder `path`, in a child. `locked`: a writer may be there (reader's
 * lock). -EBADMSG: damaged; another -errno: could not be looked at (no rights, no memory). Blocks.
 */
must_check int check_environment(const char *path, int locked);
