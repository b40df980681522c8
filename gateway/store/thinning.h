/* thinning.h - raw scans for which there is no more room, replaced by statistics.
 *
 * The writer's, inside its transaction. Of a raw block that somebody waits for, each window of ten
 * minutes (longer where so few scans are in it that nothing would be gained) becomes one scan of
 * the device's aggregate stream, with NAME_mean, NAME_min, NAME_max, NAME_std and NAME_count of
 * what was good or uncertain. They are committed together with the deletion, in the log, as what
 * was appended last; a window that lies in two blocks gives two scans. */
#pragma once

#include "gateway/store/internal.h"

/* The statistics of one commit: no more is thinned then. */
enum { THINNING_BYTES_MAX = 256 * 1024 };

/* Adds the statistics of those of the scans (one behind the other, of one device) that somebody
 * waits for to store->thinned, with seqs of their own, counted as LEDGER_DERIVED and for the
 * uplinks. -ENOMEM, -ENOBUFS (no room for the names): nothing was added. */
must_check int thinning_add(struct store *store, struct buffer *scans);
/* The same for the raw scans that somebody waits for in the block of the log that was opened last
 * with store->decoder, and that are in no large block: of each device that has so many of them that
 * statistics are smaller. Their times are those that the block's clock anchor gives them. */
must_check int thinning_add_block(struct store *store, uint64_t number,
                                  const struct wal_header *header, const struct wal_row *rows);
/* Makes a block of the log of them, behind those of the commit. */
must_check int thinning_encode(struct store *store);
bool thinning_has_room(const struct store *store);
