/* sink_handler.h - a request to a reply, without a network.
 *
 * One thread. Holds the database, the tokens and the counts; the server in front of it only moves
 * bytes, and the fuzzer calls it directly. */
#pragma once

#include "uplink/sink/sink.h"

enum sink_method { SINK_GET, SINK_POST, SINK_OTHER };

enum { SINK_HEADER_LINES_MAX = 64 }; /* what comes behind them is not looked at */

struct sink_request {
    enum sink_method method;
    const char *path, *query;             /* query: behind the '?', NULL for none */
    const char *authorization, *encoding; /* headers; NULL for none */
    const uint8_t *body;
    size_t len;
    struct sink_header {
        const char *name, *value;
    } headers[SINK_HEADER_LINES_MAX]; /* all of them, for who signs them */
    size_t header_count;
};

struct sink_reply {
    int status;
    const char *content_type;
    struct buffer body;
    bool retry; /* the client should come back in a second */
    bool lose;  /* close the connection instead of answering */
};

struct sink_handler;

must_check int sink_handler_create(const struct sink_options *options,
                                   struct sink_handler **ret_handler,
                                   char ret_error[SINK_ERROR_SIZE]);
void sink_handler_destroy(struct sink_handler *handler);

/* reply->body is empty and the caller's at the call; everything else is set. */
void sink_handler_handle(struct sink_handler *handler, const struct sink_request *request,
                         struct sink_reply *reply);

/* Whether `--reject DEVICE:SEQ` means that record. */
bool sink_reject_asked(const struct sink_options *options, const struct sink_record *record);

json_t *sink_handler_stats(const struct sink_handler *handler);
