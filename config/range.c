#include "config/range.h"

#include <ctype.h>
#include <errno.h>
#include <string.h>

/* Up to 15 digits: enough, and no overflow. */
static size_t take_number(const char *text, int64_t *ret_number)
{
    size_t n = 0;
    int64_t number = 0;
    while (n < 15 && isdigit((unsigned char)text[n])) {
        number = number * 10 + (text[n] - '0');
        n++;
    }
    *ret_number = number;
    return n;
}

static int read_numeric(const char *inside, size_t len, struct range *range)
{
    int64_t first, last;
    size_t first_len = take_number(inside, &first);
    if (first_len == 0 || strncmp(inside + first_len, "..", 2) != 0) {
        return -EINVAL;
    }
    const char *second = inside + first_len + 2;
    size_t last_len = take_number(second, &last);
    if (last_len == 0 || first_len + 2 + last_len != len) {
        return -EINVAL;
    }
    uint64_t distance = (uint64_t)(first < last ? last - first : first - last);
    if (distance >= RANGE_MEMBERS_MAX) {
        return -E2BIG;
    }
    bool padded = (inside[0] == '0' && first_len > 1) || (second[0] == '0' && last_len > 1);
    range->numeric = true;
    range->first = first;
    range->step = first <= last ? 1 : -1;
    range->count = (size_t)distance + 1;
    range->width = padded ? (int)(first_len > last_len ? first_len : last_len) : 0;
    return 1;
}

static int read_list(const char *inside, size_t len, struct range *range)
{
    range->numeric = false;
    range->count = 1;
    bool empty = true;
    for (size_t i = 0; i < len; i++) {
        if (inside[i] != ',') {
            empty = empty && isspace((unsigned char)inside[i]);
            continue;
        }
        if (empty) {
            return -EINVAL;
        }
        range->count++;
        empty = true;
    }
    return empty ? -EINVAL : range->count > RANGE_MEMBERS_MAX ? -E2BIG : 1;
}

int range_find(const char *text, size_t from, struct range *ret_range)
{
    for (const char *open = strchr(text + from, '{'); open != NULL; open = strchr(open + 1, '{')) {
        const char *close = strchr(open, '}');
        if (close == NULL) {
            return 0;
        }
        const char *inside = open + 1;
        size_t len = (size_t)(close - inside);
        ret_range->start = (size_t)(open - text);
        ret_range->end = (size_t)(close + 1 - text);
        if (memchr(inside, '{', len) != NULL) {
            continue;
        }
        if (memmem(inside, len, "..", 2) != NULL) {
            return read_numeric(inside, len, ret_range);
        }
        if (memchr(inside, ',', len) != NULL) {
            return read_list(inside, len, ret_range);
        }
    }
    return 0;
}

static void list_member(const char *inside, size_t i, struct buffer *ret_text)
{
    while (i > 0) {
        inside = strchr(inside, ',') + 1;
        i--;
    }
    size_t len = strcspn(inside, ",}");
    while (len > 0 && isspace((unsigned char)inside[0])) {
        inside++;
        len--;
    }
    while (len > 0 && isspace((unsigned char)inside[len - 1])) {
        len--;
    }
    buffer_add(ret_text, inside, len);
}

void range_member(const char *text, const struct range *range, size_t i, struct buffer *ret_text)
{
    if (range->numeric) {
        buffer_printf(ret_text, "%0*lld", range->width,
                      (long long)range->first + (long long)range->step * (long long)i);
    } else {
        list_member(text + range->start + 1, i, ret_text);
    }
}

int range_expand(const char *text, size_t i, size_t count, struct buffer *ret_text,
                 size_t *ret_count)
{
    size_t at = 0;
    struct range range;
    int found;
    while ((found = range_find(text, at, &range)) == 1) {
        if (range.count != count) {
            *ret_count = range.count;
            return -ERANGE;
        }
        buffer_add(ret_text, text + at, range.start - at);
        range_member(text, &range, i, ret_text);
        at = range.end;
    }
    buffer_add_text(ret_text, text + at);
    return found;
}
