/* sim_mast.h - the met mast of a simulated site: a CoAP server that tells SenML, over DTLS where a
 * key is given.
 *
 * One thread, one libevent base. /senml is observable (SenML JSON, or SenML CBOR where the client
 * accepts only that) with the points wind_speed, wind_dir, temp, humidity, pressure and ok; /temp
 * is the temperature as text. Max-Age is five steps. The same seed gives the same values. */
#pragma once

#include "gateway/base/cleanup.h"

#include <stdint.h>

enum { SIM_MAST_ERROR_SIZE = 256, SIM_MAST_MAX_AGE_STEPS = 5 };

struct event_base;
struct sim_mast;

struct sim_mast_options {
    const char *listen; /* IP:PORT */
    const char *psk;    /* ID:KEY, NULL: plain CoAP */
    uint64_t seed;
    int64_t step_ms; /* a new sample, and a notification, each */
};

must_check int sim_mast_create(const struct sim_mast_options *options, struct event_base *base,
                               struct sim_mast **ret_mast, char ret_error[SIM_MAST_ERROR_SIZE]);
void sim_mast_destroy(struct sim_mast *mast);

/* Representations served, notifications among them. */
uint64_t sim_mast_served(const struct sim_mast *mast);
