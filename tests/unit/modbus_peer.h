/* modbus_peer.h - for tests: a Modbus TCP slave on the test's own event base that can be as bad as
 * the worst of them.
 *
 * One thread. A peer owns its listener and connections; the test owns the peer and the base. */
#pragma once

#include "drivers/modbus/mbap.h"
#include "gateway/base/clock.h"

#include <event2/event.h>

enum peer_mode {
    PEER_GOOD,
    PEER_SILENT,
    PEER_WRONG_TRANSACTION,
    PEER_WRONG_UNIT,
    PEER_WRONG_FUNCTION,
    PEER_WRONG_COUNT,
    PEER_WRONG_PROTOCOL,
    PEER_LATE,      /* keeps each reply until the next request, then sends both */
    PEER_DUPLICATE, /* every reply twice */
    PEER_TORN,      /* a byte at a time, quickly */
    PEER_DRIP,      /* a byte every 40 ms */
    PEER_GARBAGE,
    PEER_FLOOD,       /* many frames that nobody asked for */
    PEER_CLOSE,       /* closes instead of answering */
    PEER_CLOSE_AFTER, /* answers, then closes */
    PEER_EXCEPTION    /* always `exception` */
};

enum { PEER_CONNECTIONS = 64, PEER_REGISTERS = 1000 };

struct peer;

struct peer_connection {
    struct peer *peer;
    int fd;
    struct event *event, *drip;
    uint8_t in[MBAP_FRAME_MAX], out[2 * MBAP_FRAME_MAX];
    size_t received, kept, dripped;
};

struct peer {
    struct event_base *base;
    struct evconnlistener *listener;
    int keeper; /* holds the port while nobody listens, so that no other program gets it */
    struct peer_connection connections[PEER_CONNECTIONS];
    uint16_t registers[PEER_REGISTERS];
    enum peer_mode mode;
    unsigned exception;
    unsigned exceptions_left; /* of PEER_EXCEPTION; 0: for ever */
    unsigned hole_first, hole_count;
    uint32_t silent_units;      /* bit n: unit n does not answer */
    uint32_t unreachable_units; /* bit n: exception 11 */
    unsigned accepted, requests, open;
    unsigned writes; /* that were taken; write_function is that of the last one */
    uint8_t write_function;
    unsigned write_exception; /* of writes only; 0: none */
    bool ignores_writes;      /* confirms them, and keeps what it has */
    bool swallows_writes;     /* executes them, and says nothing */
    bool closes_on_write;     /* executes them, and closes */
    unsigned unit_requests[32];
    char address[32];
};

/* Listens on a free port of 127.0.0.1 (peer->address says which); register i holds 1000 + i. */
void peer_start(struct peer *peer, struct event_base *base);

/* Closes everything. peer_leave() keeps the port, so that whoever connects is refused until
 * peer_listen() takes it again. */
void peer_stop(struct peer *peer);
void peer_leave(struct peer *peer);
void peer_listen(struct peer *peer);

/* Runs the loop for some time. */
void peer_run(struct event_base *base, int64_t ms);

/* Runs the loop until the condition holds: for limit_ms on a machine that is free, and a busy one
 * gets as much more as it needs. */
enum { RUN_UNTIL_PATIENCE = 30 };
#define run_until(base, limit_ms, condition)                                                       \
    do {                                                                                           \
        int64_t end_ = clock_mono_ms() + RUN_UNTIL_PATIENCE * (limit_ms);                          \
        while (!(condition) && clock_mono_ms() < end_) {                                           \
            peer_run(base, 1);                                                                     \
        }                                                                                          \
        assert_true(condition);                                                                    \
    } while (0)
