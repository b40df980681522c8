#include "gateway/base/clock.h"
#include "gateway/store/internal.h"

#include <assert.h>
#include <errno.h>
#include <stddef.h>
#include <string.h>

/* A full store is looked at again so often, though nothing is pending. */
enum { FULL_RETRY_MS = 1000 };

/* A point may be there once. Mostly they come in order, which tells at once. */
static bool points_differ(const struct scan *scan)
{
    size_t i = 1;
    while (i < scan->count && scan->readings[i].point > scan->readings[i - 1].point) {
        i++;
    }
    if (i >= scan->count) {
        return true;
    }
    uint64_t seen[(UINT16_MAX + 1) / 64] = {0};
    for (i = 0; i < scan->count; i++) {
        uint16_t point = scan->readings[i].point;
        if ((seen[point / 64] & 1ull << point % 64) != 0) {
            return false;
        }
        seen[point / 64] |= 1ull << point % 64;
    }
    return true;
}

/* texts: whether there are some. */
static bool sound_readings(const struct scan *scan, bool *ret_texts)
{
    bool texts = false;
    for (size_t i = 0; i < scan->count; i++) {
        const struct reading *reading = &scan->readings[i];
        texts |= reading->kind == VALUE_TEXT;
        if (reading->kind >= VALUE_KINDS || reading->quality >= QUALITY_COUNT) {
            return false;
        }
        if (reading->kind == VALUE_TEXT &&
            (reading->text.len > scan->text_len ||
             reading->text.offset > scan->text_len - reading->text.len)) {
            return false;
        }
    }
    *ret_texts = texts;
    return true;
}

static bool sound(const struct store *store, const struct scan *scan)
{
    return scan->stream < STREAM_COUNT && scan->device > 0 &&
           scan->device <= store->state.device_count && scan->count <= SCAN_READINGS_MAX &&
           scan->text_len <= SCAN_TEXT_MAX &&
           scan->seq > store->state.devices[scan->device - 1].seq[scan->stream];
}

/* The pending scan that this one most likely looks like: the last one of its device and stream,
 * else that of the device that came before. NULL: none is pending. */
static const struct pending_scan *neighbour(struct store *store, const struct scan *scan)
{
    size_t slot = (size_t)(scan->device - 1) * STREAM_COUNT + scan->stream;
    size_t run = scan->device <= store->run_of_devices ? store->run_of[slot] : 0;
    run = run == 0 ? store->run_count : run;
    return run == 0 ? NULL : store_pending_at(store, store->runs[run - 1].last);
}

static uint64_t head_of(const struct reading *reading)
{
    uint64_t head;
    static_assert(offsetof(struct reading, integer) == sizeof(head), "all but the value");
    memcpy(&head, reading, sizeof(head));
    return head;
}

static bool looks_alike(const struct scan *a, const struct scan *b)
{
    uint64_t different = (uint64_t)(a->count ^ b->count);
    for (size_t i = 0; different == 0 && i < a->count;) {
        size_t end = i + 32 < a->count ? i + 32 : a->count;
        for (; i < end; i++) {
            different |= head_of(&a->readings[i]) ^ head_of(&b->readings[i]);
        }
    }
    return different == 0;
}

/* A scan that looks like one that was sound is so too. ret_alike: of the pending ones that it looks
 * like, 0: of none; texts: some of its readings are. */
static bool sound_as_before(struct store *store, const struct scan *scan, uint32_t *ret_alike,
                            bool *ret_texts)
{
    const struct pending_scan *before = neighbour(store, scan);
    bool alike = before != NULL && before->alike != 0 && looks_alike(&before->scan, scan);
    *ret_alike = alike ? before->alike : 0;
    *ret_texts = false;
    return alike || (points_differ(scan) && sound_readings(scan, ret_texts));
}

