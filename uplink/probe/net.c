#include "gateway/base/clock.h"
#include "uplink/probe/parts.h"
#include "uplink/transport/errand.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <openssl/evp.h>
#include <poll.h>
#include <string.h>
#include <sys/time.h>

enum { WORDS = 300, REPLY_MAX = 4096 };

struct look_up {
    char host[PROBE_HOST_MAX];
    bool number; /* an address: there is nothing to look up */
    int result;
    struct addrinfo *list;
};

static bool is_number(const char *host)
{
    struct in6_addr any;
    return inet_pton(AF_INET, host, &any) == 1 || inet_pton(AF_INET6, host, &any) == 1;
}

static void run_look_up(void *arg)
{
    struct look_up *l = arg;
    const struct addrinfo hints = {.ai_socktype = SOCK_STREAM};
    l->result = getaddrinfo(l->host, NULL, &hints, &l->list);
}

static void release_look_up(void *arg)
{
    struct look_up *l = arg;
    if (l->list != NULL) {
        freeaddrinfo(l->list);
    }
    free(l);
}

static void set_port(struct sockaddr_storage *address, int port)
{
    if (address->ss_family == AF_INET6) {
        ((struct sockaddr_in6 *)(void *)address)->sin6_port = htons((uint16_t)port);
    } else {
        ((struct sockaddr_in *)(void *)address)->sin_port = htons((uint16_t)port);
    }
}

static void write_address(const struct sockaddr_storage *address, socklen_t len, char text[64])
{
    if (getnameinfo((const struct sockaddr *)address, len, text, 64, NULL, 0, NI_NUMERICHOST) !=
        0) {
        snprintf(text, 64, "?");
    }
}

static void keep_addresses(const struct addrinfo *list, int port, struct probe_addresses *ret)
{
    *ret = (struct probe_addresses){0};
    for (; list != NULL && ret->count < PROBE_ADDRESSES_MAX; list = list->ai_next) {
        if (list->ai_addrlen <= sizeof ret->list[0]) {
            memcpy(&ret->list[ret->count], list->ai_addr, list->ai_addrlen);
            ret->lens[ret->count] = list->ai_addrlen;
            set_port(&ret->list[ret->count++], port);
        }
    }
}

static void list_addresses(const struct probe_addresses *addresses, struct buffer *out)
{
    for (size_t i = 0; i < addresses->count; i++) {
        char text[64];
        write_address(&addresses->list[i], addresses->lens[i], text);
        buffer_printf(out, "%s%s", i > 0 ? ", " : "", text);
    }
}

/* No network, no name server, and no such name are three different mends. */
static void say_unresolved(struct probe *probe, const char *host, int result)
{
    char network[WORDS], servers[WORDS];
    probe_network_words(network, sizeof network);
    probe_name_servers(servers, sizeof servers);
    bool unknown = result == EAI_NONAME || result == EAI_NODATA;
    if (network[0] != '\0' && !(unknown && strstr(network, "route") == NULL)) {
        probe_say(probe, "name", PROBE_BAD,
                  "bring the network up first (cable, SIM, ip address, ip route)",
                  "%s cannot be looked up: %s", host, network);
    } else if (unknown) {
        probe_say(probe, "name", PROBE_BAD, "compare the name with the service's, letter by letter",
                  "there is no address for the name %s", host);
    } else if (result == EAI_SYSTEM || result == EAI_MEMORY) {
        probe_say(probe, "name", PROBE_BAD, NULL, "%s: %s", host, strerror(errno));
    } else {
        probe_say(probe, "name", PROBE_BAD,
                  "the network is up, its name server is not: ask for the right one, or try "
                  "another in /etc/resolv.conf",
                  "%s cannot be looked up: the name server (%s) does not answer", host,
                  servers[0] != '\0' ? servers : "none is configured");
    }
}

static bool told_addresses(struct probe *probe, const struct probe_target *target,
                           const struct look_up *l, struct probe_addresses *ret_addresses)
{
    if (l->result != 0) {
        say_unresolved(probe, target->host, l->result);
        return false;
    }
    keep_addresses(l->list, target->port, ret_addresses);
    if (l->number) {
        probe->begun_ns = 0;
        return true;
    }
    auto_buffer struct buffer text = {.max = WORDS};
    list_addresses(ret_addresses, &text);
    const char *list = buffer_text(&text);
    probe_say(probe, "name", PROBE_GOOD, NULL, "%s is %s", target->host, list != NULL ? list : "");
    return true;
}

