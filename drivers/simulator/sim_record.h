/* sim_record.h - what was served, a JSON line a read, for a test to compare with what arrived.
 *
 * {"turbine":1,"round":3,"step":2,"time_ms":1769855400000,"table":"holding","first":0,
 *  "values":[842,0,13125,...]}
 * round counts from 1 and step from 0; the values are raw registers (or bits) in the order of their
 * addresses. A turbine with a fault has "fault":"slow" too. One thread; buffered until closed. */
#pragma once

#include "drivers/simulator/sim_unit.h"

void sim_record_write(FILE *file, const struct sim_unit *unit, const struct sim_served *served,
                      int64_t time_ms);
