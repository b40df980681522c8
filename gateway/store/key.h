/* key.h - keys and fixed fields of the store.
 *
 * Pure, any thread. A key is a type byte and big-endian fields, so that LMDB's byte order is the
 * order of the numbers, the same on 32 and 64 bit machines. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum key_type {
    KEY_ANCHOR = 'a', /* number of the clock anchor */
    KEY_WAL = 'w',    /* number of the write-ahead block */
    KEY_LARGE = 'b',  /* stream, device, first seq of the large block */
    KEY_STATE = 'x',  /* nothing; behind the log, since each commit changes both */
    KEY_DEVICE = 'p', /* device, version of its entry in the dictionary */
    KEY_NAME = 'n',   /* the same: a copy of it */
    KEY_DEAD = 'd',   /* number of the dead letter */
    KEY_RECORD = 'r', /* number of a small record */
    KEY_DAY = 'e',    /* day since 1970 that holds the number of its first block */
    /* The state in stores of the first arrangement; env.h. */
    KEY_STATE_FLAT = 's',
};

enum { KEY_SIZE_MAX = 16 };

struct key {
    uint8_t bytes[KEY_SIZE_MAX];
    size_t len;
};

struct key key_plain(enum key_type type);
struct key key_number(enum key_type type, uint64_t number);
struct key key_large(unsigned stream, uint32_t device, uint64_t seq);
struct key key_pair(enum key_type type, uint32_t first, uint32_t second);

/* Takes a key apart again; false when it is of another type or length. */
bool key_parse_number(enum key_type type, const void *bytes, size_t len, uint64_t *ret_number);
bool key_parse_pair(enum key_type type, const void *bytes, size_t len, uint32_t *ret_first,
                    uint32_t *ret_second);
bool key_parse_large(const void *bytes, size_t len, unsigned *ret_stream, uint32_t *ret_device,
                     uint64_t *ret_seq);

/* Fixed little-endian fields inside values. */
void field_put32(uint8_t *to, uint32_t value);
void field_put64(uint8_t *to, uint64_t value);
uint32_t field_get32(const uint8_t *from);
uint64_t field_get64(const uint8_t *from);
