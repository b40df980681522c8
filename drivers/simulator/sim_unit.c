#include "drivers/simulator/sim_unit.h"

#include <string.h>

enum { BITS = 16 }; /* coils and discrete inputs; bit 0 is grid_ok */

void sim_unit_init(struct sim_unit *unit, const struct sim_site *site, unsigned turbine,
                   uint64_t seed, enum sim_fault fault)
{
    *unit = (struct sim_unit){.site = site, .turbine = turbine, .fault = fault};
    if (site->replay == NULL) {
        sim_signal_init(&unit->signal, seed, turbine);
    }
}

static void step_to(struct sim_unit *unit, uint64_t step)
{
    const struct sim_replay *replay = unit->site->replay;
    if (replay != NULL && step >= replay->rows) {
        unit->replay_done = true;
        step = replay->rows - 1;
    }
    for (; unit->step < step; unit->step++) {
        if (replay == NULL) {
            sim_signal_next(&unit->signal);
        }
    }
}

static bool covers(const struct mbap_request *request, uint8_t function, uint16_t address)
{
    return request->function == function && request->first <= address &&
           address < request->first + request->count;
}

/* Moves the values on before a read. Returns whether it begins a round. */
static bool advance(struct sim_unit *unit, int64_t now_ms, const struct mbap_request *request)
{
    bool first = !unit->started;
    if (first) {
        unit->started = true;
        unit->round_function = request->function;
        unit->round_address = request->first;
    }
    bool new_round = first || covers(request, unit->round_function, unit->round_address);
    if (!unit->site->step_by_poll) {
        step_to(unit, (uint64_t)((now_ms - unit->site->start_ms) / unit->site->step_ms));
    } else if (new_round && !first) {
        step_to(unit, unit->step + 1);
    }
    return new_round;
}

static bool is_bits(uint8_t function)
{
    return function == MBAP_READ_COILS || function == MBAP_READ_DISCRETES;
}

static bool is_read(uint8_t function)
{
    return is_bits(function) || function == MBAP_READ_HOLDING || function == MBAP_READ_INPUT;
}

/* Whether all the addresses of a read exist. */
static bool exists(const struct sim_unit *unit, const struct mbap_request *request)
{
    unsigned first = request->first, end = first + request->count;
    if (is_bits(request->function)) {
        return end <= BITS;
    }
    if (unit->fault == SIM_ILLEGAL && first <= SIM_ILLEGAL_REGISTER && end > SIM_ILLEGAL_REGISTER) {
        return false;
    }
    if (unit->site->replay != NULL) {
        return end <= 2 * unit->site->replay->columns;
    }
    return end <= SIM_REGISTERS || (first >= SIM_FILLER && end <= SIM_FILLER + SIM_FILLERS);
}

static uint16_t value_at(const struct sim_unit *unit, uint8_t function, unsigned address)
{
    const struct sim_replay *replay = unit->site->replay;
    if (is_bits(function)) {
        return address == 0 && (replay != NULL || unit->signal.grid_ok) ? 1 : 0;
    }
    if (replay != NULL) {
        return sim_replay_register(replay, (size_t)unit->step, address);
    }
    return address < SIM_REGISTERS ? unit->signal.registers[address]
                                   : unit->signal.fillers[address - SIM_FILLER];
}

static size_t reply_read(struct sim_unit *unit, int64_t now_ms, const struct mbap_request *request,
                         uint8_t reply[MBAP_PDU_MAX], struct sim_served *served)
{
    served->new_round = advance(unit, now_ms, request);
    served->function = request->function;
    served->first = request->first;
    served->count = request->count;
    served->step = unit->step;
    uint8_t bits[BITS];
    for (unsigned i = 0; i < request->count; i++) {
        served->values[i] = value_at(unit, request->function, request->first + i);
        bits[i % BITS] = (uint8_t)served->values[i];
    }
    return is_bits(request->function)
               ? mbap_reply_bits(reply, request->function, bits, request->count)
               : mbap_reply_registers(reply, request->function, served->values, request->count);
}

/* Only the pitch set point can be written. Returns 0 or an exception. */
static unsigned write_pitch(struct sim_unit *unit, const struct mbap_request *request)
{
    bool register_write = request->function == MBAP_WRITE_REGISTER ||
                          request->function == MBAP_WRITE_REGISTERS;
    if (!register_write || request->first != SIM_PITCH || request->count != 1 ||
        unit->site->replay != NULL) {
        return MBAP_ILLEGAL_ADDRESS;
    }
    int16_t setpoint = (int16_t)mbap_get16(request->data);
    if (setpoint < 0 || setpoint > SIM_PITCH_MAX) {
        return MBAP_ILLEGAL_VALUE;
    }
    sim_signal_set_pitch(&unit->signal, setpoint);
    unit->counts.writes++;
    return 0;
}

size_t sim_unit_answer(struct sim_unit *unit, int64_t now_ms, const uint8_t *pdu, size_t len,
                       uint8_t reply[MBAP_PDU_MAX], struct sim_served *ret_served)
{
    struct mbap_request request;
    ret_served->count = 0;
    unit->counts.requests++;
    unsigned exception = mbap_parse_request(pdu, len, &request);
    if (exception == 0 && unit->fault == SIM_BUSY && unit->counts.requests % 2 == 1) {
        exception = MBAP_BUSY;
    }
    if (exception == 0 && is_read(request.function)) {
        if (exists(unit, &request)) {
            return reply_read(unit, now_ms, &request, reply, ret_served);
        }
        exception = MBAP_ILLEGAL_ADDRESS;
    }
    if (exception == 0) {
        exception = write_pitch(unit, &request);
    }
    if (exception == 0) {
        return mbap_reply_write(reply, &request);
    }
    unit->counts.exceptions++;
    return mbap_reply_exception(reply, request.function, exception);
}

/* Points whose first register is `address`: power and replayed columns take two registers. */
static unsigned points_at(const struct sim_unit *unit, unsigned address)
{
    if (unit->site->replay != NULL) {
        return address % 2 == 0 ? 1 : 0;
    }
    return address >= SIM_FILLER || address == SIM_PITCH ||
                   (address <= SIM_STATE && address != SIM_POWER + 1)
               ? 1
               : 0;
}

void sim_unit_count(struct sim_unit *unit, const struct sim_served *served)
{
    if (served->count == 0) {
        return;
    }
    struct sim_counts *counts = &unit->counts;
    counts->rounds += served->new_round ? 1 : 0;
    if (is_bits(served->function)) {
        counts->bits += served->count;
        counts->points += served->first == 0 ? 1 : 0;
        return;
    }
    counts->registers += served->count;
    for (unsigned i = 0; i < served->count; i++) {
        counts->points += points_at(unit, served->first + i);
    }
}
