/* memo.h - what the writer remembers of the blocks of the log that it wrote last.
 *
 * The writer's alone. Mostly a block leaves the log soon after it came: here it says which scans
 * were in it, so that it need not be read and decoded for that. What is not remembered is read. */
#pragma once

#include "gateway/store/wal.h"

/* So many blocks, the newest; one with more runs (scans of one device and stream, one behind the
 * other) is not remembered. */
enum { MEMO_BLOCKS = 16, MEMO_RUNS_MAX = 2048 };

struct memo_run {
    uint64_t prev_seq, last_seq; /* before its first scan; of its last one */
    uint32_t device;
    uint16_t stream;
};

struct memo_block {
    uint64_t number; /* 0: none */
    size_t len;
    struct wal_header header; /* as it is in the block */
    struct memo_run *runs;
    size_t run_count, run_capacity;
};

struct memo {
    struct memo_block blocks[MEMO_BLOCKS];
};

void memo_finish(struct memo *memo);

/* The block that was encoded of these rows will have that number. Nothing is kept of it where there
 * is no memory. */
void memo_note(struct memo *memo, uint64_t number, const struct wal_row *rows, size_t count,
               const void *block, size_t len);
/* It left, or never came. */
void memo_forget(struct memo *memo, uint64_t number);
/* NULL: not remembered. */
const struct memo_block *memo_find(const struct memo *memo, uint64_t number);
