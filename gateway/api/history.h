/* history.h - the values of one point over a time, out of the store.
 *
 * history_write() needs the store only, so the command uses it too while the daemon is down. In
 * the daemon a thread of its own does the reading: a week of seconds takes longer than the api's
 * loop may stand still. */
#pragma once

#include "gateway/api/later.h"
#include "gateway/store/store.h"

enum {
    HISTORY_READINGS_MAX = 200 * 1000, /* in one answer; `truncated` says that there is more */
    HISTORY_BINS_MAX = 20 * 1000,
    HISTORY_JOBS_MAX = 8, /* waiting for the thread */
    HISTORY_POINT_MAX = 256,
};

struct history_query {
    char point[HISTORY_POINT_MAX]; /* DEVICE.POINT */
    int64_t from_ms, to_ms;        /* from <= time < to */
    int64_t bin_ms;                /* 0: every reading */
};

/* {"point","unit","from","to", "readings":[{"time","value","quality"}]} or, with a bin,
 * "bin_s" and "bins":[{"time","count","bad","mean","min","max"}] (bins without readings are left
 * out). -ENOENT: no such device or point was ever stored; -EINVAL: the query makes no sense.
 * `stop`, when given, ends it early. Reads the disk. */
must_check int history_write(struct store *store, const struct history_query *query,
                             const _Atomic bool *stop, struct buffer *out, const char **ret_why);

/* The thread. */
struct history_desk;
must_check int history_desk_start(struct store *store, struct history_desk **ret_desk);
/* [api thread] Other work that takes longer than the api's loop may stand still: work(arg) answers
 * the ticket on the thread; drop(arg) is called behind it, or alone when it is refused by a stop.
 * -EBUSY as below; arg stays the caller's then. */
must_check int history_desk_do(struct history_desk *desk,
                               void (*work)(void *arg, struct ticket *ticket),
                               void (*drop)(void *arg), void *arg, struct ticket *ticket);
/* Ends the job at hand and refuses what waits. Before later_destroy(). Takes NULL. */
void history_desk_stop(struct history_desk *desk);
/* [api thread] Answers the ticket some time later. -EBUSY: HISTORY_JOBS_MAX wait. */
must_check int history_desk_ask(struct history_desk *desk, const struct history_query *query,
                                struct ticket *ticket);
