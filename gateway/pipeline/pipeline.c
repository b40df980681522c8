#include "gateway/pipeline/pipeline.h"

#include "gateway/base/clock.h"
#include "gateway/base/log.h"
#include "gateway/pipeline/durable.h"
#include "gateway/pipeline/presence.h"
#include "gateway/pipeline/salvage.h"
#include "gateway/pipeline/state.h"
#include "gateway/store/store.h"

#include <errno.h>
#include <string.h>

/* fn to run on the pipeline thread, and the caller who waits for it. */
struct pipeline_job {
    int (*fn)(void *user);
    void *user;
    int result;
    bool done, durable;
    pthread_mutex_t lock;
    pthread_cond_t finished;
};

int pipeline_create(struct store *store, const struct config *config,
                    struct pipeline **ret_pipeline)
{
    struct pipeline *p = calloc(1, sizeof *p);
    if (p == NULL) {
        return -ENOMEM;
    }
    p->store = store;
    p->failure_fd = -1;
    p->config = config_ref(config);
    pipeline_clock_init(p);
    p->scratch = calloc(1, scan_size_for(SCAN_READINGS_MAX, 0));
    int r = p->scratch == NULL ? -ENOMEM : queue_create(PIPELINE_QUEUE_READINGS, &p->queue);
    if (r == 0) {
        r = latest_create(&p->latest);
    }
    if (r < 0) {
        pipeline_destroy(p);
        return r;
    }
    *ret_pipeline = p;
    return 0;
}

/* What is still in the queue of a pipeline that never ran. */
static void discard(struct queue_entry *entry)
{
    if (entry->kind == QUEUE_CONFIG) {
        config_unref(entry->user);
    } else if (entry->kind != QUEUE_SCAN) {
        device_unref(entry->device);
    }
    if (entry->durable != NULL) {
        entry->durable(entry->user, -ECANCELED);
    }
}

void pipeline_destroy(struct pipeline *p)
{
    if (p == NULL) {
        return;
    }
    struct queue_entry *entry;
    while (p->queue != NULL && (entry = queue_take(p->queue)) != NULL) {
        discard(entry);
    }
    for (size_t i = 0; i < p->track_count; i++) {
        track_free(p->tracks[i]);
    }
    free(p->tracks);
    latest_destroy(p->latest);
    queue_destroy(p->queue);
    config_unref(p->config);
    free(p->scratch);
    free(p);
}

/* Devices come and go; in order with the scans. */

int pipeline_add_device(struct pipeline *p, struct device *device)
{
    int r = latest_attach(p->latest, device);
    if (r < 0) {
        return r;
    }
    device->pipeline = p;
    struct queue_entry head = {.kind = QUEUE_ADD, .device = device_ref(device)};
    r = queue_push(p->queue, &head, NULL, 0);
    if (r < 0) {
        device_unref(device);
    }
    return r;
}

int pipeline_retire_device(struct pipeline *p, struct device *device)
{
    struct queue_entry head = {.kind = QUEUE_RETIRE, .device = device_ref(device)};
    int r = queue_push(p->queue, &head, NULL, 0);
    if (r < 0) {
        device_unref(device);
    }
    return r;
}

static void add_device(struct pipeline *p, struct device *device)
{
    struct track *track = track_find(p, device->id);
    int r = track != NULL ? 0 : track_make(p, device->id, &track);
    if (r == 0) {
        r = track_attach(p, track, device);
    } else {
        device_unref(device);
    }
    if (r < 0) {
        log_error("device %s: not all of it can be processed: %s", device->config->name,
                  strerrordesc_np(-r));
    }
}

static void retire_device(struct pipeline *p, struct device *device)
{
    struct track *track = device->pipeline_data;
    if (track != NULL && track->device == device) {
        track_detach(p, track);
    }
    device_unref(device);
}

int pipeline_set_config(struct pipeline *p, const struct config *config)
{
    struct queue_entry head = {.kind = QUEUE_CONFIG, .user = (void *)config_ref(config)};
    int r = queue_push(p->queue, &head, NULL, 0);
    if (r < 0) {
        config_unref(config);
    }
    return r;
}

static void set_config(struct pipeline *p, const struct config *config)
{
    for (size_t i = 0; i < p->track_count; i++) {
        int r = track_set_aggregates(p, p->tracks[i], config, false);
        if (r < 0) {
            log_error("windows: not all of the new ones could be opened: %s", strerrordesc_np(-r));
        }
    }
    config_unref(p->config);
    p->config = config;
}

/* Events. */

