/* salvage.h - what is readable of a store that was set aside comes back.
 *
 * A child (child.h) reads the old file as far as it can be read (wreck.h) and sends what had not
 * been delivered, or all where nobody can say what was; the writer appends it under the new store's
 * identities, with the old times, in small steps beside its work. How far it has come is kept in
 * the same commit as what was appended, so that a crash at any moment neither loses nor repeats. A
 * block at which the child crashes is passed over by the next one. Scans that an uplink had already
 * are settled for it as "not selected"; those that it had refused are dead again, with their
 * letters. Counted as salvaged and lost (ledger.h). Small records (of commands) come first. The
 * folder stays where it is; a file `salvaged` in it says that it is done. */
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
    uint64_t letters;            /* dead letters among them */
    uint64_t blocks, bad;        /* readable, and not; once it is done */
};
/* As of the last commit; any thread. */
void store_salvage(struct store *store, struct store_salvage *ret_salvage);

/* Commands of before that moment (UTC) may have been executed, and no record here says so: the
 * store that knew of them was set aside, and not all of its records came back. 0: they all did, or
 * none was set aside; SALVAGE_DOUBT_NEW: salvage has not come to them yet, SALVAGE_DOUBT_UNDATED:
 * the clock cannot tell yet. Any thread. */
#define SALVAGE_DOUBT_NEW     INT64_MAX
#define SALVAGE_DOUBT_UNDATED (INT64_MAX - 1)
int64_t store_salvage_doubt_ms(const struct store *store);

/* Who takes what comes back, on the writer's thread; all optional. */
struct salvage_takers {
    /* Gives out the identities; otherwise they are the store's own next ones. */
    uint64_t (*next_seq)(void *user, uint32_t device, unsigned stream);
    void *user;
    /* A small record, to be kept under a number of here; it may come more than once. -EBADMSG: it
     * is damaged, -ENOSPC: there is no room for it; another error: not now. Otherwise it keeps its
     * number. */
    int (*record)(void *user, const void *bytes, size_t len);
    void *record_user;
};

/* Begins with what lies beside the store and is not done, once all uplinks and devices are known.
 * takers NULL: none. -ENOMEM. [writer] */
must_check int store_salvage_start(struct store *store, const struct salvage_takers *takers);
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
 * (under the lock), when its letters are numbered (likewise), and when it is durable (likewise). */
void salvage_note(struct store *store);
void salvage_bury(struct store *store);
void salvage_refused(struct store *store);
void salvage_publish(struct store *store);
/* What the notes of a state say. */
void salvage_load(struct store *store);
void salvage_of_state(const struct state *state, struct store_salvage *ret_salvage);
void salvage_stop(struct store *store);