bool probe_resolve(struct probe *probe, const struct probe_target *target,
                   struct probe_addresses *ret_addresses)
{
    struct look_up *l = calloc(1, sizeof *l);
    struct errand *errand = NULL;
    if (l == NULL) {
        return false;
    }
    snprintf(l->host, sizeof l->host, "%s", target->host);
    l->number = is_number(target->host);
    probe_begin(probe);
    if (errand_start(run_look_up, release_look_up, l, &errand) < 0) {
        release_look_up(l);
        return false;
    }
    struct pollfd wait = {.fd = errand_fd(errand), .events = POLLIN};
    int64_t deadline_ms = clock_mono_ms() + target->timeout_ms;
    while (!errand_done(errand) && clock_mono_ms() < deadline_ms) {
        poll(&wait, 1, (int)(deadline_ms - clock_mono_ms()));
    }
    bool good = false;
    if (errand_done(errand)) {
        good = told_addresses(probe, target, l, ret_addresses);
    } else {
        say_unresolved(probe, target->host, EAI_AGAIN);
    }
    errand_drop(errand);
    return good;
}

static int connect_within(const struct sockaddr_storage *address, socklen_t len, int64_t timeout_ms)
{
    auto_close int fd = socket(address->ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0) {
        return -errno;
    }
    if (connect(fd, (const struct sockaddr *)address, len) < 0 && errno != EINPROGRESS) {
        return -errno;
    }
    struct pollfd wait = {.fd = fd, .events = POLLOUT};
    int n = poll(&wait, 1, (int)timeout_ms), error = 0;
    socklen_t size = sizeof error;
    if (n <= 0) {
        return n < 0 ? -errno : -ETIMEDOUT;
    }
    if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size) < 0 || error != 0) {
        return error != 0 ? -error : -errno;
    }
    struct timeval limit = {.tv_sec = timeout_ms / 1000, .tv_usec = timeout_ms % 1000 * 1000};
    if (fcntl(fd, F_SETFL, 0) < 0 ||
        setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit) < 0 ||
        setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit) < 0) {
        return -errno;
    }
    return take_fd(fd);
}

static const char *connect_words(int error)
{
    switch (error) {
    case -ECONNREFUSED:
        return "refuses the connection";
    case -ETIMEDOUT:
        return "does not answer";
    case -ENETUNREACH:
        return "no route to it";
    case -EHOSTUNREACH:
        return "nobody there, says the network";
    case -EACCES:
    case -EPERM:
        return "forbidden by this machine's firewall";
    default:
        return strerror(-error);
    }
}

static const char *connect_mend(int error)
{
    switch (error) {
    case -ECONNREFUSED:
        return "is the service running there, and is the port right? A firewall can refuse, too";
    case -ETIMEDOUT:
        return "a wrong address, a host that is down, or a firewall that drops: let it pass this "
               "port outwards";
    case -ENETUNREACH:
    case -EHOSTUNREACH:
        return "look at the gateway's own network: ip route, cable, modem";
    default:
        return NULL;
    }
}

/* The first address that answers; what each of them said goes to `words`. */
static int dial_each(const struct probe_target *target, const struct probe_addresses *addresses,
                     int port, struct buffer *words, int *ret_error)
{
    *ret_error = -EHOSTUNREACH;
    for (size_t i = 0; i < addresses->count; i++) {
        char text[64];
        write_address(&addresses->list[i], addresses->lens[i], text);
        int fd = connect_within(&addresses->list[i], addresses->lens[i], target->timeout_ms);
        bool v6 = addresses->list[i].ss_family == AF_INET6;
        buffer_printf(words, "%s%s%s%s:%d %s", i > 0 ? "; " : "", v6 ? "[" : "", text,
                      v6 ? "]" : "", port, fd >= 0 ? "answers" : connect_words(fd));
        if (fd >= 0) {
            return fd;
        }
        *ret_error = fd;
    }
    return -1;
}

int probe_dial_quietly(const struct probe_target *target, const struct probe_addresses *addresses)
{
    auto_buffer struct buffer words = {.max = WORDS * 2};
    int error;
    int fd = dial_each(target, addresses, target->port, &words, &error);
    return fd >= 0 ? fd : error;
}

