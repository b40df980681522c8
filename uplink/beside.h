/* beside.h - what an uplink does beside delivering, for the status: commands from afar, a shadow.
 *
 * Plain data; the words are constants. Written by the sender's thread, copied to whoever asks. */
#pragma once

#include <stddef.h>
#include <stdint.h>

struct uplink_beside {
    /* "waiting" for connection or service, "ready" or "followed", "refused" by the broker or the
     * service, "resting" after the broker hung up for it; NULL: it is off. */
    const char *commands, *shadow;
    uint64_t taken, done, refused;  /* commands since start; refused: or failed */
    uint64_t desired, desired_done; /* values of the shadow that are followed; carried out */
    int64_t shadow_version;         /* of the document, -1: not known */
    int64_t reported_ms;            /* UTC, when a report was last accepted; 0: none was */
};
