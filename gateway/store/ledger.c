#include "gateway/store/ledger.h"

#include "gateway/base/clock.h"
#include "gateway/store/internal.h"
#include "gateway/store/large.h"

#include <errno.h>

const char *ledger_count_name(enum ledger_count count)
{
    static const char *const names[LEDGER_COUNTS] = {
        [LEDGER_READ] = "read",
        [LEDGER_STORED] = "stored",
        [LEDGER_SUPPRESSED] = "suppressed",
        [LEDGER_DROPPED_OVERRUN] = "dropped_overrun",
        [LEDGER_DROPPED_DISK] = "dropped_disk",
        [LEDGER_DERIVED] = "derived",
        [LEDGER_SALVAGED] = "salvaged",
        [LEDGER_LOST] = "lost",
    };
    return count < LEDGER_COUNTS ? names[count] : "?";
}

const char *ledger_fate_name(enum ledger_fate fate)
{
    static const char *const names[FATE_COUNTS] = {
        [FATE_NOT_SELECTED] = "not_selected", [FATE_DELIVERED] = "delivered", [FATE_DEAD] = "dead",
        [FATE_THINNED] = "thinned",           [FATE_EXPIRED] = "expired",
    };
    return fate < FATE_COUNTS ? names[fate] : "?";
}

struct track *ledger_track(struct store *store, unsigned uplink, unsigned stream, uint32_t device)
{
    struct state_uplink *u = &store->state.uplinks[uplink];
    if (u->name == NULL || (u->streams & (1u << stream)) == 0 || device == 0 ||
        device > store->state.device_count) {
        return NULL;
    }
    return &u->devices[device - 1].streams[stream];
}

static void add_uplink(const struct state_uplink *uplink, size_t i, struct ledger_device *ret)
{
    uint64_t waiting = 0, settled = 0;
    for (unsigned s = 0; s < STREAM_COUNT; s++) {
        waiting += uplink->devices[i].streams[s].waiting;
    }
    for (unsigned f = 0; f < FATE_COUNTS; f++) {
        ret->fates[f] += uplink->devices[i].fates[f];
        settled += uplink->devices[i].fates[f];
    }
    ret->waiting += waiting;
    ret->offered += waiting + settled;
}

static void fill(const struct state *state, size_t i, int uplink, struct ledger_device *ret)
{
    for (unsigned c = 0; c < LEDGER_COUNTS; c++) {
        ret->counts[c] += state->devices[i].counts[c];
    }
    for (int u = 0; u < STORE_UPLINKS_MAX; u++) {
        if (state->uplinks[u].name != NULL && (uplink < 0 || uplink == u)) {
            add_uplink(&state->uplinks[u], i, ret);
        }
    }
}

/* One that was added since the last commit is known, with nothing to its account yet. */
static bool unknown(struct store *store, const struct state *state, int uplink)
{
    if (uplink < 0 || uplink >= STORE_UPLINKS_MAX) {
        return uplink >= 0;
    }
    return state->uplinks[uplink].name == NULL &&
           store_uplink_name(store, (unsigned)uplink)[0] == '\0';
}

int store_ledger(struct store *store, int uplink, struct ledger_device **ret_devices,
                 size_t *ret_count)
{
    struct state state = {0};
    int rc = store_read_state(store, &state);
    if (rc < 0) {
        return rc;
    }
    struct ledger_device *devices = calloc(state.device_count + 1, sizeof(*devices));
    if (devices == NULL || unknown(store, &state, uplink)) {
        rc = devices == NULL ? -ENOMEM : -ENOENT;
        free(devices);
        state_finish(&state);
        return rc;
    }
    for (size_t i = 0; i < state.device_count; i++) {
        const struct store_names *names = store_names(store, (uint32_t)i + 1);
        devices[i].device = (uint32_t)i + 1;
        devices[i].name = names == NULL ? "" : names->device;
        if (uplink < 0) {
            struct ledger_device all = {0};
            fill(&state, i, -1, &all);
            all.device = devices[i].device;
            all.name = devices[i].name;
            devices[i] = all;
        } else {
            fill(&state, i, uplink, &devices[i]);
        }
    }
    *ret_devices = devices;
    *ret_count = state.device_count;
    state_finish(&state);
    return 0;
}

