#include "gateway/store/anchors.h"

#include "gateway/base/crc32c.h"
#include "gateway/store/key.h"

#include <errno.h>
#include <string.h>

/* Before this software was written no reading can have been taken: 2024-01-01. */
static const int64_t impossible_ms = 1704067200000;
static const int64_t in_order_ms = 3600000;

void anchors_finish(struct anchors *anchors)
{
    free(anchors->list);
    *anchors = (struct anchors){0};
}

static int reserve(struct anchors *anchors, size_t count)
{
    if (count <= anchors->capacity) {
        return 0;
    }
    size_t capacity = count < 8 ? 8 : count * 2;
    struct anchor *list = reallocarray(anchors->list, capacity, sizeof(*list));
    if (list == NULL) {
        return -ENOMEM;
    }
    anchors->list = list;
    anchors->capacity = capacity;
    return 0;
}

int anchors_copy(struct anchors *to, const struct anchors *from)
{
    int rc = reserve(to, from->count);
    if (rc == 0 && from->count > 0) {
        memcpy(to->list, from->list, from->count * sizeof(*from->list));
    }
    if (rc == 0) {
        to->count = from->count;
        to->next = from->next;
    }
    return rc;
}

static bool same_boot(const uint8_t *a, const uint8_t *b)
{
    return memcmp(a, b, CLOCK_BOOT_ID_SIZE) == 0;
}

static bool same_offset(int64_t a, int64_t b)
{
    return a - b <= ANCHORS_SAME_MS && b - a <= ANCHORS_SAME_MS;
}

static bool is_sure(const struct anchor *anchor)
{
    return anchor->state == ANCHOR_SURE || anchor->state == ANCHOR_FOUND;
}

/* A clock that nobody vouches for is followed, but not to before the last time that was sure; and
 * where it cannot be right at all, on from the last time there was of any kind. */
static int64_t estimate(const struct anchors *anchors, const struct anchors_look *look)
{
    int64_t sure = INT64_MIN, any = INT64_MIN;
    for (size_t i = 0; i < anchors->count; i++) {
        const struct anchor *a = &anchors->list[i];
        int64_t end = a->offset_ms + a->shift_ms + a->until_ms;
        if (!same_boot(a->boot, look->boot)) {
            any = end > any ? end : any;
            sure = is_sure(a) && end > sure ? end : sure;
        }
    }
    int64_t least = look->offset_ms + look->boot_ms < impossible_ms ? any : sure;
    return look->offset_ms > least ? look->offset_ms : least;
}

bool anchors_plan(const struct anchors *anchors, const struct anchors_look *look,
                  struct anchor *ret_fresh)
{
    const struct anchor *last = anchors->count > 0 ? &anchors->list[anchors->count - 1] : NULL;
    const struct anchor *sure = NULL; /* the last one of this boot */
    for (size_t i = 0; i < anchors->count; i++) {
        const struct anchor *a = &anchors->list[i];
        sure = a->state == ANCHOR_SURE && same_boot(a->boot, look->boot) ? a : sure;
    }
    struct anchor fresh = {.offset_ms = look->offset_ms,
                           .from_ms = look->boot_ms,
                           .until_ms = look->boot_ms,
                           .state = ANCHOR_SURE,
                           .changed = true};
    memcpy(fresh.boot, look->boot, sizeof(fresh.boot));
    if (!look->vouched && sure != NULL) {
        /* No longer synchronised, but not stepped either: what was sure is so still, because the
         * offset does not drift. Stepped without a word from NTP: time goes on as it was. */
        fresh.offset_ms = sure->offset_ms;
        fresh.state = same_offset(look->offset_ms, sure->offset_ms) ? ANCHOR_SURE : ANCHOR_WAITING;
    } else if (!look->vouched) {
        fresh.offset_ms = estimate(anchors, look);
        fresh.state = ANCHOR_WAITING;
    }
    *ret_fresh = fresh;
    return last == NULL || !same_boot(last->boot, look->boot) || last->state != fresh.state ||
           !same_offset(last->offset_ms, fresh.offset_ms);
}

static void decide(struct anchor *anchor, enum anchor_state state, int64_t offset_ms,
                   int64_t now_ms)
{
    anchor->state = (uint8_t)state;
    anchor->shift_ms = offset_ms - anchor->offset_ms;
    anchor->learned_ms = now_ms;
    anchor->changed = true;
}

