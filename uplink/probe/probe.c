#include "uplink/probe/probe.h"

#include "gateway/base/clock.h"
#include "uplink/probe/parts.h"

#include <curl/curl.h>
#include <errno.h>
#include <stdarg.h>
#include <string.h>

/* Clocks that differ less are told apart by nobody. */
enum { SKEW_NOTICED_MS = 5000, SKEW_BAD_MS = 300000 };

void probe_begin(struct probe *probe)
{
    probe->begun_ns = clock_mono_ns();
}

void probe_say(struct probe *probe, const char *step, enum probe_verdict verdict, const char *mend,
               const char *format, ...)
{
    char text[PROBE_TEXT_MAX];
    int64_t took_us = probe->begun_ns == 0 ? -1 : (clock_mono_ns() - probe->begun_ns) / 1000;
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    probe->begun_ns = 0;
    probe->counts[verdict]++;
    probe->tell(probe->user, &(struct probe_step){.name = step,
                                                  .verdict = verdict,
                                                  .took_us = took_us,
                                                  .found = text,
                                                  .mend = mend != NULL ? mend : ""});
}

void probe_secret(struct probe *probe, const char *key, const struct config_secret *secret)
{
    if (secret->path == NULL) {
        return;
    }
    size_t len = secret->text != NULL ? strlen(secret->text) : 0;
    if (len == 0) {
        probe_say(probe, key, PROBE_BAD, "put the secret into the file, as one line", "%s is empty",
                  secret->path);
    } else {
        probe_say(probe, key, PROBE_GOOD, NULL, "%s: %zu characters, nobody else may read it",
                  secret->path, len);
    }
}

bool probe_target_of_url(const struct transport_settings *s, const char *url,
                         struct probe_target *ret_target)
{
    CURLU *parts = curl_url();
    char *scheme = NULL, *host = NULL, *port = NULL;
    bool good = parts != NULL && url != NULL &&
                curl_url_set(parts, CURLUPART_URL, url, 0) == CURLUE_OK &&
                curl_url_get(parts, CURLUPART_SCHEME, &scheme, 0) == CURLUE_OK &&
                curl_url_get(parts, CURLUPART_HOST, &host, 0) == CURLUE_OK &&
                curl_url_get(parts, CURLUPART_PORT, &port, CURLU_DEFAULT_PORT) == CURLUE_OK;
    if (good) {
        struct probe_target target = {.port = (int)strtol(port, NULL, 10),
                                      .tls = strcmp(scheme, "https") == 0,
                                      .http = true,
                                      .ca_file = s->ca_file,
                                      .crl_file = s->crl_file,
                                      .cert_file = s->cert_file,
                                      .key_file = s->key_file,
                                      .timeout_ms = s->connect_timeout_ms};
        size_t len = strlen(host);
        bool v6 = len > 1 && host[0] == '[';
        snprintf(target.host, sizeof target.host, "%.*s", (int)(v6 ? len - 2 : len), host + v6);
        *ret_target = target;
    }
    curl_free(scheme);
    curl_free(host);
    curl_free(port);
    curl_url_cleanup(parts);
    return good;
}

static const struct transport_settings *line_of(const struct probe *probe)
{
    return probe->type->transport_settings != NULL
               ? probe->type->transport_settings(probe->settings)
               : NULL;
}

static bool find_target(const struct probe *probe, struct probe_target *ret_target)
{
    const struct uplink_probe *own = probe->type->probe;
    if (own != NULL && own->target != NULL) {
        return own->target(probe->settings, ret_target);
    }
    const struct transport_settings *line = line_of(probe);
    return line != NULL && probe_target_of_url(line, line->url, ret_target);
}

/* A plain answer where TLS was expected is what a captive portal gives. */
static void say_plain(struct probe *probe, const struct probe_target *target,
                      const struct probe_addresses *addresses)
{
    char words[300] = "";
    auto_close int fd = probe_dial_quietly(target, addresses);
    if (fd >= 0) {
        probe_ask_plainly(fd, target->host, words, sizeof words);
    }
    probe_say(probe, "TLS", PROBE_BAD,
              words[0] != '\0'
                  ? "a captive portal (a network that wants a login first), or the wrong port: log "
                    "in, or let the network's owner free this gateway; compare the port with the "
                    "service's"
                  : "compare the port with the service's; TLS usually listens on 443 or 8883",
              "what answers there does not speak TLS%s%s", words[0] != '\0' ? "; it says " : "",
              words);
}

