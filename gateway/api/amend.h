/* amend.h - what a technician changes in the store's accounts, over the socket only: dead letters
 * that wait again or go, and readings that were handed over by hand.
 *
 * The bodies' parser is pure. The work is done by the pipeline's thread, a bounded step with each
 * commit; the desk's thread waits for it and answers. */
#pragma once

#include "gateway/api/api.h"
#include "gateway/api/history.h"
#include "gateway/store/dead.h"
#include "gateway/store/handover.h"

enum { AMEND_NAME_MAX = 256 };

/* {"uplink":"cloud","device":"t01","reason":"422"}; device and reason may be left out. */
struct amend_letters {
    char uplink[AMEND_NAME_MAX], device[AMEND_NAME_MAX], reason[AMEND_NAME_MAX]; /* "": any */
};
/* -EINVAL with ret_why in words. */
must_check int amend_letters_parse(const char *body, size_t len, struct amend_letters *ret_letters,
                                   const char **ret_why);

/* Does it step by step; each step is durable before the next. Also for a store that no daemon has
 * open: pipeline NULL. */
must_check int amend_letters_all(struct store *store, struct pipeline *pipeline,
                                 const struct amend_letters *letters, bool drops,
                                 struct store_requeued *ret_total);

/* {"store":"9f2c61d07a3b","uplink":"cloud","runs":[[STREAM,DEVICE,FIRST,LAST,READINGS,SELECTED]]}:
 * what store_hand_over() takes, numbers all. */
enum { AMEND_RUNS_MAX = 800 };
struct amend_handover {
    char store[AMEND_NAME_MAX], uplink[AMEND_NAME_MAX];
    struct store_handed runs[AMEND_RUNS_MAX];
    size_t count;
};
must_check int amend_handover_parse(const char *body, size_t len,
                                    struct amend_handover *ret_handover, const char **ret_why);

/* Answers the request, now (an error) or later. */
void amend_handover(const struct api_host *host, struct later *later, struct history_desk *desk,
                    struct evhttp_request *request, const char *body, size_t len);
/* Answers the request, now (an error) or later. */
void amend_letters(const struct api_host *host, struct later *later, struct history_desk *desk,
                   struct evhttp_request *request, const char *body, size_t len, bool drops);
