#include "gateway/base/log.h"
#include "gateway/store/letter.h"
#include "gateway/store/salvage_work.h"
#include "gateway/store/store_clock.h"

#include <errno.h>
#include <string.h>

/* A letter is about as long as its scan; the commit holds both. */
enum { DIG_WEIGHT = 4 };

/* A frame as it lies in s->letters. */
struct told {
    struct frame_letter head;
    const char *uplink, *why; /* no NUL behind them */
    const uint8_t *refused;
    size_t size;
};

static bool read_told(const uint8_t *at, size_t len, struct told *ret_told)
{
    struct told told;
    if (len < sizeof(told.head)) {
        return false;
    }
    memcpy(&told.head, at, sizeof(told.head));
    uint64_t size = sizeof(told.head) + (uint64_t)told.head.uplink_len + told.head.why_len +
                    (uint64_t)told.head.refused_count * sizeof(uint16_t);
    if (size > len || told.head.refused_count > SCAN_READINGS_MAX) {
        return false;
    }
    told.uplink = (const char *)at + sizeof(told.head);
    told.why = told.uplink + told.head.uplink_len;
    told.refused = (const uint8_t *)told.why + told.head.why_len;
    told.size = (size_t)size;
    *ret_told = told;
    return true;
}

int salvage_take_letter(struct salvage *s, const uint8_t *at, size_t len)
{
    struct told told;
    if (!read_told(at, len, &told) || told.size != len) {
        return -EBADMSG;
    }
    buffer_add(&s->letters, at, len);
    return buffer_failed(&s->letters) ? -ENOMEM : 0;
}

/* The uplink of that name here; STORE_UPLINKS_MAX: none. */
static unsigned uplink_here(const struct salvage *s, const struct told *told)
{
    unsigned u = 0;
    for (; u < STORE_UPLINKS_MAX; u++) {
        const char *name = s->store->state.uplinks[u].name;
        if (name != NULL && strlen(name) == told->head.uplink_len &&
            memcmp(name, told->uplink, told->head.uplink_len) == 0) {
            break;
        }
    }
    return u;
}

uint32_t salvage_dead_for(const struct salvage *s)
{
    uint32_t bits = 0;
    struct told told;
    for (size_t at = 0; read_told(s->letters.data + at, s->letters.len - at, &told);
         at += told.size) {
        unsigned u = uplink_here(s, &told);
        bits |= u < STORE_UPLINKS_MAX ? 1u << u : 0;
    }
    return bits;
}

/* The refused ones by the indexes that they have now; count 0: all. */
static uint16_t map_refused(const struct told *told, const uint16_t *map, size_t map_len,
                            uint16_t *refused)
{
    uint16_t count = 0;
    for (uint32_t i = 0; i < told->head.refused_count; i++) {
        uint16_t was;
        memcpy(&was, told->refused + i * sizeof(was), sizeof(was));
        if (was < map_len && map[was] != UINT16_MAX) {
            refused[count++] = map[was];
        }
    }
    return count;
}

static int dig(struct salvage *s, const struct scan *scan, const struct told *told,
               const uint16_t *map, size_t map_len)
{
    auto_buffer struct buffer record = {0}, uplink = {0}, why = {0};
    uint16_t refused[SCAN_READINGS_MAX];
    struct store *store = s->store;
    buffer_add(&uplink, told->uplink, told->head.uplink_len);
    buffer_add(&why, told->why, told->head.why_len);
    struct store_letter letter = {.refused_ms = told->head.refused_ms,
                                  .uplink = buffer_text(&uplink),
                                  .why = buffer_text(&why),
                                  .scan = scan,
                                  .refused = refused,
                                  .refused_count = map_refused(told, map, map_len, refused)};
    if (letter.uplink == NULL || letter.why == NULL || letter.refused_count == 0) {
        return letter.refused_count == 0 ? 0 : -ENOMEM;
    }
    /* Those beyond what is kept are the oldest: without a letter, as they would be by now. */
    bool kept = store->state.dead_next - store->state.dead_first < DEAD_KEPT_MAX;
    int rc = kept ? letter_encode(store->encoder, &letter, store_now_ms(store), &record) : 0;
    const struct grave grave = {.seq = scan->seq,
                                .device = scan->device,
                                .stream = scan->stream,
                                .refused = letter.refused_count,
                                .uplink = uplink_here(s, told),
                                .len = (uint32_t)record.len};
    if (rc < 0 || buffer_reserve(&s->graves, sizeof(grave) + record.len) == NULL) {
        s->graves.failed = false;
        return rc < 0 ? rc : -ENOMEM;
    }
    buffer_add(&s->graves, &grave, sizeof(grave));
    buffer_add(&s->graves, record.data, record.len);
    s->now[SALVAGE_DEAD] += kept;
    return 0;
}

void salvage_dig(struct salvage *s, const struct scan *scan, const uint16_t *map, size_t map_len,
                 size_t *bytes)
{
    struct told told;
    for (size_t at = 0; read_told(s->letters.data + at, s->letters.len - at, &told);
         at += told.size) {
        int rc = dig(s, scan, &told, map, map_len);
        if (rc < 0) { /* its scan was appended: once is enough */
            log_warning("store: a dead letter of %s is lost: %s", s->from, strerror(-rc));
        }
    }
    *bytes += DIG_WEIGHT * s->graves.len;
    buffer_clear(&s->letters);
}

/* What was settled for the uplink as not selected was refused; false: it waits after all, since its
 * range could not be kept. */
static bool refuse(struct store *store, const struct grave *grave)
{
    if (grave->uplink == STORE_UPLINKS_MAX) {
        return true;
    }
    const struct track *track = ledger_track(store, grave->uplink, grave->stream, grave->device);
    uint64_t *fates = store->state.uplinks[grave->uplink].devices[grave->device - 1].fates;
    if (track == NULL || !ranges_contains(&track->settled, grave->seq) ||
        fates[FATE_NOT_SELECTED] < grave->refused) {
        return false;
    }
    fates[FATE_NOT_SELECTED] -= grave->refused;
    fates[FATE_DEAD] += grave->refused;
    return true;
}

void salvage_bury(struct store *store)
{
    struct salvage *s = store->salvage;
    const size_t max = store->letters.max;
    if (s == NULL || s->graves.len == 0) {
        return;
    }
    store->letters.max = max + s->graves.max;
    bool room = buffer_reserve(&store->letters, s->graves.len) != NULL;
    for (size_t at = 0; room && at < s->graves.len;) {
        struct grave grave;
        uint8_t len[4];
        memcpy(&grave, s->graves.data + at, sizeof(grave));
        at += sizeof(grave);
        if (refuse(store, &grave) && grave.len > 0) {
            field_put32(len, grave.len);
            buffer_add(&store->letters, len, sizeof(len));
            buffer_add(&store->letters, s->graves.data + at, grave.len);
        }
        at += grave.len;
    }
    store->letters.failed = false;
    store->letters.max = max;
    if (room) {
        buffer_clear(&s->graves);
    }
}