static bool sure_before(const struct anchors *anchors, size_t end)
{
    for (size_t i = 0; i < end; i++) {
        if (is_sure(&anchors->list[i])) {
            return true;
        }
    }
    return false;
}

/* What waits of the boot whose last anchor is `last`, none of which was ever sure: as a whole it
 * stays where its last anchor had it, but it ended before the next boot began. Returns its
 * beginning. */
static int64_t guess_boot(struct anchors *anchors, size_t last, int64_t next_boot_ms,
                          int64_t now_ms)
{
    const struct anchor model = anchors->list[last];
    int64_t offset_ms = model.offset_ms, end_ms = offset_ms + model.until_ms;
    bool impossible = end_ms < impossible_ms && !sure_before(anchors, last);
    if (end_ms > next_boot_ms || impossible) {
        offset_ms = next_boot_ms - model.until_ms;
    }
    for (size_t i = last + 1; i-- > 0;) {
        struct anchor *a = &anchors->list[i];
        if (!same_boot(a->boot, model.boot)) {
            break;
        }
        if (a->state == ANCHOR_WAITING) {
            decide(a, ANCHOR_GUESSED, offset_ms, now_ms);
        }
    }
    return offset_ms;
}

/* The last anchor is sure: everything before it is decided now. */
static void decide_all(struct anchors *anchors)
{
    const struct anchor sure = anchors->list[anchors->count - 1];
    int64_t now_ms = sure.offset_ms + sure.from_ms, next_boot_ms = sure.offset_ms;
    for (size_t i = anchors->count - 1; i-- > 0;) {
        struct anchor *a = &anchors->list[i];
        if (a->state != ANCHOR_WAITING) {
            continue;
        }
        if (same_boot(a->boot, sure.boot)) {
            decide(a, ANCHOR_FOUND, sure.offset_ms, now_ms);
        } else {
            next_boot_ms = guess_boot(anchors, i, next_boot_ms, now_ms);
        }
    }
}

int anchors_add_stored(struct anchors *anchors, const struct anchor *anchor)
{
    int rc = reserve(anchors, anchors->count + 1);
    if (rc == 0) {
        anchors->list[anchors->count] = *anchor;
        anchors->list[anchors->count++].number = anchors->next++;
    }
    return rc;
}

int anchors_add(struct anchors *anchors, const struct anchor *fresh)
{
    if (anchors->count >= ANCHORS_MAX) {
        anchors->forgotten = anchors->list[0].number + 1;
        memmove(&anchors->list[0], &anchors->list[1], --anchors->count * sizeof(anchors->list[0]));
    }
    int rc = reserve(anchors, anchors->count + 1);
    if (rc < 0) {
        return rc;
    }
    anchors->changed = true;
    if (anchors->count > 0) {
        struct anchor *last = &anchors->list[anchors->count - 1];
        if (same_boot(last->boot, fresh->boot)) {
            last->until_ms = fresh->from_ms;
        }
        last->changed = true;
    }
    rc = anchors_add_stored(anchors, fresh);
    if (rc == 0 && fresh->state == ANCHOR_SURE) {
        decide_all(anchors);
    }
    return rc;
}

static uint64_t end_block(const struct anchors *anchors, size_t i)
{
    return i + 1 < anchors->count ? anchors->list[i + 1].first_block : UINT64_MAX;
}

uint64_t anchors_decided(const struct anchors *anchors)
{
    for (size_t i = 0; i < anchors->count; i++) {
        const struct anchor *a = &anchors->list[i];
        if (a->state == ANCHOR_WAITING && a->released < end_block(anchors, i)) {
            return a->released > a->first_block ? a->released : a->first_block;
        }
    }
    return UINT64_MAX;
}

struct anchor *anchors_of(const struct anchors *anchors, uint64_t block)
{
    for (size_t i = anchors->count; i-- > 0;) {
        if (anchors->list[i].first_block <= block) {
            return &anchors->list[i];
        }
    }
    return NULL;
}

struct anchor_fate anchors_fate(const struct anchors *anchors, uint64_t block)
{
    const struct anchor *a = anchors_of(anchors, block);
    if (a == NULL || a->state == ANCHOR_SURE) {
        return (struct anchor_fate){0};
    }
    struct anchor_fate fate = {.offset_ms = a->offset_ms};
    bool as_stamped = a->state == ANCHOR_WAITING || block < a->released;
    fate.shift_ms = as_stamped ? 0 : a->shift_ms;
    fate.uncertain = as_stamped || a->state == ANCHOR_GUESSED;
    return fate;
}

