#include "gateway/store/young.h"

#include "gateway/store/env.h"
#include "gateway/store/pages_layout.h"

#include <errno.h>
#include <string.h>

/* What the state may grow by until it is written, which comes after the blocks. */
enum { STATE_SLACK = 64, STATE_SLACK_SHARE = 8 };
/* The key and the number of the first page of a block that has pages of its own; and how much of
 * them makes way for small ones. */
enum { LARGE_NODE_BYTES = sizeof(struct lmdb_node) + 9 + sizeof(size_t) + 1 + 2, LARGE_SHARE = 4 };

struct room {
    size_t page;
    size_t bytes; /* in leaves, of what is looked at */
    size_t count;
    uint64_t numbers[YOUNG_MAX]; /* of small blocks, descending */
};

/* What an entry takes in a leaf, if its value lies there; 0: it has pages of its own. A leaf has
 * room for two of them at least (mdb.c, me_nodemax). */
static size_t leaf_bytes(const struct room *room, const MDB_val *name, const MDB_val *value)
{
    size_t most = (((room->page - LMDB_HEADER) / 2) & ~(size_t)1) - sizeof(uint16_t);
    size_t node = sizeof(struct lmdb_node) + name->mv_size + value->mv_size;
    return node > most ? 0 : node + node % 2 + sizeof(uint16_t);
}

static int look_around(MDB_txn *txn, MDB_dbi main, struct room *room)
{
    MDB_cursor *cursor = NULL;
    MDB_stat stat;
    MDB_val name, value;
    int rc = env_error(mdb_stat(txn, main, &stat));
    rc = rc < 0 ? rc : env_error(mdb_cursor_open(txn, main, &cursor));
    if (rc < 0) {
        return rc;
    }
    room->page = stat.ms_psize;
    size_t large_bytes = 0;
    rc = env_error(mdb_cursor_get(cursor, &name, &value, MDB_LAST));
    for (unsigned i = 0; i < YOUNG_MAX && rc == 0; i++) {
        size_t bytes = leaf_bytes(room, &name, &value);
        large_bytes += bytes == 0 ? LARGE_NODE_BYTES : 0;
        bool block = key_parse_number(KEY_WAL, name.mv_data, name.mv_size,
                                      &room->numbers[room->count]);
        room->count += block && bytes > 0;
        bool state = ((const uint8_t *)name.mv_data)[0] == (uint8_t)KEY_STATE;
        room->bytes += bytes + (state ? STATE_SLACK + value.mv_size / STATE_SLACK_SHARE : 0);
        rc = env_error(mdb_cursor_get(cursor, &name, &value, MDB_PREV));
    }
    mdb_cursor_close(cursor);
    /* Where large ones are the rule the tree has more than a leaf, whatever moves. */
    room->bytes += large_bytes <= room->page / LARGE_SHARE ? large_bytes : 0;
    return rc == -ENOENT ? 0 : rc;
}

/* The value is copied out first: the page that it lies in may change its place. */
static int move(MDB_txn *txn, MDB_dbi main, MDB_dbi barn, uint64_t number)
{
    auto_buffer struct buffer copy = {0};
    struct key key = key_number(KEY_WAL, number);
    MDB_val name = {.mv_size = key.len, .mv_data = key.bytes}, value;
    int rc = env_error(mdb_get(txn, main, &name, &value));
    if (rc < 0) {
        return rc;
    }
    buffer_add(&copy, value.mv_data, value.mv_size);
    if (buffer_failed(&copy)) {
        return -ENOMEM;
    }
    value = (MDB_val){.mv_size = copy.len, .mv_data = copy.data};
    /* Behind all others LMDB leaves full pages; it need not be, where a large one lay between. */
    rc = env_error(mdb_put(txn, barn, &name, &value, MDB_APPEND));
    if (rc == -EEXIST) {
        rc = env_error(mdb_put(txn, barn, &name, &value, MDB_NOOVERWRITE));
    }
    return rc < 0 ? rc : env_error(mdb_del(txn, main, &name, NULL));
}

