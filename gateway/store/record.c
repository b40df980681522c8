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

/* How many there are before this commit; counted where an earlier version kept no count. */
static int count_records(struct store *store, MDB_txn *txn, uint64_t *ret_count)
{
    const struct state_note *note = state_note(&store->state, RECORD_COUNT_NOTE);
    uint64_t count = 0, number = 0;
    MDB_val value;
    int rc = 0;
    if (note != NULL) {
        *ret_count = (uint64_t)note->value;
        return 0;
    }
    for (uint64_t from = 0; (rc = env_seek(txn, KEY_RECORD, from, &number, &value)) == 0;
         from = number + 1) {
        count++;
    }
    *ret_count = count;
    return rc == -ENOENT ? 0 : rc;
}

static int note_count(struct store *store, uint64_t count)
{
    store_lock(store);
    int rc = state_set_note(&store->state, RECORD_COUNT_NOTE, (int64_t)count);
    store_unlock(store);
    return rc;
}

int record_put_all(struct store *store, MDB_txn *txn)
{
    struct cursor c = {store->records.data, store->records.data + store->records.len, false};
    struct plan *plan = &store->plan;
    int rc = c.at == c.end || plan->records_counted ? 0 : count_records(store, txn, &plan->records);
    plan->records_counted = true; /* the note says what it will be when this is done again */
    uint64_t count = plan->records;
    while (c.at < c.end && rc == 0) {
        struct key key = key_number(KEY_RECORD, field_get64(cursor_take(&c, 8)));
        uint32_t len = field_get32(cursor_take(&c, 4));
        MDB_val value;
        rc = env_get(txn, &key, &value);
        if (rc == 0 || rc == -ENOENT) {
            count += (len > 0 && rc == -ENOENT) - (uint64_t)(len == 0 && rc == 0);
            rc = len == 0 ? env_delete(txn, &key)
                          : env_put(txn, &key, cursor_take(&c, len), len, 0);
        }
    }
    return rc < 0 || store->records.len == 0 ? rc : note_count(store, count);
}

int store_copy_record(struct store *store, uint64_t from, uint64_t *ret_number,
                      struct buffer *ret_bytes)
{
    return env_copy(store->env, KEY_RECORD, from, ret_number, ret_bytes);
}
