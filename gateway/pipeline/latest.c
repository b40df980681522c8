#include "gateway/pipeline/latest.h"

#include <errno.h>
#include <pthread.h>
#include <string.h>

struct latest_value {
    int64_t time_ms; /* 0: nothing yet */
    struct reading reading;
};

struct latest_entry {
    char *name;
    const struct device *device; /* the object shown now; compared, never followed */
    const struct config *owner;  /* keeps the names of points */
    const struct config_device *config;
    struct latest_value *values;
};

struct latest {
    pthread_mutex_t lock;
    struct latest_entry *entries;
    size_t count, capacity;
    _Atomic uint64_t version;
};

int latest_create(struct latest **ret_latest)
{
    struct latest *latest = calloc(1, sizeof *latest);
    if (latest == NULL) {
        return -ENOMEM;
    }
    pthread_mutex_init(&latest->lock, NULL);
    *ret_latest = latest;
    return 0;
}

static void entry_clear(struct latest_entry *entry)
{
    free(entry->values);
    if (entry->owner != NULL) {
        config_unref(entry->owner);
    }
    *entry = (struct latest_entry){.name = entry->name};
}

void latest_destroy(struct latest *latest)
{
    if (latest == NULL) {
        return;
    }
    for (size_t i = 0; i < latest->count; i++) {
        entry_clear(&latest->entries[i]);
        free(latest->entries[i].name);
    }
    free(latest->entries);
    pthread_mutex_destroy(&latest->lock);
    free(latest);
}

static int add_entry(struct latest *latest, const char *name, size_t *ret_index)
{
    if (latest->count == latest->capacity) {
        size_t capacity = latest->capacity == 0 ? 16 : latest->capacity * 2;
        struct latest_entry *entries = reallocarray(latest->entries, capacity, sizeof *entries);
        if (entries == NULL) {
            return -ENOMEM;
        }
        latest->entries = entries;
        latest->capacity = capacity;
    }
    char *copy = strdup(name);
    if (copy == NULL) {
        return -ENOMEM;
    }
    latest->entries[latest->count] = (struct latest_entry){.name = copy};
    *ret_index = latest->count++;
    return 0;
}

static int find_entry(struct latest *latest, const char *name, size_t *ret_index)
{
    for (size_t i = 0; i < latest->count; i++) {
        if (strcmp(latest->entries[i].name, name) == 0) {
            *ret_index = i;
            return 0;
        }
    }
    return add_entry(latest, name, ret_index);
}

/* A point that keeps its name keeps its value. */
static void carry_over(const struct latest_entry *entry, const struct config_points *points,
                       struct latest_value *values)
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

static int attach_locked(struct latest *latest, struct device *device)
{
    const struct config_points *points = &device->config->points;
    size_t index;
    int r = find_entry(latest, device->config->name, &index);
    if (r < 0) {
        return r;
    }
    struct latest_value *values = calloc(points->count + 1, sizeof *values);
    if (values == NULL) {
        return -ENOMEM;
    }
    struct latest_entry *entry = &latest->entries[index];
    carry_over(entry, points, values);
    entry_clear(entry);
    entry->values = values;
    entry->device = device;
    entry->config = device->config;
    entry->owner = config_ref(device->owner);
    device->index = (uint32_t)index;
    return 0;
}

int latest_attach(struct latest *latest, struct device *device)
{
    pthread_mutex_lock(&latest->lock);
    int r = attach_locked(latest, device);
    pthread_mutex_unlock(&latest->lock);
    return r;
}

void latest_detach(struct latest *latest, const struct device *device)
{
    pthread_mutex_lock(&latest->lock);
    if (device->index < latest->count && latest->entries[device->index].device == device) {
        entry_clear(&latest->entries[device->index]);
    }
    pthread_mutex_unlock(&latest->lock);
}

void latest_update(struct latest *latest, const struct device *device, const struct scan *scan)
{
    pthread_mutex_lock(&latest->lock);
    struct latest_entry *entry = &latest->entries[device->index];
    if (entry->device == device) {
        for (size_t i = 0; i < scan->count; i++) {
            const struct reading *reading = &scan->readings[i];
            struct latest_value *value = &entry->values[reading->point];
            value->time_ms = scan->time_ms;
            value->reading = *reading;
            if (reading->kind == VALUE_TEXT) {
                value->reading.text.offset = 0;
                value->reading.text.len = 0;
            }
        }
    }
    pthread_mutex_unlock(&latest->lock);
    atomic_fetch_add_explicit(&latest->version, 1, memory_order_relaxed);
}

size_t latest_read(struct latest *latest, const struct device *device, struct reading *ret_readings,
                   int64_t *ret_times_ms)
{
    size_t count = 0;
    pthread_mutex_lock(&latest->lock);
    bool shown = device->index < latest->count && latest->entries[device->index].device == device;
    const struct latest_entry *entry = shown ? &latest->entries[device->index] : NULL;
    for (size_t i = 0; i < device->config->points.count; i++) {
        struct latest_value value = shown ? entry->values[i] : (struct latest_value){0};
        ret_readings[i] = value.reading;
        ret_times_ms[i] = value.time_ms;
        count += value.time_ms != 0 ? 1 : 0;
    }
    pthread_mutex_unlock(&latest->lock);
    return count;
}

uint64_t latest_version(const struct latest *latest)
{
    return atomic_load_explicit(&latest->version, memory_order_relaxed);
}
