/* parts.h - the inside of the test: the network below TLS, TLS, certificates.
 *
 * One thread. Each function tells its step itself. */
#pragma once

#include "uplink/probe/probe.h"

#include <openssl/ssl.h>
#include <sys/socket.h>

enum { PROBE_ADDRESSES_MAX = 8 };

struct probe_addresses {
    struct sockaddr_storage list[PROBE_ADDRESSES_MAX];
    socklen_t lens[PROBE_ADDRESSES_MAX];
    size_t count;
};

/* The proxy that `proxy` names, or one out of the environment, as libcurl takes it. */
struct probe_proxy {
    char host[PROBE_HOST_MAX], user[128]; /* user: "NAME:PASSWORD", "" for none */
    int port;
    bool known; /* an HTTP proxy; otherwise it is of a kind that is not looked at */
};
/* False: the way to that host leads through none. */
bool probe_find_proxy(const struct transport_settings *line, const char *host,
                      struct probe_proxy *ret_proxy);

/* Steps "name" and "connection". */
bool probe_resolve(struct probe *probe, const struct probe_target *target,
                   struct probe_addresses *ret_addresses);
/* The socket is blocking, its time-outs set; -1: told why. proxy NULL: directly. */
int probe_dial(struct probe *probe, const struct probe_target *target,
               const struct probe_addresses *addresses, const struct probe_proxy *proxy);
/* The same without a step, for a second look; -errno. */
int probe_dial_quietly(const struct probe_target *target, const struct probe_addresses *addresses);

/* Steps "TLS" and "certificate" over fd. not_tls: what answers there does not speak TLS. */
bool probe_shake_hands(struct probe *probe, const struct probe_target *target, int fd,
                       bool *ret_not_tls);
/* Step "our certificate". False: its files cannot be used at all. */
bool probe_own_certificate(struct probe *probe, const struct probe_target *target);
/* Appends "CN=gw, issued by CN=ca, valid to 2027-01-03 (43 days)"; returns the days left. */
int64_t probe_describe_certificate(const X509 *certificate, struct buffer *out);
/* What a server that speaks no TLS says to a plain GET, "" when that is nothing of use. */
void probe_ask_plainly(int fd, const char *host, char *words, size_t size);

/* Files and routes of this machine, in words; "" when nothing is wrong with them. local.c */
void probe_network_words(char *words, size_t size);
/* The name servers of /etc/resolv.conf: "10.0.0.1, 10.0.0.2". */
void probe_name_servers(char *words, size_t size);

/* Sends the record that --write is about; step "write". exchange.c */
void probe_write(struct probe *probe);
#define PROBE_DEVICE "windrow-test"
#define PROBE_STORE  "000000000000"
