#include "gateway/store/key.h"

static void put_big(struct key *key, uint64_t value, size_t width)
{
    for (size_t i = width; i-- > 0;) {
        key->bytes[key->len++] = (uint8_t)(value >> (8 * i));
    }
}

static uint64_t get_big(const uint8_t *from, size_t width)
{
    uint64_t value = 0;
    for (size_t i = 0; i < width; i++) {
        value = value << 8 | from[i];
    }
    return value;
}

struct key key_plain(enum key_type type)
{
    return (struct key){.bytes = {(uint8_t)type}, .len = 1};
}

struct key key_number(enum key_type type, uint64_t number)
{
    struct key key = key_plain(type);
    put_big(&key, number, 8);
    return key;
}

struct key key_pair(enum key_type type, uint32_t first, uint32_t second)
{
    struct key key = key_plain(type);
    put_big(&key, first, 4);
    put_big(&key, second, 4);
    return key;
}

struct key key_large(unsigned stream, uint32_t device, uint64_t seq)
{
    struct key key = key_plain(KEY_LARGE);
    put_big(&key, stream, 1);
    put_big(&key, device, 4);
    put_big(&key, seq, 8);
    return key;
}

bool key_parse_large(const void *bytes, size_t len, unsigned *ret_stream, uint32_t *ret_device,
                     uint64_t *ret_seq)
{
    const uint8_t *at = bytes;
    if (len != 14 || at[0] != (uint8_t)KEY_LARGE) {
        return false;
    }
    *ret_stream = at[1];
    *ret_device = (uint32_t)get_big(at + 2, 4);
    *ret_seq = get_big(at + 6, 8);
    return true;
}

bool key_parse_number(enum key_type type, const void *bytes, size_t len, uint64_t *ret_number)
{
    const uint8_t *at = bytes;
    if (len != 9 || at[0] != (uint8_t)type) {
        return false;
    }
    *ret_number = get_big(at + 1, 8);
    return true;
}

bool key_parse_pair(enum key_type type, const void *bytes, size_t len, uint32_t *ret_first,
                    uint32_t *ret_second)
{
    const uint8_t *at = bytes;
    if (len != 9 || at[0] != (uint8_t)type) {
        return false;
    }
    *ret_first = (uint32_t)get_big(at + 1, 4);
    *ret_second = (uint32_t)get_big(at + 5, 4);
    return true;
}

void field_put32(uint8_t *to, uint32_t value)
{
    for (unsigned i = 0; i < 4; i++) {
        to[i] = (uint8_t)(value >> (8 * i));
    }
}

void field_put64(uint8_t *to, uint64_t value)
{
    field_put32(to, (uint32_t)value);
    field_put32(to + 4, (uint32_t)(value >> 32));
}

uint32_t field_get32(const uint8_t *from)
{
    return (uint32_t)from[0] | (uint32_t)from[1] << 8 | (uint32_t)from[2] << 16 |
           (uint32_t)from[3] << 24;
}

uint64_t field_get64(const uint8_t *from)
{
    return field_get32(from) | (uint64_t)field_get32(from + 4) << 32;
}
