#include "gateway/base/clock.h"
#include "gateway/base/log.h"
#include "gateway/store/check.h"
#include "gateway/store/internal.h"
#include "gateway/store/requeue.h"
#include "gateway/store/verify.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>

/* Auto: so many readings are worth a commit; between 1 s and 10 s. */
static const double auto_readings = 1000.0;
enum { AUTO_LEAST_MS = 1000, AUTO_MOST_MS = 10000 };

static int make(const char *dir, bool readonly, struct store **ret_store)
{
    struct store *store = calloc(1, sizeof(*store));
    if (store == NULL) {
        return -ENOMEM;
    }
    pthread_mutex_init(&store->lock, NULL);
    store->lock_fd = -1;
    store->readonly = readonly;
    store->pending.max = STORE_PENDING_MAX + 2 * WAL_MEMORY_MAX;
    store->block.max = WAL_RAW_MAX * 2;
    store->dead.max = DEAD_PENDING_MAX;
    store->hold_since_ms = INT64_MAX;
    store->decided = UINT64_MAX;
    store->day = -1;
    store->dir = strdup(dir);
    int rc = dictionary_create(&store->dictionary);
    if (rc == 0) {
        rc = wal_decoder_create(&store->decoder);
    }
    if (rc == 0 && !readonly) {
        rc = wal_encoder_create(&store->encoder);
    }
    if (rc == 0 && !readonly) {
        rc = flush_create(&store->flush);
    }
    if (rc == 0 && (store->dir == NULL || asprintf(&store->path, "%s/store", dir) < 0)) {
        store->path = NULL;
        rc = -ENOMEM;
    }
    if (rc < 0) {
        store_close(store);
        return rc;
    }
    *ret_store = store;
    return 0;
}

/* The state record as of the last commit. */
int store_read_state(struct store *store, struct state *ret_state)
{
    MDB_txn *txn = NULL;
    int rc = env_read(store->env, &txn);
    if (rc < 0) {
        return rc;
    }
    struct key key = key_plain(KEY_STATE);
    MDB_val value;
    rc = env_get(txn, &key, &value);
    if (rc == 0) {
        rc = state_decode(value.mv_data, value.mv_size, ret_state);
    }
    env_read_end(store->env, txn);
    return rc == -ENOENT ? -EBADMSG : rc;
}

static int load(struct store *store)
{
    int rc = store_read_state(store, &store->state);
    MDB_txn *txn = NULL;
    if (rc == 0) {
        rc = env_read(store->env, &txn);
    }
    if (rc < 0) {
        return rc;
    }
    rc = dictionary_load(store->dictionary, txn);
    if (rc == 0) {
        rc = store_clock_load(store, txn);
    }
    env_read_end(store->env, txn);
    if (rc == 0 && dictionary_count(store->dictionary) < store->state.device_count) {
        rc = -EBADMSG;
    }
    if (rc == 0) {
        rc = state_add_devices(&store->state, dictionary_count(store->dictionary));
    }
    store->newest = store->state.next - 1;
    salvage_load(store);
    return rc < 0 ? rc : flush_load(store);
}

static size_t file_bytes(const struct store *store)
{
    char file[4096];
    struct stat st;
    snprintf(file, sizeof(file), "%s/data.mdb", store->path);
    return stat(file, &st) < 0 || st.st_size < 0 ? 0 : (size_t)st.st_size;
}

static int set_aside(struct store *store)
{
    int rc = birth_quarantine(store->dir, &store->quarantined);
    if (rc == 0) {
        log_error("store: %s is damaged: set aside as %s, a fresh store begins", store->path,
                  store->quarantined);
    }
    return rc;
}

/* Sound, absent, or set aside: afterwards there is an environment to open. */
static int settle_environment(struct store *store)
{
    struct stat st;
    int rc = 0;
    if (lstat(store->path, &st) == 0) {
        rc = check_environment(store->path, false);
        if (rc == -EBADMSG) {
            rc = set_aside(store);
        } else {
            return rc;
        }
    }
    return rc < 0 ? rc : birth_create(store->dir, birth_map_bytes(store->max_bytes, 0));
}

static int open_writer(struct store *store)
{
    if (mkdir(store->dir, 0750) < 0 && errno != EEXIST) {
        return -errno;
    }
    int rc = birth_lock(store->dir, &store->lock_fd);
    if (rc < 0) {
        return rc;
    }
    store->max_bytes = birth_max_bytes(store->dir, store->settings.max_size_bytes);
    rc = settle_environment(store);
    if (rc == 0) {
        rc = env_open(store->path, birth_map_bytes(store->max_bytes, file_bytes(store)), ENV_WRITER,
                      &store->env);
    }
    if (rc == 0) {
        env_clear_readers(store->env);
        rc = load(store);
    }
    if (rc == 0 && env_is_flat(store->env)) {
        log_info("store: made by an earlier version: it stays as it is, and writes some pages more "
                 "with each commit than a fresh one");
    }
    return rc < 0 ? rc : store_clock_start(store);
}

