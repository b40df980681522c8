/* sink_tokens.h - who may read and who may write: lines `NAME read|write TOKEN`.
 *
 * One thread. A token gives one right; whoever needs both has two. */
#pragma once

#include "gateway/base/cleanup.h"

#include <stdbool.h>
#include <stddef.h>

enum sink_right { SINK_RIGHT_NONE, SINK_RIGHT_READ, SINK_RIGHT_WRITE };
enum { SINK_TOKENS_MAX = 1024, SINK_TOKEN_MAX = 255 };

struct sink_tokens;

/* -EPERM: others can read the file; -EINVAL: a line is none (its number in *ret_line). */
must_check int sink_tokens_load(const char *path, struct sink_tokens **ret_tokens,
                                size_t *ret_line);
void sink_tokens_destroy(struct sink_tokens *tokens);

/* The right of an Authorization header's value; NULL gives none. Takes the same time for every
 * token of one length. */
enum sink_right sink_tokens_right(const struct sink_tokens *tokens, const char *authorization);
