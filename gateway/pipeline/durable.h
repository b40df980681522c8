/* durable.h - what somebody waits for until it is on flash.
 *
 * Any thread submits; the pipeline's own files use the rest, on its thread. Pushed scans
 * (scan_submit_pushed) and the events here are told to their senders after the commit that covers
 * them; QUEUE_PUSHES_MAX bounds how many wait. */
#pragma once

#include "gateway/pipeline/pipeline.h"
#include "gateway/pipeline/queue.h"

/* An event, and one of the store's small records, in one commit. */
struct durable_event {
    const char *kind, *text; /* kind "": no event */
    uint64_t number;         /* of the record; 0: none */
    const void *bytes;       /* copied; len 0 forgets the record */
    size_t len;
};

/* Under the device, or the gateway itself (NULL). `durable` is called once on the pipeline thread,
 * with 0 after the commit, or -errno when it could not be stored. -ENOBUFS: the queue is at its
 * bound, -EMSGSIZE, -ENOMEM; it is not called then. */
must_check int durable_submit(struct pipeline *pipeline, struct device *device,
                              const struct durable_event *event,
                              void (*durable)(void *user, int error), void *user);

/* An entry of durable_submit() at the head of the queue. */
void durable_process(struct pipeline *pipeline, struct queue_entry *entry);

/* Tells who waits for the entry, if anybody: an error now, success after the commit. */
void durable_answer(struct pipeline *pipeline, const struct queue_entry *entry, int error);