static int open_once(const char *dir, const struct store_settings *settings, char **ret_aside,
                     struct store **ret_store)
{
    struct store *store = NULL;
    int rc = make(dir, false, &store);
    if (rc < 0) {
        return rc;
    }
    store->settings = *settings;
    store->interval_ms = settings->commit_interval_ms < 0 ? AUTO_LEAST_MS
                                                          : settings->commit_interval_ms;
    store->committed_mono_ms = clock_mono_ms();
    rc = open_writer(store);
    if (rc < 0) {
        env_close(take_ptr(store->env));
        if (rc == -EBADMSG && store->quarantined == NULL && set_aside(store) == 0) {
            *ret_aside = take_ptr(store->quarantined);
        }
        store_close(store);
        return rc;
    }
    *ret_store = store;
    return 0;
}

int store_open(const char *dir, const struct store_settings *settings, struct store **ret_store)
{
    auto_free char *aside = NULL;
    struct store *store = NULL;
    int rc = open_once(dir, settings, &aside, &store);
    if (aside != NULL) {
        /* Its pages were sound, what they hold was not: once more, without it. */
        auto_free char *again = NULL;
        rc = open_once(dir, settings, &again, &store);
    }
    if (rc < 0) {
        return rc;
    }
    if (aside != NULL) {
        free(store->quarantined);
        store->quarantined = take_ptr(aside);
    }
    *ret_store = store;
    return 0;
}

int store_open_readonly(const char *dir, struct store **ret_store)
{
    struct store *store = NULL;
    int rc = make(dir, true, &store);
    if (rc < 0) {
        return rc;
    }
    struct stat st;
    rc = lstat(store->path, &st) < 0 ? -errno : check_environment(store->path, true);
    if (rc == 0) {
        rc = env_open(store->path, 0, ENV_READER, &store->env);
    }
    if (rc == 0) {
        store->max_bytes = birth_max_bytes(dir, -1);
        rc = load(store);
    }
    if (rc < 0) {
        store_close(store);
        return rc;
    }
    *ret_store = store;
    return 0;
}

void store_close(struct store *store)
{
    if (store == NULL) {
        return;
    }
    salvage_stop(store);
    verify_stop(store);
    env_close(store->env);
    dictionary_destroy(store->dictionary);
    wal_encoder_destroy(store->encoder);
    memo_finish(&store->memo);
    flush_destroy(store->flush);
    requeue_destroy(store->requeue);
    wal_decoder_destroy(store->decoder);
    state_finish(&store->state);
    anchors_finish(&store->anchors);
    anchors_finish(&store->shown);
    buffer_finish(&store->pending);
    buffer_finish(&store->encoded);
    buffer_finish(&store->record);
    buffer_finish(&store->block);
    buffer_finish(&store->dead);
    buffer_finish(&store->letters);
    buffer_finish(&store->records);
    buffer_finish(&store->thinned);
    free(store->runs);
    free(store->run_of);
    free(store->rows);
    free(store->quarantined);
    free(store->path);
    free(store->dir);
    if (store->lock_fd >= 0) {
        close(store->lock_fd);
    }
    pthread_mutex_destroy(&store->lock);
    free(store);
}

const char *store_id(const struct store *store)
{
    return store->state.id;
}

const char *store_quarantined(const struct store *store)
{
    return store->quarantined;
}

int64_t store_commit_interval_ms(const struct store *store)
{
    return store->interval_ms;
}

void store_adapt_interval(struct store *store)
{
    int64_t interval = store->settings.commit_interval_ms;
    if (interval < 0) {
        double ms = store->rate > 0 ? auto_readings * 1000.0 / store->rate : AUTO_MOST_MS;
        interval = ms < AUTO_LEAST_MS  ? AUTO_LEAST_MS
                   : ms > AUTO_MOST_MS ? AUTO_MOST_MS
                                       : (int64_t)ms;
    }
    store->interval_ms = interval;
}

