/* requeue.h - the inside of store_requeue(): what goes with the commit at hand.
 *
 * The writer's alone. */
#pragma once

#include "gateway/store/dead.h"
#include "gateway/store/env.h"

struct requeue;

/* Puts the blocks and deletes the letters. Before anything is reclaimed: a scan that waits in no
 * block would be settled as a hole. */
must_check int requeue_put(struct store *store, MDB_txn *txn);
/* Bytes of pages that it puts. */
size_t requeue_bytes(const struct store *store);
/* They are durable; the reader begins anew. Under the lock. */
void requeue_done(struct store *store);
void requeue_destroy(struct requeue *requeue);

/* dead.c: store_letters() from that number on. */
must_check int store_letters_from(struct store *store, uint64_t from,
                                  int (*fn)(void *user, const struct store_letter *letter),
                                  void *user);
