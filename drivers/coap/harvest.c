#include "drivers/coap/harvest.h"

#include "drivers/coap/settings.h"

#include <errno.h>
#include <string.h>

struct item {
    int64_t time_ms; /* INT64_MAX: now */
    uint32_t order;
    struct reading reading; /* text.offset into the harvest's text */
};

/* Points that are found by name, sorted by it. */
struct named {
    const char *name;
    uint16_t len, point;
};

struct harvest {
    const struct config_device *device;
    struct named *names;
    size_t name_count;
    struct item *items;
    size_t count, capacity;
    struct buffer text;
    struct scan *scan;
    size_t scan_room; /* readings and text that fit */
    bool sorted;
};

/* Foreign names may hold any byte, zero as well. */
static int compare_name(const char *name, size_t len, const struct named *named)
{
    int r = memcmp(name, named->name, len < named->len ? len : named->len);
    return r != 0 ? r : len < named->len ? -1 : len > named->len;
}

static int compare_names(const void *a, const void *b)
{
    const struct named *named = a;
    return compare_name(named->name, named->len, b);
}

int harvest_create(const struct config_device *device, struct harvest **ret_harvest)
{
    struct harvest *harvest = calloc(1, sizeof(*harvest));
    if (harvest == NULL) {
        return -ENOMEM;
    }
    harvest->device = device;
    harvest->text.max = HARVEST_TEXT_MAX;
    harvest->names = calloc(device->points.count + 1, sizeof(*harvest->names));
    if (harvest->names == NULL) {
        harvest_destroy(harvest);
        return -ENOMEM;
    }
    for (size_t i = 0; i < device->points.count; i++) {
        if (!coap_point(device, i)->by_path) {
            const char *name = coap_point_text(device, i);
            harvest->names[harvest->name_count++] = (struct named){name, (uint16_t)strlen(name),
                                                                   (uint16_t)i};
        }
    }
    qsort(harvest->names, harvest->name_count, sizeof(*harvest->names), compare_names);
    *ret_harvest = harvest;
    return 0;
}

void harvest_destroy(struct harvest *harvest)
{
    if (harvest != NULL) {
        free(harvest->names);
        free(harvest->items);
        free(harvest->scan);
        buffer_finish(&harvest->text);
        free(harvest);
    }
}

void harvest_clear(struct harvest *harvest)
{
    harvest->count = 0;
    harvest->sorted = true;
    buffer_clear(&harvest->text);
}

size_t harvest_count(const struct harvest *harvest)
{
    return harvest->count;
}

static int add_item(struct harvest *harvest, struct item item)
{
    if (harvest->count >= HARVEST_READINGS_MAX) {
        return -EMSGSIZE;
    }
    if (harvest->count == harvest->capacity) {
        size_t capacity = harvest->capacity == 0 ? 16 : harvest->capacity * 2;
        struct item *items = realloc(harvest->items, capacity * sizeof(*items));
        if (items == NULL) {
            return -ENOMEM;
        }
        harvest->items = items;
        harvest->capacity = capacity;
    }
    item.order = (uint32_t)harvest->count;
    harvest->items[harvest->count++] = item;
    harvest->sorted = false;
    return 0;
}

static int add_record(struct harvest *harvest, size_t point, const struct senml_pack *pack,
                      const struct senml_record *record)
{
    struct item item = {.time_ms = record->timed ? record->time_ms : INT64_MAX,
                        .reading = record->value};
    item.reading.point = (uint16_t)point;
    if (item.reading.kind == VALUE_TEXT) {
        const struct reading *from = &record->value;
        item.reading.text.offset = (uint32_t)harvest->text.len;
        if (from->text.len > 0) {
            buffer_add(&harvest->text, pack->text.data + from->text.offset, from->text.len);
        }
        if (buffer_failed(&harvest->text)) {
            return -EMSGSIZE;
        }
    }
    return add_item(harvest, item);
}

/* The first point of that name, or name_count. */
static size_t find_name(const struct harvest *harvest, const char *name, size_t len)
{
    size_t low = 0, high = harvest->name_count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (compare_name(name, len, &harvest->names[middle]) > 0) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    bool found = low < harvest->name_count && compare_name(name, len, &harvest->names[low]) == 0;
    return found ? low : harvest->name_count;
}

