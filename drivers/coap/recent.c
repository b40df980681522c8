#include "drivers/coap/recent.h"

#include "gateway/base/log.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

#define MAGIC UINT64_C(0x77696e64726f7701) /* version 1 in the last byte */

struct entry {
    uint64_t key; /* 0: free */
    uint64_t device;
    uint64_t last_seq;
    int64_t time_ms; /* CLOCK_BOOTTIME, as the file does not outlive a boot by meaning */
    uint32_t state, reserved;
};

struct table {
    uint64_t magic;
    uint64_t next;
    struct entry entries[RECENT_MAX];
};

struct recent {
    struct table *table;
    bool mapped;
};

static uint64_t mix(uint64_t hash, const void *bytes, size_t len)
{
    const uint8_t *at = bytes;
    for (size_t i = 0; i < len; i++) {
        hash = (hash ^ at[i]) * UINT64_C(0x100000001b3);
    }
    return hash ^ hash >> 29;
}

uint64_t recent_key(const void *address, size_t address_len, int message_id, const void *token,
                    size_t token_len)
{
    uint64_t hash = mix(UINT64_C(0xcbf29ce484222325), address, address_len);
    hash = mix(hash, &message_id, sizeof(message_id));
    hash = mix(hash, &token_len, sizeof(token_len));
    hash = token_len > 0 ? mix(hash, token, token_len) : hash;
    return hash == 0 ? 1 : hash;
}

static struct table *map_file(const char *path)
{
    auto_close int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0 || ftruncate(fd, sizeof(struct table)) < 0) {
        return NULL;
    }
    void *mapped = mmap(NULL, sizeof(struct table), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    return mapped == MAP_FAILED ? NULL : mapped;
}

static void adopt(struct table *table)
{
    if (table->magic != MAGIC || table->next >= RECENT_MAX) {
        memset(table, 0, sizeof(*table));
        table->magic = MAGIC;
    }
    for (size_t i = 0; i < RECENT_MAX; i++) {
        struct entry *entry = &table->entries[i];
        if (entry->state == RECENT_PENDING) {
            entry->state = RECENT_LEFT_OVER;
        } else if (entry->state > RECENT_LEFT_OVER) {
            *entry = (struct entry){0};
        }
    }
}

int recent_create(const char *path, struct recent **ret_recent)
{
    struct recent *recent = calloc(1, sizeof(*recent));
    if (recent == NULL) {
        return -ENOMEM;
    }
    recent->table = path == NULL ? NULL : map_file(path);
    recent->mapped = recent->table != NULL;
    if (recent->table == NULL) {
        if (path != NULL) {
            log_warning("%s: %s: posts repeated across a restart may be stored twice", path,
                        strerror(errno));
        }
        recent->table = calloc(1, sizeof(*recent->table));
    }
    if (recent->table == NULL) {
        free(recent);
        return -ENOMEM;
    }
    adopt(recent->table);
    *ret_recent = recent;
    return 0;
}

void recent_destroy(struct recent *recent)
{
    if (recent == NULL) {
        return;
    }
    if (recent->mapped) {
        munmap(recent->table, sizeof(*recent->table));
    } else {
        free(recent->table);
    }
    free(recent);
}

static struct entry *find(const struct recent *recent, uint64_t key)
{
    for (size_t i = 0; i < RECENT_MAX; i++) {
        /* Backwards from the newest: a repeat comes soon. */
        size_t at = (recent->table->next + RECENT_MAX - 1 - i) % RECENT_MAX;
        if (recent->table->entries[at].key == key) {
            return &recent->table->entries[at];
        }
    }
    return NULL;
}

enum recent_state recent_find(const struct recent *recent, uint64_t key, int64_t now_ms)
{
    const struct entry *entry = find(recent, key);
    if (entry == NULL || now_ms < entry->time_ms || now_ms - entry->time_ms > RECENT_LIFETIME_MS) {
        return RECENT_NONE;
    }
    return (enum recent_state)entry->state;
}

void recent_begin(struct recent *recent, uint64_t key, const char *device, uint64_t last_seq,
                  int64_t now_ms)
{
    struct table *table = recent->table;
    table->entries[table->next] = (struct entry){
        .key = key,
        .device = mix(0, device, strlen(device)),
        .last_seq = last_seq,
        .time_ms = now_ms,
        .state = RECENT_PENDING,
    };
    table->next = (table->next + 1) % RECENT_MAX;
}

void recent_settle(struct recent *recent, uint64_t key, bool stored)
{
    struct entry *entry = find(recent, key);
    if (entry != NULL && stored) {
        entry->state = RECENT_STORED;
    } else if (entry != NULL) {
        *entry = (struct entry){0};
    }
}

void recent_resolve(struct recent *recent, const char *device, uint64_t last_seq)
{
    uint64_t hash = mix(0, device, strlen(device));
    for (size_t i = 0; i < RECENT_MAX; i++) {
        struct entry *entry = &recent->table->entries[i];
        if (entry->state == RECENT_LEFT_OVER && entry->device == hash) {
            if (entry->last_seq <= last_seq) {
                entry->state = RECENT_STORED;
            } else {
                *entry = (struct entry){0};
            }
        }
    }
}
