/* cbor_item.h - CBOR (RFC 8949) an item at a time, with nothing allocated.
 *
 * Pure, any thread; libcbor's stream decoder underneath. Lengths that a hostile sender announces
 * are only believed as far as bytes follow. Texts point into the input. */
#pragma once

#include "gateway/base/scan.h"

enum cbor_kind {
    CBOR_NUMBER, /* `number`: an integer, a float16 or float32 (VALUE_FLOAT), a double, a truth */
    CBOR_BYTES,
    CBOR_TEXT,
    CBOR_ARRAY, /* `count` items follow, or a break when `indefinite` */
    CBOR_MAP,   /* pairs */
    CBOR_TAG,   /* `count` is the tag; its item follows */
    CBOR_NULL,  /* or undefined */
    CBOR_BREAK
};

struct cbor_item {
    enum cbor_kind kind;
    struct reading number;
    uint64_t count;
    const uint8_t *data;
    size_t len;
    bool indefinite;
};

/* Takes one item's head (texts whole). -EINVAL: broken, or a form that this program does not read
 * (texts in pieces). */
must_check int cbor_take(struct cursor *cursor, struct cbor_item *ret_item);

/* Skips what follows the head that was taken, to `depth` levels. */
must_check int cbor_skip(struct cursor *cursor, const struct cbor_item *item, unsigned depth);

/* The number whose head was taken: integer, float, or a decimal fraction (tag 4, RFC 8949 section
 * 3.4.4). -EINVAL: something else. */
must_check int cbor_number(struct cursor *cursor, const struct cbor_item *item,
                           struct reading *ret_reading);
