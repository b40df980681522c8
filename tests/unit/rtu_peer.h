/* rtu_peer.h - for tests: a line of Modbus RTU slaves behind a pseudo-terminal or a serial server,
 * as bad as the worst of them.
 *
 * The peer runs on a thread of its own; the test sets its mode. Register i of unit u holds
 * 100 * u + i. */
#pragma once

#include "drivers/modbus/rtu.h"

#include <pthread.h>
#include <stdatomic.h>

enum rtu_peer_mode {
    RTU_PEER_GOOD,
    RTU_PEER_LATE, /* answers after delay_ms */
    RTU_PEER_BAD_CRC,
    RTU_PEER_CUT,     /* half a reply */
    RTU_PEER_DRIP,    /* a byte every 30 ms */
    RTU_PEER_TORN,    /* a byte every millisecond */
    RTU_PEER_FOREIGN, /* a reply of another unit, then its own */
    RTU_PEER_WRONG_FUNCTION,
    RTU_PEER_WRONG_COUNT,
    RTU_PEER_GARBAGE,   /* for 300 ms, then nothing */
    RTU_PEER_EXCEPTION, /* code 2 */
    RTU_PEER_NOISE      /* its reply, and some bytes behind it */
};

struct rtu_peer {
    char path[64]; /* of the port */
    int master, slave, stop_fd, listener;
    pthread_t thread;
    _Atomic int mode, delay_ms, once; /* once: good again after one reply */
    _Atomic uint64_t silent_units;    /* bit n: unit n does not answer */
    _Atomic unsigned requests, broken, writes, accepted;
    _Atomic unsigned unit_requests[256];
    _Atomic int64_t least_gap_ns; /* from the end of a reply to the next request */
    _Atomic unsigned baud;        /* 0: as fast as it goes; else the line is paced, 11 bits */
    int64_t replied_ns;
    const uint16_t *_Atomic registers; /* NULL: as above; else 65536 registers of every unit */
};

void rtu_peer_start(struct rtu_peer *peer);

/* The same behind a serial server on a free port of 127.0.0.1: path is its address. */
void rtu_peer_start_tcp(struct rtu_peer *peer);
void rtu_peer_stop(struct rtu_peer *peer);

/* Pulls the plug: the port is gone. */
void rtu_peer_unplug(struct rtu_peer *peer);
