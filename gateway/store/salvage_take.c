#include "gateway/store/salvage_work.h"
#include "gateway/store/store_clock.h"

#include <errno.h>
#include <string.h>

void salvage_forget(struct salvage *s)
{
    for (size_t i = 0; i < s->device_count; i++) {
        free(s->devices[i].points);
    }
    free(s->devices);
    s->devices = NULL;
    s->device_count = 0;
    for (size_t u = 0; u < STORE_UPLINKS_MAX; u++) {
        free(s->uplinks[u]);
        s->uplinks[u] = NULL;
    }
    s->state_known = s->ended = false;
    s->working = (struct salvage_place){0};
    s->at = 0;
    buffer_finish(&s->input);
    buffer_finish(&s->lost);
    buffer_finish(&s->scan);
    buffer_finish(&s->letters);
    s->records_bad = false;
}

static int take_uplink(struct salvage *s, const uint8_t *at, size_t len)
{
    uint32_t slot;
    if (len < sizeof(slot)) {
        return -EBADMSG;
    }
    memcpy(&slot, at, sizeof(slot));
    if (slot >= STORE_UPLINKS_MAX) {
        return -EBADMSG;
    }
    free(s->uplinks[slot]);
    s->uplinks[slot] = strndup((const char *)at + sizeof(slot), len - sizeof(slot));
    return s->uplinks[slot] == NULL ? -ENOMEM : 0;
}

/* How far the store that was lost had come with salvaging an earlier one. */
static int take_note(struct salvage *s, const uint8_t *at, size_t len)
{
    int64_t value;
    if (len < sizeof(value) || len > sizeof(value) + STATE_NAME_MAX) {
        return -EBADMSG;
    }
    memcpy(&value, at, sizeof(value));
    auto_free char *name = strndup((const char *)at + sizeof(value), len - sizeof(value));
    if (name == NULL) {
        return -ENOMEM;
    }
    char path[4096 + SALVAGE_NAME_MAX];
    const char *folder = strrchr(name, ' ');
    snprintf(path, sizeof(path), "%s/%s", s->store->dir, folder == NULL ? "" : folder + 1);
    if (folder == NULL || strchr(folder, '/') != NULL || access(path, F_OK) < 0 ||
        state_note(&s->store->state, name) != NULL) {
        return 0;
    }
    store_set_note(s->store, name, value);
    return 0;
}

static int grow_devices(struct salvage *s, size_t need)
{
    if (need <= s->device_count) {
        return 0;
    }
    struct salvage_device *devices = reallocarray(s->devices, need, sizeof(*devices));
    if (devices == NULL) {
        return -ENOMEM;
    }
    memset(devices + s->device_count, 0, (need - s->device_count) * sizeof(*devices));
    s->devices = devices;
    s->device_count = need;
    return 0;
}

static int take_device(struct salvage *s, const uint8_t *at, size_t len)
{
    uint32_t id;
    if (len < sizeof(id)) {
        return -EBADMSG;
    }
    memcpy(&id, at, sizeof(id));
    int rc = id == 0 || id > STATE_DEVICES_MAX ? -EBADMSG : grow_devices(s, (size_t)id + 1);
    struct salvage_device device = {0};
    if (rc == 0) {
        rc = dictionary_adopt(s->store->dictionary, at + sizeof(id), len - sizeof(id),
                              &device.device, &device.points, &device.count);
    }
    if (rc == -ENOBUFS) {
        return 0; /* no room for its names: its readings are lost */
    }
    if (rc < 0) {
        return rc;
    }
    free(s->devices[id].points);
    s->devices[id] = device;
    store_lock(s->store);
    rc = state_add_devices(&s->store->state, dictionary_count(s->store->dictionary));
    store_unlock(s->store);
    return rc;
}

/* Bits of the uplinks here that have nothing to do with it: those that had it, those that were not
 * to have it, and those that are new. */
static uint32_t settled_here(struct salvage *s, uint32_t settled_there)
{
    uint32_t settled = 0;
    for (unsigned u = 0; u < STORE_UPLINKS_MAX && s->state_known; u++) {
        const char *name = s->store->state.uplinks[u].name;
        bool waits = false;
        for (unsigned old = 0; old < STORE_UPLINKS_MAX && name != NULL; old++) {
            waits |= s->uplinks[old] != NULL && strcmp(s->uplinks[old], name) == 0 &&
                     (settled_there & 1u << old) == 0;
        }
        settled |= (uint32_t)!waits << u;
    }
    return settled;
}

