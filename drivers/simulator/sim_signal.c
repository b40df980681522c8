#include "drivers/simulator/sim_signal.h"

#include "drivers/simulator/power_curve.h"

#include <math.h>
#include <stddef.h>

#define TURN 6.283185307179586

enum { GRID_OUT_STEPS = 5, GRID_OUT_ONE_IN = 600, STATUS_ONE_IN = 1000 };

enum filler_kind { WIND, POWER, ROTOR, TEMPERATURE, ELECTRICAL, VIBRATION, STATUS };

static const struct sim_filler filler_kinds[] = {
    [WIND] = {"wind", "0.01", "m/s"},    [POWER] = {"power", "0.1", "kW"},
    [ROTOR] = {"rotor", "0.01", "rpm"},  [TEMPERATURE] = {"temp", "0.1", "degC"},
    [ELECTRICAL] = {"volt", "0.1", "V"}, [VIBRATION] = {"vib", "0.001", "g"},
    [STATUS] = {"status", "1", NULL},
};

/* The mix of a real site; the first 20 are the usual mix of a small selection. Repeated once. */
static const uint8_t filler_mix[] = {
    WIND,        WIND,        WIND,        WIND,        POWER,       POWER,       POWER,
    ROTOR,       ROTOR,       ROTOR,       TEMPERATURE, TEMPERATURE, TEMPERATURE, TEMPERATURE,
    TEMPERATURE, ELECTRICAL,  ELECTRICAL,  VIBRATION,   STATUS,      STATUS,      WIND,
    WIND,        WIND,        WIND,        POWER,       POWER,       ROTOR,       ROTOR,
    ROTOR,       ROTOR,       TEMPERATURE, TEMPERATURE, TEMPERATURE, TEMPERATURE, TEMPERATURE,
    TEMPERATURE, TEMPERATURE, TEMPERATURE, TEMPERATURE, TEMPERATURE, TEMPERATURE, ELECTRICAL,
    ELECTRICAL,  ELECTRICAL,  VIBRATION,   VIBRATION,   STATUS,      STATUS,      STATUS,
    STATUS,
};

static enum filler_kind kind_of(unsigned filler)
{
    return (enum filler_kind)filler_mix[filler % sizeof filler_mix];
}

const struct sim_filler *sim_signal_filler(unsigned i)
{
    return &filler_kinds[kind_of(i)];
}

