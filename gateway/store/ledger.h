/* ledger.h - the counts that must add up.
 *
 * In readings. Per device:  read = stored + suppressed + dropped(overrun, disk).
 * Per uplink and device:    stored = not selected + delivered + waiting + dead + thinned + expired.
 * They are part of the state record, so that they hold after any crash: what a commit did not cover
 * was never read. Plain data; a copy is taken by store_ledger() from any thread. */
#pragma once

#include "gateway/base/scan.h"

struct store;

enum ledger_count {
    LEDGER_READ,            /* handed over by drivers (raw stream) */
    LEDGER_STORED,          /* appended, raw stream */
    LEDGER_SUPPRESSED,      /* held back by on-change or deadband */
    LEDGER_DROPPED_OVERRUN, /* the queue was full */
    LEDGER_DROPPED_DISK,    /* the store was full (pause) or failed */
    LEDGER_DERIVED,         /* appended to the aggregate and event streams */
    LEDGER_SALVAGED, /* of these (read, stored; derived): out of a store that was set aside */
    LEDGER_LOST,     /* known to have been in that store, and not found again */
    LEDGER_COUNTS
};

enum ledger_fate { /* of a stored reading, per uplink, all its streams */
                   FATE_NOT_SELECTED,
                   FATE_DELIVERED,
                   FATE_DEAD,    /* refused by the endpoint for good */
                   FATE_THINNED, /* replaced by statistics, or dropped, because the store was full
                                  */
                   FATE_EXPIRED, /* older than the uplink's max_age */
                   FATE_COUNTS
};

const char *ledger_count_name(enum ledger_count count);
const char *ledger_fate_name(enum ledger_fate fate);

struct ledger_device {
    uint32_t device;
    const char *name; /* belongs to the store */
    uint64_t counts[LEDGER_COUNTS];
    uint64_t offered;            /* readings this uplink has had to look after since it began */
    uint64_t fates[FATE_COUNTS]; /* for the uplink asked for */
    uint64_t waiting;            /* offered - sum of fates */
};

/* Of all devices, as of the last commit, for one uplink (index of store_add_uplink; devices only
 * when it is negative). The caller frees *ret_devices. */
must_check int store_ledger(struct store *store, int uplink, struct ledger_device **ret_devices,
                            size_t *ret_count);
/* The same summed up; for uplink < 0 `waiting` and fates are of all uplinks together. */
must_check int store_ledger_total(struct store *store, int uplink, struct ledger_device *ret_total);
/* Uplinks known: the highest index + 1, and that one's name ("" when it was dropped; it stays valid
 * until store_drop_uplink). After a start these are the ones of the last run: what the
 * configuration does not name any more is to be dropped, or it is kept for. */
size_t store_uplinks(struct store *store);
const char *store_uplink_name(struct store *store, unsigned uplink);

/* Inside the store: the time of the first scan in large blocks that an uplink waits for (-1: any);
 * INT64_MAX: none. */
int64_t ledger_oldest_large_ms(struct store *store, int uplink);
