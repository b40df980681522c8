#include "gateway/pipeline/live.h"

#include <errno.h>
#include <pthread.h>
#include <string.h>

struct live_value {
    int64_t time_ms; /* 0: nothing yet */
    struct reading reading;
};

struct live_entry {
    char *name;
    const struct device *device; /* the object shown now; compared, never followed */
    const struct config *owner;  /* keeps the names of points */
    const struct config_device *config;
    struct live_value *values;
};

struct live {
    pthread_mutex_t lock;
    struct live_entry *entries;
    size_t count, capacity;
    _Atomic uint64_t version;
};

int live_create(struct live **ret_live)
{
    struct live *live = calloc(1, sizeof *live);
    if (live == NULL) {
        return -ENOMEM;
    }
    pthread_mutex_init(&live->lock, NULL);
    *ret_live = live;
    return 0;
}

static void entry_clear(struct live_entry *entry)
{
    free(entry->values);
    if (entry->owner != NULL) {
        config_unref(entry->owner);
    }
    *entry = (struct live_entry){.name = entry->name};
}

void live_destroy(struct live *live)
{
    if (live == NULL) {
        return;
    }
    for (size_t i = 0; i < live->count; i++) {
        entry_clear(&live->entries[i]);
        free(live->entries[i].name);
    }
    free(live->entries);
    pthread_mutex_destroy(&live->lock);
    free(live);
}

static int add_entry(struct live *live, const char *name, size_t *ret_index)
{
    if (live->count == live->capacity) {
        size_t capacity = live->capacity == 0 ? 16 : live->capacity * 2;
        struct live_entry *entries = reallocarray(live->entries, capacity, sizeof *entries);
        if (entries == NULL) {
            return -ENOMEM;
        }
        live->entries = entries;
        live->capacity = capacity;
    }
    char *copy = strdup(name);
    if (copy == NULL) {
        return -ENOMEM;
    }
    live->entries[live->count] = (struct live_entry){.name = copy};
    *ret_index = live->count++;
    return 0;
}

static int find_entry(struct live *live, const char *name, size_t *ret_index)
{
    for (size_t i = 0; i < live->count; i++) {
        if (strcmp(live->entries[i].name, name) == 0) {
            *ret_index = i;
            return 0;
        }
    }
    return add_entry(live, name, ret_index);
}

/* A point that keeps its name keeps its value. */
static void carry_over(const struct live_entry *entry, const struct config_points *points,
                       struct live_value *values)
{
    if (entry->config == NULL) {
        return;
    }
    const struct config_points *old = &entry->config->points;
    for (size_t i = 0; i < points->count; i++) {
        for (size_t k = 0; k < old->count; k++) {
            if (strcmp(points->list[i].name, old->list[k].name) == 0) {
                values[i] = entry->values[k];
                values[i].reading.point = (uint16_t)i;
                break;
            }
        }
    }
}

static int attach_locked(struct live *live, struct device *device)
{
    const struct config_points *points = &device->config->points;
    size_t index;
    int r = find_entry(live, device->config->name, &index);
    if (r < 0) {
        return r;
    }
    struct live_value *values = calloc(points->count + 1, sizeof *values);
    if (values == NULL) {
        return -ENOMEM;
    }
    struct live_entry *entry = &live->entries[index];
    carry_over(entry, points, values);
    entry_clear(entry);
    entry->values = values;
    entry->device = device;
    entry->config = device->config;
    entry->owner = config_ref(device->owner);
    device->index = (uint32_t)index;
    return 0;
}

int live_attach(struct live *live, struct device *device)
{
    pthread_mutex_lock(&live->lock);
    int r = attach_locked(live, device);
    pthread_mutex_unlock(&live->lock);
    return r;
}

void live_detach(struct live *live, const struct device *device)
{
    pthread_mutex_lock(&live->lock);
    if (device->index < live->count && live->entries[device->index].device == device) {
        entry_clear(&live->entries[device->index]);
    }
    pthread_mutex_unlock(&live->lock);
}

void live_update(struct live *live, const struct device *device, const struct scan *scan)
{
    pthread_mutex_lock(&live->lock);
    struct live_entry *entry = &live->entries[device->index];
    if (entry->device == device) {
        for (size_t i = 0; i < scan->count; i++) {
            const struct reading *reading = &scan->readings[i];
            struct live_value *value = &entry->values[reading->point];
            value->time_ms = scan->time_ms;
            value->reading = *reading;
            if (reading->kind == VALUE_TEXT) {
                value->reading.text.offset = 0;
                value->reading.text.len = 0;
            }
        }
    }
    pthread_mutex_unlock(&live->lock);
    atomic_fetch_add_explicit(&live->version, 1, memory_order_relaxed);
}

size_t live_latest(struct live *live, const struct device *device, struct reading *ret_readings,
                   int64_t *ret_times_ms)
{
    size_t count = 0;
    pthread_mutex_lock(&live->lock);
    if (device->index < live->count && live->entries[device->index].device == device) {
        const struct live_entry *entry = &live->entries[device->index];
        for (size_t i = 0; i < device->config->points.count; i++) {
            if (entry->values[i].time_ms != 0) {
                ret_readings[count] = entry->values[i].reading;
                ret_times_ms[count++] = entry->values[i].time_ms;
            }
        }
    }
    pthread_mutex_unlock(&live->lock);
    return count;
}

uint64_t live_version(const struct live *live)
{
    return atomic_load_explicit(&live->version, memory_order_relaxed);
}
