/* salvage.h - what the store does beside the work, driven by the pipeline's commits.
 *
 * The pipeline thread only. pipeline.h has how it begins. */
#pragma once

#include "gateway/pipeline/state.h"

/* Before a commit: some of what is readable of a store that was set aside; where there is nothing,
 * the blocks of this one are verified. */
void pipeline_salvage_step(struct pipeline *p);
/* After it: when the next commit is due for it. */
void pipeline_salvage_due(struct pipeline *p, int64_t mono_ms);
