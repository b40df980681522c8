/* cloud_peer.h - a small HTTP server in the test's own process, plain or over TLS.
 *
 * Every connection has a thread; requests on it are answered by the test's function, one after
 * the other. Start it, ask cloud_port(), stop it; connections that are open then are cut. */
#pragma once

#include <stddef.h>
#include <stdint.h>

struct cloud;

struct cloud_request {
    const char *head; /* request line and header lines, NUL-terminated */
    const char *body;
    size_t len;
    unsigned number; /* of all requests of this peer, from 1 */
};

struct cloud_options {
    const char *cert_file, *key_file; /* NULL: plain */
    const char *client_ca_file;       /* wants a client certificate of that authority */
    int only_tls11;
    /* Writes the whole answer, status line and all, to `answer`; returns its length, or -1 to cut
     * the connection. Called by the connections' threads, one at a time. */
    int (*answer)(void *user, const struct cloud_request *request, char *answer, size_t size);
    void *user;
    int port; /* 0: any free one */
};

struct cloud *cloud_start(const struct cloud_options *options);
int cloud_port(const struct cloud *p);
uint64_t cloud_bytes(struct cloud *p); /* application data that arrived */
unsigned cloud_requests(struct cloud *p);
unsigned cloud_connections(struct cloud *p);
void cloud_stop(struct cloud *p);

/* "HTTP/1.1 STATUS X", Content-Length and the body; extra: further lines, each with \r\n. */
int cloud_reply(char *answer, size_t size, int status, const char *extra, const char *body);
