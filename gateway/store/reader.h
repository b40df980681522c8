/* reader.h - how an uplink walks over what it still has to deliver.
 *
 * One reader an uplink, owned by the uplink's thread. It copies scans out in short read
 * transactions, so nothing of LMDB is held while a network is waited for. The reader remembers what
 * it handed out (in flight); store_settle() says what became of it, and the store's writer makes
 * that durable with its next commit. Within a device scans come in seq order. */
#pragma once

#include "gateway/store/store.h"

struct store_reader;

/* Names and tags of a device and its points as the store knows them; immutable, any thread, valid
 * until store_close(). */
struct store_point_name {
    const char *name, *unit;
    uint16_t name_len;
};
struct store_names {
    const char *device;
    const char *tags_json; /* "{...}" or "" */
    size_t point_count;
    const struct store_point_name *points; /* by point id; name NULL where unknown */
};
const struct store_names *store_names(struct store *store, uint32_t device);

enum store_lane {
    STORE_LANE_LIVE,     /* newer than the reader's start (or its last store_reader_split) */
    STORE_LANE_BACKFILL, /* older, oldest first */
    STORE_LANES
};

/* split: everything that waits now is backfill, what comes is live; otherwise one lane (backfill
 * order, all of it) is served as STORE_LANE_BACKFILL. */
must_check int store_reader_create(struct store *store, unsigned uplink, bool split,
                                   struct store_reader **ret_reader);
void store_reader_destroy(struct store_reader *reader);

/* After an outage: what waits and is not in flight becomes backfill, live starts now. */
void store_reader_split(struct store_reader *reader);

/* An eventfd that becomes readable after a commit brought something; poll it, then
 * store_reader_seen(). */
int store_reader_eventfd(struct store_reader *reader);
void store_reader_seen(struct store_reader *reader);

/* The next scans of that lane and stream, at most max_scans and about max_bytes of scan memory,
 * in device order (all of one device together, in seq order), from devices that have nothing of
 * that lane in flight with this reader. They are now in flight. ret_scans points into ret_arena,
 * both are the caller's. 0 scans: nothing at present. -EBADMSG: a damaged block was counted and
 * passed over, call again. */
must_check int store_reader_take(struct store_reader *reader, enum store_lane lane,
                                 enum stream stream, size_t max_scans, size_t max_bytes,
                                 struct buffer *ret_arena, const struct scan ***ret_scans,
                                 size_t *ret_count);

/* What became of a run of scans of one device that was taken together; they leave flight. Counts
 * are readings. Not delivered at all (retry another cut later): store_reader_return(). */
struct store_settlement {
    enum stream stream;
    uint32_t device;
    uint64_t first_seq, last_seq;
    uint64_t fates[FATE_COUNTS];
};
must_check int store_reader_settle(struct store_reader *reader,
                                   const struct store_settlement *settlement);
void store_reader_return(struct store_reader *reader, enum stream stream, uint32_t device,
                         uint64_t first_seq, uint64_t last_seq);

/* Passes over a device, in all streams, until store_reader_release(): an endpoint that does not
 * take this one shall not keep the others from being sent. What was read ahead of it is forgotten,
 * so that it takes no room; what is in flight of it may be settled or returned. False: no such
 * device. */
bool store_reader_hold(struct store_reader *reader, uint32_t device);
/* Its scans come again, in order. */
void store_reader_release(struct store_reader *reader, uint32_t device);

/* Keeps a refused scan with the reason under `d` (dead.h), durable with the next commit; counted by
 * the settlement's FATE_DEAD, not here. refused: indexes of the readings, NULL: all of them. */
must_check int store_dead_letter(struct store_reader *reader, const struct scan *scan,
                                 const uint16_t *refused, uint16_t refused_count, const char *why);

struct store_backlog {
    uint64_t scans[STORE_LANES], readings[STORE_LANES]; /* estimated where not yet read */
    uint64_t held;     /* readings of the devices that are passed over, not in those above */
    int64_t oldest_ms; /* 0: nothing waits */
};
void store_reader_backlog(struct store_reader *reader, struct store_backlog *ret_backlog);
