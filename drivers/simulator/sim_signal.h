/* sim_signal.h - a turbine's physics, a step at a time, as the registers of profile demo-turbine.
 *
 * Pure, one owner. The same seed and turbine give the same values at the same step, however often
 * they are read. Holding registers: */
#pragma once

#include <stdbool.h>
#include <stdint.h>

enum sim_register {
    SIM_WIND = 0,    /* uint16, 0.01 m/s */
    SIM_POWER = 1,   /* int32 in 1 and 2, 0.1 kW; slightly negative when idle */
    SIM_ROTOR = 3,   /* uint16, 0.01 rpm */
    SIM_NACELLE = 4, /* uint16, 0.1 deg; wanders through north */
    SIM_GEAR = 5,    /* int16, 0.1 degC */
    SIM_STATE = 6,   /* uint16, enum sim_state */
    SIM_PITCH = 20,  /* int16, 0.01 deg, writable 0 to 90 */
    SIM_REGISTERS = 32,
    SIM_FILLER = 100, /* int16 each: channels like those of a real site */
    SIM_FILLERS = 100
};
enum { SIM_PITCH_MAX = 9000 };

enum sim_state { SIM_STOPPED, SIM_STARTING, SIM_RUNNING, SIM_AT_RATED, SIM_STORM, SIM_NO_GRID };

struct sim_signal {
    uint64_t rng, step;
    double phase, wind_slow, wind_fast, wind, lag, direction, power, gear;
    double channels[SIM_FILLERS];
    int grid_out; /* steps until the grid is back */
    enum sim_state state;
    int16_t pitch_setpoint; /* 0.01 deg */
    uint16_t registers[SIM_REGISTERS];
    uint16_t fillers[SIM_FILLERS];
    bool grid_ok;
};

/* Puts the turbine at step 0. */
void sim_signal_init(struct sim_signal *s, uint64_t seed, unsigned turbine);
void sim_signal_next(struct sim_signal *s);

/* Takes effect on the power with the next step; shown in the register at once. */
void sim_signal_set_pitch(struct sim_signal *s, int16_t setpoint);

/* What filler register i is, for a printed profile: "wind", and its scale and unit. */
struct sim_filler {
    const char *name, *scale, *unit;
};
const struct sim_filler *sim_signal_filler(unsigned i);
