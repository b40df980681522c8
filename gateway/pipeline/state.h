/* state.h - what the files of the pipeline share; nobody else includes it.
 *
 * Everything belongs to the pipeline thread (to the caller's thread while it does not run), except
 * the queue, which locks itself, and the atomic figures. */
#pragma once

#include "gateway/pipeline/pipeline.h"
#include "gateway/pipeline/queue.h"

struct pipeline {
    struct queue *queue;
    _Atomic uint64_t overruns; /* readings refused at the full queue */
};
