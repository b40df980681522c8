#include "gateway/store/large.h"

#include "gateway/base/crc32c.h"
#include "gateway/store/codec/block.h"

#include <errno.h>
#include <string.h>

/* Head, little-endian: version, three zero bytes, CRC32C of all other bytes of it, memory,
 * readings, scans, seqs missing before the first one, last seq, written, earliest, latest. */

static uint32_t head_crc(const uint8_t *head)
{
    return crc32c(crc32c(0, head, 4), head + 8, LARGE_HEAD_SIZE - 8);
}

int large_encode(const struct scan *const *scans, size_t count, uint64_t prev_seq,
                 int64_t written_ms, struct buffer *to)
{
    size_t from = to->len;
    uint8_t *head = buffer_reserve(to, LARGE_HEAD_SIZE);
    if (head == NULL || count == 0) {
        return head == NULL ? -ENOMEM : -EINVAL;
    }
    uint32_t readings = 0, memory = 0;
    int64_t min_ms = INT64_MAX, max_ms = INT64_MIN;
    for (size_t i = 0; i < count; i++) {
        readings += scans[i]->count;
        memory += (uint32_t)scan_size(scans[i]);
        min_ms = scans[i]->time_ms < min_ms ? scans[i]->time_ms : min_ms;
        max_ms = scans[i]->time_ms > max_ms ? scans[i]->time_ms : max_ms;
    }
    uint64_t gap = scans[0]->seq - prev_seq - 1;
    memset(head, 0, LARGE_HEAD_SIZE);
    head[0] = LARGE_VERSION;
    field_put32(head + 8, memory);
    field_put32(head + 12, readings);
    field_put32(head + 16, (uint32_t)count);
    field_put32(head + 20, gap > UINT32_MAX ? UINT32_MAX : (uint32_t)gap);
    field_put64(head + 24, scans[count - 1]->seq);
    field_put64(head + 32, (uint64_t)written_ms);
    field_put64(head + 40, (uint64_t)min_ms);
    field_put64(head + 48, (uint64_t)max_ms);
    field_put32(head + 4, head_crc(head));
    to->len += LARGE_HEAD_SIZE;
    int rc = codec_encode(scans, count, to);
    if (rc < 0) {
        to->len = from;
    }
    return rc;
}

static bool read_head(const uint8_t *head, size_t len, struct large *large)
{
    if (len < LARGE_HEAD_SIZE || head[0] != LARGE_VERSION ||
        head_crc(head) != field_get32(head + 4)) {
        return false;
    }
    large->memory = field_get32(head + 8);
    large->readings = field_get32(head + 12);
    large->scans = field_get32(head + 16);
    uint64_t gap = field_get32(head + 20);
    large->prev_seq = gap < large->first_seq ? large->first_seq - 1 - gap : 0;
    large->last_seq = field_get64(head + 24);
    large->written_ms = (int64_t)field_get64(head + 32);
    large->min_ms = (int64_t)field_get64(head + 40);
    large->max_ms = (int64_t)field_get64(head + 48);
    return large->last_seq >= large->first_seq;
}

bool large_read(const MDB_val *name, const MDB_val *value, struct large *ret_large)
{
    struct large large = {0};
    if (!key_parse_large(name->mv_data, name->mv_size, &large.stream, &large.device,
                         &large.first_seq)) {
        return false;
    }
    if (!read_head(value->mv_data, value->mv_size, &large)) {
        large = (struct large){.stream = large.stream,
                               .device = large.device,
                               .first_seq = large.first_seq,
                               .prev_seq = large.first_seq - 1,
                               .last_seq = large.first_seq,
                               .damaged = true};
    }
    *ret_large = large;
    return true;
}

int large_decode(const struct large *large, const void *value, size_t len, struct buffer *ret_scans)
{
    struct codec_head head;
    buffer_clear(ret_scans);
    if (large->damaged || len < LARGE_HEAD_SIZE) {
        return -EBADMSG;
    }
    int rc = codec_decode((const uint8_t *)value + LARGE_HEAD_SIZE, len - LARGE_HEAD_SIZE,
                          ret_scans, &head);
    if (rc == 0 && (head.stream != large->stream || head.device != large->device ||
                    head.first_seq != large->first_seq || head.last_seq != large->last_seq ||
                    ret_scans->len != large->memory)) {
        rc = -EBADMSG;
    }
    return rc == -ENOTSUP ? -EBADMSG : rc;
}

static bool belongs(const struct large *large, unsigned stream, uint32_t device)
{
    return large->stream == stream && large->device == device;
}

int large_find(MDB_txn *txn, unsigned stream, uint32_t device, uint64_t seq,
               struct large *ret_large, MDB_val *ret_value)
{
    struct key key = key_large(stream, device, seq + 1);
    MDB_val name, value;
    struct large large;
    int rc = env_seek_before(txn, &key, &name, &value);
    if (rc == 0 && large_read(&name, &value, &large) && belongs(&large, stream, device) &&
        large.last_seq >= seq) {
        *ret_large = large;
        *ret_value = value;
        return 0;
    }
    if (rc == 0 || rc == -ENOENT) {
        rc = env_seek_key(txn, &key, &name, &value);
    }
    if (rc == 0 && (!large_read(&name, &value, &large) || !belongs(&large, stream, device))) {
        rc = -ENOENT;
    }
    if (rc == 0) {
        *ret_large = large;
        *ret_value = value;
    }
    return rc;
}

int large_newest(MDB_txn *txn, unsigned stream, uint32_t device, struct large *ret_large)
{
    struct key key = key_large(stream, device, UINT64_MAX);
    MDB_val name, value;
    struct large large;
    int rc = env_seek_before(txn, &key, &name, &value);
    if (rc == 0 && (!large_read(&name, &value, &large) || !belongs(&large, stream, device))) {
        rc = -ENOENT;
    }
    if (rc == 0) {
        *ret_large = large;
    }
    return rc;
}

int large_copy(struct env *env, unsigned stream, uint32_t device, uint64_t seq,
               struct large *ret_large, struct buffer *ret_value)
{
    MDB_txn *txn = NULL;
    int rc = env_read(env, &txn);
    if (rc < 0) {
        return rc;
    }
    MDB_val value;
    rc = large_find(txn, stream, device, seq, ret_large, &value);
    if (rc == 0) {
        buffer_clear(ret_value);
        buffer_add(ret_value, value.mv_data, value.mv_size);
        rc = buffer_failed(ret_value) ? -ENOMEM : 0;
    }
    env_read_end(env, txn);
    return rc;
}
