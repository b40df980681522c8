/* record.h - small records of the core by number: what became of commands.
 *
 * The writer only. What is set waits in store->records (number, 8 bytes; length, 4; bytes) and goes
 * with the next commit; store.h has what others may call. */
#pragma once

#include "gateway/store/internal.h"

/* The note that counts them: salvage tells by it whether it has found all. */
#define RECORD_COUNT_NOTE "store.records"

/* Into the transaction of a commit, which may be tried more than once. */
must_check int record_put_all(struct store *store, MDB_txn *txn);
