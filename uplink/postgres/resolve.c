#include "uplink/postgres/postgres.h"
#include "uplink/transport/errand.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>

static bool is_address(const char *host)
{
    struct in6_addr any;
    return inet_pton(AF_INET, host, &any) == 1 || inet_pton(AF_INET6, host, &any) == 1;
}

bool postgres_is_local(const char *host)
{
    struct in_addr v4;
    struct in6_addr v6;
    if (inet_pton(AF_INET, host, &v4) == 1) {
        return (ntohl(v4.s_addr) >> 24) == 127;
    }
    if (inet_pton(AF_INET6, host, &v6) == 1) {
        return IN6_IS_ADDR_LOOPBACK(&v6);
    }
    return host[0] == '/' || strcasecmp(host, "localhost") == 0;
}

static void look_up(void *arg)
{
    struct postgres_addresses *a = arg;
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_ADDRCONFIG};
    struct addrinfo *list = NULL;
    a->result = getaddrinfo(a->host, NULL, &hints, &list);
    if (a->result != 0) {
        return;
    }
    for (struct addrinfo *at = list; at != NULL && a->count < POSTGRES_ADDRESSES_MAX;
         at = at->ai_next) {
        char *text = a->texts[a->count];
        if (getnameinfo(at->ai_addr, at->ai_addrlen, text, sizeof a->texts[0], NULL, 0,
                        NI_NUMERICHOST) == 0) {
            a->count++;
        }
    }
    freeaddrinfo(list);
}

static void release(void *arg)
{
    struct postgres_addresses *a = arg;
    free(a->host);
    free(a);
}

int postgres_resolve(const char *host, struct errand **ret_errand)
{
    *ret_errand = NULL;
    if (is_address(host) || host[0] == '/' || strcasecmp(host, "localhost") == 0) {
        return 0;
    }
    struct postgres_addresses *a = calloc(1, sizeof *a);
    if (a == NULL) {
        return -ENOMEM;
    }
    a->host = strdup(host);
    int r = a->host == NULL ? -ENOMEM : errand_start(look_up, release, a, ret_errand);
    if (r < 0) {
        release(a);
    }
    return r;
}
