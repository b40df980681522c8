#include "gateway/base/crc32c.h"
#include "gateway/store/key.h"
#include "gateway/store/state.h"

#include <errno.h>
#include <string.h>
#include <zstd.h>
#include <zstd_errors.h>

/* Record: version, 1 when compressed, two zero bytes, CRC32C, size of the body, body. Version 1 had
 * only the first counts of each device. */
enum { STATE_HEADER_SIZE = 12, STATE_COUNTS_V1 = LEDGER_DERIVED + 1 };

static void add_name(struct buffer *raw, const char *name)
{
    size_t len = strlen(name);
    buffer_add_varint(raw, len);
    buffer_add(raw, name, len);
}

static int take_name(struct cursor *c, char **ret_name)
{
    uint64_t len = cursor_take_varint(c);
    const uint8_t *from = len > STATE_NAME_MAX ? NULL : cursor_take(c, len);
    if (from == NULL || memchr(from, 0, len) != NULL) {
        return -EBADMSG;
    }
    *ret_name = strndup((const char *)from, len);
    return *ret_name == NULL ? -ENOMEM : 0;
}

/* A number of each device, by what it differs from that of the one before: as buffer_add_zigzag(),
 * for a commit writes them all. The first one's, and how far on the next one's lies. */
static void add_column(struct buffer *raw, const uint64_t *first, size_t stride, size_t count)
{
    enum { AT_ONCE = 64, VARINT_MAX = 10 };
    const char *from = (const char *)first;
    uint64_t before = 0;
    for (size_t i = 0; i < count;) {
        uint8_t *to = buffer_reserve(raw, AT_ONCE * VARINT_MAX);
        if (to == NULL) {
            return;
        }
        size_t end = i + AT_ONCE < count ? i + AT_ONCE : count;
        for (; i < end; i++, from += stride) {
            uint64_t value = *(const uint64_t *)(const void *)from;
            int64_t step = (int64_t)(value - before);
            uint64_t rest = ((uint64_t)step << 1) ^ (uint64_t)(step >> 63);
            before = value;
            for (; rest >= 0x80; rest >>= 7) {
                *to++ = (uint8_t)(rest | 0x80);
            }
            *to++ = (uint8_t)rest;
        }
        raw->len = (size_t)(to - raw->data);
    }
}

static void add_ranges(struct buffer *raw, const struct ranges *ranges, uint64_t seq)
{
    /* The floor mostly is the last seq: a zero. */
    buffer_add_zigzag(raw, (int64_t)(seq - ranges->floor));
    buffer_add_varint(raw, ranges->count);
    uint64_t last = ranges->floor;
    for (uint32_t i = 0; i < ranges->count; i++) {
        buffer_add_varint(raw, ranges->list[i].first - last);
        buffer_add_varint(raw, ranges->list[i].last - ranges->list[i].first);
        last = ranges->list[i].last;
    }
}

static int take_ranges(struct cursor *c, struct ranges *ranges, uint64_t seq)
{
    ranges->floor = seq - (uint64_t)cursor_take_zigzag(c);
    uint64_t count = cursor_take_varint(c);
    if (c->failed || count > RANGES_MAX) {
        return -EBADMSG;
    }
    uint64_t last = ranges->floor;
    for (uint64_t i = 0; i < count; i++) {
        uint64_t first = last + cursor_take_varint(c);
        uint64_t end = first + cursor_take_varint(c);
        if (c->failed || first <= last + 1 || end < first) {
            return -EBADMSG;
        }
        int rc = ranges_add(ranges, first, end);
        if (rc < 0) {
            return rc;
        }
        last = end;
    }
    return 0;
}

static void add_uplink(struct buffer *raw, const struct state *state, unsigned u)
{
    const struct state_uplink *uplink = &state->uplinks[u];
    buffer_add_byte(raw, (uint8_t)u);
    add_name(raw, uplink->name);
    buffer_add_varint(raw, uplink->streams);
    buffer_add_zigzag(raw, uplink->max_age_ms);
    buffer_add_varint(raw, uplink->floor);
    buffer_add_varint(raw, uplink->expiry);
    if (state->device_count == 0) {
        return;
    }
    const struct track_device *first = uplink->devices;
    for (unsigned s = 0; s < STREAM_COUNT; s++) {
        for (size_t i = 0; i < state->device_count; i++) {
            add_ranges(raw, &uplink->devices[i].streams[s].settled, state->devices[i].seq[s]);
        }
        add_column(raw, &first->streams[s].waiting, sizeof(*first), state->device_count);
    }
    for (unsigned f = 0; f < FATE_COUNTS; f++) {
        add_column(raw, &first->fates[f], sizeof(*first), state->device_count);
    }
}

