#include "gateway/writes/write_memory.h"

#include <errno.h>
#include <string.h>

int write_memory_init(struct write_memory *memory)
{
    *memory = (struct write_memory){.next = 1};
    memory->entries = calloc(WRITES_REMEMBERED, sizeof *memory->entries);
    return memory->entries == NULL ? -ENOMEM : 0;
}

void write_memory_finish(struct write_memory *memory)
{
    for (size_t i = 0; i < memory->count; i++) {
        free(memory->entries[i].record);
    }
    free(memory->entries);
    free(memory->paces);
    *memory = (struct write_memory){0};
}

const struct write_entry *write_memory_find(const struct write_memory *memory, const char *id)
{
    for (size_t i = memory->count; i > 0; i--) {
        const struct write_record *record = memory->entries[i - 1].record;
        if (!record->standing && strcmp(record->id, id) == 0) {
            return &memory->entries[i - 1];
        }
    }
    return NULL;
}

const struct write_entry *write_memory_standing(const struct write_memory *memory,
                                                const struct write_record *record)
{
    for (size_t i = memory->count; i > 0; i--) {
        if (write_record_rivals(memory->entries[i - 1].record, record)) {
            return &memory->entries[i - 1];
        }
    }
    return NULL;
}

static bool is_standing(const struct write_record *record)
{
    return record->standing;
}

static bool is_afar(const struct write_record *record)
{
    return record->afar;
}

static size_t count_those(const struct write_memory *memory,
                          bool (*is)(const struct write_record *record))
{
    size_t n = 0;
    for (size_t i = 0; i < memory->count; i++) {
        n += is(memory->entries[i].record);
    }
    return n;
}

const struct write_entry *write_memory_number(const struct write_memory *memory, uint64_t number)
{
    for (size_t i = memory->count; i > 0; i--) {
        if (memory->entries[i - 1].number == number) {
            return &memory->entries[i - 1];
        }
    }
    return NULL;
}

static void remove_at(struct write_memory *memory, size_t i)
{
    free(memory->entries[i].record);
    memory->count--;
    memmove(&memory->entries[i], &memory->entries[i + 1],
            (memory->count - i) * sizeof memory->entries[0]);
}

void write_memory_forget(struct write_memory *memory, uint64_t number)
{
    const struct write_entry *entry = write_memory_number(memory, number);
    if (entry != NULL) {
        remove_at(memory, (size_t)(entry - memory->entries));
    }
}

static bool may_go(const struct write_record *record, bool afar_only)
{
    return record->status != 0 && !record->standing && (record->afar || !afar_only);
}

/* Of the closed ones the oldest, when it is old enough; a clock that was set makes it old, too. */
static int make_room(struct write_memory *memory, const struct write_record *record,
                     uint64_t *ret_forgotten)
{
    bool crowded = record->afar && count_those(memory, is_afar) >= WRITES_AFAR;
    *ret_forgotten = 0;
    if (memory->count < WRITES_REMEMBERED && !crowded) {
        return 0;
    }
    size_t i = 0;
    while (i < memory->count && !may_go(memory->entries[i].record, crowded)) {
        i++;
    }
    if (i == memory->count ||
        llabs(record->time_ms - memory->entries[i].record->time_ms) < WRITES_KEPT_MS) {
        return -EBUSY;
    }
    *ret_forgotten = memory->entries[i].number;
    remove_at(memory, i);
    return 0;
}

static int append(struct write_memory *memory, uint64_t number, const struct write_record *record)
{
    struct write_record *copy = malloc(sizeof *copy);
    if (copy == NULL) {
        return -ENOMEM;
    }
    *copy = *record;
    memory->entries[memory->count++] = (struct write_entry){.number = number, .record = copy};
    memory->next = number >= memory->next ? number + 1 : memory->next;
    return 0;
}

int write_memory_add(struct write_memory *memory, const struct write_record *record,
                     uint64_t *ret_number, uint64_t *ret_forgotten)
{
    if (record->standing && count_those(memory, is_standing) >= WRITES_STANDING) {
        return -EBUSY;
    }
    int r = make_room(memory, record, ret_forgotten);
    uint64_t number = memory->next;
    r = r < 0 ? r : append(memory, number, record);
    if (r == 0) {
        *ret_number = number;
    }
    return r;
}

int write_memory_restore(struct write_memory *memory, uint64_t number,
                         const struct write_record *record)
{
    return memory->count == WRITES_REMEMBERED ? -ENOBUFS : append(memory, number, record);
}

static struct write_pace *find_pace(const struct write_memory *memory,
                                    const struct write_record *record)
{
    for (size_t i = 0; i < memory->pace_count; i++) {
        struct write_pace *pace = &memory->paces[i];
        if (strcmp(pace->device, record->device) == 0 && strcmp(pace->point, record->point) == 0) {
            return pace;
        }
    }
    return NULL;
}

static void forget_paces(struct write_memory *memory, int64_t before_ms)
{
    size_t kept = 0;
    for (size_t i = 0; i < memory->pace_count; i++) {
        if (memory->paces[i].begun_ms > before_ms) {
            memory->paces[kept++] = memory->paces[i];
        }
    }
    memory->pace_count = kept;
}

int64_t write_memory_wait_ms(struct write_memory *memory, const struct write_record *record,
                             int64_t interval_ms, int64_t now_ms)
{
    forget_paces(memory, now_ms - interval_ms);
    const struct write_pace *pace = find_pace(memory, record);
    if (pace == NULL) {
        return memory->pace_count == WRITES_PACED ? interval_ms : 0;
    }
    return pace->begun_ms + interval_ms - now_ms;
}

int write_memory_begin(struct write_memory *memory, const struct write_record *record,
                       int64_t now_ms)
{
    struct write_pace *grown = reallocarray(memory->paces, memory->pace_count + 1, sizeof *grown);
    if (grown == NULL) {
        return -ENOMEM;
    }
    memory->paces = grown;
    struct write_pace *pace = &grown[memory->pace_count++];
    memcpy(pace->device, record->device, sizeof pace->device);
    memcpy(pace->point, record->point, sizeof pace->point);
    pace->begun_ms = now_ms;
    return 0;
}
