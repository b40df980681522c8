/* sim_fault.h - what can be wrong with a simulated turbine: `--fault dead:3,slow:5-7`.
 *
 * Pure, any thread. */
#pragma once

#include "gateway/base/cleanup.h"

#include <stddef.h>
#include <stdint.h>

enum sim_fault {
    SIM_SOUND,
    SIM_DEAD,     /* takes connections and requests, never answers */
    SIM_ABSENT,   /* nothing listens: connections are refused */
    SIM_SLOW,     /* answers after SIM_SLOW_MS */
    SIM_ILLEGAL,  /* exception 2 for every read that touches SIM_ILLEGAL_REGISTER */
    SIM_LYING,    /* in turn: wrong transaction, unit, byte count, function, protocol; then right */
    SIM_DRIP,     /* a byte every SIM_DRIP_MS */
    SIM_TORN,     /* half an answer, then the connection closes; every other answer is whole */
    SIM_CLOSING,  /* closes after every answer */
    SIM_BUSY,     /* exception 6 to every other request */
    SIM_FLAPPING, /* SIM_FLAP_MS well, SIM_FLAP_MS dead, without its connections */
    SIM_FAULTS
};

enum { SIM_SLOW_MS = 2000, SIM_ILLEGAL_REGISTER = 5, SIM_DRIP_MS = 50, SIM_FLAP_MS = 5000 };

/* "NAME:TURBINE" or "NAME:FROM-TO", with commas between; turbines count from 1. faults has count
 * entries. -EINVAL, and ret_why says which part is wrong. */
enum { SIM_FAULT_WHY_SIZE = 160 };
must_check int sim_fault_parse(const char *text, uint8_t *faults, size_t count,
                               char ret_why[SIM_FAULT_WHY_SIZE]);
const char *sim_fault_name(enum sim_fault fault);
