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
