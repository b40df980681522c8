/* range.h - `t{01..24}` and `{a,b,c}`: many names or values out of one text.
 *
 * Pure, any thread. A range counts by one in either direction; the width of its first number stays
 * when either end has a leading zero. A text holds at most one range where it names sections; in
 * a value all are walked in step. */
#pragma once

#include "gateway/base/buffer.h"

enum { RANGE_MEMBERS_MAX = 10000 };

struct range {
    size_t start, end; /* of the braces in the text, end behind the '}' */
    size_t count;      /* of members */
    bool numeric;
    int64_t first, step; /* numeric */
    int width;
};

/* The first range at or after `from`. 1: found; 0: none; -E2BIG: more than RANGE_MEMBERS_MAX;
 * -EINVAL: a range that is none ("{3..}", "{a,,b}"). Braces without ".." or ',' are plain text. */
must_check int range_find(const char *text, size_t from, struct range *ret_range);

/* Appends member i of the range, without the text around it. */
void range_member(const char *text, const struct range *range, size_t i, struct buffer *ret_text);

/* text with each range replaced by its member i. 0; -ERANGE: one of them has another count than
 * `count`, which goes to ret_count; -EINVAL, -E2BIG as above. */
must_check int range_expand(const char *text, size_t i, size_t count, struct buffer *ret_text,
                            size_t *ret_count);
