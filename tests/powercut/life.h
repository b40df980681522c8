/* life.h - the lives that a store is led through, each with its own way of giving readings up.
 *
 * In steady and moves, dead letters are sent once more and readings leave by hand. Every life
 * begins with a creation, has appends, commits, settlements and dead letters, growth,
 * the daemon's looks, closing and opening again, and ends drained and with new work in the space
 * that was given back. By load.h, so what it says of errors holds here too. */
#pragma once

#include "load.h"

enum life {
    LIFE_STEADY, /* nothing is given up */
    LIFE_DROP,   /* full: the oldest is dropped */
    LIFE_PAUSE,  /* full: nothing more is taken */
    LIFE_THIN,   /* full: the oldest becomes statistics */
    LIFE_EXPIRE, /* each uplink has its max_age, and is away for longer */
    LIFE_MOVES,  /* delivered ranges in two lanes, with holes; history is kept */
    LIVES
};
const char *life_name(enum life life);
int life_named(const char *name); /* -1: none is */

/* The settings of its store, so small that a short life fills it. */
struct store_settings life_settings(enum life life);
/* 0: none. */
int64_t life_max_age_ms(enum life life, unsigned uplink);

/* The whole life on load->dir, `rounds` commits in each of its phases; sets what of the load and
 * its truth belongs to the life. The first error ends it (-ENOSPC does not: that is what LIFE_PAUSE
 * says). */
must_check int life_run(struct load *load, enum life life, unsigned rounds);
