/* http_pull.h - the polls of one JSON API: when, and what becomes of the answers.
 *
 * Field thread only. A poll is one GET, conditional where the server gave an ETag or a
 * Last-Modified. "304 Not Modified" says that the values are those of the last answer: they are
 * submitted again with the present time, exactly as if the server had sent them again; whoever
 * wants changes only says on-change or deadband. Where `time` names a time in the document, an
 * answer with the time of the last one brings nothing new and is not submitted again, but is a good
 * poll. Failures in a row double the pause up to HTTP_PULL_PAUSE_MAX_MS; a Retry-After is waited
 * for. */
#pragma once

#include "drivers/http/http_fetch.h"
#include "drivers/schedule.h"

enum {
    HTTP_PULL_DEAD_AFTER = 3,       /* failures in a row, then the device counts as dead */
    HTTP_PULL_PAUSE_MAX_MS = 60000, /* between two attempts, or `poll` where that is longer */
};

struct http_pull;

must_check int http_pull_create(struct schedule *schedule, struct http_fetcher *fetcher,
                                struct device *device, struct http_pull **ret_pull);
void http_pull_destroy(struct http_pull *pull);
