/* helper_peer.h - a small HTTP server in the test's own process, plain or over TLS.
 *
 * Every connection has a thread; requests on it are answered by the test's function, one after
 * the other. Start it, ask peer_port(), stop it; connections that are open then are cut. */
#pragma once

#include <stddef.h>
#include <stdint.h>

struct peer;

struct peer_request {
    const char *head; /* request line and header lines, NUL-terminated */
    const char *body;
    size_t len;
    unsigned number; /* of all requests of this peer, from 1 */
};

struct peer_options {
    const char *cert_file, *key_file; /* NULL: plain */
    const char *client_ca_file;       /* wants a client certificate of that authority */
    int only_tls11;
    /* Writes the whole answer, status line and all, to `answer`; returns its length, or -1 to cut
     * the connection. Called by the connections' threads, one at a time. */
    int (*answer)(void *user, const struct peer_request *request, char *answer, size_t size);
    void *user;
    int port; /* 0: any free one */
};

struct peer *peer_start(const struct peer_options *options);
int peer_port(const struct peer *p);
uint64_t peer_bytes(struct peer *p); /* application data that arrived */
unsigned peer_requests(struct peer *p);
unsigned peer_connections(struct peer *p);
void peer_stop(struct peer *p);

/* "HTTP/1.1 STATUS X", Content-Length and the body; extra: further lines, each with \r\n. */
int peer_reply(char *answer, size_t size, int status, const char *extra, const char *body);
