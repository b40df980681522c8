/* child.h - a process of our own that looks at what may crash whoever looks.
 *
 * The writer's thread. The child has a pipe to its parent and nothing else of it: every other
 * descriptor is closed, it runs at the lowest priority, with a bound on its memory, and dies with
 * its parent. Where it says nothing for CHILD_SILENCE_MS it hangs, and is ended. */
#pragma once

#include "gateway/base/buffer.h"

#include <sys/types.h>

enum {
    CHILD_SILENCE_MS = 60 * 1000,
    CHILD_PIPE_BYTES = 1024 * 1024, /* at most so much lies between the two */
};

struct child {
    pid_t pid; /* 0: none */
    int fd;
    int64_t heard_ms;
};

enum child_end {
    CHILD_FINISHED, /* it returned 0 */
    CHILD_FAILED,   /* it returned an errno */
    CHILD_CRASHED,  /* a signal, or it was silent too long */
    CHILD_STOPPED,  /* somebody ended it from outside */
};

/* fn runs in the child, `out` is the writing end; what it returns (0 or an errno) is its exit
 * status. memory: what it may map beyond what the parent has, 0: any. */
must_check int child_start(struct child *child, size_t memory, int (*fn)(int out, void *user),
                           void *user);
/* Appends what is there to `to`, at most `most` bytes. 0: nothing at present; -EPIPE: it ended;
 * -ETIMEDOUT: silent too long; -ENOMEM. Else the number of bytes. */
must_check ssize_t child_read(struct child *child, size_t most, struct buffer *to);
/* After -EPIPE waits for the end of it; with `kill` ends it first. */
enum child_end child_finish(struct child *child, bool kill);

/* In the child: writes all of it, and waits where the parent does not take it. -errno. */
must_check int child_write(int out, const void *bytes, size_t len);
