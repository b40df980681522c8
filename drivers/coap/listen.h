/* listen.h - where devices post to us: a CoAP server, plain and over DTLS with pre-shared keys.
 *
 * Field thread only. POST and PUT of text, CBOR and SenML are taken for devices with
 * mode = listen; route.h says whose a post is. The answer 2.04 comes after the commit; 5.03 says
 * that a bound is reached, 4.00 that the payload does not decode or has none of the device's
 * points, 4.03 that the post belongs to another, 4.04 that nobody is meant. All memory is bounded:
 * sessions, handshakes, posts that wait, bodies in blocks. */
#pragma once

#include "drivers/coap/settings.h"
#include "gateway/pipeline/device.h"

enum {
    LISTEN_SESSIONS_MAX = 1024, /* idle ones; the oldest goes first */
    LISTEN_HANDSHAKES_MAX = 64,
    LISTEN_SESSION_S = 300, /* of silence, until a session is forgotten */
    LISTEN_PSKS_MAX = 4096
};

struct event_base;
struct listener;

/* data_dir: where posts under way are noted, NULL: nowhere. Errors are logged here. */
must_check int listener_create(struct event_base *base, const struct coap_section *section,
                               const char *data_dir, struct listener **ret_listener);
void listener_destroy(struct listener *listener);

/* Begins and ends to take posts of the device. */
must_check int listener_add(struct listener *listener, struct device *device);
void listener_remove(struct listener *listener, struct device *device);