/* Its points by their ids here; those without a name are taken out, and the texts moved up. */
static void rename_points(struct salvage *s, const struct salvage_device *device, struct scan *scan,
                          uint16_t *map)
{
    const char *texts = (const char *)&scan->readings[scan->count];
    uint16_t kept = 0;
    for (size_t i = 0; i < scan->count; i++) {
        struct reading reading = scan->readings[i];
        map[i] = UINT16_MAX;
        if (reading.point < device->count) {
            reading.point = device->points[reading.point];
            map[i] = kept;
            scan->readings[kept++] = reading;
        }
    }
    s->now[SALVAGE_LOST] += scan->count - kept;
    memmove(&scan->readings[kept], texts, scan->text_len);
    scan->count = kept;
}

static uint64_t next_seq(struct salvage *s, uint32_t device, unsigned stream)
{
    return s->takers.next_seq != NULL ? s->takers.next_seq(s->takers.user, device, stream)
                                      : store_last_seq(s->store, (enum stream)stream, device) + 1;
}

static int append(struct salvage *s, struct scan *scan, uint32_t settled)
{
    struct store *store = s->store;
    struct append_how how = {.salvaged = true,
                             .settled = settled_here(s, settled) | salvage_dead_for(s)};
    if (store->failed || store->full) {
        return store->failed ? -EIO : -ENOSPC;
    }
    scan->boot_ms = 0; /* on no clock of this boot */
    scan->seq = next_seq(s, scan->device, scan->stream);
    int rc = store_append_as(store, scan, &how);
    if (rc == 0) {
        store_count(store, scan->device, LEDGER_SALVAGED, scan->count);
        store_count(store, scan->device, LEDGER_READ, scan->stream == STREAM_RAW ? scan->count : 0);
        s->now[SALVAGE_READINGS] += scan->count;
        s->now[SALVAGE_MIXED] = store_now_ms(store);
    }
    return rc;
}

static void move_to(struct salvage *s, const struct salvage_place *place)
{
    s->now[SALVAGE_PART] = (int64_t)place->part;
    s->now[SALVAGE_NUMBER] = (int64_t)place->number;
    s->now[SALVAGE_LEAF] = (int64_t)place->leaf;
    s->now[SALVAGE_ROW] = (int64_t)place->row;
}

static int take_scan(struct salvage *s, const uint8_t *at, size_t len, size_t *bytes)
{
    struct frame_scan head;
    if (len < sizeof(head) + sizeof(struct scan)) {
        return -EBADMSG;
    }
    memcpy(&head, at, sizeof(head));
    buffer_clear(&s->scan);
    buffer_add(&s->scan, at + sizeof(head), len - sizeof(head));
    if (buffer_failed(&s->scan)) {
        return -ENOMEM;
    }
    struct scan *scan = (struct scan *)(void *)s->scan.data;
    if (scan->count > SCAN_READINGS_MAX || scan->text_len > SCAN_TEXT_MAX ||
        scan_size(scan) != s->scan.len) {
        return -EBADMSG;
    }
    const struct salvage_device *device = scan->device < s->device_count ? &s->devices[scan->device]
                                                                         : NULL;
    if (device == NULL || device->device == 0) {
        s->now[SALVAGE_LOST] += scan->count;
        buffer_clear(&s->letters);
        move_to(s, &head.place);
        return 0;
    }
    int64_t lost = s->now[SALVAGE_LOST];
    uint16_t map[SCAN_READINGS_MAX];
    const size_t count = scan->count;
    rename_points(s, device, scan, map);
    scan->device = device->device;
    int rc = append(s, scan, head.settled);
    if (rc == -EINVAL) { /* no scan that any store would take */
        s->now[SALVAGE_LOST] += scan->count;
        buffer_clear(&s->letters);
        rc = 0;
    } else if (rc < 0) {
        s->now[SALVAGE_LOST] = s->refused ? s->now[SALVAGE_LOST] : lost; /* it comes again */
        return rc;
    }
    *bytes += s->scan.len;
    move_to(s, &head.place);
    if (rc == 0) {
        salvage_dig(s, scan, map, count, bytes);
    }
    return rc;
}

/* Counted only at the end, with the commit that says that it is done. */
static int take_lost(struct salvage *s, const uint8_t *at, size_t len)
{
    struct frame_lost lost;
    if (len != sizeof(lost)) {
        return -EBADMSG;
    }
    memcpy(&lost, at, sizeof(lost));
    lost.device = lost.device < s->device_count ? s->devices[lost.device].device : 0;
    buffer_add(&s->lost, &lost, sizeof(lost));
    return buffer_failed(&s->lost) ? -ENOMEM : 0;
}

