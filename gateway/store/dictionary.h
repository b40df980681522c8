/* dictionary.h - names of devices and points to ids and back, kept for ever.
 *
 * The writer changes it; dictionary_names() may be called from any thread and costs a load where
 * nothing has changed. What was handed out stays valid until dictionary_destroy(). A record (key
 * `p`, device, version) holds a device with all its points: version byte, CRC32C, name, tags,
 * points (name, unit). New points extend the newest version, a changed unit or tag set begins
 * another. */
#pragma once

#include "gateway/store/env.h"
#include "gateway/store/reader.h"

enum { DICTIONARY_TEXT_MAX = 65535, DICTIONARY_POINTS_MAX = 65535 };

struct dictionary;

must_check int dictionary_create(struct dictionary **ret_dictionary);
void dictionary_destroy(struct dictionary *dictionary);

/* Reads all of it. -EBADMSG. */
must_check int dictionary_load(struct dictionary *dictionary, MDB_txn *txn);
/* Puts what has changed since the last dictionary_saved(). */
must_check int dictionary_save(struct dictionary *dictionary, MDB_txn *txn);
void dictionary_saved(struct dictionary *dictionary);
bool dictionary_changed(const struct dictionary *dictionary);

/* Found or made; [writer] both. -ENOBUFS, -ENOMEM, -EINVAL. */
must_check int dictionary_device(struct dictionary *dictionary, const char *name,
                                 const char *tags_json, uint32_t *ret_id);
must_check int dictionary_point(struct dictionary *dictionary, uint32_t device, const char *name,
                                const char *unit, uint16_t *ret_id);
/* Finds or makes the device and points of a record out of another store's dictionary; those that
 * are there keep their tags and units. ret_points (malloc'd): the id here of each point there.
 * -EBADMSG, -ENOBUFS, -ENOMEM. [writer] */
must_check int dictionary_adopt(struct dictionary *dictionary, const void *record, size_t len,
                                uint32_t *ret_id, uint16_t **ret_points, size_t *ret_count);
/* Devices have the ids 1 to this. */
size_t dictionary_count(const struct dictionary *dictionary);

/* NULL for an unknown id, or without memory. */
const struct store_names *dictionary_names(struct dictionary *dictionary, uint32_t device);

/* Pure: whether a record decodes. -EBADMSG. */
must_check int dictionary_check(const void *record, size_t len);
