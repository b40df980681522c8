/* images.h - which of the many images at one moment are built.
 *
 * Up to IMAGES_EXHAUSTIVE dirty cells: every subset of them. Beyond: the floor, all, all with the
 * old sizes and the reverse, one cell only, all but one, torn at a cell, the newest writes missing
 * in order, and random versions. */
#pragma once

#include "disk.h"

enum { IMAGES_EXHAUSTIVE = 8 };

/* Sets the picks for one image after the other and calls `image` for each. */
void images_at(struct disk *disk, uint64_t event, uint64_t seed,
               void (*image)(void *user, const char *pattern), void *user);
