/* sender_loop.h - the inside of a sender: what its thread works on. See sender.h for its use.
 *
 * Everything but `lock` and what it guards belongs to the sender's thread once it runs. */
#pragma once

#include "uplink/flight.h"
#include "uplink/giveway.h"
#include "uplink/lane.h"
#include "uplink/pace.h"
#include "uplink/sender.h"
#include "uplink/transport/transport.h"

#include <pthread.h>
#include <stdatomic.h>

enum {
    /* Single records refused in a row with nothing delivered between: then the endpoint is held
     * for misconfigured, and only one record a probe goes to the dead letters. */
    SENDER_REJECTS_BEFORE_HOLD = 16,
    /* Parts delivered before the learned size of a request may double again. */
    SENDER_GROW_AFTER = 64,
    /* Rounds in which an endpoint that answers puts off all of a part, before its devices stand
     * aside for the others; how long they do, doubled each time, and how many can at once. */
    SENDER_PUT_OFFS = 4,
    SENDER_ASIDE_MS = 5000,
    SENDER_ASIDE_MAX_MS = 300000,
    SENDER_ASIDE_MAX = 64,
    /* Of taking and encoding, before what is ready goes out: the endpoint then works on one request
     * while the next is made, and not on all of them after all are. */
    SENDER_TURN_NS = 100000,
};

/* A device that the endpoint does not take at present. */
struct sender_aside {
    uint32_t device;
    bool held;        /* else its turn is on trial */
    unsigned times;   /* in a row */
    int64_t until_ms; /* CLOCK_MONOTONIC; on trial: when it is forgotten */
};

struct sender {
    struct store *store;
    unsigned uplink_index;
    const struct config *owner;
    const struct config_uplink *config;
    const struct uplink_settings *common;
    const struct uplink *type;
    const char *gateway, *store_id;
    const struct uplink_host *host; /* NULL: there is none */

    pthread_t thread;
    bool running;               /* the thread exists; starter's side */
    int stop_fd, wake_fd;       /* an eventfd; an epoll descriptor over it and the store's */
    _Atomic int64_t stop_by_ms; /* CLOCK_MONOTONIC; 0: not asked to stop */

    void *transport;
    struct store_reader *reader;
    struct selector *selector;
    struct flight *flights;
    size_t flight_count;
    struct lane lanes[STORE_LANES];
    struct pace pace;
    struct bucket bucket;
    struct giveway giveway;
    int64_t turn_ns; /* CLOCK_MONOTONIC: this turn began */
    struct store_backlog backlog;
    uint64_t left[STORE_LANES]; /* scans that are not in flight; estimated, but 0 is 0 */
    bool split;                 /* live and backfill lanes */
    unsigned streams;           /* bits of enum stream */
    size_t records_max;         /* of a take, by settings and service */
    size_t part_max;            /* of a request, by service and what 413 has taught */
    size_t part_limit;          /* what part_max may grow to */
    struct sender_aside aside[SENDER_ASIDE_MAX];
    size_t aside_count;
    unsigned grown, rejects; /* counts for SENDER_GROW_AFTER, SENDER_REJECTS_BEFORE_HOLD */
    uint64_t random, body_bytes;
    uint64_t eta_waiting, eta_delivered, eta_bytes; /* when the last sample was taken */
    int64_t eta_since_ms;

    pthread_mutex_t lock;
    struct sender_status status;    /* guarded; times in it are absolute: */
    int64_t oldest_ms, retry_at_ms; /* UTC; CLOCK_MONOTONIC */
};

/* The thread's function. */
void *sender_loop(void *user);

/* Fills free flights from the live lane, or from the lanes that are due. sender_fill.c */
void sender_fill_live(struct sender *s, int64_t now_ms);
void sender_fill(struct sender *s, int64_t now_ms);
/* The next time a lane is due, -1: none is foreseen. */
int64_t sender_fill_deadline(struct sender *s, int64_t now_ms);
/* Reads the backlog anew. */
void sender_look(struct sender *s);
size_t sender_flights_in(const struct sender *s, enum flight_state state);
/* Whether this turn has taken long enough. sender_loop.c */
bool sender_turn_over(const struct sender *s);

/* Takes the endpoint's answer to a flight's part; the transport's `done`. sender_answer.c */
void sender_answer(void *flight, const struct uplink_reply *reply);
/* A part that could not be encoded: r is encode's error. */
void sender_unencodable(struct sender *s, struct flight *f, int r);

/* A service that answers has put off what f's part holds now: again after a pause of its own, and
 * in the end its devices stand aside. sender_aside.c */
void sender_put_off(struct sender *s, struct flight *f, const struct uplink_verdict *verdict);
/* All of f's records from..to have been answered for: their devices need not stand aside again. */
void sender_taken(struct sender *s, const struct flight *f, size_t from, size_t to);
/* Lets those take their turn again whose time has come. */
void sender_recall(struct sender *s, int64_t now_ms);
/* When sender_recall() has something to do, -1: never. */
int64_t sender_recall_at(const struct sender *s);
/* 64 random bits for jitter. sender_answer.c */
uint64_t sender_roll(struct sender *s);

/* Shows the present state to sender_status(). sender_status.c */
void sender_publish(struct sender *s, int64_t now_ms);
void sender_note_error(struct sender *s, const char *words);
