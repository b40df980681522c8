/* queue.h - the bounded hand-over from the field, bus, api and main threads to the pipeline.
 *
 * Many producers, one consumer, strictly in order of arrival. A ring of bytes: entries lie in it
 * whole, and the consumer works on them in place. Scans are bounded by readings and by bytes;
 * control messages (small, rare) may also use a reserve that scans leave alone. The consumer is
 * woken only when something cannot wait: a control message, a pushed scan, a queue a quarter
 * full; otherwise it comes by itself when its commit is due. */
#pragma once

#include "gateway/base/scan.h"

struct device;
struct queue;

enum {
    QUEUE_SCAN_BYTES = 4 << 20,      /* bound of all scans in the queue, with their texts */
    QUEUE_CONTROL_RESERVE = 1 << 20, /* on top of it, for control messages */
    QUEUE_PUSHES_MAX = 1024,         /* pushed scans and records whose senders wait */
    QUEUE_WAKE_FRACTION = 4,         /* a quarter full wakes the consumer */
};

enum queue_kind {
    QUEUE_SCAN,
    QUEUE_ADD,
    QUEUE_RETIRE,
    QUEUE_CONFIG,
    QUEUE_EVENT,
    QUEUE_DURABLE,
    QUEUE_CALL
};

/* What a producer says of an entry; the payload (scan, text) is copied behind it. */
struct queue_entry {
    uint32_t size; /* in the ring, set by the queue */
    uint16_t kind; /* enum queue_kind */
    uint16_t readings;
    struct device *device;                  /* not referenced by the queue */
    void (*durable)(void *user, int error); /* of a scan or record: whom to tell, or NULL */
    void *user;
    uint64_t payload[];
};

must_check int queue_create(size_t max_readings, struct queue **ret_queue);
void queue_destroy(struct queue *queue);

/* Puts a copy of head and payload at the end. Any thread, never blocks for longer than a copy.
 * -ENOBUFS: at its bound. */
must_check int queue_push(struct queue *queue, const struct queue_entry *head, const void *payload,
                          size_t len);

/* Whether a scan of that many readings would find room now (another thread may take it). */
bool queue_has_room(const struct queue *queue, size_t readings);
size_t queue_readings(const struct queue *queue);
size_t queue_peak(const struct queue *queue);

/* Consumer. Sleeps until something cannot wait, or for timeout_ms. Returns whether something could
 * not wait; `ret_pushed` says that among it is a scan whose sender waits. */
bool queue_wait(struct queue *queue, int64_t timeout_ms, bool *ret_pushed);

/* Consumer. The next entry in place, or NULL; it stays valid, and its room taken, until
 * queue_release(), which frees all that were taken so far. */
struct queue_entry *queue_take(struct queue *queue);
void queue_release(struct queue *queue);

/* Consumer: a pushed scan's sender has been told. */
void queue_push_settled(struct queue *queue);

/* Makes queue_wait() return (any thread). */
void queue_wake(struct queue *queue);
