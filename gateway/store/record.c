#include "gateway/store/record.h"

#include <errno.h>

int store_set_record(struct store *store, uint64_t number, const void *bytes, size_t len)
{
    uint8_t head[12];
    if (len > STORE_RECORD_MAX) {
        return -EMSGSIZE;
    }
    if (store->records.len + sizeof head + len > STORE_RECORDS_PENDING_MAX) {
        return -ENOBUFS;
    }
    if (buffer_reserve(&store->records, sizeof head + len) == NULL) {
        return -ENOMEM;
    }
    field_put64(head, number);
    field_put32(head + 8, (uint32_t)len);
    buffer_add(&store->records, head, sizeof head);
    if (len > 0) {
        buffer_add(&store->records, bytes, len);
    }
    store->counted = true;
    return 0;
}

int record_put_all(struct store *store, MDB_txn *txn)
{
    struct cursor c = {store->records.data, store->records.data + store->records.len, false};
    int rc = 0;
    while (c.at < c.end && rc == 0) {
        struct key key = key_number(KEY_RECORD, field_get64(cursor_take(&c, 8)));
        uint32_t len = field_get32(cursor_take(&c, 4));
        rc = len == 0 ? env_delete(txn, &key) : env_put(txn, &key, cursor_take(&c, len), len, 0);
    }
    return rc;
}

int store_copy_record(struct store *store, uint64_t from, uint64_t *ret_number,
                      struct buffer *ret_bytes)
{
    return env_copy(store->env, KEY_RECORD, from, ret_number, ret_bytes);
}