static bool stamped_by_us(const struct anchor_fate *fate, int64_t time_ms, int64_t boot_ms)
{
    int64_t off_ms = time_ms - boot_ms - fate->offset_ms;
    return boot_ms != 0 && off_ms <= ANCHORS_OWN_MS && off_ms >= -ANCHORS_OWN_MS;
}

int64_t anchors_shift(const struct anchor_fate *fate, int64_t time_ms, int64_t boot_ms)
{
    return fate->shift_ms != 0 && stamped_by_us(fate, time_ms, boot_ms) ? fate->shift_ms : 0;
}

void anchors_restamp(const struct anchor_fate *fate, struct scan *scan)
{
    if ((fate->shift_ms == 0 && !fate->uncertain) ||
        !stamped_by_us(fate, scan->time_ms, scan->boot_ms)) {
        return;
    }
    scan->time_ms += fate->shift_ms;
    bool moved = fate->shift_ms >= ANCHORS_STEP_MS || fate->shift_ms <= -ANCHORS_STEP_MS;
    if (!fate->uncertain && !(scan->stream == STREAM_AGGREGATE && moved)) {
        return;
    }
    for (size_t i = 0; i < scan->count; i++) {
        if (scan->readings[i].quality == QUALITY_GOOD) {
            scan->readings[i].quality = QUALITY_UNCERTAIN;
        }
    }
}

bool anchors_in_order(const struct anchors *anchors)
{
    for (size_t i = 0; i + 1 < anchors->count; i++) {
        const struct anchor *a = &anchors->list[i], *b = a + 1;
        int64_t end_ms = a->offset_ms + a->shift_ms + a->until_ms;
        int64_t stamped_ms = a->offset_ms + a->until_ms;
        int64_t begin_ms = b->offset_ms + b->shift_ms + b->from_ms;
        bool mixed = a->released > a->first_block && a->shift_ms != 0;
        if (end_ms > begin_ms + in_order_ms || (mixed && stamped_ms > begin_ms + in_order_ms) ||
            (mixed && a->shift_ms < -in_order_ms)) {
            return false;
        }
    }
    return true;
}

/* Version, state, two zero bytes, CRC32C of everything else; then the numbers and the boot's id. */
void anchor_encode(const struct anchor *anchor, uint8_t to[ANCHOR_SIZE])
{
    const uint64_t fields[] = {anchor->first_block,         anchor->released,
                               (uint64_t)anchor->offset_ms, (uint64_t)anchor->shift_ms,
                               (uint64_t)anchor->from_ms,   (uint64_t)anchor->until_ms,
                               (uint64_t)anchor->learned_ms};
    memset(to, 0, ANCHOR_SIZE);
    to[0] = ANCHOR_VERSION;
    to[1] = anchor->state;
    for (size_t i = 0; i < ARRAY_SIZE(fields); i++) {
        field_put64(to + 8 + 8 * i, fields[i]);
    }
    memcpy(to + 64, anchor->boot, CLOCK_BOOT_ID_SIZE);
    uint32_t crc = crc32c(0, to, 4);
    field_put32(to + 4, crc32c(crc, to + 8, ANCHOR_SIZE - 8));
}

int anchor_decode(const void *record, size_t len, struct anchor *ret_anchor)
{
    const uint8_t *at = record;
    if (len != ANCHOR_SIZE || at[0] != ANCHOR_VERSION || at[1] >= ANCHOR_STATES) {
        return -EBADMSG;
    }
    uint32_t crc = crc32c(0, at, 4);
    if (crc32c(crc, at + 8, ANCHOR_SIZE - 8) != field_get32(at + 4)) {
        return -EBADMSG;
    }
    struct anchor anchor = {
        .first_block = field_get64(at + 8),
        .released = field_get64(at + 16),
        .offset_ms = (int64_t)field_get64(at + 24),
        .shift_ms = (int64_t)field_get64(at + 32),
        .from_ms = (int64_t)field_get64(at + 40),
        .until_ms = (int64_t)field_get64(at + 48),
        .learned_ms = (int64_t)field_get64(at + 56),
        .state = at[1],
    };
    memcpy(anchor.boot, at + 64, CLOCK_BOOT_ID_SIZE);
    *ret_anchor = anchor;
    return 0;
}
