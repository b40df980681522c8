#include "gateway/store/ranges.h"

#include <errno.h>
#include <string.h>

void ranges_finish(struct ranges *ranges)
{
    free(ranges->list);
    *ranges = (struct ranges){0};
}

/* The first run that ends at or behind seq. */
static uint32_t find(const struct ranges *ranges, uint64_t seq)
{
    uint32_t low = 0, high = ranges->count;
    while (low < high) {
        uint32_t middle = (low + high) / 2;
        if (ranges->list[middle].last < seq) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low;
}

static void remove_runs(struct ranges *ranges, uint32_t at, uint32_t count)
{
    if (count > 0) {
        memmove(&ranges->list[at], &ranges->list[at + count],
                (ranges->count - at - count) * sizeof(struct range));
        ranges->count -= count;
    }
}

void ranges_raise(struct ranges *ranges, uint64_t floor)
{
    if (floor <= ranges->floor) {
        return;
    }
    uint32_t gone = 0;
    while (gone < ranges->count && ranges->list[gone].first <= floor + 1) {
        if (ranges->list[gone].last > floor) {
            floor = ranges->list[gone].last;
        }
        gone++;
    }
    ranges->floor = floor;
    remove_runs(ranges, 0, gone);
}

int ranges_reserve(struct ranges *ranges, size_t more)
{
    size_t need = ranges->count + more;
    if (need > RANGES_MAX) {
        return -ENOBUFS;
    }
    if (need > ranges->capacity) {
        size_t capacity = need < 4 ? 4 : need * 2;
        struct range *list = reallocarray(ranges->list, capacity, sizeof(*list));
        if (list == NULL) {
            return -ENOMEM;
        }
        ranges->list = list;
        ranges->capacity = (uint32_t)capacity;
    }
    return 0;
}

static int insert_run(struct ranges *ranges, uint32_t at, struct range run)
{
    int rc = ranges_reserve(ranges, 1);
    if (rc < 0) {
        return rc;
    }
    memmove(&ranges->list[at + 1], &ranges->list[at], (ranges->count - at) * sizeof(run));
    ranges->list[at] = run;
    ranges->count++;
    return 0;
}

int ranges_add(struct ranges *ranges, uint64_t first, uint64_t last)
{
    if (first == 0 || first > last) {
        return -EINVAL;
    }
    if (first <= ranges->floor + 1) {
        ranges_raise(ranges, last);
        return 0;
    }
    uint32_t at = find(ranges, first - 1);
    uint32_t end = at;
    struct range run = {first, last};
    while (end < ranges->count && ranges->list[end].first - 1 <= last) {
        run.first = run.first < ranges->list[end].first ? run.first : ranges->list[end].first;
        run.last = run.last > ranges->list[end].last ? run.last : ranges->list[end].last;
        end++;
    }
    if (end == at) {
        return insert_run(ranges, at, run);
    }
    ranges->list[at] = run;
    remove_runs(ranges, at + 1, end - at - 1);
    return 0;
}

/* What is left of a run behind the hole is a run of its own. */
static int cut_run(struct ranges *ranges, uint32_t at, uint64_t first, uint64_t last)
{
    struct range run = ranges->list[at];
    if (run.first < first && run.last > last) {
        int rc = insert_run(ranges, at + 1, (struct range){last + 1, run.last});
        if (rc == 0) {
            ranges->list[at].last = first - 1;
        }
        return rc;
    }
    if (run.first < first) {
        ranges->list[at].last = first - 1;
    } else if (run.last > last) {
        ranges->list[at].first = last + 1;
    } else {
        remove_runs(ranges, at, 1);
    }
    return 0;
}

int ranges_remove(struct ranges *ranges, uint64_t first, uint64_t last)
{
    if (first == 0 || first > last || !ranges_covers(ranges, first, last)) {
        return -EINVAL;
    }
    if (first > ranges->floor) {
        return cut_run(ranges, find(ranges, first), first, last);
    }
    if (last < ranges->floor) {
        int rc = insert_run(ranges, 0, (struct range){last + 1, ranges->floor});
        if (rc < 0) {
            return rc;
        }
    }
    ranges->floor = first - 1;
    return 0;
}

bool ranges_covers(const struct ranges *ranges, uint64_t first, uint64_t last)
{
    if (last <= ranges->floor) {
        return true;
    }
    first = first <= ranges->floor ? ranges->floor + 1 : first;
    uint32_t at = find(ranges, first);
    return at < ranges->count && ranges->list[at].first <= first && ranges->list[at].last >= last;
}

bool ranges_contains(const struct ranges *ranges, uint64_t seq)
{
    return ranges_covers(ranges, seq, seq);
}

uint64_t ranges_next_open(const struct ranges *ranges, uint64_t from)
{
    from = from <= ranges->floor ? ranges->floor + 1 : from;
    uint32_t at = find(ranges, from);
    return at < ranges->count && ranges->list[at].first <= from ? ranges->list[at].last + 1 : from;
}

uint64_t ranges_next_settled(const struct ranges *ranges, uint64_t from)
{
    if (from <= ranges->floor) {
        return from;
    }
    uint32_t at = find(ranges, from);
    if (at == ranges->count) {
        return UINT64_MAX;
    }
    return ranges->list[at].first > from ? ranges->list[at].first : from;
}