void pipeline_event(struct pipeline *p, struct device *device, const char *kind, const char *text)
{
    auto_buffer struct buffer payload = {.max = SCAN_TEXT_MAX};
    buffer_add(&payload, kind, strlen(kind) + 1);
    buffer_add(&payload, text, strlen(text) + 1);
    struct queue_entry head = {.kind = QUEUE_EVENT,
                               .device = device != NULL ? device_ref(device) : NULL};
    int r = buffer_failed(&payload) ? -ENOMEM
                                    : queue_push(p->queue, &head, payload.data, payload.len);
    if (r < 0) {
        device_unref(device);
        log_warning("event %s is not recorded: %s", kind, strerrordesc_np(-r));
    }
}

/* The gateway's own events are those of a device by its name. */
static struct track *gateway_track(struct pipeline *p)
{
    if (p->gateway != NULL) {
        return p->gateway;
    }
    uint32_t id;
    if (store_device(p->store, p->config->gateway->name, "", &id) < 0) {
        return NULL;
    }
    struct track *track = track_find(p, id);
    if (track == NULL && track_make(p, id, &track) < 0) {
        return NULL;
    }
    p->gateway = track;
    return track;
}

int pipeline_record(struct pipeline *p, struct device *device, const char *kind, const char *text)
{
    struct track *track = device != NULL ? device->pipeline_data : NULL;
    track = track != NULL ? track : gateway_track(p);
    int r = track == NULL ? -ENOMEM : emit_event(p, track, kind, text);
    if (r < 0 && r != -ENOSPC) {
        log_warning("event %s is not recorded: %s", kind, strerrordesc_np(-r));
    }
    return r;
}

static void process_event(struct pipeline *p, struct queue_entry *entry)
{
    const char *kind = (const char *)entry->payload;
    pipeline_record(p, entry->device, kind, kind + strlen(kind) + 1);
    device_unref(entry->device);
}

/* What only the store's writer may do. */

static int call(struct pipeline *p, int (*fn)(void *user), void *user, bool durable)
{
    if (!p->running) {
        int r = fn(user);
        return r == 0 && durable ? store_commit(p->store) : r;
    }
    struct pipeline_job job = {.fn = fn, .user = user, .durable = durable};
    pthread_mutex_init(&job.lock, NULL);
    pthread_cond_init(&job.finished, NULL);
    struct queue_entry head = {.kind = QUEUE_CALL, .user = &job};
    int r = queue_push(p->queue, &head, NULL, 0);
    if (r == 0) {
        pthread_mutex_lock(&job.lock);
        while (!job.done) {
            pthread_cond_wait(&job.finished, &job.lock);
        }
        pthread_mutex_unlock(&job.lock);
        r = job.result;
    }
    pthread_cond_destroy(&job.finished);
    pthread_mutex_destroy(&job.lock);
    return r;
}

int pipeline_call(struct pipeline *p, int (*fn)(void *user), void *user)
{
    return call(p, fn, user, false);
}

int pipeline_call_durable(struct pipeline *p, int (*fn)(void *user), void *user)
{
    return call(p, fn, user, true);
}

static void process_call(struct pipeline *p, struct pipeline_job *job)
{
    int result = job->fn(job->user);
    if (result == 0 && job->durable) {
        pipeline_commit(p);
        result = atomic_load(&p->error);
    }
    pthread_mutex_lock(&job->lock);
    job->result = result;
    job->done = true;
    pthread_cond_signal(&job->finished);
    pthread_mutex_unlock(&job->lock);
}

/* The thread. */

static void process(struct pipeline *p, struct queue_entry *entry)
{
    switch ((enum queue_kind)entry->kind) {
    case QUEUE_SCAN:
        process_scan(p, entry);
        break;
    case QUEUE_ADD:
        add_device(p, entry->device);
        break;
    case QUEUE_RETIRE:
        retire_device(p, entry->device);
        break;
    case QUEUE_CONFIG:
        set_config(p, entry->user);
        break;
    case QUEUE_EVENT:
        process_event(p, entry);
        break;
    case QUEUE_DURABLE:
        durable_process(p, entry);
        break;
    case QUEUE_CALL:
        process_call(p, entry->user);
        break;
    }
}

static void settle_pushes(struct pipeline *p, int error)
{
    for (size_t i = 0; i < p->push_count; i++) {
        p->pushes[i].durable(p->pushes[i].user, error);
        queue_push_settled(p->queue);
    }
    p->push_count = 0;
}

