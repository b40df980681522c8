/* verify_work.h - what verify.c keeps; its tests shorten the times in it. The writer's alone. */
#pragma once

#include "gateway/store/child.h"

struct verify {
    struct child child;
    struct buffer input;
    const char *path;
    int64_t due_ms; /* monotonic */
    uint64_t bytes_s;
    bool done;
};

/* Says how far the child has come. */
struct verify_report {
    uint64_t blocks, bad, done;
};