int harvest_add(struct harvest *harvest, const struct senml_pack *pack)
{
    int taken = 0;
    for (size_t i = 0; i < pack->count; i++) {
        const struct senml_record *record = &pack->records[i];
        if (record->name_len == 0) {
            continue;
        }
        const char *name = senml_name(pack, record);
        size_t len = record->name_len, at = find_name(harvest, name, len);
        if (at == harvest->name_count && record->base_len > 0 && record->base_len < len) {
            name += record->base_len;
            len -= record->base_len;
            at = find_name(harvest, name, len);
        }
        for (; at < harvest->name_count && compare_name(name, len, &harvest->names[at]) == 0;
             at++) {
            int r = add_record(harvest, harvest->names[at].point, pack, record);
            if (r != 0) {
                return r;
            }
            taken++;
        }
    }
    return taken;
}

int harvest_add_value(struct harvest *harvest, size_t point, const struct senml_pack *pack)
{
    return pack->count == 1 ? add_record(harvest, point, pack, &pack->records[0]) : -EINVAL;
}

int harvest_add_bad(struct harvest *harvest, size_t point, enum quality quality)
{
    return add_item(harvest, (struct item){.time_ms = INT64_MAX,
                                           .reading = {.point = (uint16_t)point,
                                                       .kind = VALUE_NULL,
                                                       .quality = (uint8_t)quality}});
}

/* By time, by point, then the latest first. */
static int compare_items(const void *a, const void *b)
{
    const struct item *x = a, *y = b;
    if (x->time_ms != y->time_ms) {
        return x->time_ms < y->time_ms ? -1 : 1;
    }
    if (x->reading.point != y->reading.point) {
        return x->reading.point < y->reading.point ? -1 : 1;
    }
    return x->order > y->order ? -1 : 1;
}

static void sort(struct harvest *harvest)
{
    if (harvest->sorted || harvest->count == 0) {
        return;
    }
    qsort(harvest->items, harvest->count, sizeof(*harvest->items), compare_items);
    size_t kept = 1;
    for (size_t i = 1; i < harvest->count; i++) {
        const struct item *last = &harvest->items[kept - 1], *item = &harvest->items[i];
        if (item->time_ms != last->time_ms || item->reading.point != last->reading.point) {
            harvest->items[kept++] = *item;
        }
    }
    harvest->count = kept;
    harvest->sorted = true;
}

/* Where the scan that begins at `from` ends. */
static size_t scan_end(const struct harvest *harvest, size_t from)
{
    size_t to = from + 1;
    while (to < harvest->count && harvest->items[to].time_ms == harvest->items[from].time_ms &&
           to - from < SCAN_READINGS_MAX) {
        to++;
    }
    return to;
}

size_t harvest_scans(struct harvest *harvest)
{
    size_t scans = 0;
    sort(harvest);
    for (size_t at = 0; at < harvest->count; at = scan_end(harvest, at)) {
        scans++;
    }
    return scans;
}

static int make_room(struct harvest *harvest, size_t count, size_t text_len)
{
    size_t size = scan_size_for(count, text_len);
    if (size > harvest->scan_room) {
        struct scan *scan = realloc(harvest->scan, size);
        if (scan == NULL) {
            return -ENOMEM;
        }
        harvest->scan = scan;
        harvest->scan_room = size;
    }
    *harvest->scan = (struct scan){.count = (uint16_t)count, .text_len = (uint32_t)text_len};
    return 0;
}

static int fill_scan(struct harvest *harvest, size_t from, size_t to, int64_t now_ms)
{
    const struct item *items = harvest->items;
    size_t text_len = 0;
    for (size_t i = from; i < to; i++) {
        text_len += items[i].reading.kind == VALUE_TEXT ? items[i].reading.text.len : 0;
    }
    int r = make_room(harvest, to - from, text_len);
    if (r != 0) {
        return r;
    }
    struct scan *scan = harvest->scan;
    char *text = (char *)&scan->readings[to - from];
    uint32_t at = 0;
    scan->time_ms = items[from].time_ms == INT64_MAX ? now_ms : items[from].time_ms;
    for (size_t i = from; i < to; i++) {
        struct reading *reading = &scan->readings[i - from];
        *reading = items[i].reading;
        if (reading->kind == VALUE_TEXT) {
            if (reading->text.len > 0) {
                memcpy(text + at, harvest->text.data + reading->text.offset, reading->text.len);
            }
            reading->text.offset = at;
            at += reading->text.len;
        }
    }
    return 0;
}

int harvest_each(struct harvest *harvest, int64_t now_ms,
                 int (*each)(void *user, struct scan *scan), void *user)
{
    sort(harvest);
    for (size_t from = 0; from < harvest->count;) {
        size_t to = scan_end(harvest, from);
        int r = fill_scan(harvest, from, to, now_ms);
        r = r != 0 ? r : each(user, harvest->scan);
        if (r != 0) {
            return r;
        }
        from = to;
    }
    return 0;
}
