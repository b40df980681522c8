#include "uplink/probe/parts.h"

#include <ctype.h>
#include <curl/curl.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <string.h>

/* Whether an interface other than loopback is up and has an address that reaches beyond its wire.
 */
static bool has_interface(void)
{
    struct ifaddrs *list = NULL;
    bool found = false;
    if (getifaddrs(&list) < 0) {
        return true; /* not known: nothing is claimed */
    }
    for (const struct ifaddrs *i = list; i != NULL && !found; i = i->ifa_next) {
        const unsigned wanted = IFF_UP | IFF_RUNNING;
        int family = i->ifa_addr != NULL ? i->ifa_addr->sa_family : AF_UNSPEC;
        found = (i->ifa_flags & IFF_LOOPBACK) == 0 && (i->ifa_flags & wanted) == wanted &&
                (family == AF_INET || family == AF_INET6);
    }
    freeifaddrs(list);
    return found;
}

/* A route to everywhere, by /proc/net/route (IPv4) or ipv6_route. */
static bool has_default_route(void)
{
    char line[512], name[64], first[64], second[64];
    auto_fclose FILE *v4 = fopen("/proc/net/route", "re");
    auto_fclose FILE *v6 = fopen("/proc/net/ipv6_route", "re");
    while (v4 != NULL && fgets(line, sizeof line, v4) != NULL) {
        if (sscanf(line, "%63s %63s", name, first) == 2 && strcmp(first, "00000000") == 0) {
            return true;
        }
    }
    while (v6 != NULL && fgets(line, sizeof line, v6) != NULL) {
        const char *last = strrchr(line, ' ');
        if (sscanf(line, "%63s %63s", first, second) == 2 && strspn(first, "0") == 32 &&
            strcmp(second, "00") == 0 && last != NULL && strstr(last, "lo") == NULL) {
            return true;
        }
    }
    return v4 == NULL && v6 == NULL;
}

void probe_network_words(char *words, size_t size)
{
    const char *text = !has_interface()       ? "this machine has no network: no interface is up"
                       : !has_default_route() ? "this machine has no default route"
                                              : "";
    snprintf(words, size, "%s", text);
}

void probe_name_servers(char *words, size_t size)
{
    auto_fclose FILE *file = fopen("/etc/resolv.conf", "re");
    char line[256], server[64];
    size_t n = 0;
    words[0] = '\0';
    while (file != NULL && fgets(line, sizeof line, file) != NULL) {
        if (sscanf(line, " nameserver %63s", server) == 1 && n + strlen(server) + 3 < size) {
            n += (size_t)snprintf(words + n, size - n, "%s%s", n > 0 ? ", " : "", server);
        }
    }
}

/* Whether no_proxy names the host: "*", or a list of names and domains (curl's manual, NO_PROXY).
 */
static bool goes_directly(const char *host)
{
    const char *list = getenv("no_proxy");
    list = list != NULL ? list : getenv("NO_PROXY");
    if (list == NULL || strcmp(list, "*") == 0) {
        return list != NULL;
    }
    size_t len = strlen(host);
    while (*list != '\0') {
        list += strspn(list, ", ");
        size_t n = strcspn(list, ", ");
        const char *entry = list + (n > 0 && *list == '.');
        size_t m = n - (size_t)(entry - list);
        if (m > 0 && len >= m && strncasecmp(host + len - m, entry, m) == 0 &&
            (len == m || host[len - m - 1] == '.')) {
            return true;
        }
        list += n;
    }
    return false;
}

static const char *proxy_text(void)
{
    static const char *const names[] = {"https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"};
    for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
        const char *text = getenv(names[i]);
        if (text != NULL && text[0] != '\0') {
            return text;
        }
    }
    return NULL;
}

static void take_login(CURLU *parts, struct probe_proxy *ret)
{
    char *user = NULL, *password = NULL;
    if (curl_url_get(parts, CURLUPART_USER, &user, CURLU_URLDECODE) == CURLUE_OK) {
        bool given = curl_url_get(parts, CURLUPART_PASSWORD, &password, CURLU_URLDECODE) ==
                     CURLUE_OK;
        snprintf(ret->user, sizeof ret->user, "%s:%s", user, given ? password : "");
    }
    curl_free(user);
    curl_free(password);
}

bool probe_find_proxy(const struct transport_settings *line, const char *host,
                      struct probe_proxy *ret_proxy)
{
    bool told = line != NULL && line->proxy != NULL;
    const char *text = told ? line->proxy : proxy_text();
    if (text == NULL || (!told && goes_directly(host))) {
        return false;
    }
    CURLU *parts = curl_url();
    char *scheme = NULL, *name = NULL, *port = NULL;
    struct probe_proxy proxy = {.port = 1080}; /* libcurl's default for proxies */
    if (parts != NULL &&
        curl_url_set(parts, CURLUPART_URL, text, CURLU_GUESS_SCHEME | CURLU_NON_SUPPORT_SCHEME) ==
            CURLUE_OK &&
        curl_url_get(parts, CURLUPART_SCHEME, &scheme, 0) == CURLUE_OK &&
        curl_url_get(parts, CURLUPART_HOST, &name, 0) == CURLUE_OK) {
        proxy.known = strstr(text, "://") == NULL || strcmp(scheme, "http") == 0;
        snprintf(proxy.host, sizeof proxy.host, "%s", name);
        if (curl_url_get(parts, CURLUPART_PORT, &port, 0) == CURLUE_OK) {
            proxy.port = (int)strtol(port, NULL, 10);
        }
        take_login(parts, &proxy);
        if (told && line->proxy_login.text != NULL) {
            snprintf(proxy.user, sizeof proxy.user, "%s", line->proxy_login.text);
        }
    }
    curl_free(scheme);
    curl_free(name);
    curl_free(port);
    curl_url_cleanup(parts);
    *ret_proxy = proxy;
    return true;
}
