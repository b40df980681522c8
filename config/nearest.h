/* nearest.h - the valid name that a mistyped one probably means.
 *
 * Pure, any thread. The distance is that of optimal string alignment (insert, delete, replace,
 * swap neighbours), letter case left aside. */
#pragma once

#include <stddef.h>

/* Feed every valid name, then read `best`: NULL when none is near enough to be worth saying. */
struct nearest {
    const char *given;
    const char *best;
    size_t distance;
};

void nearest_try(struct nearest *nearest, const char *candidate);
