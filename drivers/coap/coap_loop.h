/* coap_loop.h - a libcoap context inside a libevent base.
 *
 * libcoap keeps an epoll descriptor with its sockets and its timers; the event base watches that.
 * One thread (libcoap is not thread-safe). Sessions must never be released inside a callback of
 * libcoap, which may still hold events of them: that is what `after` is for, which runs after each
 * turn, outside of libcoap. */
#pragma once

#include "gateway/base/cleanup.h"

#include <coap3/coap.h>

struct event_base;
struct event;

struct coap_loop {
    coap_context_t *context; /* its application data belong to the owner */
    struct event *event;
    void (*after)(void *user); /* may be NULL */
    void *user;
};

must_check int coap_loop_init(struct coap_loop *loop, struct event_base *base,
                              void (*after)(void *user), void *user);
/* Zero-initialised is fine. */
void coap_loop_finish(struct coap_loop *loop);

/* Takes a turn soon: to be called whenever something was sent or a session made from outside of
 * libcoap, so that its timers are set, and whenever `after` has something to do. */
void coap_loop_kick(struct coap_loop *loop);

/* An address for libcoap. */
coap_address_t coap_loop_address(const struct sockaddr *address, socklen_t len);
