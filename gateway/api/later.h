/* later.h - requests whose answer comes from another thread.
 *
 * The api thread opens a ticket for a request; whoever does the work answers the ticket once, from
 * any thread; the api thread sends the answer. A client that went away, or an api that stopped
 * meanwhile, is no trouble: the answer is then thrown away. */
#pragma once

#include "gateway/base/buffer.h"

#include <event2/event.h>
#include <event2/http.h>
#include <jansson.h>

enum { LATER_TICKETS_MAX = 48 };

struct later;
struct ticket;

must_check int later_create(struct event_base *base, struct later **ret_later);

/* [api thread] Answers what is open with 503; tickets answered from now on are thrown away. Takes
 * NULL. Before the servers are destroyed. */
void later_destroy(struct later *later);

/* [api thread] -EBUSY: LATER_TICKETS_MAX are open. */
must_check int ticket_open(struct later *later, struct evhttp_request *request,
                           struct ticket **ret_ticket);
/* [api thread] The work did not begin: gives the request back, nothing is sent. */
void ticket_cancel(struct ticket *ticket);

/* [any thread] Once. Takes `json` (or, when that is NULL, the bytes of `body`). */
void ticket_answer(struct ticket *ticket, int status, json_t *json, struct buffer *body);
