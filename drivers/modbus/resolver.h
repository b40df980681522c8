/* resolver.h - host names to addresses without blocking the field loop (libevent's evdns).
 *
 * Field thread only. Numeric addresses never get here. /etc/resolv.conf and /etc/hosts are read at
 * the first use and again when resolv.conf has changed, because a gateway often boots before its
 * network: name servers that DHCP brings later must not need a restart. */
#pragma once

#include "gateway/base/cleanup.h"

#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>

struct event_base;
struct resolver;
struct resolver_query;

must_check int resolver_create(struct event_base *base, struct resolver **ret_resolver);
void resolver_destroy(struct resolver *resolver);

/* An address as it stands ("10.1.0.11", "fe80::1%eth0"), or -EINVAL: then it is a name. */
must_check int resolver_numeric(const char *host, uint16_t port,
                                struct sockaddr_storage *ret_address, socklen_t *ret_len);

/* Asks for host; `done` is called exactly once unless the query is cancelled, and never before
 * this returns; address NULL: it has none. Returns NULL when memory is short. */
struct resolver_query *
resolver_ask(struct resolver *resolver, const char *host, uint16_t port,
             void (*done)(void *user, const struct sockaddr *address, socklen_t len), void *user);
void resolver_cancel(struct resolver_query *query);