static int take_tracks(struct cursor *c, struct state *state, struct track_device *devices,
                       unsigned stream)
{
    int rc = 0;
    for (size_t i = 0; i < state->device_count && rc == 0; i++) {
        rc = take_ranges(c, &devices[i].streams[stream].settled, state->devices[i].seq[stream]);
    }
    uint64_t value = 0;
    for (size_t i = 0; i < state->device_count && rc == 0; i++) {
        value += (uint64_t)cursor_take_zigzag(c);
        devices[i].streams[stream].waiting = value;
    }
    return rc;
}

static int take_uplink(struct cursor *c, struct state *state)
{
    unsigned u = cursor_take_byte(c);
    if (c->failed || u >= STORE_UPLINKS_MAX || state->uplinks[u].name != NULL) {
        return -EBADMSG;
    }
    struct state_uplink *uplink = &state->uplinks[u];
    int rc = take_name(c, &uplink->name);
    if (rc < 0) {
        return rc;
    }
    uplink->streams = (unsigned)cursor_take_varint(c);
    uplink->max_age_ms = cursor_take_zigzag(c);
    uplink->floor = cursor_take_varint(c);
    uplink->expiry = cursor_take_varint(c);
    if (state->device_capacity > 0) {
        uplink->devices = calloc(state->device_capacity, sizeof(*uplink->devices));
        if (uplink->devices == NULL) {
            return -ENOMEM;
        }
    }
    for (unsigned s = 0; s < STREAM_COUNT && rc == 0; s++) {
        rc = take_tracks(c, state, uplink->devices, s);
    }
    for (unsigned f = 0; f < FATE_COUNTS && rc == 0; f++) {
        uint64_t value = 0;
        for (size_t i = 0; i < state->device_count; i++) {
            value += (uint64_t)cursor_take_zigzag(c);
            uplink->devices[i].fates[f] = value;
        }
    }
    return rc;
}

/* The plain numbers, in the order of the record. */
static uint64_t *plain_field(struct state *state, size_t i)
{
    uint64_t *const fields[] = {
        &state->tail,     &state->next,  &state->dead_first, &state->dead_next, &state->commits,
        &state->readings, &state->bytes, &state->blocks,     &state->damaged,
    };
    return i < ARRAY_SIZE(fields) ? fields[i] : NULL;
}

/* The columns of a device. */
static uint64_t *device_field(struct state_device *device, size_t i)
{
    return i < STREAM_COUNT                   ? &device->seq[i]
           : i < STREAM_COUNT + LEDGER_COUNTS ? &device->counts[i - STREAM_COUNT]
                                              : NULL;
}

static void add_body(struct buffer *raw, struct state *state)
{
    buffer_add(raw, state->id, STATE_ID_SIZE - 1);
    buffer_add_zigzag(raw, state->made_ms);
    for (size_t i = 0; plain_field(state, i) != NULL; i++) {
        buffer_add_varint(raw, *plain_field(state, i));
    }
    buffer_add_varint(raw, state->device_count);
    for (size_t f = 0; f < STREAM_COUNT + LEDGER_COUNTS && state->device_count > 0; f++) {
        add_column(raw, device_field(&state->devices[0], f), sizeof(state->devices[0]),
                   state->device_count);
    }
    buffer_add_varint(raw, state->note_count);
    for (size_t i = 0; i < state->note_count; i++) {
        add_name(raw, state->notes[i].name);
        buffer_add_zigzag(raw, state->notes[i].value);
    }
    unsigned uplinks = 0;
    for (unsigned u = 0; u < STORE_UPLINKS_MAX; u++) {
        uplinks += state->uplinks[u].name != NULL;
    }
    buffer_add_varint(raw, uplinks);
    for (unsigned u = 0; u < STORE_UPLINKS_MAX; u++) {
        if (state->uplinks[u].name != NULL) {
            add_uplink(raw, state, u);
        }
    }
}

static int take_devices(struct cursor *c, unsigned version, struct state *state)
{
    uint64_t count = cursor_take_varint(c);
    if (c->failed || count > STATE_DEVICES_MAX || count > (uint64_t)(c->end - c->at)) {
        return -EBADMSG;
    }
    int rc = state_add_devices(state, count);
    size_t counts = version < STATE_VERSION ? STATE_COUNTS_V1 : LEDGER_COUNTS;
    for (size_t f = 0; f < STREAM_COUNT + counts && rc == 0; f++) {
        uint64_t value = 0;
        for (size_t i = 0; i < count; i++) {
            value += (uint64_t)cursor_take_zigzag(c);
            *device_field(&state->devices[i], f) = value;
        }
    }
    return rc;
}

