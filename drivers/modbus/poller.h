/* poller.h - the rounds of one Modbus device: when, in what order, and what becomes of them.
 *
 * Field thread only; over whatever wire. A round sends the due requests of the plan one after
 * another; its scan has the wall time of the first reply. Requests that failed leave bad readings.
 * A round that brings no value at all is a failed poll and submits nothing, except once when the
 * device was good before: then a scan of bad readings marks where the gap begins. */
#pragma once

#include "drivers/modbus/breaker.h"
#include "drivers/modbus/collect.h"
#include "drivers/modbus/session.h"

enum {
    POLLER_BUSY_MS = 100,         /* a busy device (exception 5, 6) is asked once more after */
    POLLER_TIMEOUTS_MAX = 2,      /* in a round; then the rest of it is left out */
    POLLER_RETRY_MS = 10 * 60000, /* refused points are tried again */
    POLLER_RETRY_ALL_MS = 30000   /* the same where nothing but refused points is left */
};

struct read_now;
struct write_now;

struct poller {
    struct schedule_entry entry;
    struct schedule *schedule;
    struct device *device;
    const struct modbus_settings *settings;
    struct wire *wire;
    struct session_request request;
    struct schedule_timer busy;
    struct layout layout;
    struct sunspec_walk walk;
    struct plan plan;
    struct collect collect;
    struct breaker breaker;
    uint64_t poll;    /* number of the round, from 0 */
    int64_t retry_ms; /* when refused points are tried again */
    size_t at;        /* the request that runs */
    bool seek_wanted; /* SunSpec models are to be looked for before anything is read */
    bool seeking;     /* the request that runs belongs to that */
    bool sought_silent, was_sought;
    bool running, was_busy, learned;
    unsigned answers, timeouts;
    enum device_error error; /* the round's first */
    int detail;
    int64_t rtt_us, cost_ms;
    struct write_now *write; /* one at a time */
    struct read_now *reads;  /* questions from outside that are still open */
};

/* Takes over one use of the wire, also when it fails. */
must_check int poller_create(struct schedule *schedule, struct wire *wire, struct device *device,
                             struct poller **ret_poller);
void poller_destroy(struct poller *poller);