bool probe_connect(struct probe *probe, const struct probe_target *target)
{
    struct probe_addresses addresses;
    struct probe_proxy proxy = {0};
    bool through = target->http && target->tls &&
                   probe_find_proxy(line_of(probe), target->host, &proxy);
    if (through && !proxy.known) {
        probe_say(probe, "connection", PROBE_SKIP, NULL,
                  "the way leads through a proxy of a kind that only the request itself tests");
        return true;
    }
    struct probe_target first = *target;
    if (through) {
        snprintf(first.host, sizeof first.host, "%s", proxy.host);
        first.port = proxy.port;
    }
    if (!probe_resolve(probe, &first, &addresses)) {
        return false;
    }
    auto_close int fd = probe_dial(probe, through ? target : &first, &addresses,
                                   through ? &proxy : NULL);
    if (fd < 0 || !target->tls) {
        return fd >= 0;
    }
    bool not_tls = false;
    if (probe_shake_hands(probe, target, fd, &not_tls)) {
        return true;
    }
    if (not_tls) {
        probe_begin(probe);
        say_plain(probe, target, &addresses);
    }
    return false;
}

static void say_clock(struct probe *probe)
{
    static const char mend[] = "set the clock: timedatectl set-ntp true, and let the network pass "
                               "NTP (UDP 123)";
    char now[CLOCK_TEXT_SIZE];
    clock_format_utc(clock_wall_ms(), now);
    if (probe->date_ms == 0) {
        bool synchronised = probe->clock_trusted || clock_synchronised();
        if (synchronised && !probe_is_well(probe)) {
            return;
        }
        probe_say(probe, "clock", synchronised ? PROBE_GOOD : PROBE_WARN,
                  synchronised ? NULL : mend, "the endpoint told no time; ours is %.19s UTC, %s",
                  now,
                  synchronised ? "and it is trusted" : "which the kernel calls not synchronised");
        return;
    }
    int64_t skew_ms = probe->heard_ms - probe->date_ms;
    int64_t apart_ms = skew_ms < 0 ? -skew_ms : skew_ms;
    if (apart_ms < SKEW_NOTICED_MS) { /* Date has whole seconds */
        probe_say(probe, "clock", PROBE_GOOD, NULL, "the endpoint's clock and ours agree");
        return;
    }
    probe_say(probe, "clock", apart_ms < SKEW_BAD_MS ? PROBE_WARN : PROBE_BAD, mend,
              "ours is %lld s %s the endpoint's: it says %.19s UTC", (long long)(apart_ms / 1000),
              skew_ms > 0 ? "ahead of" : "behind", now);
}

static void look_before(struct probe *probe)
{
    const struct uplink_probe *own = probe->type->probe;
    const struct transport_settings *line = line_of(probe);
    if (line != NULL) {
        probe_secret(probe, "token", &line->token);
    }
    if (own != NULL && own->before != NULL) {
        own->before(probe);
    }
}

static void run(struct probe *probe)
{
    const struct uplink_probe *own = probe->type->probe;
    struct probe_target target;
    bool connects = find_target(probe, &target), reached = true;
    look_before(probe);
    if (connects && target.cert_file != NULL) {
        reached = probe_own_certificate(probe, &target);
    }
    if (connects && reached) {
        reached = probe_connect(probe, &target);
    }
    bool well = reached && probe_is_well(probe);
    if (well && own != NULL && own->ask != NULL) {
        own->ask(probe);
    }
    if (own != NULL && own->write != NULL) {
        own->write(probe);
    } else if (probe_is_well(probe) && probe->write) {
        probe_write(probe);
    } else if (!probe_is_well(probe)) {
        probe_say(probe, "write", PROBE_SKIP, NULL, "not tried: mend the above first");
    } else {
        probe_say(probe, "write", PROBE_SKIP, NULL,
                  "not tried; --write sends one record of a device " PROBE_DEVICE);
    }
    if (connects && (target.tls || probe->date_ms != 0)) {
        say_clock(probe);
    }
}

int probe_run(struct probe *probe)
{
    const void *given = probe->settings;
    size_t size = probe->type->table->size;
    auto_free void *copy = malloc(size);
    if (copy == NULL) {
        return -ENOMEM;
    }
    memcpy(copy, given, size);
    probe->settings = copy;
    if (probe->type->probe != NULL && probe->type->probe->prepare != NULL) {
        probe->type->probe->prepare(probe);
    }
    run(probe);
    return 0;
}
