#include "gateway/store/salvage_letters.h"

#include "gateway/store/state.h"

#include <errno.h>

static int by_scan(const struct letter_ref *x, const struct letter_ref *y)
{
    if (x->stream != y->stream) {
        return x->stream < y->stream ? -1 : 1;
    }
    if (x->device != y->device) {
        return x->device < y->device ? -1 : 1;
    }
    return x->seq < y->seq ? -1 : x->seq > y->seq;
}

static int by_scan_and_entry(const void *a, const void *b)
{
    const struct letter_ref *x = a, *y = b;
    int order = by_scan(x, y);
    return order != 0 ? order : wreck_order(x->entry, y->entry);
}

int letters_read(struct letter_list *list, struct wreck *wreck, const struct wreck_entry *entry,
                 struct store_letter *ret_letter)
{
    struct store_letter letter = {.number = entry->number};
    int rc = wreck_read(wreck, entry, &list->opener.record);
    rc = rc < 0 ? rc
                : letter_open(&list->opener, list->opener.record.data, list->opener.record.len,
                              &letter);
    if (rc == 0 && (letter.scan->device == 0 || letter.scan->device > STATE_DEVICES_MAX ||
                    letter.scan->stream >= STREAM_COUNT)) {
        rc = -EBADMSG;
    }
    if (rc == 0) {
        *ret_letter = letter;
    }
    return rc;
}

static int add(struct letter_list *list, const struct wreck_entry *entry, const struct scan *scan)
{
    if (list->count == list->capacity) {
        size_t capacity = list->capacity == 0 ? 256 : list->capacity * 2;
        struct letter_ref *refs = reallocarray(list->refs, capacity, sizeof(*refs));
        if (refs == NULL) {
            return -ENOMEM;
        }
        list->refs = refs;
        list->capacity = capacity;
    }
    list->refs[list->count++] = (struct letter_ref){
        .entry = entry, .seq = scan->seq, .device = scan->device, .stream = scan->stream};
    return 0;
}

int letters_list(struct letter_list *list, struct wreck *wreck,
                 bool (*touch)(void *user, const struct wreck_entry *entry), void *user)
{
    int rc = letter_opener_init(&list->opener);
    for (size_t i = 0; rc == 0 && i < wreck_count(wreck); i++) {
        const struct wreck_entry *entry = wreck_at(wreck, i);
        struct store_letter letter = {.scan = NULL};
        if (wreck_kind(entry) != WRECK_LETTER) {
            continue;
        }
        int read = touch(user, entry) ? letters_read(list, wreck, entry, &letter) : -EBADMSG;
        if (read == 0) {
            rc = add(list, entry, letter.scan);
        } else {
            list->bad += !wreck_is_orphan(entry);
            rc = read == -ENOMEM ? read : 0;
        }
    }
    if (rc == 0 && list->count > 0) {
        qsort(list->refs, list->count, sizeof(*list->refs), by_scan_and_entry);
    }
    return rc;
}

struct letter_ref *letters_of(const struct letter_list *list, const struct scan *scan,
                              size_t *ret_count)
{
    const struct letter_ref probe = {
        .seq = scan->seq, .device = scan->device, .stream = scan->stream};
    size_t low = 0, high = list->count, count = 0;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (by_scan(&list->refs[middle], &probe) < 0) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    while (low + count < list->count && by_scan(&list->refs[low + count], &probe) == 0) {
        count++;
    }
    *ret_count = count;
    return list->refs + low;
}
