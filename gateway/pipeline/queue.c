#include "gateway/pipeline/queue.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <time.h>

enum { RING_BYTES = QUEUE_SCAN_BYTES + QUEUE_CONTROL_RESERVE };

struct queue {
    pthread_mutex_t lock;
    pthread_cond_t wake;
    size_t max_readings;
    /* Under the lock. Entries lie from tail to head; one that would not fit before the end of the
     * ring starts at 0 again, and `end` says where the older ones stop. */
    size_t head, tail, used;
    size_t end;
    size_t pushes;
    bool urgent, pushed, sleeping;
    /* Written under the lock, also read without it. */
    _Atomic size_t readings, bytes, peak;
    /* The consumer's own: what it took since the last release, and where it may read up to. */
    size_t at, taken, taken_readings, visible, seen_end;
    uint8_t *ring;
};

int queue_create(size_t max_readings, struct queue **ret_queue)
{
    struct queue *q = calloc(1, sizeof *q);
    if (q == NULL) {
        return -ENOMEM;
    }
    /* Untouched pages cost nothing: the ring starts over at 0 whenever it runs empty. */
    q->ring = aligned_alloc(64, RING_BYTES);
    if (q->ring == NULL) {
        free(q);
        return -ENOMEM;
    }
    q->max_readings = max_readings;
    q->end = RING_BYTES;
    pthread_mutex_init(&q->lock, NULL);
    pthread_condattr_t attr;
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&q->wake, &attr);
    pthread_condattr_destroy(&attr);
    *ret_queue = q;
    return 0;
}

void queue_destroy(struct queue *q)
{
    if (q == NULL) {
        return;
    }
    pthread_cond_destroy(&q->wake);
    pthread_mutex_destroy(&q->lock);
    free(q->ring);
    free(q);
}

static size_t entry_size(size_t len)
{
    return (sizeof(struct queue_entry) + len + 7) & ~(size_t)7;
}

/* Where an entry of that size goes, or SIZE_MAX; ret_cost is its size and what is wasted before
 * it. */
static size_t find_place(const struct queue *q, size_t size, size_t *ret_cost)
{
    bool wrapped = q->used > 0 && q->head <= q->tail;
    size_t limit = wrapped ? q->tail : RING_BYTES;
    if (q->head + size <= limit) {
        *ret_cost = size;
        return q->head;
    }
    if (wrapped || size > q->tail) {
        return SIZE_MAX;
    }
    *ret_cost = size + (RING_BYTES - q->head);
    return 0;
}

static bool over_bound(const struct queue *q, const struct queue_entry *head, size_t cost)
{
    if (head->durable != NULL && q->pushes >= QUEUE_PUSHES_MAX) {
        return true;
    }
    return head->kind == QUEUE_SCAN &&
           (q->readings + head->readings > q->max_readings || q->used + cost > QUEUE_SCAN_BYTES);
}

static int push_locked(struct queue *q, const struct queue_entry *head, const void *payload,
                       size_t len)
{
    size_t size = entry_size(len), cost = 0;
    size_t place = find_place(q, size, &cost);
    if (place == SIZE_MAX || over_bound(q, head, cost)) {
        return -ENOBUFS;
    }
    if (place == 0 && q->head != 0) {
        q->end = q->head;
    }
    struct queue_entry *entry = (struct queue_entry *)(void *)(q->ring + place);
    *entry = *head;
    entry->size = (uint32_t)size;
    if (len > 0) {
        memcpy(entry->payload, payload, len);
    }
    q->head = place + size;
    q->used += cost;
    bool waits = head->durable != NULL;
    q->pushes += waits ? 1 : 0;
    q->pushed |= waits;
    q->urgent |= waits || head->kind != QUEUE_SCAN;
    return 0;
}

static bool quarter_full(const struct queue *q)
{
    return q->readings >= q->max_readings / QUEUE_WAKE_FRACTION ||
           q->used >= QUEUE_SCAN_BYTES / QUEUE_WAKE_FRACTION;
}

