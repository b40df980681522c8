#include "gateway/base/address.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <string.h>

static int parse_port(const char *text, uint16_t *ret_port)
{
    size_t digits = strspn(text, "0123456789");
    if (digits == 0 || digits > 5 || text[digits] != '\0') {
        return -EINVAL;
    }
    unsigned long port = strtoul(text, NULL, 10);
    if (port > UINT16_MAX) {
        return -EINVAL;
    }
    *ret_port = (uint16_t)port;
    return 0;
}

static int parse_host(const char *host, struct sockaddr_storage *address, socklen_t *ret_len)
{
    struct sockaddr_in *in = (struct sockaddr_in *)address;
    struct sockaddr_in6 *in6 = (struct sockaddr_in6 *)address;
    size_t len = strlen(host);
    char inner[INET6_ADDRSTRLEN];
    if (inet_pton(AF_INET, host, &in->sin_addr) == 1) {
        in->sin_family = AF_INET;
        *ret_len = sizeof *in;
        return 0;
    }
    if (len < 3 || len - 2 >= sizeof inner || host[0] != '[' || host[len - 1] != ']') {
        return -EINVAL;
    }
    memcpy(inner, host + 1, len - 2);
    inner[len - 2] = '\0';
    if (inet_pton(AF_INET6, inner, &in6->sin6_addr) != 1) {
        return -EINVAL;
    }
    in6->sin6_family = AF_INET6;
    *ret_len = sizeof *in6;
    return 0;
}

int address_parse(const char *text, struct sockaddr_storage *ret_address, socklen_t *ret_len)
{
    struct sockaddr_storage address = {0};
    socklen_t len;
    uint16_t port;
    char host[INET6_ADDRSTRLEN + 2];
    const char *colon = strrchr(text, ':');
    if (colon == NULL || (size_t)(colon - text) >= sizeof host ||
        parse_port(colon + 1, &port) < 0) {
        return -EINVAL;
    }
    memcpy(host, text, (size_t)(colon - text));
    host[colon - text] = '\0';
    if (parse_host(host, &address, &len) < 0) {
        return -EINVAL;
    }
    address_set_port(&address, port);
    *ret_address = address;
    *ret_len = len;
    return 0;
}

uint16_t address_port(const struct sockaddr_storage *address)
{
    return ntohs(address->ss_family == AF_INET6 ? ((const struct sockaddr_in6 *)address)->sin6_port
                                                : ((const struct sockaddr_in *)address)->sin_port);
}

void address_set_port(struct sockaddr_storage *address, uint16_t port)
{
    if (address->ss_family == AF_INET6) {
        ((struct sockaddr_in6 *)address)->sin6_port = htons(port);
    } else {
        ((struct sockaddr_in *)address)->sin_port = htons(port);
    }
}