int store_ledger_total(struct store *store, int uplink, struct ledger_device *ret_total)
{
    struct state state = {0};
    int rc = store_read_state(store, &state);
    if (rc < 0) {
        return rc;
    }
    if (unknown(store, &state, uplink)) {
        state_finish(&state);
        return -ENOENT;
    }
    *ret_total = (struct ledger_device){.name = ""};
    for (size_t i = 0; i < state.device_count; i++) {
        fill(&state, i, uplink, ret_total);
    }
    state_finish(&state);
    return 0;
}

size_t store_uplinks(struct store *store)
{
    size_t count = 0;
    store_lock(store);
    for (size_t u = 0; u < STORE_UPLINKS_MAX; u++) {
        count = store->state.uplinks[u].name != NULL ? u + 1 : count;
    }
    store_unlock(store);
    return count;
}

const char *store_uplink_name(struct store *store, unsigned uplink)
{
    store_lock(store);
    const char *name = uplink < STORE_UPLINKS_MAX ? store->state.uplinks[uplink].name : NULL;
    store_unlock(store);
    return name == NULL ? "" : name;
}

/* Readings that at least one uplink waits for; a lower bound where several wait for different
 * ones. And the first block that may hold them. */
static uint64_t waiting(const struct state *state, uint64_t *ret_floor)
{
    uint64_t total = 0;
    *ret_floor = UINT64_MAX;
    for (size_t i = 0; i < state->device_count; i++) {
        for (unsigned s = 0; s < STREAM_COUNT; s++) {
            uint64_t most = 0;
            for (unsigned u = 0; u < STORE_UPLINKS_MAX; u++) {
                const struct state_uplink *uplink = &state->uplinks[u];
                uint64_t one = uplink->name == NULL ? 0 : uplink->devices[i].streams[s].waiting;
                most = one > most ? one : most;
                if (one > 0 && uplink->floor < *ret_floor) {
                    *ret_floor = uplink->floor;
                }
            }
            total += most;
        }
    }
    return total;
}

/* The time of the oldest scan in the first block from `floor` on; 0: none. */
static int64_t oldest_ms(struct store *store, uint64_t floor)
{
    MDB_txn *txn = NULL;
    if (floor == UINT64_MAX || env_read(store->env, &txn) < 0) {
        return 0;
    }
    MDB_val value;
    uint64_t number = UINT64_MAX;
    struct wal_header header = {0};
    if (env_seek(txn, KEY_WAL, floor, &number, &value) < 0 ||
        wal_read_header(value.mv_data, value.mv_size, &header) < 0) {
        number = UINT64_MAX;
    }
    env_read_end(store->env, txn);
    if (number == UINT64_MAX) {
        return 0;
    }
    store_lock(store);
    store_clock_header(&store->shown, number, &header);
    store_unlock(store);
    return header.time_min_ms;
}

/* What an uplink (all: -1) waits for first of that device and stream in large blocks; 0: nothing.
 * Under the lock. */
static uint64_t open_seq(struct store *store, int uplink, unsigned stream, uint32_t device)
{
    uint64_t flushed = store->state.devices[device - 1].flushed[stream], first = 0;
    for (unsigned u = 0; u < STORE_UPLINKS_MAX && flushed > 0; u++) {
        const struct track *track = ledger_track(store, u, stream, device);
        if (track == NULL || (uplink >= 0 && u != (unsigned)uplink)) {
            continue;
        }
        uint64_t open = ranges_next_open(&track->settled, 1);
        first = open <= flushed && (first == 0 || open < first) ? open : first;
    }
    return first;
}

