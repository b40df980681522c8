/* block.h - a run of scans of one device and stream as one self-contained block of bytes.
 *
 * Pure, any thread. Exact for every value kind, NaN payloads and negative zero included, and for
 * every quality, gap in seq and jitter in time. Layout (version 1, integers are LEB128, signed ones
 * in zig-zag form):
 *
 *   u8 version, u32 CRC-32C over all that follows (little-endian),
 *   stream, device, count, first seq, first time, last time, last seq,
 *   head of the four scan columns (seq, time on its grid, jitter, boot time, window),
 *   columns, for each: point id, its states as runs, its value streams (integers as column.h has
 *   them, doubles as XOR with the one before, texts by a dictionary), and the bits of all of them.
 *
 * A column is one point. Its state is (kind, quality, exponent), in runs; its values follow in the
 * order of the rows, one stream a kind. Doubles that are short decimals travel as integers. */
#pragma once

#include "gateway/base/scan.h"

enum { CODEC_VERSION = 1, CODEC_SCANS_MAX = 16384, CODEC_COLUMNS_MAX = SCAN_READINGS_MAX };

struct codec_head {
    enum stream stream;
    uint32_t device;
    uint32_t count; /* scans */
    uint64_t first_seq, last_seq;
    int64_t first_ms, last_ms; /* times of the first and last scan */
};

/* Appends one block of count scans (1..CODEC_SCANS_MAX) of one device and stream in seq order.
 * -EINVAL: the scans do not belong into one block (another device or stream, seq not rising, a
 * point twice in a scan); -ENOMEM. */
must_check int codec_encode(const struct scan *const *scans, size_t count, struct buffer *to);

/* Reads the head of a block and checks its checksum: -EBADMSG when it is damaged, -ENOTSUP for a
 * version that this program does not know. */
must_check int codec_peek(const uint8_t *bytes, size_t len, struct codec_head *ret_head);

/* Appends the block's scans to `to`, one behind the other (scan_size() each; to->data is aligned
 * for them when `to` was empty). Readings come in column order. Any bytes at all may be given:
 * -EBADMSG, -ENOTSUP, -ENOMEM (also when they would not fit to->max). */
must_check int codec_decode(const uint8_t *bytes, size_t len, struct buffer *to,
                            struct codec_head *ret_head);
