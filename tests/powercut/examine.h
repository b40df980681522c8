/* examine.h - judges one store after the other in a child, so that a crash or a hang of the store
 * is a verdict and not the end.
 *
 * One owner. The child lives on from case to case and is made anew after it died. */
#pragma once

#include "judge.h"

enum { EXAMINE_IMAGE_MAX = 8 << 20, EXAMINE_SECONDS = 20 };

struct examiner;

/* Judges in the folder `work`, which is its own, on a file system in memory. NULL: no memory. */
struct examiner *examiner_create(const char *work, struct truth *truth,
                                 const struct store_settings *settings);
void examiner_destroy(struct examiner *examiner);

/* The image (see disk.h) as it would be found after a power cut between those two commits. With
 * `litter`, LMDB's lock file holds what an earlier boot left. What comes out of a judgement
 * is in examiner_judgement() until the next one. */
must_check enum verdict examine(struct examiner *examiner, const struct buffer *image,
                                uint32_t acked, uint32_t attempted, bool litter);
/* The store that lies in the folder `work` as it is. look_only: it is left as it is, too. */
must_check enum verdict examine_here(struct examiner *examiner, uint32_t acked, uint32_t attempted,
                                     bool look_only);
/* Of the stores from now on. */
void examiner_expect(struct examiner *examiner, const struct store_settings *settings);
const struct judgement *examiner_judgement(const struct examiner *examiner);
