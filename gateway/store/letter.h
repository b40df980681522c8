/* letter.h - the bytes of a dead letter.
 *
 * Pure, one owner. Version 1: time, uplink, why, the scan as a block of the log. Version 2: before
 * the block how many readings were refused and their point ids; 0 is all of them. */
#pragma once

#include "gateway/store/dead.h"
#include "gateway/store/wal.h"

/* Appends the letter (its number is its key's). now_ms: when the block was written. -ENOMEM and as
 * wal_encode(). */
must_check int letter_encode(struct wal_encoder *encoder, const struct store_letter *letter,
                             int64_t now_ms, struct buffer *record);

/* What a letter is read into; the last one is valid until the next. */
struct letter_opener {
    struct wal_decoder *decoder;
    struct buffer record; /* for the caller */
    struct buffer uplink, why, points, arena, refused;
};
must_check int letter_opener_init(struct letter_opener *opener);
void letter_opener_finish(struct letter_opener *opener);
/* -EBADMSG, -ENOMEM; ret_letter is untouched then. Its number stays what it is. */
must_check int letter_open(struct letter_opener *opener, const void *record, size_t len,
                           struct store_letter *ret_letter);