void store_set_settings(struct store *store, const struct store_settings *settings)
{
    store->settings = *settings;
    uint64_t max_bytes = birth_max_bytes(store->dir, settings->max_size_bytes);
    size_t map = birth_map_bytes(max_bytes, file_bytes(store));
    if (map > env_map_bytes(store->env) && env_resize(store->env, map) < 0) {
        log_warning("store: max_size stays at %llu bytes until the next start",
                    (unsigned long long)store->max_bytes);
        max_bytes = store->max_bytes;
    }
    store_lock(store);
    store->max_bytes = max_bytes;
    store_unlock(store);
    store->full = false;
    store->blocker.number = 0;
    store_adapt_interval(store);
}

int store_device(struct store *store, const char *name, const char *tags_json, uint32_t *ret_id)
{
    uint32_t id;
    int rc = dictionary_device(store->dictionary, name, tags_json, &id);
    if (rc < 0) {
        return rc;
    }
    store_lock(store);
    rc = state_add_devices(&store->state, dictionary_count(store->dictionary));
    store_unlock(store);
    if (rc == 0) {
        *ret_id = id;
    }
    return rc;
}

int store_point(struct store *store, uint32_t device, const char *name, const char *unit,
                uint16_t *ret_id)
{
    return dictionary_point(store->dictionary, device, name, unit, ret_id);
}

const struct store_names *store_names(struct store *store, uint32_t device)
{
    return dictionary_names(store->dictionary, device);
}

uint64_t store_last_seq(struct store *store, enum stream stream, uint32_t device)
{
    return device == 0 || device > store->state.device_count
               ? 0
               : store->state.devices[device - 1].seq[stream];
}

/* What is stored so far is none of this uplink's business in that stream. */
static void start_from_now(struct store *store, struct state_uplink *uplink, unsigned stream)
{
    for (size_t i = 0; i < store->state.device_count; i++) {
        struct track *track = &uplink->devices[i].streams[stream];
        uplink->devices[i].fates[FATE_NOT_SELECTED] += track->waiting;
        track->waiting = track->coming = 0;
        ranges_raise(&track->settled, store->state.devices[i].seq[stream]);
    }
}

static int find_uplink(const struct store *store, const char *name)
{
    for (int u = 0; u < STORE_UPLINKS_MAX; u++) {
        const char *known = store->state.uplinks[u].name;
        if (known != NULL && strcmp(known, name) == 0) {
            return u;
        }
    }
    return -1;
}

static int add_uplink_locked(struct store *store, const char *name, unsigned streams,
                             int64_t max_age_ms, unsigned *ret_uplink)
{
    int found = find_uplink(store, name);
    unsigned u = (unsigned)found;
    if (found < 0) {
        int rc = state_add_uplink(&store->state, name, &u);
        if (rc < 0) {
            return rc;
        }
        store->state.uplinks[u].floor = store->state.next;
        store->state.uplinks[u].expiry = store->state.next;
    }
    struct state_uplink *uplink = &store->state.uplinks[u];
    for (unsigned s = 0; s < STREAM_COUNT; s++) {
        /* Newly selected: from now on. No longer selected: what waits is let go. */
        if (((uplink->streams ^ streams) & (1u << s)) != 0) {
            start_from_now(store, uplink, s);
        }
    }
    uplink->streams = streams;
    uplink->max_age_ms = max_age_ms;
    *ret_uplink = u;
    return 0;
}

int store_add_uplink(struct store *store, const char *name, unsigned streams, int64_t max_age_ms,
                     unsigned *ret_uplink)
{
    if (name[0] == '\0') {
        return -EINVAL;
    }
    commit_offer(store);
    store_lock(store);
    int rc = add_uplink_locked(store, name, streams, max_age_ms, ret_uplink);
    store_unlock(store);
    store->counted |= rc == 0;
    return rc;
}

void store_drop_uplink(struct store *store, unsigned uplink)
{
    store_lock(store);
    if (uplink < STORE_UPLINKS_MAX && store->state.uplinks[uplink].name != NULL) {
        state_drop_uplink(&store->state, uplink);
    }
    store_unlock(store);
    store->blocker.number = 0;
    store->counted = true;
}

void store_set_note(struct store *store, const char *name, int64_t value)
{
    store_lock(store);
    int rc = state_set_note(&store->state, name, value);
    store_unlock(store);
    if (rc < 0) {
        log_error("store: no room for the note %s", name);
    }
    store->counted = true;
}

bool store_note(struct store *store, const char *name, int64_t *ret_value)
{
    const struct state_note *note = state_note(&store->state, name);
    if (note != NULL) {
        *ret_value = note->value;
    }
    return note != NULL;
}

void store_hold_since(struct store *store, int64_t time_ms)
{
    store->hold_since_ms = time_ms;
}

size_t store_pending_bytes(const struct store *store)
{
    return store->pending.len;
}
