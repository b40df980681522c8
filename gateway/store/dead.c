#include "gateway/store/dead.h"

#include "gateway/store/lanes.h"
#include "gateway/store/letter.h"
#include "gateway/store/requeue.h"

#include <errno.h>
#include <string.h>

static int encode_letter(struct store_reader *reader, const struct scan *scan,
                         const uint16_t *refused, uint16_t count, const char *why,
                         struct buffer *record)
{
    const struct store_letter letter = {.refused_ms = store_now_ms(reader->store),
                                        .uplink = store_uplink_name(reader->store, reader->uplink),
                                        .why = why,
                                        .scan = scan,
                                        .refused = refused,
                                        .refused_count = count};
    int rc = reader->encoder == NULL ? wal_encoder_create(&reader->encoder) : 0;
    return rc < 0 ? rc
                  : letter_encode(reader->encoder, &letter, store_now_ms(reader->store), record);
}

int store_dead_letter(struct store_reader *reader, const struct scan *scan, const uint16_t *refused,
                      uint16_t refused_count, const char *why)
{
    auto_buffer struct buffer record = {0};
    int rc = encode_letter(reader, scan, refused, refused_count, why, &record);
    if (rc < 0) {
        return rc;
    }
    uint8_t len[4];
    field_put32(len, (uint32_t)record.len);
    struct store *store = reader->store;
    store_lock(store);
    if (store->dead.len + record.len + sizeof(len) > DEAD_PENDING_MAX) {
        rc = -ENOBUFS;
    } else if (buffer_reserve(&store->dead, record.len + sizeof(len)) == NULL) {
        store->dead.failed = false; /* the others that wait are whole */
        rc = -ENOMEM;
    } else {
        buffer_add(&store->dead, len, sizeof(len));
        buffer_add(&store->dead, record.data, record.len);
        store->marked = true;
    }
    store_unlock(store);
    return rc;
}

int store_letters_from(struct store *store, uint64_t from,
                       int (*fn)(void *user, const struct store_letter *letter), void *user)
{
    struct letter_opener o;
    int rc = letter_opener_init(&o);
    while (rc == 0) {
        struct store_letter letter = {0};
        rc = env_copy(store->env, KEY_DEAD, from, &letter.number, &o.record);
        if (rc == 0) {
            from = letter.number + 1;
            rc = letter_open(&o, o.record.data, o.record.len, &letter);
            rc = rc == 0 ? fn(user, &letter) : rc == -EBADMSG ? 0 : rc;
        }
    }
    letter_opener_finish(&o);
    return rc == -ENOENT ? 0 : rc;
}

int store_letters(struct store *store, int (*fn)(void *user, const struct store_letter *letter),
                  void *user)
{
    return store_letters_from(store, 0, fn, user);
}

bool store_letter_fits(struct store *store, const struct store_letter_filter *filter,
                       const struct store_letter *letter)
{
    const struct store_names *names = store_names(store, letter->scan->device);
    return (filter->uplink == NULL || strcmp(filter->uplink, letter->uplink) == 0) &&
           (filter->device == NULL ||
            (names != NULL && strcmp(filter->device, names->device) == 0)) &&
           (filter->reason == NULL || strcasestr(letter->why, filter->reason) != NULL);
}
