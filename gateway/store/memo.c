#include "gateway/store/memo.h"

#include <stdlib.h>

void memo_finish(struct memo *memo)
{
    for (size_t i = 0; i < MEMO_BLOCKS; i++) {
        free(memo->blocks[i].runs);
    }
    *memo = (struct memo){0};
}

static bool more_runs(struct memo_block *block)
{
    if (block->run_count < block->run_capacity) {
        return true;
    }
    size_t capacity = block->run_capacity == 0 ? 64 : block->run_capacity * 2;
    struct memo_run *runs = capacity > MEMO_RUNS_MAX
                                ? NULL
                                : reallocarray(block->runs, capacity, sizeof(*runs));
    if (runs == NULL) {
        return false;
    }
    block->runs = runs;
    block->run_capacity = capacity;
    return true;
}

static bool list_runs(struct memo_block *block, const struct wal_row *rows, size_t count)
{
    block->run_count = 0;
    struct memo_run *run = NULL;
    for (size_t i = 0; i < count; i++) {
        const struct wal_row *row = &rows[i];
        if (run != NULL && run->device == row->device && run->stream == row->stream) {
            run->last_seq = row->seq;
            continue;
        }
        if (!more_runs(block)) {
            return false;
        }
        run = &block->runs[block->run_count++];
        *run = (struct memo_run){.prev_seq = row->prev_seq,
                                 .last_seq = row->seq,
                                 .device = row->device,
                                 .stream = row->stream};
    }
    return true;
}

void memo_note(struct memo *memo, uint64_t number, const struct wal_row *rows, size_t count,
               const void *block, size_t len)
{
    struct memo_block *noted = &memo->blocks[number % MEMO_BLOCKS];
    noted->number = 0;
    if (wal_read_header(block, len, &noted->header) == 0 && list_runs(noted, rows, count)) {
        noted->number = number;
        noted->len = len;
    }
}

void memo_forget(struct memo *memo, uint64_t number)
{
    struct memo_block *block = &memo->blocks[number % MEMO_BLOCKS];
    block->number = block->number == number ? 0 : block->number;
}

const struct memo_block *memo_find(const struct memo *memo, uint64_t number)
{
    const struct memo_block *block = &memo->blocks[number % MEMO_BLOCKS];
    return number != 0 && block->number == number ? block : NULL;
}
