/* salvage_letters.h - the dead letters of a store that was set aside, by the scan they are about.
 *
 * For the child that salvages, in its memory alone; the wreck must not list more meanwhile. */
#pragma once

#include "gateway/store/letter.h"
#include "gateway/store/wreck.h"

struct letter_ref {
    const struct wreck_entry *entry;
    uint64_t seq;
    uint32_t device;
    uint16_t stream;
    bool taken; /* its scan went out with it */
};

struct letter_list {
    struct letter_ref *refs; /* by stream, device, seq, entry */
    size_t count, capacity;
    uint64_t bad; /* not readable, and no left-overs */
    struct letter_opener opener;
};

/* Lists those that read; `touch` says of each entry that it is looked at now, false: leave it.
 * -ENOMEM. */
must_check int letters_list(struct letter_list *list, struct wreck *wreck,
                            bool (*touch)(void *user, const struct wreck_entry *entry), void *user);
/* Those of that scan. */
struct letter_ref *letters_of(const struct letter_list *list, const struct scan *scan,
                              size_t *ret_count);
/* Reads one; valid until the next. -EBADMSG, -EIO, -ENOMEM. */
must_check int letters_read(struct letter_list *list, struct wreck *wreck,
                            const struct wreck_entry *entry, struct store_letter *ret_letter);
