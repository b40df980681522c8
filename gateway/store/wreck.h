/* wreck.h - what can still be found in the file of an environment that is damaged.
 *
 * For the child that salvages: reads with pread(), never through LMDB or a map, trusts no number in
 * the file, and changes nothing. An entry is listed by what its key says and where its leaf lies;
 * whether its value is any good only its own checksum tells. Blocks on the disk. */
#pragma once

#include "gateway/base/buffer.h"
#include "gateway/store/key.h"

enum {
    WRECK_ENTRIES_MAX = 4 * 1024 * 1024, /* listed; what a file holds beyond is left */
    WRECK_VALUE_MAX = 64 * 1024 * 1024,
};

/* In the order in which they are listed: the records that explain the blocks, large blocks by
 * stream, device and seq, the log by number, dead letters and small records by theirs. */
enum wreck_kind {
    WRECK_STATE,
    WRECK_ANCHOR,
    WRECK_DEVICE,
    WRECK_LARGE,
    WRECK_LOG,
    WRECK_LETTER,
    WRECK_RECORD,
    WRECK_KINDS
};

/* Ascending in the list: by part, number, leaf. */
struct wreck_entry {
    uint64_t part;   /* orphan, kind, stream and device: see wreck_kind() and the others */
    uint64_t number; /* first seq, number in the log, version, number of the anchor */
    uint64_t leaf;   /* where its key lies: page, and node within it */
};

static inline enum wreck_kind wreck_kind(const struct wreck_entry *entry)
{
    return (enum wreck_kind)(entry->part >> 40 & 0xff);
}
/* Found on a page that no tree leads to: it may be an older state of things. */
static inline bool wreck_is_orphan(const struct wreck_entry *entry)
{
    return entry->part >> 48 != 0;
}
static inline unsigned wreck_stream(const struct wreck_entry *entry)
{
    return entry->part >> 32 & 0xff;
}
static inline uint32_t wreck_device(const struct wreck_entry *entry)
{
    return (uint32_t)entry->part;
}
/* Below, at, or above 0, as of memcmp(). */
int wreck_order(const struct wreck_entry *a, const struct wreck_entry *b);

struct wreck;

/* Lists what the newest tree leads to. beat is called now and then while it looks. -ENOMEM, or
 * another -errno where the file cannot be read at all. */
must_check int wreck_open(const char *file, void (*beat)(void *user), void *user,
                          struct wreck **ret_wreck);
void wreck_close(struct wreck *wreck);

/* The tree does not lead everywhere: a page of it is no page, or there is no meta page. */
bool wreck_is_broken(const struct wreck *wreck);
/* Lists also what lies on leaves that the tree does not lead to. -ENOMEM. */
must_check int wreck_add_orphans(struct wreck *wreck);

size_t wreck_count(const struct wreck *wreck);
const struct wreck_entry *wreck_at(const struct wreck *wreck, size_t i);

/* Replaces what is in ret_value by the entry's value. -EBADMSG: it does not lie where it should;
 * -EIO: the disk does not give it; -ENOMEM. */
must_check int wreck_read(struct wreck *wreck, const struct wreck_entry *entry,
                          struct buffer *ret_value);
