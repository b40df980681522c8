/* json_pointer.h - many JSON pointers (RFC 6901) resolved in one pass over a document.
 *
 * Pure, any thread. A set is made once; a walk costs the length of the document, whatever the
 * number of pointers, and steps over what no pointer leads into. */
#pragma once

#include "gateway/base/json_reading.h"

enum { JSON_POINTER_MAX = 255 /* characters */ };

/* 0, or -EINVAL with why in words: neither empty nor begun by '/', too long, a '~' without 0 or 1
 * behind it, a control character. */
must_check int json_pointer_check(const char *pointer, const char **ret_why);

struct json_pointer_entry {
    const char *pointer;
    size_t index; /* the caller's */
};

struct json_pointer_set {
    struct json_pointer_entry *entries; /* sorted by pointer */
    size_t count;
};

/* The pointers must pass json_pointer_check() and outlive the set. -ENOMEM. */
must_check int json_pointer_set_init(struct json_pointer_set *set, const char *const *pointers,
                                     size_t count);
void json_pointer_set_finish(struct json_pointer_set *set);

/* Validates the whole document and calls `found` for each pointer that leads to a value, as
 * json_reading_take() reads it; twice where a member stands twice. The text is gone after the call.
 * -EBADMSG with why: the document is no JSON. */
must_check int json_pointer_walk(const struct json_pointer_set *set, const char *text, size_t len,
                                 void (*found)(void *user, size_t index,
                                               const struct reading *reading,
                                               struct json_in_text text),
                                 void *user, const char **ret_why);