static void add_proxy_login(const struct probe_proxy *proxy, struct buffer *request)
{
    unsigned char basic[sizeof proxy->user * 4 / 3 + 8];
    if (proxy->user[0] != '\0') {
        EVP_EncodeBlock(basic, (const unsigned char *)proxy->user, (int)strlen(proxy->user));
        buffer_printf(request, "Proxy-Authorization: Basic %s\r\n", (const char *)basic);
    }
}

/* Asks the proxy for a way to the target (RFC 9110 section 9.3.6); what it says is kept. */
static int ask_proxy(int fd, const struct probe_target *target, const struct probe_proxy *proxy,
                     char *line, size_t size)
{
    auto_buffer struct buffer request = {0};
    bool v6 = strchr(target->host, ':') != NULL;
    buffer_printf(&request, "CONNECT %s%s%s:%d HTTP/1.1\r\nHost: %s%s%s:%d\r\n", v6 ? "[" : "",
                  target->host, v6 ? "]" : "", target->port, v6 ? "[" : "", target->host,
                  v6 ? "]" : "", target->port);
    add_proxy_login(proxy, &request);
    buffer_add_text(&request, "\r\n");
    if (buffer_failed(&request) || send(fd, request.data, request.len, MSG_NOSIGNAL) < 0) {
        return -EPIPE;
    }
    char reply[REPLY_MAX] = "";
    /* Byte by byte, since what follows the empty line is TLS's. */
    for (size_t n = 0; n + 1 < sizeof reply && strstr(reply, "\r\n\r\n") == NULL; n++) {
        if (recv(fd, reply + n, 1, 0) != 1) {
            break;
        }
    }
    snprintf(line, size, "%.*s", (int)strcspn(reply, "\r\n"), reply);
    const char *code = strchr(line, ' ');
    return strncmp(line, "HTTP/1.", 7) == 0 && code != NULL && code[1] == '2' ? 0 : -EACCES;
}

int probe_dial(struct probe *probe, const struct probe_target *target,
               const struct probe_addresses *addresses, const struct probe_proxy *proxy)
{
    auto_buffer struct buffer text = {.max = WORDS * 2};
    int error, port = proxy != NULL ? proxy->port : target->port;
    char line[200] = "";
    probe_begin(probe);
    auto_close int fd = dial_each(target, addresses, port, &text, &error);
    const char *words = buffer_text(&text);
    words = words != NULL ? words : "";
    const char *who = proxy != NULL ? "the proxy of the environment, " : "";
    if (fd < 0) {
        probe_say(probe, "connection", PROBE_BAD, connect_mend(error), "%s%s", who, words);
        return -1;
    }
    if (proxy != NULL && ask_proxy(fd, target, proxy, line, sizeof line) < 0) {
        probe_say(probe, "connection", PROBE_BAD,
                  "look at https_proxy and no_proxy, of this shell and of the service",
                  "%s%s, but leads nowhere: %s", who, words,
                  line[0] != '\0' ? line : "no answer to CONNECT");
        return -1;
    }
    probe_say(probe, "connection", PROBE_GOOD, NULL, "%s%s%s", who, words,
              proxy != NULL ? ", and leads on" : "");
    return take_fd(fd);
}

void probe_ask_plainly(int fd, const char *host, char *words, size_t size)
{
    char text[1024];
    int n = snprintf(text, sizeof text, "GET / HTTP/1.0\r\nHost: %.200s\r\n\r\n", host);
    if (send(fd, text, (size_t)n, MSG_NOSIGNAL) != n) {
        return;
    }
    size_t len = 0;
    ssize_t got;
    while (len + 1 < sizeof text && (got = recv(fd, text + len, sizeof text - 1 - len, 0)) > 0) {
        len += (size_t)got;
    }
    text[len] = '\0';
    const char *location = strcasestr(text, "\nlocation:");
    if (strncmp(text, "HTTP/", 5) == 0) {
        snprintf(words, size, "\"%.*s\"%s%.*s", (int)strcspn(text, "\r\n"), text,
                 location != NULL ? " and sends on to" : "",
                 location != NULL ? (int)strcspn(location + 10, "\r\n") : 0,
                 location != NULL ? location + 10 : "");
    }
    for (char *c = words; *c != '\0'; c++) {
        *c = (unsigned char)*c < ' ' || *c == 0x7f ? '?' : *c;
    }
}
