#include "gateway/api/listen.h"

#include <errno.h>
#include <netdb.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

enum { BACKLOG = 64, SOCKET_MODE = 0660 };

/* Whether somebody accepts connections on that path. */
static bool is_alive(const struct sockaddr_un *address)
{
    auto_close int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    return fd >= 0 && connect(fd, (const struct sockaddr *)address, sizeof *address) == 0;
}

int listen_unix(const char *path, int *ret_fd, char *ret_why, size_t why_size)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    if (strlen(path) >= sizeof address.sun_path) {
        snprintf(ret_why, why_size, "%s: the path of a socket has at most 107 characters", path);
        return -ENAMETOOLONG;
    }
    memcpy(address.sun_path, path, strlen(path) + 1);
    if (is_alive(&address)) {
        snprintf(ret_why, why_size, "%s: another windrowd answers there", path);
        return -EADDRINUSE;
    }
    auto_close int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    /* The mode is set before anybody can connect: that takes listen(). */
    if (fd < 0 || (unlink(path) < 0 && errno != ENOENT) ||
        bind(fd, (const struct sockaddr *)&address, sizeof address) < 0 ||
        chmod(path, SOCKET_MODE) < 0 || listen(fd, BACKLOG) < 0) {
        int r = -errno;
        snprintf(ret_why, why_size, "%s: %s", path, strerror(-r));
        return r;
    }
    *ret_fd = take_fd(fd);
    return 0;
}

static int bind_one(const struct addrinfo *info, int *ret_fd)
{
    auto_close int fd = socket(info->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    int on = 1;
    /* Accepted sockets inherit TCP_NODELAY; without it an answer in two pieces waits for the
     * client's delayed acknowledgement, 44 ms. */
    if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) < 0 ||
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on) < 0 ||
        (info->ai_family == AF_INET6 &&
         setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof on) < 0) ||
        bind(fd, info->ai_addr, info->ai_addrlen) < 0 || listen(fd, BACKLOG) < 0) {
        return -errno;
    }
    *ret_fd = take_fd(fd);
    return 0;
}

/* "[::1]:80" to "::1" and "80". */
static int split(const char *endpoint, char *host, size_t size, const char **ret_port)
{
    const char *colon = strrchr(endpoint, ':');
    const char *from = endpoint;
    const char *to = colon;
    if (colon == NULL) {
        return -EINVAL;
    }
    if (from[0] == '[' && to > from && to[-1] == ']') {
        from++;
        to--;
    }
    if ((size_t)(to - from) >= size) {
        return -EINVAL;
    }
    snprintf(host, size, "%.*s", (int)(to - from), from);
    *ret_port = colon + 1;
    return 0;
}

int listen_tcp(const char *endpoint, int *ret_fd, char *ret_why, size_t why_size)
{
    char host[256];
    const char *port;
    if (split(endpoint, host, sizeof host, &port) < 0) {
        snprintf(ret_why, why_size, "%s: not HOST:PORT", endpoint);
        return -EINVAL;
    }
    const struct addrinfo hints = {.ai_socktype = SOCK_STREAM,
                                   .ai_flags = AI_PASSIVE | AI_NUMERICSERV};
    struct addrinfo *list = NULL;
    int error = getaddrinfo(host[0] != '\0' ? host : NULL, port, &hints, &list);
    if (error != 0) {
        snprintf(ret_why, why_size, "%s: %s", endpoint, gai_strerror(error));
        return -EADDRNOTAVAIL;
    }
    int r = -EADDRNOTAVAIL;
    for (const struct addrinfo *info = list; info != NULL && r < 0; info = info->ai_next) {
        r = bind_one(info, ret_fd);
    }
    freeaddrinfo(list);
    if (r < 0) {
        snprintf(ret_why, why_size, "%s: %s", endpoint,
                 r == -EADDRINUSE ? "another program listens there" : strerror(-r));
    }
    return r;
}

int listen_tls(const char *cert_file, const char *key_file, SSL_CTX **ret_tls, char *ret_why,
               size_t why_size)
{
    SSL_CTX *tls = SSL_CTX_new(TLS_server_method());
    const char *what = "TLS";
    if (tls != NULL && SSL_CTX_set_min_proto_version(tls, TLS1_2_VERSION) == 1) {
        what = cert_file;
        if (SSL_CTX_use_certificate_chain_file(tls, cert_file) == 1) {
            what = key_file;
            if (SSL_CTX_use_PrivateKey_file(tls, key_file, SSL_FILETYPE_PEM) == 1 &&
                SSL_CTX_check_private_key(tls) == 1) {
                SSL_CTX_set_options(tls, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION);
                *ret_tls = tls;
                return 0;
            }
        }
    }
    const char *reason = ERR_reason_error_string(ERR_peek_last_error());
    snprintf(ret_why, why_size, "%s: %s", what, reason != NULL ? reason : "out of memory");
    ERR_clear_error();
    SSL_CTX_free(tls);
    return -EINVAL;
}
