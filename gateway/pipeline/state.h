/* state.h - what the files of the pipeline share; nobody else includes it.
 *
 * Everything belongs to the pipeline thread (to the caller's thread while it does not run), except
 * the queue and the live view, which lock themselves, and the atomic figures. */
#pragma once

#include "gateway/pipeline/clock.h"
#include "gateway/pipeline/latest.h"
#include "gateway/pipeline/pipeline.h"
#include "gateway/pipeline/queue.h"
#include "gateway/pipeline/thin.h"
#include "gateway/pipeline/window.h"

#include <pthread.h>

enum {
    PIPELINE_COMMIT_BYTES = 1 << 20,      /* pending bytes that do not wait for the interval */
    PIPELINE_PUSH_GATHER_MS = 20,         /* pushed scans share a commit this long */
    PIPELINE_RELEASE_ENTRIES = 64,        /* taken from the queue before their room is given back */
    PIPELINE_REBUILD_MS = 60 * 60 * 1000, /* raw kept for open windows; longer ones restart short */
    PIPELINE_HOLD_MOVES_MS = 60 * 1000,   /* how often that bound follows the clock */
    PIPELINE_REFUSED_SAID_MS = 60 * 1000, /* between two lines on readings not taken */
};

/* What the pipeline knows of a device, by its id in the store. It outlives the device object until
 * the windows that were open are closed, so that a reload that changes nothing of the points goes
 * on with them. */
struct track {
    uint32_t id;
    struct device *device;      /* one reference; NULL: retired, or the gateway itself */
    const struct config *owner; /* one reference; holds `config`. NULL: the gateway itself */
    const struct config_device *config;
    uint64_t seq[STREAM_COUNT]; /* the last one appended */
    uint16_t *ids;              /* the store's id of each configured point */
    uint16_t event_ids[2];      /* of "event" and "text" */
    bool event_ids_known;
    int64_t failing_since_ms, lost_since_ms; /* monotonic; UTC, -1: not known. presence.c */
    struct thin *thin;
    struct window **windows;
    size_t window_count;
};

struct pending_push {
    void (*durable)(void *user, int error);
    void *user;
};

struct pipeline {
    struct queue *queue;
    struct latest *latest;
    struct store *store;
    const struct config *config; /* one reference; its aggregates are the windows' */
    struct track **tracks;
    size_t track_count, track_capacity, track_hint;
    struct track *gateway; /* where events without a device go; made when first needed */
    struct scan *scratch;  /* SCAN_READINGS_MAX readings */
    struct pending_push pushes[QUEUE_PUSHES_MAX];
    size_t push_count;
    int64_t commit_due_ms, chores_due_ms, hold_moved_ms, refused_said_ms; /* monotonic */
    struct pipeline_clock clock;
    bool windows_moved; /* closed_until is to be noted */
    pthread_t thread;
    bool running;
    _Atomic bool stopping;
    int failure_fd;
    _Atomic int error;
    _Atomic uint64_t overruns, late, windows_closed, turns;
};

void pipeline_snapshot(struct pipeline *p); /* the ledger's sums as an event, once a UTC day */
struct track *track_find(struct pipeline *p, uint32_t id);
must_check int track_make(struct pipeline *p, uint32_t id, struct track **ret_track);
/* New points close the windows short, the same ones go on. */
must_check int track_configure(struct pipeline *p, struct track *track, const struct config *owner,
                               const struct config_device *config);
/* Ties the device to its track, and configures it. Takes over the reference. */
must_check int track_attach(struct pipeline *p, struct track *track, struct device *device);
void track_detach(struct pipeline *p, struct track *track);
void track_free(struct track *track);
/* Windows of the new aggregates; those that stay the same go on, changed ones begin at the cut (all
 * of them when `cut` says that the points changed). */
must_check int track_set_aggregates(struct pipeline *p, struct track *track,
                                    const struct config *config, bool cut);
/* What the queue refused, into the ledger. */
void track_count_overruns(struct pipeline *p, struct track *track);
/* Takes a scaled scan into all windows, closing those it ends. */
void track_feed(struct pipeline *p, struct track *track, const struct scan *scan);
/* Closes what the clock has passed; forgets retired devices whose windows are all closed. */
void tracks_close_over(struct pipeline *p, int64_t now_ms);
/* Name of the note in the store: "closed_until.AGGREGATE"; windows before it have results. */
enum { PIPELINE_NOTE_SIZE = 160 };
void pipeline_note_name(const struct config_aggregate *aggregate, char name[PIPELINE_NOTE_SIZE]);
/* Notes how far windows are closed, and holds the raw scans that open ones need. */
void tracks_note(struct pipeline *p, int64_t now_ms);
/* Closes all open windows where the clock stands, before it is moved; and opens them anew after. */
void tracks_cut(struct pipeline *p, int64_t now_ms);
void tracks_reopen(struct pipeline *p, int64_t now_ms);

/* emit.c: into the aggregate and event streams. */
/* With the next seq of the stream it names. */
must_check int emit_scan(struct pipeline *p, struct track *track, struct scan *scan);
void emit_window(struct pipeline *p, struct track *track, struct window *window);
must_check int emit_event(struct pipeline *p, struct track *track, const char *kind,
                          const char *text);

/* process.c: one entry of the queue. */
void process_scan(struct pipeline *p, struct queue_entry *entry);
/* store_append() with the pipeline's way of failing: logged once, latched when it is the disk. */
must_check int pipeline_append(struct pipeline *p, struct track *track, struct scan *scan);
void pipeline_fail(struct pipeline *p, int error);

/* rebuild.c: once, before the thread runs: tracks of the configured devices that the store knows,
 * and the open windows of all tracks, in one pass over what the store holds. */
void pipeline_restore(struct pipeline *p);

/* pipeline.c, for tests too: works off what is in the queue, and commits when that is due. */
void pipeline_turn(struct pipeline *p);
void pipeline_commit(struct pipeline *p);
/* An event of the gateway itself, or of the device; said when it cannot be stored. */
int pipeline_record(struct pipeline *p, struct device *device, const char *kind, const char *text);