int young_put(MDB_txn *txn, MDB_dbi main, MDB_dbi barn, const MDB_val *name, const MDB_val *value)
{
    struct room room = {.page = 0};
    MDB_val key = *name, data = *value;
    int rc = look_around(txn, main, &room);
    size_t bytes = leaf_bytes(&room, name, value);
    if (rc == 0 && bytes > 0 && room.bytes + bytes > room.page - LMDB_HEADER) {
        for (size_t i = room.count; i > 0 && rc == 0; i--) {
            rc = move(txn, main, barn, room.numbers[i - 1]);
        }
    }
    return rc < 0 ? rc : env_error(mdb_put(txn, main, &key, &data, MDB_NOOVERWRITE));
}

struct copies {
    size_t bytes; /* all but the one of the key that is asked for */
    uint32_t last_device;
};

static int look_at_copies(MDB_txn *txn, MDB_dbi main, const struct room *room,
                          const struct key *but, struct copies *ret_copies)
{
    MDB_cursor *cursor = NULL;
    struct key first = key_plain(KEY_NAME);
    MDB_val name = {.mv_size = first.len, .mv_data = first.bytes}, value;
    int rc = env_error(mdb_cursor_open(txn, main, &cursor));
    if (rc < 0) {
        return rc;
    }
    uint32_t version;
    rc = env_error(mdb_cursor_get(cursor, &name, &value, MDB_SET_RANGE));
    while (rc == 0 && key_parse_pair(KEY_NAME, name.mv_data, name.mv_size, &ret_copies->last_device,
                                     &version)) {
        bool same = memcmp(name.mv_data, but->bytes, but->len) == 0;
        ret_copies->bytes += same ? 0 : leaf_bytes(room, &name, &value);
        rc = env_error(mdb_cursor_get(cursor, &name, &value, MDB_NEXT));
    }
    mdb_cursor_close(cursor);
    return rc == -ENOENT ? 0 : rc;
}

static int drop_copies(MDB_txn *txn, MDB_dbi main)
{
    MDB_cursor *cursor = NULL;
    struct key first = key_plain(KEY_NAME);
    int rc = env_error(mdb_cursor_open(txn, main, &cursor));
    if (rc < 0) {
        return rc;
    }
    uint32_t device, version;
    for (;;) {
        MDB_val name = {.mv_size = first.len, .mv_data = first.bytes}, value;
        rc = env_error(mdb_cursor_get(cursor, &name, &value, MDB_SET_RANGE));
        if (rc < 0 || !key_parse_pair(KEY_NAME, name.mv_data, name.mv_size, &device, &version)) {
            break;
        }
        rc = env_error(mdb_cursor_del(cursor, 0));
        if (rc < 0) {
            break;
        }
    }
    mdb_cursor_close(cursor);
    return rc == -ENOENT ? 0 : rc;
}

int young_put_name(MDB_txn *txn, MDB_dbi main, uint32_t device, uint32_t version,
                   const MDB_val *value)
{
    struct key key = key_pair(KEY_NAME, device, version);
    MDB_val name = {.mv_size = key.len, .mv_data = key.bytes}, data = *value;
    struct copies copies = {0};
    MDB_stat stat;
    int rc = env_error(mdb_stat(txn, main, &stat));
    struct room room = {.page = rc < 0 ? 0 : stat.ms_psize};
    rc = rc < 0 ? rc : look_at_copies(txn, main, &room, &key, &copies);
    if (rc < 0 || device > copies.last_device + 1) {
        return rc; /* they were too many before */
    }
    size_t bytes = leaf_bytes(&room, &name, value);
    return bytes == 0 || copies.bytes + bytes > room.page / YOUNG_NAMES_SHARE
               ? drop_copies(txn, main)
               : env_error(mdb_put(txn, main, &name, &data, 0));
}
