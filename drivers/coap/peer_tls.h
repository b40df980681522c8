/* peer_tls.h - DTLS sessions to devices: by pre-shared key or by certificates (RFC 7252 section 9).
 *
 * Field thread only. The device's certificate must be signed by ca_file, be in date, and name the
 * host of the address; there is no way to switch that off. */
#pragma once

#include "drivers/coap/coap_loop.h"
#include "drivers/coap/settings.h"
#include "drivers/coap/target.h"

coap_session_t *peer_tls_open_psk(coap_context_t *context, const coap_address_t *address,
                                  struct target *target, const char *identity, const uint8_t *key,
                                  size_t key_len);

/* The context is this device's alone; target must outlive it. */
coap_session_t *peer_tls_open_pki(coap_context_t *context, const coap_address_t *address,
                                  struct target *target, const struct coap_settings *settings);