int64_t ledger_oldest_large_ms(struct store *store, int uplink)
{
    MDB_txn *txn = NULL;
    int64_t oldest = INT64_MAX;
    if (env_read(store->env, &txn) < 0) {
        return oldest;
    }
    store_lock(store);
    size_t devices = store->state.device_count;
    store_unlock(store);
    for (uint32_t d = 1; d <= devices; d++) {
        for (unsigned s = 0; s < STREAM_COUNT; s++) {
            struct large large;
            MDB_val value;
            store_lock(store);
            uint64_t open = open_seq(store, uplink, s, d);
            store_unlock(store);
            if (open > 0 && large_find(txn, s, d, open, &large, &value) == 0 && !large.damaged &&
                large.min_ms < oldest) {
                oldest = large.min_ms;
            }
        }
    }
    env_read_end(store->env, txn);
    return oldest;
}

static uint64_t used_bytes(struct store *store)
{
    MDB_txn *txn = NULL;
    uint64_t pages = env_pages(store->env), free_pages = 0;
    if (env_read(store->env, &txn) < 0) {
        return 0;
    }
    int rc = env_free_pages(txn, &free_pages);
    env_read_end(store->env, txn);
    return rc < 0 || free_pages > pages ? 0 : (pages - free_pages) * env_page_size(store->env);
}

/* Bytes a reading of what is stored, by the first large blocks, or of the log without any. */
static double rest_bytes(struct store *store)
{
    enum { SAMPLE = 512 };
    MDB_txn *txn = NULL;
    uint64_t bytes = 0, readings = 0, number = 0;
    if (env_read(store->env, &txn) < 0) {
        return 0;
    }
    struct key key = key_large(0, 0, 0);
    MDB_val name, value;
    struct large large;
    for (unsigned i = 0; i < SAMPLE && env_seek_key(txn, &key, &name, &value) == 0 &&
                         large_read(&name, &value, &large);
         i++) {
        bytes += name.mv_size + value.mv_size;
        readings += large.readings;
        key = key_large(large.stream, large.device, large.first_seq + 1);
    }
    bool logged = bytes == 0;
    for (unsigned i = 0; logged && i < SAMPLE; i++) {
        struct wal_header header;
        if (env_seek(txn, KEY_WAL, number, &number, &value) < 0) {
            break;
        }
        if (wal_read_header(value.mv_data, value.mv_size, &header) == 0) {
            bytes += value.mv_size;
            readings += header.readings;
        }
        number++;
    }
    env_read_end(store->env, txn);
    return readings == 0 ? 0 : (double)bytes / (double)readings;
}

void store_stat(struct store *store, struct store_stat *ret_stat)
{
    struct state read = {0};
    uint64_t floor;
    bool fresh = store->readonly && store_read_state(store, &read) == 0;
    store_lock(store);
    const struct state *state = fresh ? &read : &store->state;
    struct store_stat stat = {
        .room = store->pressure.room,
        .disk_full = store->pressure.room != STORE_ROOM_ENOUGH && store->pressure.disk_full,
        .waiting = waiting(state, &floor),
        .max_bytes = store->max_bytes,
        .seconds_left = -1,
        .commits = state->commits,
        .readings = state->readings,
        .bytes_appended = state->bytes,
        .commit_us_last = store->commit_us_last,
        .commit_us_max = store->commit_us_max,
        .blocks = state->blocks,
        .made_ms = state->made_ms,
    };
    const struct state_note *written = state_note(state, STORE_WRITTEN_NOTE);
    stat.written_bytes = written == NULL ? 0 : (uint64_t)written->value;
    double growth = store->growth;
    store_unlock(store);
    state_finish(&read);
    stat.oldest_ms = oldest_ms(store, floor);
    if (stat.waiting > 0) {
        int64_t large_ms = ledger_oldest_large_ms(store, -1);
        stat.oldest_ms = large_ms < stat.oldest_ms || stat.oldest_ms == 0 ? large_ms
                                                                          : stat.oldest_ms;
        stat.oldest_ms = stat.oldest_ms == INT64_MAX ? 0 : stat.oldest_ms;
    }
    stat.bytes = used_bytes(store);
    stat.rest_bytes = rest_bytes(store);
    if (stat.waiting > 0 && growth > 0) {
        uint64_t left = stat.max_bytes > stat.bytes ? stat.max_bytes - stat.bytes : 0;
        stat.seconds_left = (int64_t)((double)left / growth);
    }
    *ret_stat = stat;
}
