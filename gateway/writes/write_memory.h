/* write_memory.h - which commands were given lately, and how each point was written last.
 *
 * No locking of its own: its owner's lock. Bounded: an id that a client chose is known for at least
 * WRITES_KEPT_MS; when WRITES_REMEMBERED of them are younger than that, the next is refused. A
 * standing command is known until its next one came, and there are at most WRITES_STANDING. Those
 * from afar are at most WRITES_AFAR, so that no flood of them keeps the technician out. */
#pragma once

#include "gateway/writes/write_record.h"

enum {
    WRITES_REMEMBERED = 2048,
    WRITES_AFAR = 1536,
    WRITES_STANDING = 512,
    WRITES_KEPT_MS = 600 * 1000,
    WRITES_PACED = 4096
};

struct write_memory {
    struct write_entry {
        uint64_t number; /* of its record in the store */
        struct write_record *record;
    } * entries; /* by number */
    size_t count;
    uint64_t next;
    struct write_pace {
        char device[WRITE_NAME_MAX + 1], point[WRITE_NAME_MAX + 1];
        int64_t begun_ms; /* monotonic */
    } * paces;
    size_t pace_count;
};

must_check int write_memory_init(struct write_memory *memory);
void write_memory_finish(struct write_memory *memory);

/* The command of that id that does not stand, or NULL. */
const struct write_entry *write_memory_find(const struct write_memory *memory, const char *id);
const struct write_entry *write_memory_number(const struct write_memory *memory, uint64_t number);

/* The last word of the same one on the same point, or NULL. */
const struct write_entry *write_memory_standing(const struct write_memory *memory,
                                                const struct write_record *record);

/* Takes a copy, under the next number; *ret_forgotten is the number of one that had to go for it, 0
 * when none. -EBUSY: no room, -ENOMEM. */
must_check int write_memory_add(struct write_memory *memory, const struct write_record *record,
                                uint64_t *ret_number, uint64_t *ret_forgotten);
/* The same for one that the store remembers. */
must_check int write_memory_restore(struct write_memory *memory, uint64_t number,
                                    const struct write_record *record);
void write_memory_forget(struct write_memory *memory, uint64_t number);

/* How long until this point may be written again, 0: now. When WRITES_PACED points were written
 * within the interval it is a while for any other, too. Times are monotonic. */
int64_t write_memory_wait_ms(struct write_memory *memory, const struct write_record *record,
                             int64_t interval_ms, int64_t now_ms);
/* It is being written now. -ENOMEM. */
must_check int write_memory_begin(struct write_memory *memory, const struct write_record *record,
                                  int64_t now_ms);