/* splitmix64: any seed is a good one. */
static uint64_t next_random(struct sim_signal *s)
{
    uint64_t z = s->rng += 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

/* Mean 0, deviation 1: four 16-bit numbers of one draw, summed. Near enough to a Gauss curve, and
 * the same on every machine. */
static double noise(struct sim_signal *s)
{
    uint64_t r = next_random(s);
    double sum = (double)((r & 0xffff) + (r >> 16 & 0xffff) + (r >> 32 & 0xffff) + (r >> 48));
    return (sum / 65536.0 - 2.0) * 1.7320508;
}

static bool one_in(struct sim_signal *s, uint64_t n)
{
    return next_random(s) % n == 0;
}

static void step_wind(struct sim_signal *s)
{
    double t = (double)s->step;
    s->wind_slow = 0.999 * s->wind_slow + 0.05 * noise(s);
    s->wind_fast = 0.95 * s->wind_fast + 0.12 * noise(s);
    double wind = 9.0 + 3.5 * sin(TURN * t / 600.0 + s->phase) + s->wind_slow + s->wind_fast;
    s->wind = fmin(fmax(wind, 0.0), 40.0);
    s->lag += 0.2 * (s->wind - s->lag);
    double swing = 20.0 * sin(TURN * t / 120.0 + s->phase) + 1.5 * noise(s);
    s->direction = fmod(720.0 + swing, 360.0);
}

static enum sim_state next_state(const struct sim_signal *s)
{
    if (!s->grid_ok) {
        return SIM_NO_GRID;
    }
    if (s->lag >= POWER_CURVE_CUT_OUT) {
        return SIM_STORM;
    }
    if (s->lag < POWER_CURVE_CUT_IN) {
        return SIM_STOPPED;
    }
    if (s->state == SIM_STOPPED || s->state == SIM_STORM || s->state == SIM_NO_GRID) {
        return SIM_STARTING;
    }
    return s->lag >= POWER_CURVE_RATED ? SIM_AT_RATED : SIM_RUNNING;
}

static void step_machine(struct sim_signal *s)
{
    if (s->grid_out > 0) {
        s->grid_out--;
    } else if (one_in(s, GRID_OUT_ONE_IN)) {
        s->grid_out = GRID_OUT_STEPS;
    }
    s->grid_ok = s->grid_out == 0;
    s->state = next_state(s);
    bool makes = s->state == SIM_RUNNING || s->state == SIM_AT_RATED;
    /* A blade turned out of the wind takes less of it. */
    double share = 1.0 - (double)s->pitch_setpoint / SIM_PITCH_MAX;
    s->power = makes ? power_curve_kw(s->lag) * share * share : -1.5 + 0.2 * noise(s);
    s->gear += 0.01 * (40.0 + 30.0 * fmax(s->power, 0.0) / POWER_CURVE_RATED_KW - s->gear);
}

static double filler_value(struct sim_signal *s, unsigned i)
{
    double *c = &s->channels[i];
    switch (kind_of(i)) {
    case WIND:
        *c = 0.9 * *c + 0.05 * noise(s);
        return 100.0 * fmax(0.0, s->wind + *c);
    case POWER:
        return 10.0 * fmax(0.0, s->power + 3.0 * noise(s));
    case ROTOR:
        return 100.0 * (6.0 + 0.9 * s->lag + 0.01 * noise(s));
    case TEMPERATURE:
        *c += 0.004 * noise(s);
        return 10.0 * (20.0 + (double)(i % 16) + *c + 0.02 * noise(s));
    case ELECTRICAL:
        return 10.0 * (690.0 + 0.6 * noise(s));
    case VIBRATION:
        return 1000.0 * (0.8 + 0.05 * noise(s));
    case STATUS:
        *c = one_in(s, STATUS_ONE_IN) ? (double)(next_random(s) % 8) : *c;
        return *c;
    }
    return 0.0;
}

static uint16_t to_register(double value)
{
    return (uint16_t)(int16_t)lrint(fmin(fmax(value, -32768.0), 32767.0));
}

static void show(struct sim_signal *s)
{
    int32_t power = (int32_t)lrint(10.0 * s->power);
    bool turns = s->state != SIM_STOPPED && s->state != SIM_STORM;
    double rotor = turns ? fmin(6.0 + 1.0 * s->lag, 17.0) : 0.1;
    s->registers[SIM_WIND] = to_register(100.0 * s->wind);
    s->registers[SIM_POWER] = (uint16_t)((uint32_t)power >> 16);
    s->registers[SIM_POWER + 1] = (uint16_t)power;
    s->registers[SIM_ROTOR] = to_register(100.0 * rotor);
    s->registers[SIM_NACELLE] = (uint16_t)(lrint(10.0 * s->direction) % 3600);
    s->registers[SIM_GEAR] = to_register(10.0 * s->gear);
    s->registers[SIM_STATE] = (uint16_t)s->state;
    s->registers[SIM_PITCH] = (uint16_t)s->pitch_setpoint;
    for (unsigned i = 0; i < SIM_FILLERS; i++) {
        s->fillers[i] = to_register(filler_value(s, i));
    }
}

void sim_signal_init(struct sim_signal *s, uint64_t seed, unsigned turbine)
{
    *s = (struct sim_signal){.rng = seed * 0x2545f4914f6cdd1du + turbine};
    s->phase = TURN * (double)(next_random(s) % 1000) / 1000.0;
    s->gear = 45.0;
    s->grid_ok = true;
    s->state = SIM_RUNNING;
    step_wind(s);
    s->lag = s->wind;
    step_machine(s);
    show(s);
}

void sim_signal_next(struct sim_signal *s)
{
    s->step++;
    step_wind(s);
    step_machine(s);
    show(s);
}

void sim_signal_set_pitch(struct sim_signal *s, int16_t setpoint)
{
    s->pitch_setpoint = setpoint;
    s->registers[SIM_PITCH] = (uint16_t)setpoint;
}
