/* sink_tls.h - the sink's side of TLS: 1.2 or newer, optionally with client certificates.
 *
 * Pure set-up, one thread. */
#pragma once

#include "uplink/sink/sink.h"

struct ssl_ctx_st;

/* -errno, and ret_error names the file that is at fault. */
must_check int sink_tls_create(const struct sink_options *options, struct ssl_ctx_st **ret_context,
                               char ret_error[SINK_ERROR_SIZE]);
