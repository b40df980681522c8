/* fault.h - lets the n-th call of the C library, or the n-th allocation, fail.
 *
 * Linking fault.c takes the place of the library's calls in this program and in liblmdb. The plan
 * lies in shared memory, so that calls of the child in which the store checks its files count, too.
 * Only what happens while the plan is armed counts. */
#pragma once

#include "gateway/base/cleanup.h"

#include <stdbool.h>
#include <stdint.h>

enum fault_kind { FAULT_CALLS, FAULT_ALLOCATIONS, FAULT_KINDS };

/* In `error` beside the errno values: half of what was to be written is, the rest is not. */
enum { FAULT_SHORT = -1 };

struct fault_plan {
    enum fault_kind kind;
    uint64_t at;  /* the call that fails, from 1; 0: none, they are counted only */
    bool onwards; /* and all after it */
    int error;
    _Atomic uint64_t calls, failed;
    char first[24]; /* the name of the one that failed first */
};

void fault_arm(struct fault_plan *plan);
void fault_disarm(void);
