/* simulator.h - a site to read: any number of turbines over Modbus TCP.
 *
 * One thread, one libevent base. Turbine i answers on port BASE+i-1 as unit 1 (0 and 255, which
 * stand for "this device" on TCP, too) with the register map of profile demo-turbine, or with the
 * rows of a CSV file. */
#pragma once

#include "gateway/base/cleanup.h"

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

enum {
    SIMULATOR_TURBINES_MAX = 10000,
    SIMULATOR_CONNECTIONS_MAX = 8, /* a turbine; further ones are closed at once */
    SIMULATOR_ERROR_SIZE = 256
};

struct simulator_options {
    const char *listen; /* "127.0.0.1:5020": the first turbine's; port 0 takes free ones in a row */
    unsigned turbines;
    uint64_t seed;
    const char *fault;  /* NULL: none; see sim_fault.h */
    const char *replay; /* NULL: the simulated turbine */
    const char *coap;   /* NULL: none; IP:PORT of a met mast, see sim_mast.h */
    const char *psk;    /* NULL: the mast speaks plain CoAP; else ID:KEY, over DTLS */
    const char *record; /* NULL: none; a JSON line for every read that was answered */
    bool step_by_poll;  /* values move on with each new round of a turbine, not with the clock */
    int64_t step_ms;    /* with the clock */
};

struct event_base;
struct simulator;

/* -errno, and ret_error says what is wrong. `out` gets a JSON line when a replay is done; it and
 * the options must outlive the simulator. */
must_check int simulator_create(const struct simulator_options *options, struct event_base *base,
                                FILE *out, struct simulator **ret_simulator,
                                char ret_error[SIMULATOR_ERROR_SIZE]);
/* Flushes and closes the record. -EIO when not all of it could be written; destroys either way. */
int simulator_destroy(struct simulator *simulator);

uint16_t simulator_port(const struct simulator *simulator); /* of turbine 1 */

/* {"turbines","requests","registers","points","rounds","per_turbine":[...]}: what was answered
 * truthfully. New reference. */
json_t *simulator_summary(const struct simulator *simulator);

/* `windrow simulate`: prints {"listening",...} to out, answers until SIGTERM or SIGINT, prints the
 * summary. Returns an exit status of gateway/cli/command.h. */
int simulator_run(const struct simulator_options *options, FILE *out);

/* The INI profile of what is served: of the replayed file, or of `points` filler registers. */
int simulator_print_profile(const char *replay, unsigned points, FILE *out);
