/* address.h - "IP:PORT" and socket addresses.
 *
 * Pure, any thread. IPv6 stands in brackets: "[::1]:8443". Names are not looked up here: what
 * listens is told an address, and what connects uses the event loop's resolver. */
#pragma once

#include "gateway/base/cleanup.h"

#include <stdint.h>
#include <sys/socket.h>

/* Port 0 is fine; a missing port is -EINVAL. */
must_check int address_parse(const char *text, struct sockaddr_storage *ret_address,
                             socklen_t *ret_len);

uint16_t address_port(const struct sockaddr_storage *address);
void address_set_port(struct sockaddr_storage *address, uint16_t port);