static int grow_runs(struct store *store)
{
    if (store->run_of_devices < store->state.device_count) {
        size_t devices = store->state.device_capacity;
        uint32_t *run_of = reallocarray(store->run_of, devices * STREAM_COUNT,
                                        sizeof(*store->run_of));
        if (run_of == NULL) {
            return -ENOMEM;
        }
        size_t had = store->run_of_devices * STREAM_COUNT;
        memset(run_of + had, 0, (devices * STREAM_COUNT - had) * sizeof(*run_of));
        store->run_of = run_of;
        store->run_of_devices = devices;
    }
    if (store->run_count == store->run_capacity) {
        size_t capacity = store->run_capacity == 0 ? 64 : store->run_capacity * 2;
        struct run *runs = reallocarray(store->runs, capacity, sizeof(*runs));
        if (runs == NULL) {
            return -ENOMEM;
        }
        store->runs = runs;
        store->run_capacity = capacity;
    }
    return 0;
}

/* The run that the scan belongs to. A run that was counted for the uplinks already is not extended:
 * an uplink added since then would miss its further scans. */
static struct run *run_for(struct store *store, const struct scan *scan,
                           const struct append_how *how)
{
    uint32_t *slot = &store->run_of[(size_t)(scan->device - 1) * STREAM_COUNT + scan->stream];
    const struct run *run = *slot == 0 ? NULL : &store->runs[*slot - 1];
    if (run == NULL || run->offered || run->salvaged != how->salvaged ||
        run->settled != how->settled) {
        store->runs[store->run_count] = (struct run){.device = scan->device,
                                                     .stream = scan->stream,
                                                     .salvaged = how->salvaged,
                                                     .settled = how->settled};
        *slot = (uint32_t)++store->run_count;
    }
    return &store->runs[*slot - 1];
}

static int add_pending(struct store *store, const struct scan *scan, const struct append_how *how,
                       uint32_t alike, bool texts)
{
    size_t size = offsetof(struct pending_scan, scan) + scan_size(scan);
    int rc = grow_runs(store);
    if (rc == 0 && store->pending.len == 0) {
        static const uint8_t unused[8]; /* so that no entry has the offset 0 */
        buffer_add(&store->pending, unused, sizeof(unused));
    }
    if (rc < 0 || buffer_reserve(&store->pending, size) == NULL) {
        store->pending.failed = false;
        return rc < 0 ? rc : -ENOMEM;
    }
    struct state_device *device = &store->state.devices[scan->device - 1];
    uint32_t offset = (uint32_t)store->pending.len;
    struct pending_scan *entry = store_pending_at(store, offset);
    entry->prev_seq = device->seq[scan->stream];
    entry->next = 0;
    entry->size = (uint32_t)size;
    entry->alike = alike != 0 ? alike : texts ? 0 : offset;
    memcpy(&entry->scan, scan,
           sizeof(*scan) + scan->count * sizeof(struct reading) + scan->text_len);
    store->pending.len += size;
    struct run *run = run_for(store, scan, how);
    if (run->scans++ == 0) {
        run->first = offset;
    } else {
        store_pending_at(store, run->last)->next = offset;
    }
    run->last = offset;
    run->readings += scan->count;
    device->seq[scan->stream] = scan->seq;
    device->counts[scan->stream == STREAM_RAW ? LEDGER_STORED : LEDGER_DERIVED] += scan->count;
    return 0;
}

int store_append_as(struct store *store, const struct scan *scan, const struct append_how *how)
{
    if (store->failed) {
        return -EIO;
    }
    if (store->full) {
        return -ENOSPC;
    }
    uint32_t alike = 0;
    bool texts = false;
    if (!sound(store, scan) || !sound_as_before(store, scan, &alike, &texts)) {
        return -EINVAL;
    }
    if (store->pending.len >= STORE_PENDING_MAX) {
        int rc = store_commit(store);
        if (rc < 0) {
            return rc;
        }
        alike = 0;
    }
    return add_pending(store, scan, how, alike, texts);
}

int store_append(struct store *store, const struct scan *scan)
{
    return store_append_as(store, scan, &(struct append_how){.salvaged = false});
}

void store_count(struct store *store, uint32_t device, enum ledger_count count, uint64_t readings)
{
    if (device > 0 && device <= store->state.device_count && count < LEDGER_COUNTS) {
        store->state.devices[device - 1].counts[count] += readings;
        store->counted = true;
    }
}

bool store_has_pending(struct store *store)
{
    if (store->pending.len > 0 || store->counted || store->marked ||
        dictionary_changed(store->dictionary) || store_clock_changed(store)) {
        return true;
    }
    return store->full && clock_mono_ms() - store->pressure.tried_ms >= FULL_RETRY_MS;
}
