#include "uplink/labels.h"

#include <stdio.h>
#include <string.h>

static const char *const own[] = {"device",   "gateway", "store", "stream",
                                  "window_s", "seq",     "time"};

static bool is_own(const char *key)
{
    for (size_t i = 0; i < ARRAY_SIZE(own); i++) {
        if (strcmp(own[i], key) == 0) {
            return true;
        }
    }
    return false;
}

static void insert(struct labels *l, const char *key, const char *value)
{
    if (value == NULL || value[0] == '\0' || l->count == LABELS_MAX) {
        return;
    }
    size_t at = l->count++;
    for (; at > 0 && strcmp(l->list[at - 1].key, key) > 0; at--) {
        l->list[at] = l->list[at - 1];
    }
    l->list[at] = (struct label){key, value};
}

/* The last six digits, the lowest one first: of neighbouring scans only the first differs, which a
 * compressor likes (2.38 B a reading of line protocol against 2.48). */
static int64_t six_digits(uint64_t seq)
{
    int64_t digits = 0;
    for (int i = 0; i < 6; i++) {
        digits = digits * 10 + (int64_t)(seq % 10);
        seq /= 10;
    }
    return digits;
}

int64_t labels_time_ns(const struct scan *scan)
{
    enum { NS_PER_MS = 1000000 };
    const int64_t most = INT64_MAX / NS_PER_MS - 1; /* the year 2262 */
    int64_t ms = scan->time_ms > most ? most : scan->time_ms < -most ? -most : scan->time_ms;
    return ms * NS_PER_MS + six_digits(scan->seq);
}

void labels_init(struct labels *l, const struct batch *batch, const struct batch_record *record)
{
    const struct store_names *names = record->names;
    uint32_t window_s = record->scan->window_s;
    l->count = 0;
    snprintf(l->window, sizeof l->window, "%u", window_s);
    insert(l, "device", names->device);
    insert(l, "gateway", batch->gateway);
    insert(l, "store", batch->store_id);
    insert(l, "stream", stream_name(batch->stream));
    insert(l, "window_s", window_s != 0 ? l->window : NULL);
    l->given = names->tags_json[0] != '\0' ? json_loads(names->tags_json, 0, NULL) : NULL;
    const char *key;
    json_t *value;
    json_object_foreach(l->given, key, value)
    {
        if (!is_own(key)) {
            insert(l, key, json_string_value(value));
        }
    }
}

void labels_finish(struct labels *l)
{
    json_decref(l->given);
    l->given = NULL;
}

bool labels_taken(const struct labels *l, const char *name)
{
    for (size_t i = 0; i < l->count; i++) {
        if (strcmp(l->list[i].key, name) == 0) {
            return true;
        }
    }
    return is_own(name);
}

static bool is_point(const struct store_names *names, const char *text)
{
    for (size_t i = 0; i < names->point_count; i++) {
        if (names->points[i].name != NULL && strcmp(names->points[i].name, text) == 0) {
            return true;
        }
    }
    return false;
}

void labels_column(const struct labels *l, const struct store_names *names, const char *name,
                   const char *suffix, char ret_column[LABELS_NAME_MAX])
{
    enum { MORE_MAX = 32 };
    int n = snprintf(ret_column, LABELS_NAME_MAX - MORE_MAX, "%s%s", name, suffix);
    size_t len = n < LABELS_NAME_MAX - MORE_MAX ? (size_t)n : LABELS_NAME_MAX - MORE_MAX - 1;
    bool value = suffix[0] == '\0'; /* a point may be called as itself, but like no other */
    for (size_t more = 0; more < MORE_MAX; more++) {
        bool taken = labels_taken(l, ret_column) ||
                     ((more > 0 || !value) && is_point(names, ret_column));
        if (!taken) {
            return;
        }
        ret_column[len++] = '_';
        ret_column[len] = '\0';
    }
}
