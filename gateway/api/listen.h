/* listen.h - the listening sockets of the local API, and TLS for those that need it.
 *
 * Used once, while the api starts. Returned descriptors belong to the caller. */
#pragma once

#include "gateway/base/cleanup.h"

#include <openssl/ssl.h>
#include <stdbool.h>

/* The Unix socket, mode 0660; one left behind by a dead process is replaced. -EADDRINUSE: another
 * process answers on it. */
must_check int listen_unix(const char *path, int *ret_fd, char *ret_why, size_t why_size);

/* HOST:PORT or [V6]:PORT; resolves names. */
must_check int listen_tcp(const char *endpoint, int *ret_fd, char *ret_why, size_t why_size);

/* TLS 1.2 or newer with that certificate chain and key. */
must_check int listen_tls(const char *cert_file, const char *key_file, SSL_CTX **ret_tls,
                          char *ret_why, size_t why_size);
