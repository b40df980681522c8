/* roster.h - who is there: devices and uplinks copied out of the daemon's lock.
 *
 * Taken at the start of an answer, so that nothing is formatted while the daemon's lock is held.
 * Owned by the caller; the api's threads. */
#pragma once

#include "gateway/api/api.h"

struct roster_uplink {
    char name[64], type[32];
    unsigned index; /* in the store */
    struct sender_status status;
};

struct roster {
    struct device **devices; /* a reference each, by name */
    size_t device_count, device_room;
    struct roster_uplink uplinks[STORE_UPLINKS_MAX];
    size_t uplink_count;
    bool failed; /* out of memory: something is missing */
};

enum roster_part { ROSTER_DEVICES = 1, ROSTER_UPLINKS = 2 };

/* -ENOMEM only. `parts` are bits of enum roster_part. */
must_check int roster_take(const struct api_host *host, unsigned parts, struct roster *ret_roster);
void roster_finish(struct roster *roster);
#define auto_roster __attribute__((cleanup(roster_finish)))

/* The device of that name, or NULL; the roster keeps its reference. */
struct device *roster_find(const struct roster *roster, const char *name);
