/* push.h - posts whose senders wait for the commit.
 *
 * The field thread begins a push; the pipeline thread says that it is durable; the field thread
 * then sends the answer. Between the two stands a mailbox with an eventfd, which outlives the
 * desk when the pipeline still has pushes of a driver that is gone. At most PUSHES_MAX senders
 * wait at a time. */
#pragma once

#include "drivers/coap/coap_loop.h"
#include "drivers/coap/harvest.h"
#include "drivers/coap/recent.h"
#include "gateway/pipeline/device.h"

enum {
    PUSHES_MAX = 512,
    PUSH_SCANS_MAX = 256, /* time stamps in one post */
    PUSH_RETRY_S = 5      /* Max-Age of a 5.03: when to try again */
};

struct push_desk;

must_check int push_desk_create(struct event_base *base, struct coap_loop *loop,
                                struct recent *recent, struct push_desk **ret_desk);
/* Before the loop's context is freed. Nobody is answered any more. */
void push_desk_destroy(struct push_desk *desk);

/* Hands the harvest over as scans of the device. 0: the sender will be answered after the commit,
 * so its request is to be acknowledged empty now. -ENOBUFS: at a bound, nothing was taken (5.03);
 * -EMSGSIZE: more than PUSH_SCANS_MAX times. */
must_check int push_begin(struct push_desk *desk, struct device *device, struct harvest *harvest,
                          coap_session_t *session, const coap_pdu_t *request, uint64_t key);

/* Answers the request at hand with 5.03 and when to come again. */
void push_busy(coap_pdu_t *response);

/* How many senders wait. */
size_t push_waiting(const struct push_desk *desk);
