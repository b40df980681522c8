/* sim_unit.h - one turbine's answers: request PDU in, reply PDU out.
 *
 * Pure but for its own state; one thread. */
#pragma once

#include "drivers/modbus/mbap.h"
#include "drivers/simulator/sim_fault.h"
#include "drivers/simulator/sim_replay.h"
#include "drivers/simulator/sim_signal.h"

/* What all turbines of a site share. */
struct sim_site {
    const struct sim_replay *replay; /* NULL: signals */
    bool step_by_poll;
    int64_t step_ms, start_ms; /* CLOCK_MONOTONIC */
};

struct sim_counts {
    uint64_t requests, registers, bits, points, rounds, exceptions, writes;
};

/* The values of a read that was answered; count 0: none. */
struct sim_served {
    uint8_t function;
    uint16_t first, count;
    uint16_t values[MBAP_READ_REGISTERS_MAX]; /* only a few bits exist: registers are the most */
    uint64_t step;
    bool new_round;
};

struct sim_unit {
    const struct sim_site *site;
    unsigned turbine; /* from 1 */
    enum sim_fault fault;
    struct sim_signal signal;
    uint64_t step;    /* of the signal, or the replay's row */
    bool replay_done; /* a round beyond the last row has begun */
    bool started;     /* a round begins where the first one began: */
    uint8_t round_function;
    uint16_t round_address;
    struct sim_counts counts;
};

void sim_unit_init(struct sim_unit *unit, const struct sim_site *site, unsigned turbine,
                   uint64_t seed, enum sim_fault fault);

/* Returns the reply's length. What it serves is not counted yet: it may never leave. */
size_t sim_unit_answer(struct sim_unit *unit, int64_t now_ms, const uint8_t *pdu, size_t len,
                       uint8_t reply[MBAP_PDU_MAX], struct sim_served *ret_served);

/* Counts what was served and has left. */
void sim_unit_count(struct sim_unit *unit, const struct sim_served *served);
