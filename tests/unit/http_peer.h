/* http_peer.h - a bare HTTP client for tests of the local API: says exactly the bytes it is told,
 * and gives up after PEER_LIMIT_MS instead of waiting for ever. */
#pragma once

#include "gateway/base/buffer.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>

enum { PEER_LIMIT_MS = 60000 };

static inline int peer_unix(const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    snprintf(address.sun_path, sizeof address.sun_path, "%s", path);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (connect(fd, (struct sockaddr *)&address, sizeof address) < 0) {
        close(fd);
        return -errno;
    }
    return fd;
}

static inline int peer_tcp(unsigned port)
{
    struct sockaddr_in address = {.sin_family = AF_INET,
                                  .sin_port = htons((uint16_t)port),
                                  .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (connect(fd, (struct sockaddr *)&address, sizeof address) < 0) {
        close(fd);
        return -errno;
    }
    return fd;
}

static inline void peer_say(int fd, const char *text)
{
    size_t len = strlen(text);
    ssize_t n = send(fd, text, len, MSG_NOSIGNAL);
    (void)n;
}

/* Reads until `until` stands in the text (NULL: until the peer closes). True when it came. */
static inline bool peer_hear(int fd, struct buffer *heard, const char *until)
{
    for (;;) {
        if (until != NULL && heard->len > 0 && strstr(buffer_text(heard), until) != NULL) {
            return true;
        }
        struct pollfd p = {.fd = fd, .events = POLLIN};
        uint8_t *room = buffer_reserve(heard, 4096);
        if (room == NULL || poll(&p, 1, PEER_LIMIT_MS) <= 0) {
            return false;
        }
        ssize_t n = recv(fd, room, 4096, 0);
        if (n <= 0) {
            return until == NULL;
        }
        heard->len += (size_t)n;
    }
}

/* Whether the other side has closed within the limit. */
static inline bool peer_is_cut(int fd)
{
    auto_buffer struct buffer rest = {0};
    return peer_hear(fd, &rest, NULL);
}

/* The status of an answer, 0 when there is none. */
static inline int peer_status(struct buffer *heard)
{
    const char *text = buffer_text(heard);
    int status = 0;
    return text != NULL && sscanf(text, "HTTP/1.%*d %d", &status) == 1 ? status : 0;
}

static inline const char *peer_body(struct buffer *heard)
{
    const char *text = buffer_text(heard);
    const char *end = text != NULL ? strstr(text, "\r\n\r\n") : NULL;
    return end != NULL ? end + 4 : "";
}