static int take_notes(struct cursor *c, struct state *state)
{
    uint64_t count = cursor_take_varint(c);
    int rc = c->failed || count > STATE_NOTES_MAX ? -EBADMSG : 0;
    for (uint64_t i = 0; i < count && rc == 0; i++) {
        auto_free char *name = NULL;
        rc = take_name(c, &name);
        int64_t value = cursor_take_zigzag(c);
        rc = rc < 0 ? rc : state_set_note(state, name, value);
    }
    return rc;
}

static int take_body(struct cursor *c, unsigned version, struct state *state)
{
    const uint8_t *id = cursor_take(c, STATE_ID_SIZE - 1);
    if (id == NULL) {
        return -EBADMSG;
    }
    memcpy(state->id, id, STATE_ID_SIZE - 1);
    state->made_ms = cursor_take_zigzag(c);
    for (size_t i = 0; plain_field(state, i) != NULL; i++) {
        *plain_field(state, i) = cursor_take_varint(c);
    }
    int rc = take_devices(c, version, state);
    if (rc == 0) {
        rc = take_notes(c, state);
    }
    uint64_t uplinks = rc < 0 ? 0 : cursor_take_varint(c);
    if (uplinks > STORE_UPLINKS_MAX) {
        return -EBADMSG;
    }
    for (uint64_t u = 0; u < uplinks && rc == 0; u++) {
        rc = take_uplink(c, state);
    }
    if (rc == 0 && (c->failed || c->at != c->end || state->tail > state->next)) {
        rc = -EBADMSG;
    }
    return rc;
}

int state_encode(const struct state *state, struct ZSTD_CCtx_s *zstd, struct buffer *ret_record)
{
    auto_buffer struct buffer raw = {.max = STATE_RAW_MAX};
    struct state plain = *state; /* shallow: the codec's columns take addresses, nothing changes */
    add_body(&raw, &plain);
    if (buffer_failed(&raw)) {
        return -ENOMEM;
    }
    buffer_clear(ret_record);
    size_t bound = ZSTD_compressBound(raw.len);
    uint8_t *to = buffer_reserve(ret_record, STATE_HEADER_SIZE + bound);
    if (to == NULL) {
        return -ENOMEM;
    }
    uint8_t *body = to + STATE_HEADER_SIZE;
    size_t len = zstd == NULL ? ZSTD_compress(body, bound, raw.data, raw.len, 1)
                              : ZSTD_compressCCtx(zstd, body, bound, raw.data, raw.len, 1);
    bool compressed = ZSTD_isError(len) == 0 && len < raw.len;
    if (!compressed) {
        len = raw.len;
        memcpy(body, raw.data, len);
    }
    to[0] = STATE_VERSION;
    to[1] = compressed;
    to[2] = to[3] = 0;
    field_put32(to + 8, (uint32_t)raw.len);
    uint32_t crc = crc32c(0, to, 4);
    field_put32(to + 4, crc32c(crc, to + 8, STATE_HEADER_SIZE - 8 + len));
    ret_record->len = STATE_HEADER_SIZE + len;
    return 0;
}

static int unpack(const uint8_t *at, size_t len, struct buffer *raw)
{
    if (len < STATE_HEADER_SIZE || at[0] < 1 || at[0] > STATE_VERSION || at[1] > 1) {
        return -EBADMSG;
    }
    uint32_t crc = crc32c(0, at, 4);
    uint32_t size = field_get32(at + 8);
    if (crc32c(crc, at + 8, len - 8) != field_get32(at + 4) || size > STATE_RAW_MAX) {
        return -EBADMSG;
    }
    uint8_t *to = buffer_reserve(raw, (size_t)size + 1);
    if (to == NULL) {
        return -ENOMEM;
    }
    at += STATE_HEADER_SIZE;
    len -= STATE_HEADER_SIZE;
    if (at[1 - STATE_HEADER_SIZE] == 0) {
        if (len != size) {
            return -EBADMSG;
        }
        memcpy(to, at, len);
    } else {
        size_t n = ZSTD_decompress(to, size, at, len);
        if (ZSTD_getErrorCode(n) == ZSTD_error_memory_allocation) {
            return -ENOMEM; /* says nothing about the record */
        }
        if (ZSTD_isError(n) != 0 || n != size) {
            return -EBADMSG;
        }
    }
    raw->len = size;
    return 0;
}

int state_decode(const void *record, size_t len, struct state *ret_state)
{
    auto_buffer struct buffer raw = {.max = STATE_RAW_MAX + 1};
    int rc = unpack(record, len, &raw);
    if (rc < 0) {
        return rc;
    }
    struct cursor c = {raw.data, raw.data + raw.len, false};
    struct state state = {0};
    rc = take_body(&c, *(const uint8_t *)record, &state);
    if (rc < 0) {
        state_finish(&state);
        return rc;
    }
    *ret_state = state;
    return 0;
}
