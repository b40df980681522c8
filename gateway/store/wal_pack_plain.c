#include "gateway/store/wal_pack.h"

uint8_t *wal_pack(uint8_t *at, const uint32_t *numbers, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        at = wal_put(at, numbers[i]);
    }
    return at;
}
