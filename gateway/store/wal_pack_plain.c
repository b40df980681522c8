#include "gateway/store/wal_pack.h"

unsigned wal_steps(const struct reading *const *rows, size_t index, size_t count, uint32_t *steps)
{
    uint64_t all[TOGETHER] = {0};
    for (size_t i = 1; i < count; i++) {
        const struct reading *now = rows[i] + index, *before = rows[i - 1] + index;
        for (size_t c = 0; c < TOGETHER; c++) {
            uint64_t step = wal_zigzag((uint64_t)now[c].integer - (uint64_t)before[c].integer);
            steps[c * count + i - 1] = (uint32_t)step;
            all[c] |= step;
        }
    }
    unsigned wide = 0;
    for (size_t c = 0; c < TOGETHER; c++) {
        wide |= (unsigned)(all[c] >> 32 != 0) << c;
    }
    return wide;
}

uint8_t *wal_pack(uint8_t *at, const uint32_t *numbers, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        at = wal_put(at, numbers[i]);
    }
    return at;
}