int queue_push(struct queue *q, const struct queue_entry *head, const void *payload, size_t len)
{
    pthread_mutex_lock(&q->lock);
    int r = push_locked(q, head, payload, len);
    bool wake = false;
    if (r == 0) {
        size_t readings = q->readings + (head->kind == QUEUE_SCAN ? head->readings : 0);
        atomic_store_explicit(&q->readings, readings, memory_order_relaxed);
        atomic_store_explicit(&q->bytes, q->used, memory_order_relaxed);
        if (readings > q->peak) {
            atomic_store_explicit(&q->peak, readings, memory_order_relaxed);
        }
        wake = q->sleeping && (q->urgent || quarter_full(q));
        q->sleeping = q->sleeping && !wake;
    }
    pthread_mutex_unlock(&q->lock);
    if (wake) {
        pthread_cond_signal(&q->wake);
    }
    return r;
}

bool queue_has_room(const struct queue *q, size_t readings)
{
    size_t bytes = entry_size(scan_size_for(readings, 0));
    return atomic_load_explicit(&q->readings, memory_order_relaxed) + readings <= q->max_readings &&
           atomic_load_explicit(&q->bytes, memory_order_relaxed) + bytes <= QUEUE_SCAN_BYTES;
}

size_t queue_readings(const struct queue *q)
{
    return atomic_load_explicit(&q->readings, memory_order_relaxed);
}

size_t queue_peak(const struct queue *q)
{
    return atomic_load_explicit(&q->peak, memory_order_relaxed);
}

bool queue_wait(struct queue *q, int64_t timeout_ms, bool *ret_pushed)
{
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    int64_t ns = until.tv_nsec + (timeout_ms > 0 ? timeout_ms % 1000 : 0) * 1000000;
    until.tv_sec += (time_t)((timeout_ms > 0 ? timeout_ms / 1000 : 0) + ns / 1000000000);
    until.tv_nsec = (long)(ns % 1000000000);
    pthread_mutex_lock(&q->lock);
    int r = 0;
    while (!q->urgent && !quarter_full(q) && r == 0 && timeout_ms > 0) {
        q->sleeping = true;
        r = pthread_cond_timedwait(&q->wake, &q->lock, &until);
    }
    q->sleeping = false;
    bool urgent = q->urgent || quarter_full(q);
    *ret_pushed = q->pushed;
    q->urgent = false;
    q->pushed = false;
    pthread_mutex_unlock(&q->lock);
    return urgent;
}

struct queue_entry *queue_take(struct queue *q)
{
    if (q->taken == q->visible) {
        pthread_mutex_lock(&q->lock);
        q->visible = q->used;
        q->seen_end = q->end;
        if (q->taken == 0) {
            q->at = q->tail;
        }
        pthread_mutex_unlock(&q->lock);
        if (q->taken == q->visible) {
            return NULL;
        }
    }
    if (q->at == q->seen_end) {
        q->taken += RING_BYTES - q->seen_end;
        q->at = 0;
    }
    struct queue_entry *entry = (struct queue_entry *)(void *)(q->ring + q->at);
    q->at += entry->size;
    q->taken += entry->size;
    q->taken_readings += entry->kind == QUEUE_SCAN ? entry->readings : 0;
    return entry;
}

void queue_release(struct queue *q)
{
    if (q->taken == 0) {
        return;
    }
    pthread_mutex_lock(&q->lock);
    q->used -= q->taken;
    q->tail = q->at;
    if (q->tail <= q->head) {
        q->end = RING_BYTES;
    }
    if (q->used == 0) {
        q->head = q->tail = q->at = 0;
        q->end = RING_BYTES;
    }
    atomic_store_explicit(&q->readings, q->readings - q->taken_readings, memory_order_relaxed);
    atomic_store_explicit(&q->bytes, q->used, memory_order_relaxed);
    pthread_mutex_unlock(&q->lock);
    q->taken = q->visible = q->taken_readings = 0;
}

void queue_push_settled(struct queue *q)
{
    pthread_mutex_lock(&q->lock);
    q->pushes -= q->pushes > 0 ? 1 : 0;
    pthread_mutex_unlock(&q->lock);
}

void queue_wake(struct queue *q)
{
    pthread_mutex_lock(&q->lock);
    q->urgent = true;
    q->sleeping = false;
    pthread_mutex_unlock(&q->lock);
    pthread_cond_signal(&q->wake);
}
