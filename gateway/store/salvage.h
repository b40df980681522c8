/* salvage.h - what is readable of a store that was set aside comes back.
 *
 * A child (child.h) reads the old file as far as it can be read (wreck.h) and sends what had not
 * been delivered, or all where nobody can say what was; the writer appends it under the new store's
 * identities, with the old times, in small steps beside its work. How far it has come is kept in
 * the same commit as what was appended, so that a crash at any moment neither loses nor repeats. A
 * block at which the child crashes is passed over by the next one. Scans that an uplink had already
 * are settled for it as "not selected". Counted as salvaged and lost (ledger.h). The folder stays
 * where it is; a file `salvaged` in it says that it is done. */
#pragma once

#include "gateway/base/cleanup.h"

#include <stdbool.h>
#include <stdint.h>

struct store;
struct state;

enum salvage_state { SALVAGE_NONE, SALVAGE_RUNNING, SALVAGE_DONE, SALVAGE_GIVEN_UP };
const char *salvage_state_name(int state);

enum {
    SALVAGE_NAME_MAX = 64,
    SALVAGE_STEP_BYTES = 1024 * 1024, /* of scans that one step appends */
    SALVAGE_STEP_MS = 100,            /* and what it may take */
    SALVAGE_TRIES_MAX = 24,           /* children for one file */
};

/* Of the folder set aside last. */
struct store_salvage {
    char from[SALVAGE_NAME_MAX]; /* its name, "": none was */
    int state;                   /* enum salvage_state */
    uint64_t readings, lost;     /* appended here; known to be gone */
    uint64_t blocks, bad;        /* readable, and not; once it is done */
};
/* As of the last commit; any thread. */
void store_salvage(struct store *store, struct store_salvage *ret_salvage);

/* Begins with what lies beside the store and is not done, once all uplinks and devices are known.
 * next_seq gives out the identities, NULL: the store's own next ones. -ENOMEM. [writer] */
must_check int
store_salvage_start(struct store *store,
                    uint64_t (*next_seq)(void *user, uint32_t device, unsigned stream), void *user);
/* Some of it, for the commit at hand. 1: it is done with a file, and that is committed; 0; -EIO:
 * the store has failed. [writer] */
must_check int store_salvage_step(struct store *store);
/* Whether there is something to do for the next step. [writer] */
bool store_salvage_busy(const struct store *store);

/* For `store verify`: how many blocks of a folder that was set aside there are, and are not
 * readable. Runs children; blocks until they are done. -EIO: it cannot be read at all. */
must_check int salvage_inspect(const char *dir, const char *folder, uint64_t *ret_blocks,
                               uint64_t *ret_bad);
/* The folders that were set aside beside a store, the oldest first; malloc'd texts, the last one
 * NULL. -ENOMEM, or another -errno. */
must_check int salvage_folders(const char *dir, char ***ret_folders);
void salvage_folders_free(char **folders);

/* Inside the store. In a commit: before its state is encoded, when what was appended is refused
 * (under the lock), and when it is durable (under the lock). */
void salvage_note(struct store *store);
void salvage_refused(struct store *store);
void salvage_publish(struct store *store);
/* What the notes of a state say. */
void salvage_load(struct store *store);
void salvage_of_state(const struct state *state, struct store_salvage *ret_salvage);
void salvage_stop(struct store *store);
