/* recent.h - which posts were seen lately, so that one sent again is stored once.
 *
 * CoAP repeats a message until it is acknowledged, and a sender repeats its request for up to
 * EXCHANGE_LIFETIME (RFC 7252 section 4.8.2, 247 s). One owner, the field thread; nothing blocks.
 * The table is a ring in a mapped file, so it outlives a crash of the process (a power cut may cost
 * it): what was under way then counts as stored if the store has the seq it was given, and else
 * never happened. */
#pragma once

#include "gateway/base/cleanup.h"

#include <stdbool.h>
#include <stdint.h>

enum { RECENT_MAX = 4096, RECENT_LIFETIME_MS = 247000 };

enum recent_state { RECENT_NONE, RECENT_PENDING, RECENT_STORED, RECENT_LEFT_OVER };

struct recent;

/* path NULL: in memory only. A file that cannot be used is no error, only memory then. */
must_check int recent_create(const char *path, struct recent **ret_recent);
void recent_destroy(struct recent *recent);

/* The key of a post: who sent it, its message id and token. */
uint64_t recent_key(const void *address, size_t address_len, int message_id, const void *token,
                    size_t token_len);

enum recent_state recent_find(const struct recent *recent, uint64_t key, int64_t now_ms);

/* Before the scans are handed over; last_seq is what the last one will get. */
void recent_begin(struct recent *recent, uint64_t key, const char *device, uint64_t last_seq,
                  int64_t now_ms);
/* It is stored (answer it again), or is to be forgotten. */
void recent_settle(struct recent *recent, uint64_t key, bool stored);

/* A device begins with the store's last seq of it: decides what was left over of it. */
void recent_resolve(struct recent *recent, const char *device, uint64_t last_seq);