void pipeline_commit(struct pipeline *p)
{
    pipeline_mind_clock(p);
    int64_t now_ms = pipeline_now_ms(p), mono_ms = clock_mono_ms();
    tracks_close_over(p, now_ms);
    for (size_t i = 0; i < p->track_count; i++) {
        track_count_overruns(p, p->tracks[i]);
    }
    if (p->windows_moved || mono_ms - p->hold_moved_ms >= PIPELINE_HOLD_MOVES_MS) {
        tracks_note(p, now_ms);
        p->windows_moved = false;
        p->hold_moved_ms = mono_ms;
    }
    int r = atomic_load(&p->error);
    r = r < 0 ? r : store_commit(p->store);
    if (r < 0 && r != -ENOSPC) {
        pipeline_fail(p, r);
    }
    settle_pushes(p, r);
    p->commit_due_ms = mono_ms + store_commit_interval_ms(p->store);
    pipeline_salvage_due(p, mono_ms);
}

static void drain(struct pipeline *p)
{
    struct queue_entry *entry;
    for (size_t taken = 1; (entry = queue_take(p->queue)) != NULL; taken++) {
        process(p, entry);
        if (taken % PIPELINE_RELEASE_ENTRIES == 0) {
            queue_release(p->queue);
        }
        if (store_pending_bytes(p->store) >= PIPELINE_COMMIT_BYTES) {
            pipeline_commit(p);
        }
    }
    queue_release(p->queue);
}

void pipeline_turn(struct pipeline *p)
{
    pipeline_watch_clock(p);
    drain(p);
    int64_t mono_ms = clock_mono_ms();
    bool commit = mono_ms >= p->commit_due_ms;
    /* Commits that somebody asks for put off the next one, but not this. */
    if (commit || mono_ms >= p->chores_due_ms) {
        p->chores_due_ms = mono_ms + store_commit_interval_ms(p->store);
        pipeline_snapshot(p);
        presence_look(p);
        pipeline_salvage_step(p);
    }
    if (commit) {
        pipeline_commit(p);
    }
    atomic_fetch_add_explicit(&p->turns, 1, memory_order_relaxed);
}

static void *run(void *arg)
{
    struct pipeline *p = arg;
    pthread_setname_np(pthread_self(), "pipeline");
    while (!atomic_load(&p->stopping)) {
        bool pushed;
        queue_wait(p->queue, p->commit_due_ms - clock_mono_ms(), &pushed);
        if (pushed) {
            int64_t soon_ms = clock_mono_ms() + PIPELINE_PUSH_GATHER_MS;
            p->commit_due_ms = soon_ms < p->commit_due_ms ? soon_ms : p->commit_due_ms;
        }
        pipeline_turn(p);
    }
    drain(p);
    pipeline_commit(p);
    return NULL;
}

int pipeline_start(struct pipeline *p)
{
    drain(p);
    store_hold_since(p->store, INT64_MIN); /* until it is known what open windows need */
    pipeline_mind_clock(p);
    pipeline_restore(p);
    p->clock.started = true;
    p->commit_due_ms = clock_mono_ms() + store_commit_interval_ms(p->store);
    int r = pthread_create(&p->thread, NULL, run, p);
    p->running = r == 0;
    return -r;
}

void pipeline_stop(struct pipeline *p)
{
    if (!p->running) {
        return;
    }
    atomic_store(&p->stopping, true);
    queue_wake(p->queue);
    pthread_join(p->thread, NULL);
    p->running = false;
}

int pipeline_error(struct pipeline *p)
{
    return atomic_load(&p->error);
}

void pipeline_tell_failure(struct pipeline *p, int eventfd)
{
    p->failure_fd = eventfd;
}

uint64_t pipeline_heartbeat(struct pipeline *p)
{
    queue_wake(p->queue);
    return atomic_load_explicit(&p->turns, memory_order_relaxed);
}

void pipeline_stats(struct pipeline *p, struct pipeline_stats *ret_stats)
{
    *ret_stats = (struct pipeline_stats){
        .queue_readings = queue_readings(p->queue),
        .queue_peak = queue_peak(p->queue),
        .overruns = atomic_load_explicit(&p->overruns, memory_order_relaxed),
        .late = atomic_load_explicit(&p->late, memory_order_relaxed),
        .windows_closed = atomic_load_explicit(&p->windows_closed, memory_order_relaxed),
    };
}

size_t pipeline_latest(struct pipeline *p, const struct device *device,
                       struct reading *ret_readings, int64_t *ret_times_ms)
{
    return latest_read(p->latest, device, ret_readings, ret_times_ms);
}

uint64_t pipeline_live_version(struct pipeline *p)
{
    return latest_version(p->latest);
}
