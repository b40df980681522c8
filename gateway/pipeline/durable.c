#include "gateway/pipeline/durable.h"

#include "gateway/pipeline/state.h"
#include "gateway/store/store.h"

#include <errno.h>
#include <string.h>

void durable_answer(struct pipeline *p, const struct queue_entry *entry, int error)
{
    if (entry->durable == NULL) {
        return;
    }
    if (error == 0) {
        /* The queue bounds the pushes that wait, so there is a slot. */
        p->pushes[p->push_count++] = (struct pending_push){.durable = entry->durable,
                                                           .user = entry->user};
        return;
    }
    entry->durable(entry->user, error);
    queue_push_settled(p->queue);
}

/* The payload of an entry: this, then kind, text and bytes, the texts with their NULs. */
struct event_head {
    uint64_t number;
    uint32_t kind_len, text_len, len;
};

int durable_submit(struct pipeline *p, struct device *device, const struct durable_event *event,
                   void (*durable)(void *user, int error), void *user)
{
    const struct event_head parts = {.number = event->number,
                                     .kind_len = (uint32_t)strlen(event->kind) + 1,
                                     .text_len = (uint32_t)strlen(event->text) + 1,
                                     .len = (uint32_t)event->len};
    auto_buffer struct buffer payload = {.max = SCAN_TEXT_MAX};
    buffer_add(&payload, &parts, sizeof parts);
    buffer_add(&payload, event->kind, parts.kind_len);
    buffer_add(&payload, event->text, parts.text_len);
    if (event->len > 0) {
        buffer_add(&payload, event->bytes, event->len);
    }
    if (buffer_failed(&payload) || event->len > STORE_RECORD_MAX) {
        return buffer_failed(&payload) ? -ENOMEM : -EMSGSIZE;
    }
    struct queue_entry head = {.kind = QUEUE_DURABLE,
                               .device = device != NULL ? device_ref(device) : NULL,
                               .durable = durable,
                               .user = user};
    int r = queue_push(p->queue, &head, payload.data, payload.len);
    if (r < 0) {
        device_unref(device);
    }
    return r;
}

/* Where the event is not taken the record is not either. */
void durable_process(struct pipeline *p, struct queue_entry *entry)
{
    struct event_head parts;
    memcpy(&parts, entry->payload, sizeof parts);
    const char *kind = (const char *)entry->payload + sizeof parts;
    const char *text = kind + parts.kind_len;
    int r = atomic_load_explicit(&p->error, memory_order_relaxed);
    if (r == 0 && kind[0] != '\0') {
        r = pipeline_record(p, entry->device, kind, text);
    }
    if (r == 0 && parts.number > 0) {
        r = store_set_record(p->store, parts.number, text + parts.text_len, parts.len);
    }
    device_unref(entry->device);
    durable_answer(p, entry, r);
}