static int take_end(struct salvage *s, const uint8_t *at, size_t len)
{
    struct frame_end end;
    if (len != sizeof(end)) {
        return -EBADMSG;
    }
    memcpy(&end, at, sizeof(end));
    uint64_t all = end.nameless;
    for (size_t i = 0; i + sizeof(struct frame_lost) <= s->lost.len;
         i += sizeof(struct frame_lost)) {
        struct frame_lost lost;
        memcpy(&lost, s->lost.data + i, sizeof(lost));
        store_count(s->store, lost.device, LEDGER_LOST, lost.readings);
        all += lost.readings;
    }
    /* What waited and has no name is in both sums where the state was read. */
    s->now[SALVAGE_LOST] += (int64_t)(s->state_known ? all - end.nameless : all);
    s->now[SALVAGE_BLOCKS] = (int64_t)end.blocks;
    s->now[SALVAGE_BAD] = (int64_t)end.bad;
    s->now[SALVAGE_STATE] = SALVAGE_DONE;
    s->store->counted = true;
    s->ended = true;
    return 0;
}

static int take_block(struct salvage *s, const uint8_t *at, size_t len)
{
    if (len != sizeof(s->working)) {
        return -EBADMSG;
    }
    memcpy(&s->working, at, len);
    return 0;
}

static int take_begin(struct salvage *s, const uint8_t *at, size_t len)
{
    struct frame_begin begin;
    if (len != sizeof(begin)) {
        return -EBADMSG;
    }
    memcpy(&begin, at, sizeof(begin));
    s->state_known = begin.state_known != 0;
    return 0;
}

/* What became of a command; where nobody else keeps them, under the number that it had. */
static int take_record(struct salvage *s, const uint8_t *at, size_t len)
{
    uint64_t number;
    if (len < sizeof(number)) {
        return -EBADMSG;
    }
    memcpy(&number, at, sizeof(number));
    int rc = s->takers.record != NULL
                 ? s->takers.record(s->takers.record_user, at + sizeof(number),
                                    len - sizeof(number))
                 : store_set_record(s->store, number, at + sizeof(number), len - sizeof(number));
    bool gone = rc == -EBADMSG || rc == -ENOSPC;
    s->records_bad |= gone;
    return gone ? 0 : rc == -EAGAIN ? -EBUSY : rc; /* -EAGAIN would ask the child for more */
}

static int take_records(struct salvage *s, const uint8_t *at, size_t len)
{
    struct frame_records records;
    if (len != sizeof(records)) {
        return -EBADMSG;
    }
    memcpy(&records, at, sizeof(records));
    s->now[SALVAGE_RECORDS] = records.complete != 0 && !s->records_bad ? RECORDS_WHOLE
                                                                       : RECORDS_MISSING;
    s->store->counted = true;
    return 0;
}

static int take_payload(struct salvage *s, unsigned kind, const uint8_t *at, size_t len,
                        size_t *bytes)
{
    switch (kind) {
    case FRAME_BEAT:
        return 0;
    case FRAME_BEGIN:
        return take_begin(s, at, len);
    case FRAME_UPLINK:
        return take_uplink(s, at, len);
    case FRAME_NOTE:
        return take_note(s, at, len);
    case FRAME_RECORD:
        return take_record(s, at, len);
    case FRAME_RECORDS:
        return take_records(s, at, len);
    case FRAME_LETTER:
        return salvage_take_letter(s, at, len);
    case FRAME_DEVICE:
        return take_device(s, at, len);
    case FRAME_BLOCK:
        return take_block(s, at, len);
    case FRAME_SCAN:
        return take_scan(s, at, len, bytes);
    case FRAME_LOST:
        return take_lost(s, at, len);
    case FRAME_END:
        return take_end(s, at, len);
    default:
        return -EBADMSG;
    }
}

int salvage_take(struct salvage *s, size_t *bytes)
{
    struct frame frame;
    size_t left = s->input.len - s->at;
    if (left < sizeof(frame)) {
        return -EAGAIN;
    }
    const uint8_t *at = s->input.data + s->at;
    memcpy(&frame, at, sizeof(frame));
    if (frame.len > FRAME_BYTES_MAX) {
        return -EBADMSG;
    }
    if (left - sizeof(frame) < frame.len) {
        return -EAGAIN;
    }
    int rc = take_payload(s, frame.kind, at + sizeof(frame), frame.len, bytes);
    if (rc == 0) {
        s->at += sizeof(frame) + frame.len;
    }
    return rc;
}
