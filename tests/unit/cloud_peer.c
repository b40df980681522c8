#include "cloud_peer.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { CONNECTIONS_MAX = 256, HEAD_MAX = 16384, BODY_MAX = 16 << 20, ANSWER_MAX = 1 << 20 };

struct connection {
    struct cloud *peer;
    pthread_t thread;
    int fd;
    SSL *ssl;
};

struct cloud {
    struct cloud_options options;
    SSL_CTX *tls;
    int listener, port;
    pthread_t acceptor;
    pthread_mutex_t lock;
    struct connection connections[CONNECTIONS_MAX];
    unsigned count;
    _Atomic unsigned requests;
    _Atomic uint64_t bytes;
    _Atomic int stopping;
};

static void need(int ok, const char *what)
{
    if (!ok) {
        fprintf(stderr, "peer of the test: %s failed\n", what);
        ERR_print_errors_fp(stderr);
        abort();
    }
}

static ssize_t take(struct connection *c, char *to, size_t size)
{
    ssize_t n = c->ssl != NULL ? SSL_read(c->ssl, to, (int)size) : read(c->fd, to, size);
    if (n > 0) {
        c->peer->bytes += (uint64_t)n;
    }
    return n;
}

static int give(struct connection *c, const char *from, size_t len)
{
    while (len > 0) {
        ssize_t n = c->ssl != NULL ? SSL_write(c->ssl, from, (int)len)
                                   : send(c->fd, from, len, MSG_NOSIGNAL);
        if (n <= 0) {
            return -1;
        }
        from += n;
        len -= (size_t)n;
    }
    return 0;
}

static size_t content_length(const char *head)
{
    const char *field = strcasestr(head, "\r\ncontent-length:");
    return field != NULL ? strtoul(field + 17, NULL, 10) : 0;
}

/* One request into `text` (HEAD_MAX + BODY_MAX bytes), and its answer. -1: the connection ends. */
static int serve(struct connection *c, char *text, char *answer)
{
    size_t len = 0;
    char *end = NULL;
    while (end == NULL) {
        ssize_t n = len < HEAD_MAX ? take(c, text + len, HEAD_MAX - len) : -1;
        if (n <= 0) {
            return -1;
        }
        len += (size_t)n;
        text[len] = '\0';
        if (c->ssl == NULL && text[0] == 0x16) {
            /* A TLS handshake on a plain port: what web servers say to that. */
            static const char bad[] = "HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n";
            give(c, bad, sizeof bad - 1);
            return -1;
        }
        end = strstr(text, "\r\n\r\n");
    }
    *end = '\0';
    size_t start = (size_t)(end + 4 - text), body = content_length(text);
    while (body <= BODY_MAX && len - start < body) {
        ssize_t n = take(c, text + len, start + body - len);
        if (n <= 0) {
            return -1;
        }
        len += (size_t)n;
    }
    struct cloud *p = c->peer;
    pthread_mutex_lock(&p->lock);
    struct cloud_request request = {text, text + start, body, ++p->requests};
    int n = p->options.answer(p->options.user, &request, answer, ANSWER_MAX);
    pthread_mutex_unlock(&p->lock);
    return n < 0 ? -1 : give(c, answer, (size_t)n);
}

static void *converse(void *user)
{
    struct connection *c = user;
    char *text = malloc(HEAD_MAX + BODY_MAX + 1), *answer = malloc(ANSWER_MAX);
    if (c->ssl == NULL || SSL_accept(c->ssl) == 1) {
        while (!c->peer->stopping && serve(c, text, answer) == 0) {
        }
    }
    if (c->ssl != NULL) {
        SSL_shutdown(c->ssl);
    }
    shutdown(c->fd, SHUT_RDWR);
    free(text);
    free(answer);
    return NULL;
}

static void *accept_all(void *user)
{
    struct cloud *p = user;
    while (!p->stopping && p->count < CONNECTIONS_MAX) {
        int fd = accept(p->listener, NULL, NULL);
        if (fd < 0) {
            continue;
        }
        int one = 1;
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        pthread_mutex_lock(&p->lock);
        struct connection *c = &p->connections[p->count];
        *c = (struct connection){.peer = p, .fd = fd};
        if (p->tls != NULL) {
            c->ssl = SSL_new(p->tls);
            SSL_set_fd(c->ssl, fd);
        }
        need(pthread_create(&c->thread, NULL, converse, c) == 0, "pthread_create");
        p->count++;
        pthread_mutex_unlock(&p->lock);
    }
    return NULL;
}

static void use_tls(struct cloud *p)
{
    p->tls = SSL_CTX_new(TLS_server_method());
    need(SSL_CTX_use_certificate_chain_file(p->tls, p->options.cert_file) == 1, "certificate");
    need(SSL_CTX_use_PrivateKey_file(p->tls, p->options.key_file, SSL_FILETYPE_PEM) == 1, "key");
    if (p->options.only_tls11) {
        SSL_CTX_set_security_level(p->tls, 0);
        SSL_CTX_set_min_proto_version(p->tls, TLS1_VERSION);
        SSL_CTX_set_max_proto_version(p->tls, TLS1_1_VERSION);
    }
    if (p->options.client_ca_file != NULL) {
        need(SSL_CTX_load_verify_locations(p->tls, p->options.client_ca_file, NULL) == 1, "ca");
        SSL_CTX_set_verify(p->tls, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, NULL);
    }
}

struct cloud *cloud_start(const struct cloud_options *options)
{
    struct cloud *p = calloc(1, sizeof *p);
    p->options = *options;
    pthread_mutex_init(&p->lock, NULL);
    if (options->cert_file != NULL) {
        use_tls(p);
    }
    struct sockaddr_in at = {.sin_family = AF_INET,
                             .sin_port = htons((uint16_t)options->port),
                             .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof at;
    int one = 1;
    p->listener = socket(AF_INET, SOCK_STREAM, 0);
    setsockopt(p->listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    need(bind(p->listener, (struct sockaddr *)&at, size) == 0, "bind");
    need(listen(p->listener, 64) == 0, "listen");
    getsockname(p->listener, (struct sockaddr *)&at, &size);
    p->port = ntohs(at.sin_port);
    need(pthread_create(&p->acceptor, NULL, accept_all, p) == 0, "pthread_create");
    return p;
}

int cloud_port(const struct cloud *p)
{
    return p->port;
}

uint64_t cloud_bytes(struct cloud *p)
{
    return p->bytes;
}

unsigned cloud_requests(struct cloud *p)
{
    return p->requests;
}

unsigned cloud_connections(struct cloud *p)
{
    pthread_mutex_lock(&p->lock);
    unsigned n = p->count;
    pthread_mutex_unlock(&p->lock);
    return n;
}

void cloud_stop(struct cloud *p)
{
    p->stopping = 1;
    shutdown(p->listener, SHUT_RDWR);
    pthread_join(p->acceptor, NULL);
    for (unsigned i = 0; i < p->count; i++) {
        shutdown(p->connections[i].fd, SHUT_RDWR);
        pthread_join(p->connections[i].thread, NULL);
        SSL_free(p->connections[i].ssl);
        close(p->connections[i].fd);
    }
    close(p->listener);
    SSL_CTX_free(p->tls);
    pthread_mutex_destroy(&p->lock);
    free(p);
}

int cloud_reply(char *answer, size_t size, int status, const char *extra, const char *body)
{
    return snprintf(answer, size, "HTTP/1.1 %d Word\r\nContent-Length: %zu\r\n%s\r\n%s", status,
                    strlen(body), extra, body);
}
