/* dead.h - dead letters: readings that an endpoint has refused for good, each with its reason.
 *
 * A letter holds a copy of its scan, whatever becomes of the blocks; the last DEAD_KEPT_MAX are
 * kept. Listing: any thread, a writer's store or one opened to be read only. store_requeue() makes
 * refused scans wait again under their own identity: the range is open again, the ledger's dead
 * goes down as waiting goes up, the letter goes, and where no block holds the scan any more it is
 * put back from the letter; all in one commit, so that a crash leaves either all of it or nothing.
 */
#pragma once

#include "gateway/store/store.h"

/* At most so many bytes of them wait for a commit, and so many are kept. */
enum { DEAD_PENDING_MAX = 1024 * 1024, DEAD_KEPT_MAX = 10000 };

struct store_letter {
    uint64_t number;
    int64_t refused_ms; /* UTC */
    const char *uplink, *why;
    const struct scan *scan;
    const uint16_t *refused; /* indexes in scan->readings */
    uint16_t refused_count;
};

/* The oldest first; fn returns non-zero to stop, which is returned. A letter that does not read is
 * passed over. */
must_check int store_letters(struct store *store,
                             int (*fn)(void *user, const struct store_letter *letter), void *user);

struct store_letter_filter {
    const char *uplink, *device; /* NULL: any */
    const char *reason;          /* a part of it, in any case of letters; NULL: any */
};
bool store_letter_fits(struct store *store, const struct store_letter_filter *filter,
                       const struct store_letter *letter);

/* Scans that wait again with one commit: a long stop of the writer would cost readings. */
enum { STORE_REQUEUE_MAX = 2000 };

struct store_requeued {
    uint64_t scans, readings; /* that wait again */
    uint64_t refused;         /* scans that stay dead letters at present */
    bool more;                /* others fit, too: commit, and call again from `next` on */
    uint64_t next;            /* number of a letter */
};
/* The letters go, without a trace but the ledger's count of dead readings; `readings` are the
 * refused ones. Otherwise as store_requeue(). */
must_check int store_drop_letters(struct store *store, const struct store_letter_filter *filter,
                                  uint64_t from, struct store_requeued *ret_dropped);
/* Of the letters from number `from` on; filter->uplink is given. Durable with the commit that the
 * caller makes next. [writer] -ENOENT: the store knows no such uplink; -EBUSY: the last call has
 * not been committed. */
must_check int store_requeue(struct store *store, const struct store_letter_filter *filter,
                             uint64_t from, struct store_requeued *ret_requeued);
