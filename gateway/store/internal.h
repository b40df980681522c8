/* internal.h - what the parts of the store share; nobody outside gateway/store includes it.
 *
 * `lock` guards what readers and the writer both touch: state.uplinks, the size of state.devices,
 * readers with their flights, dead letters in the queue, the notes and the figures. It is never
 * held over a disk access. Everything else belongs to the writer. */
#pragma once

#include "gateway/store/clock_state.h"
#include "gateway/store/dictionary.h"
#include "gateway/store/flush.h"
#include "gateway/store/memo.h"
#include "gateway/store/pending.h"
#include "gateway/store/salvage.h"
#include "gateway/store/state.h"

#include <pthread.h>
#include <stdatomic.h>

struct store {
    struct store_settings settings;
    uint64_t max_bytes;
    char *dir, *path, *quarantined;
    int lock_fd;
    bool readonly;
    struct env *env;
    struct dictionary *dictionary;
    struct state state;
    struct buffer pending;
    struct run *runs;
    size_t run_count, run_capacity;
    uint32_t *run_of; /* by device and stream: index + 1 in runs */
    size_t run_of_devices;
    bool counted; /* a count or a note is new */
    int64_t hold_since_ms;
    bool full; /* when_full says pause, and there is no room */
    struct pressure pressure;

    struct wal_encoder *encoder;
    struct wal_decoder *decoder;
    struct wal_row *rows; /* for the encoder */
    size_t row_capacity;
    struct buffer encoded; /* blocks of the commit at hand */
    struct cut cuts[CUTS_MAX];
    size_t cut_count;
    struct memo memo;
    struct buffer record, records; /* the state record; small ones that are new (record.h) */
    struct buffer block;           /* copied out of the map */
    struct buffer letters;         /* the dead letters of the commit at hand */
    struct plan plan;
    struct flush *flush;     /* the writer's, NULL when read only */
    struct requeue *requeue; /* with the commit at hand; requeue.h */
    uint64_t sweep;          /* the device and stream that retire_run() comes to next */
    struct buffer thinned;   /* statistics that join the commit at hand */
    uint64_t purge;          /* under pressure: blocks before it were looked at */
    size_t need_bytes;       /* of the last commit that had blocks */
    struct {                 /* what keeps the oldest block, so that it is not decoded each time */
        uint64_t number, seq;
        uint32_t device;
        unsigned stream;
    } blocker;
    int64_t day; /* the last one in the index */
    int64_t committed_mono_ms;
    double rate; /* readings a second, smoothed */
    _Atomic int64_t interval_ms;

    struct anchors anchors, shown; /* the writer's; what readers go by, under the lock */
    struct clock_state clock;
    _Atomic uint64_t decided; /* blocks before it have their times */

    _Atomic uint64_t newest; /* the last committed block */
    _Atomic bool failed;     /* latched */
    _Atomic bool marked;     /* settlements or dead letters wait for a commit */
    pthread_mutex_t lock;
    struct store_reader *readers[STORE_UPLINKS_MAX];
    struct buffer dead; /* letters for the next commit: length (4 bytes) and record, each */
    int64_t commit_us_last, commit_us_max;
    double growth;                      /* bytes a second appended, smoothed */
    struct salvage *salvage;            /* the writer's, or NULL */
    struct verify *verify;              /* likewise */
    struct store_salvage salvage_shown; /* under the lock */
    _Atomic int64_t doubt_ms;           /* store_salvage_doubt_ms() */
    _Atomic int64_t mixed_until_ms;     /* blocks written before it may hold salvaged scans */
};

static inline struct pending_scan *store_pending_at(struct store *store, uint32_t offset)
{
    return (struct pending_scan *)(void *)(store->pending.data + offset);
}

static inline void store_lock(struct store *store)
{
    pthread_mutex_lock(&store->lock);
}
static inline void store_unlock(struct store *store)
{
    pthread_mutex_unlock(&store->lock);
}

/* birth.c: the folder before it is an environment. */
must_check int birth_lock(const char *dir, int *ret_fd);
must_check int birth_create(const char *dir, size_t map_bytes);
/* Moves dir/store aside; ret_name is malloc'd. */
must_check int birth_quarantine(const char *dir, char **ret_name);
uint64_t birth_max_bytes(const char *dir, int64_t max_size_bytes);
size_t birth_map_bytes(uint64_t max_bytes, size_t file_bytes);

must_check int store_read_state(struct store *store, struct state *ret_state);
void store_adapt_interval(struct store *store);

/* reader.c, under the lock: the writer settled a scan, which may be in flight. */
void reader_overtake(struct store_reader *reader, const struct wal_row *row, enum ledger_fate fate,
                     uint32_t aside);
void reader_wake(struct store_reader *reader);
/* The scan waits again: one in flight behind it does not settle it as a gap. */
void reader_reopen(struct store_reader *reader, const struct scan *scan);

/* ledger.c, under the lock: the uplink's track of a row, NULL when it does not look after it. */
struct track *ledger_track(struct store *store, unsigned uplink, unsigned stream, uint32_t device);
