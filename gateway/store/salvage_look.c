#include "gateway/base/clock.h"
#include "gateway/store/salvage_work.h"

#include <errno.h>
#include <poll.h>
#include <string.h>

/* What a child tells that is to send no scans. */
struct inspection {
    struct salvage_order order;
    struct child child;
    struct buffer input;
    struct salvage_place working;
    struct frame_end end;
    bool ended;
};

/* Takes the first frame, when all of it is there. */
static bool take(struct inspection *look, size_t *at)
{
    struct frame frame;
    const uint8_t *from = look->input.data + *at;
    size_t left = look->input.len - *at;
    if (left < sizeof(frame)) {
        return false;
    }
    memcpy(&frame, from, sizeof(frame));
    if (left - sizeof(frame) < frame.len) {
        return false;
    }
    if (frame.kind == FRAME_BLOCK && frame.len == sizeof(look->working)) {
        memcpy(&look->working, from + sizeof(frame), sizeof(look->working));
    } else if (frame.kind == FRAME_END && frame.len == sizeof(look->end)) {
        memcpy(&look->end, from + sizeof(frame), sizeof(look->end));
        look->ended = true;
    }
    *at += sizeof(frame) + frame.len;
    return true;
}

/* Until the child has ended. */
static enum child_end follow(struct inspection *look)
{
    enum { READ_BYTES = 64 * 1024, WAIT_MS = 1000 };
    ssize_t n = 0;
    while (n >= 0) {
        struct pollfd wait = {.fd = look->child.fd, .events = POLLIN};
        (void)poll(&wait, 1, WAIT_MS);
        n = child_read(&look->child, READ_BYTES, &look->input);
        size_t at = 0;
        while (take(look, &at)) {
        }
        memmove(look->input.data, look->input.data + at, look->input.len - at);
        look->input.len -= at;
    }
    enum child_end end = child_finish(&look->child, n != -EPIPE);
    return n == -EPIPE ? end : CHILD_CRASHED;
}

int salvage_inspect(const char *dir, const char *folder, uint64_t *ret_blocks, uint64_t *ret_bad)
{
    char file[4096];
    struct inspection look = {.order = {.file = file, .look_only = true},
                              .input = {.max = FRAME_BYTES_MAX}};
    snprintf(file, sizeof(file), "%s/%s/data.mdb", dir, folder);
    if (access(file, R_OK) < 0) {
        return -errno;
    }
    int rc = -EIO;
    while (!look.ended) {
        look.working = (struct salvage_place){0};
        rc = child_start(&look.child, SALVAGE_MEMORY_MAX, salvage_child, &look.order);
        if (rc < 0) {
            break;
        }
        enum child_end end = follow(&look);
        rc = look.ended ? 0 : -EIO;
        if (look.ended || end != CHILD_CRASHED || look.order.crash_count == SALVAGE_CRASHES_MAX) {
            break;
        }
        look.order.crashes[look.order.crash_count++] = look.working.leaf;
    }
    buffer_finish(&look.input);
    if (rc == 0) {
        *ret_blocks = look.end.blocks + look.end.bad;
        *ret_bad = look.end.bad;
    }
    return rc;
}
