#include "gateway/store/salvage.h"

#include "gateway/pipeline/salvage.h"
#include "gateway/store/store.h"
#include "gateway/store/verify.h"

#include <errno.h>

/* A step a second at least, however long commits may gather otherwise. */
enum { SALVAGE_EVERY_MS = 1000 };

/* The identity of a scan that comes back is the next one of its device; what the device hands over
 * from then on counts on behind it, so that gaps still show. */
static uint64_t next_seq(void *user, uint32_t id, unsigned stream)
{
    struct pipeline *p = user;
    struct track *track = track_find(p, id);
    uint64_t last = store_last_seq(p->store, (enum stream)stream, id);
    if (track == NULL) {
        return last + 1;
    }
    track->seq[stream] = last > track->seq[stream] ? last : track->seq[stream];
    track->seq[stream]++;
    if (track->device != NULL) {
        atomic_fetch_add_explicit(&track->device->seq[stream], 1, memory_order_relaxed);
    }
    return track->seq[stream];
}

struct beginning {
    struct store *store;
    struct salvage_takers takers;
};

static int begin(void *user)
{
    const struct beginning *b = user;
    return store_salvage_start(b->store, &b->takers);
}

int pipeline_salvage(struct pipeline *p, int (*record)(void *user, const void *bytes, size_t len),
                     void *user)
{
    struct beginning b = {p->store, {next_seq, p, record, user}};
    return pipeline_call(p, begin, &b);
}

static void record(struct pipeline *p)
{
    struct store_salvage salvage;
    char text[300];
    store_salvage(p->store, &salvage);
    snprintf(text, sizeof(text),
             "%llu readings recovered from %s (%s), %llu blocks unreadable, %llu readings lost, "
             "%llu dead letters recovered",
             (unsigned long long)salvage.readings, salvage.from, salvage_state_name(salvage.state),
             (unsigned long long)salvage.bad, (unsigned long long)salvage.lost,
             (unsigned long long)salvage.letters);
    (void)pipeline_record(p, NULL, "salvage", text); /* says itself what it cannot do */
}

void pipeline_salvage_step(struct pipeline *p)
{
    if (atomic_load(&p->error) < 0) {
        return;
    }
    if (!store_salvage_busy(p->store)) {
        store_verify_step(p->store); /* one of them at a time */
        return;
    }
    int r = store_salvage_step(p->store);
    if (r == 1) {
        record(p);
    } else if (r == -EIO) {
        pipeline_fail(p, r);
    }
}

void pipeline_salvage_due(struct pipeline *p, int64_t mono_ms)
{
    if (store_salvage_busy(p->store) && p->commit_due_ms > mono_ms + SALVAGE_EVERY_MS) {
        p->commit_due_ms = mono_ms + SALVAGE_EVERY_MS;
    }
}
