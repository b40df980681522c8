/* transfer.h - bodies that are posted to us in blocks (Block1, RFC 7959 section 2.3).
 *
 * Field thread only. libcoap would put them together itself, but believes whatever size a sender
 * announces; here a body has at most SENML_BYTES_MAX bytes, at most TRANSFERS_MAX are under way,
 * one a session and TRANSFER_LIFETIME_MS old at most. */
#pragma once

#include "gateway/base/buffer.h"

#include <coap3/coap.h>

enum { TRANSFERS_MAX = 64, TRANSFER_LIFETIME_MS = 60000, TRANSFER_IDLE_MS = 5000 };

struct transfers;

must_check int transfers_create(struct transfers **ret_transfers);
void transfers_destroy(struct transfers *transfers);

/* The session is gone. */
void transfers_drop(struct transfers *transfers, const coap_session_t *session);

/* Takes a request. 1: its body is whole, in *ret_body until the next call; 0: `response` holds the
 * answer (2.31, 4.08, 4.13, 5.03). */
int transfers_take(struct transfers *transfers, coap_session_t *session, const coap_pdu_t *request,
                   coap_pdu_t *response, const uint8_t **ret_body, size_t *ret_len);

size_t transfers_count(const struct transfers *transfers);
