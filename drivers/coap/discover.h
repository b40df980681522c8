/* discover.h - what CoAP devices have to tell: /.well-known/core (RFC 6690), by host or by
 * multicast (RFC 7252 section 8), and the names in their SenML.
 *
 * For the command, not for the daemon: it makes an event base of its own and blocks until it has
 * its answers or the time is up. */
#pragma once

#include "gateway/base/cleanup.h"

#include <jansson.h>
#include <stdint.h>

enum { DISCOVER_HOSTS_MAX = 64, DISCOVER_ERROR_SIZE = 256 };

struct discover_options {
    const char *address; /* coap://HOST[:PORT] or coaps://; a multicast address asks all */
    const char *psk_identity, *psk_key; /* NULL: none */
    int64_t timeout_ms;                 /* of each answer; how long a multicast is listened to */
};

/* [{"address":"coap://10.1.0.50:5683","resources":[{"path","observable","formats":[...],"type",
 * "names":[...]}]}], a new reference; names are those of a SenML resource. -EINVAL: no address,
 * -ETIMEDOUT and others: ret_error says why. */
must_check int discover_run(const struct discover_options *options, json_t **ret_hosts,
                            char ret_error[DISCOVER_ERROR_SIZE]);
