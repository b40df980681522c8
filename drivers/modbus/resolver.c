#include "drivers/modbus/resolver.h"

#include <errno.h>
#include <event2/dns.h>
#include <event2/event.h>
#include <event2/util.h>
#include <netdb.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#define RESOLV_CONF "/etc/resolv.conf"

struct resolver {
    struct event_base *base;
    struct evdns_base *dns; /* made at the first name */
    struct timespec read_at;
    ino_t inode;
    struct resolver_query *queries;
};

struct resolver_query {
    struct resolver *resolver;
    struct resolver_query *next;               /* all that are open */
    struct evdns_getaddrinfo_request *request; /* NULL while evdns is being asked, and at the end */
    struct event *later;                       /* calls back when evdns answered at once */
    void (*done)(void *user, const struct sockaddr *address, socklen_t len);
    void *user;
    bool cancelled, answered;
    struct sockaddr_storage address;
    socklen_t len;
};

int resolver_create(struct event_base *base, struct resolver **ret_resolver)
{
    struct resolver *resolver = calloc(1, sizeof(*resolver));
    if (resolver == NULL) {
        return -ENOMEM;
    }
    resolver->base = base;
    *ret_resolver = resolver;
    return 0;
}

void resolver_destroy(struct resolver *resolver)
{
    if (resolver == NULL) {
        return;
    }
    if (resolver->dns != NULL) {
        evdns_base_free(resolver->dns, 0);
    }
    while (resolver->queries != NULL) {
        struct resolver_query *query = resolver->queries;
        resolver->queries = query->next;
        event_free(query->later);
        free(query);
    }
    free(resolver);
}

int resolver_numeric(const char *host, uint16_t port, struct sockaddr_storage *ret_address,
                     socklen_t *ret_len)
{
    char service[8];
    snprintf(service, sizeof(service), "%u", port);
    const struct addrinfo hints = {.ai_socktype = SOCK_STREAM,
                                   .ai_flags = AI_NUMERICHOST | AI_NUMERICSERV};
    struct addrinfo *found = NULL;
    if (getaddrinfo(host, service, &hints, &found) != 0) {
        return -EINVAL;
    }
    memcpy(ret_address, found->ai_addr, found->ai_addrlen);
    *ret_len = found->ai_addrlen;
    freeaddrinfo(found);
    return 0;
}

/* Brings evdns up to what resolv.conf says now. It is left alone while questions are open. */
static void refresh(struct resolver *resolver)
{
    struct stat now = {0};
    bool there = stat(RESOLV_CONF, &now) == 0;
    bool same = there && now.st_ino == resolver->inode &&
                now.st_mtim.tv_sec == resolver->read_at.tv_sec &&
                now.st_mtim.tv_nsec == resolver->read_at.tv_nsec;
    if (resolver->dns != NULL && (same || resolver->queries != NULL)) {
        return;
    }
    if (resolver->dns != NULL) {
        evdns_base_free(resolver->dns, 0);
    }
    resolver->dns = evdns_base_new(resolver->base, EVDNS_BASE_DISABLE_WHEN_INACTIVE);
    if (resolver->dns != NULL) {
        /* Its result is no error for us: without a name server /etc/hosts still answers. */
        (void)evdns_base_resolv_conf_parse(resolver->dns, DNS_OPTIONS_ALL, RESOLV_CONF);
    }
    resolver->inode = now.st_ino;
    resolver->read_at = now.st_mtim;
}

static void finish(struct resolver_query *query)
{
    struct resolver_query **at = &query->resolver->queries;
    while (*at != query) {
        at = &(*at)->next;
    }
    *at = query->next;
    if (!query->cancelled) {
        query->done(query->user, query->len > 0 ? (struct sockaddr *)&query->address : NULL,
                    query->len);
    }
    event_free(query->later);
    free(query);
}

static void on_later(evutil_socket_t fd, short what, void *user)
{
    (void)fd;
    (void)what;
    finish(user);
}

/* evdns may call this before evdns_getaddrinfo() returns, so the answer is handed on later. */
static void on_answer(int result, struct evutil_addrinfo *found, void *user)
{
    struct resolver_query *query = user;
    query->request = NULL;
    query->answered = true;
    if (result == 0 && found != NULL && found->ai_addrlen <= sizeof(query->address)) {
        memcpy(&query->address, found->ai_addr, found->ai_addrlen);
        query->len = (socklen_t)found->ai_addrlen;
    }
    if (found != NULL) {
        evutil_freeaddrinfo(found);
    }
    event_active(query->later, EV_TIMEOUT, 0);
}

struct resolver_query *
resolver_ask(struct resolver *resolver, const char *host, uint16_t port,
             void (*done)(void *user, const struct sockaddr *address, socklen_t len), void *user)
{
    refresh(resolver);
    struct resolver_query *query = calloc(1, sizeof(*query));
    if (query == NULL || resolver->dns == NULL) {
        free(query);
        return NULL;
    }
    *query = (struct resolver_query){.resolver = resolver, .done = done, .user = user};
    query->later = evtimer_new(resolver->base, on_later, query);
    if (query->later == NULL) {
        free(query);
        return NULL;
    }
    query->next = resolver->queries;
    resolver->queries = query;
    char service[8];
    snprintf(service, sizeof(service), "%u", port);
    struct evutil_addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = EVUTIL_AI_ADDRCONFIG};
    struct evdns_getaddrinfo_request *request = evdns_getaddrinfo(resolver->dns, host, service,
                                                                  &hints, on_answer, query);
    if (!query->answered) {
        query->request = request;
    }
    return query;
}

void resolver_cancel(struct resolver_query *query)
{
    query->cancelled = true;
    if (query->request != NULL) {
        /* evdns answers with EVUTIL_EAI_CANCEL, and the query ends in on_later(). */
        evdns_getaddrinfo_cancel(query->request);
    }
}
