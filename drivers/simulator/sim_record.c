#include "drivers/simulator/sim_record.h"

#include <inttypes.h>

static const char *table_name(uint8_t function)
{
    switch (function) {
    case MBAP_READ_COILS:
        return "coil";
    case MBAP_READ_DISCRETES:
        return "discrete";
    case MBAP_READ_INPUT:
        return "input";
    default:
        return "holding";
    }
}

void sim_record_write(FILE *file, const struct sim_unit *unit, const struct sim_served *served,
                      int64_t time_ms)
{
    fprintf(file,
            "{\"turbine\":%u,\"round\":%" PRIu64 ",\"step\":%" PRIu64 ",\"time_ms\":%" PRId64
            ",\"table\":\"%s\",\"first\":%u,\"values\":[",
            unit->turbine, unit->counts.rounds, served->step, time_ms, table_name(served->function),
            served->first);
    for (unsigned i = 0; i < served->count; i++) {
        fprintf(file, i == 0 ? "%u" : ",%u", served->values[i]);
    }
    if (unit->fault != SIM_SOUND) {
        fprintf(file, "],\"fault\":\"%s\"}\n", sim_fault_name(unit->fault));
    } else {
        fputs("]}\n", file);
    }
}
