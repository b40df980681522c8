/* reclaim.h - what leaves the store with a commit, and why.
 *
 * The writer's alone, inside its transaction. Every decision is taken once and kept in store->plan,
 * since a transaction may have to be done again with a larger map. */
#pragma once

#include "gateway/store/internal.h"

/* Decides into store->plan what goes, and deletes it in txn; need: bytes to be put. */
must_check int reclaim_run(struct store *store, MDB_txn *txn, size_t need_bytes);
/* The writer settles a row for an uplink, unless it is settled; a reader that has it in flight is
 * told. Under the lock. */
void reclaim_settle_row(struct store *store, unsigned uplink, const struct wal_row *row,
                        enum ledger_fate fate);
must_check int reclaim_delete(struct store *store, MDB_txn *txn, const struct key *key, size_t len);

/* retire.c: large blocks that nobody waits for any more, some with each commit. */
must_check int retire_run(struct store *store, MDB_txn *txn);
/* Under pressure, until plan.freed reaches short_bytes: delivered history; then what waits. */
must_check int retire_history(struct store *store, MDB_txn *txn, size_t short_bytes);
must_check int retire_waiting(struct store *store, MDB_txn *txn, size_t short_bytes, bool raw_only);
