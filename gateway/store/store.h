/* store.h - every reading, durable, until it was handed over and kept long enough.
 *
 * One LMDB environment under data_dir/store. One writer: the pipeline thread calls what is marked
 * [writer]; everything else may be called from any thread. Times are UTC milliseconds, counts are
 * readings unless they say scans. LMDB codes are translated to -errno here: -ENOSPC full, -EIO the
 * disk failed (latched: nothing is acknowledged any more, restart), -EBADMSG damaged. */
#pragma once

#include "config/schema.h"
#include "gateway/base/scan.h"
#include "gateway/store/ledger.h"

struct store;

enum store_when_full { STORE_FULL_THIN, STORE_FULL_DROP_OLDEST, STORE_FULL_PAUSE };

/* [store]; the table is store_config_table. commit_interval_ms -1: auto. max_size -1: default. */
struct store_settings {
    int64_t commit_interval_ms, max_size_bytes, keep_ms;
    int when_full;
};
extern const struct config_table store_config_table;

/* Opens or makes the store in dir/store. A damaged one is set aside and a fresh one begins; then
 * store_quarantined() says under which name. -EBUSY: another process is its writer. */
must_check int store_open(const char *dir, const struct store_settings *settings,
                          struct store **ret_store);
/* For `history`, `ledger`, `store stat` beside a running daemon or without one: reads only. */
must_check int store_open_readonly(const char *dir, struct store **ret_store);
void store_close(struct store *store);

const char *store_id(const struct store *store); /* 12 hex digits */
const char *store_quarantined(const struct store *store);
/* How long the writer may gather before the next commit, by settings and present rate. */
int64_t store_commit_interval_ms(const struct store *store);
/* New settings after a reload; the file is not touched by it. [writer] */
void store_set_settings(struct store *store, const struct store_settings *settings);

/* Names to ids, made on first use and kept for ever; durable with the next commit. [writer]
 * tags_json is a JSON object or "". A changed unit or tag set is a new version of the entry. */
must_check int store_device(struct store *store, const char *name, const char *tags_json,
                            uint32_t *ret_id);
must_check int store_point(struct store *store, uint32_t device, const char *name, const char *unit,
                           uint16_t *ret_id);
/* The last seq appended (after a start: committed), 0 when none. [writer] */
uint64_t store_last_seq(struct store *store, enum stream stream, uint32_t device);

/* An uplink that the store keeps readings for, found again by name; streams is a bit set
 * (1 << STREAM_RAW ...). max_age_ms 0: none. At most STORE_UPLINKS_MAX. A new uplink starts at
 * what is stored from now on. [writer, or before the pipeline starts] */
enum { STORE_UPLINKS_MAX = 16 };
must_check int store_add_uplink(struct store *store, const char *name, unsigned streams,
                                int64_t max_age_ms, unsigned *ret_uplink);
/* It is in the configuration no longer: nothing is kept for it. [writer] */
void store_drop_uplink(struct store *store, unsigned uplink);

/* Puts a scan (store ids, seq set) into the commit at hand; a copy is made. Its readings are
 * counted here, as LEDGER_STORED (raw) or LEDGER_DERIVED. Commits by itself at STORE_PENDING_MAX.
 * [writer] -ENOSPC: full and when_full says pause; the caller counts the drop. -EINVAL: no scan of
 * a known device, or its seq is not above the last one. -EIO: latched. */
enum { STORE_PENDING_MAX = 2 * 1024 * 1024 };
must_check int store_append(struct store *store, const struct scan *scan);
/* Adds to a device's ledger, written with the next commit. [writer] */
void store_count(struct store *store, uint32_t device, enum ledger_count count, uint64_t readings);
/* Makes durable everything appended, counted and marked since the last one, in one synchronous
 * transaction; reclaims in the same. Nothing to write: returns 0 and touches nothing. [writer] */
must_check int store_commit(struct store *store);
/* What waits for a commit: bytes appended; and whether marks or counts are pending. [writer] */
size_t store_pending_bytes(const struct store *store);
bool store_has_pending(struct store *store);

/* Small facts of the pipeline (how far windows were closed), durable with the next commit. [writer]
 */
void store_set_note(struct store *store, const char *name, int64_t value);
bool store_note(struct store *store, const char *name, int64_t *ret_value);
/* Small records by number (what became of commands), durable with the next commit; len 0 forgets
 * one. [writer] -EMSGSIZE: too long, -ENOBUFS: too much waits for a commit, -ENOMEM. */
enum { STORE_RECORD_MAX = 4096, STORE_RECORDS_PENDING_MAX = 256 * 1024 };
must_check int store_set_record(struct store *store, uint64_t number, const void *bytes,
                                size_t len);
/* The first committed one with a number of at least `from`, copied. -ENOENT: none. */
must_check int store_copy_record(struct store *store, uint64_t from, uint64_t *ret_number,
                                 struct buffer *ret_bytes);
/* Raw scans since then are not reclaimed (open windows are rebuilt from them). [writer] */
void store_hold_since(struct store *store, int64_t time_ms);

/* What becomes of readings for want of room; shown for five seconds after it was so. */
enum store_room {
    STORE_ROOM_ENOUGH,
    STORE_ROOM_THINNING, /* the oldest that wait become statistics */
    STORE_ROOM_DROPPING, /* the oldest that wait are dropped */
    STORE_ROOM_REFUSING, /* new ones are refused and counted */
    STORE_ROOMS
};
const char *store_room_name(enum store_room room); /* "enough", "thinning", ... */

struct store_stat {
    enum store_room room;
    bool disk_full;    /* the file system leaves less than max_size */
    uint64_t waiting;  /* readings some uplink still has to deliver */
    int64_t oldest_ms; /* of them, UTC; 0: none */
    uint64_t bytes, max_bytes;
    int64_t seconds_left; /* until full at the present rate; -1: does not fill */
    uint64_t commits, readings, bytes_appended;
    int64_t commit_us_last, commit_us_max;
    uint64_t blocks;
    int64_t made_ms;        /* UTC */
    uint64_t written_bytes; /* given to the device since then: an estimate by pages */
    double rest_bytes;      /* a reading in the blocks that are there, of a sample; 0: none is */
};
void store_stat(struct store *store, struct store_stat *ret_stat);

/* Scans of a stream with from_ms <= time < to_ms, of one device (0: all), in storage order; fn
 * returns non-zero to stop, which is returned. Short read transactions inside. */
must_check int store_history(struct store *store, enum stream stream, uint32_t device,
                             int64_t from_ms, int64_t to_ms,
                             int (*fn)(void *user, const struct scan *scan), void *user);
/* Checks every block against its checksum; the number of bad ones in ret_bad. */
must_check int store_verify(struct store *store, uint64_t *ret_blocks, uint64_t *ret_bad);
