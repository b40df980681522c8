#include "gateway/api/roster.h"

#include <errno.h>
#include <string.h>

enum { ROOM_FIRST = 16 };

static void take_device(void *arg, struct device *device)
{
    struct roster *roster = arg;
    if (roster->device_count == roster->device_room) {
        size_t room = roster->device_room == 0 ? ROOM_FIRST : roster->device_room * 2;
        struct device **grown = reallocarray(roster->devices, room, sizeof(struct device *));
        if (grown == NULL) {
            roster->failed = true;
            return;
        }
        roster->devices = grown;
        roster->device_room = room;
    }
    roster->devices[roster->device_count++] = device_ref(device);
}

static void take_uplink(void *arg, const struct config_uplink *config, unsigned index,
                        struct sender *sender)
{
    struct roster *roster = arg;
    if (roster->uplink_count == ARRAY_SIZE(roster->uplinks)) {
        return; /* the store keeps no more either */
    }
    struct roster_uplink *uplink = &roster->uplinks[roster->uplink_count++];
    *uplink = (struct roster_uplink){.index = index};
    snprintf(uplink->name, sizeof uplink->name, "%s", config->name);
    snprintf(uplink->type, sizeof uplink->type, "%s", config->type);
    sender_status(sender, &uplink->status);
}

/* t2 before t10; after a reload the daemon's own order is any. */
static int by_name(const void *a, const void *b)
{
    const struct device *const *left = a, *const *right = b;
    return strverscmp((*left)->config->name, (*right)->config->name);
}

/* The sender looks at the store only when it may send; what waits while it backs off is the
 * ledger's to say. */
static void count_waiting(const struct api_host *host, struct roster *roster)
{
    for (size_t i = 0; i < roster->uplink_count; i++) {
        struct ledger_device total;
        struct roster_uplink *uplink = &roster->uplinks[i];
        if (store_ledger_total(host->store(host->user), (int)uplink->index, &total) == 0) {
            uplink->status.waiting = total.waiting;
        }
    }
}

int roster_take(const struct api_host *host, unsigned parts, struct roster *ret_roster)
{
    struct roster roster = {0};
    if (parts & ROSTER_DEVICES) {
        host->each_device(host->user, take_device, &roster);
    }
    if (parts & ROSTER_UPLINKS) {
        host->each_uplink(host->user, take_uplink, &roster);
        count_waiting(host, &roster);
    }
    if (roster.failed) {
        roster_finish(&roster);
        return -ENOMEM;
    }
    if (roster.device_count > 1) {
        qsort(roster.devices, roster.device_count, sizeof(struct device *), by_name);
    }
    *ret_roster = roster;
    return 0;
}

void roster_finish(struct roster *roster)
{
    for (size_t i = 0; i < roster->device_count; i++) {
        device_unref(roster->devices[i]);
    }
    free(roster->devices);
    *roster = (struct roster){0};
}

struct device *roster_find(const struct roster *roster, const char *name)
{
    for (size_t i = 0; i < roster->device_count; i++) {
        if (strcmp(roster->devices[i]->config->name, name) == 0) {
            return roster->devices[i];
        }
    }
    return NULL;
}
