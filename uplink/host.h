/* host.h - what an uplink may ask of the gateway that it serves, beside the store.
 *
 * For transports that say more than readings (the state of devices, an AWS IoT shadow) or take
 * commands. Implemented by the daemon; its functions are safe from any thread and do not block
 * longer than a short lock. */
#pragma once

#include "gateway/pipeline/device.h"
#include "gateway/store/reader.h"
#include "gateway/writes/remote.h"

enum { UPLINK_VIEW_POINTS_MAX = 256, UPLINK_VIEW_VALUE = 40 };

/* The gateway at one moment. */
struct uplink_view {
    int64_t time_ms, uptime_s; /* UTC by the gateway's clock */
    const char *clock;         /* "synchronised", "holding", "waiting" */
    uint64_t waiting;          /* readings in the store that some uplink has to deliver */
    int64_t seconds_left;      /* until the store is full; -1: it does not fill */
    struct device **devices;   /* a reference each, by name */
    size_t device_count;
    struct uplink_view_uplink {
        char name[64];
        const char *state; /* "good", "backing off", "held", "stopped" */
        uint64_t waiting;
    } uplinks[STORE_UPLINKS_MAX];
    size_t uplink_count;
    struct uplink_view_point { /* writable ones, as asked for */
        struct device *device; /* of devices[] */
        const char *name;
        int64_t time_ms;               /* of the value, 0: there is none */
        char value[UPLINK_VIEW_VALUE]; /* as JSON */
    } * points;
    size_t point_count;
};

struct uplink_host {
    struct remote_host writes;
    /* The present state; points: the writable ones that fit these globs over DEVICE.POINT, NULL:
     * none. The caller finishes the view. -ENOMEM only. */
    int (*look)(void *user, const struct config_list *points, struct uplink_view *ret_view);
    void *user;
};

void uplink_view_finish(struct uplink_view *view);
#define auto_uplink_view __attribute__((cleanup(uplink_view_finish)))
