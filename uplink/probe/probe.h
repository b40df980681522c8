/* probe.h - what `windrow uplink test` finds out about an uplink, step by step.
 *
 * The command's own thread and its own connections; a daemon that runs is not touched. Steps are
 * told as they end: a verdict, the time it took, what was found and, where it is not well, the
 * mend. What every type needs (name, connection, TLS, certificates, clock, a marked record) is
 * found out in one place; a type adds what it alone knows by a struct uplink_probe. Blocks on the
 * network, at most the uplink's own time-outs a step. */
#pragma once

#include "uplink/transport/transport.h"

enum probe_verdict { PROBE_GOOD, PROBE_WARN, PROBE_BAD, PROBE_SKIP, PROBE_VERDICTS };

struct probe_step {
    const char *name; /* "certificate" */
    enum probe_verdict verdict;
    int64_t took_us; /* -1: not measured */
    const char *found;
    const char *mend; /* "" when there is none */
};

enum { PROBE_TEXT_MAX = 1000, PROBE_HOST_MAX = 256, PROBE_EXPIRY_DAYS = 30 };

/* Where an uplink connects, and how. */
struct probe_target {
    char host[PROBE_HOST_MAX];
    int port;
    bool tls;
    bool http; /* HTTP/2 is offered, and a proxy of the environment is gone through */
    const char *ca_file, *crl_file, *cert_file, *key_file; /* NULL: none */
    const char *alpn;                                      /* NULL: none beside HTTP's */
    int64_t timeout_ms;                                    /* of each step */
    /* Optional: what is said before TLS begins; 0, or -errno with why in words. */
    int (*greet)(int fd, char *words, size_t size);
};

struct probe {
    const struct uplink *type;
    const char *gateway;
    void *settings;     /* a copy of the type's struct; a type's `prepare` may change it */
    bool write;         /* a marked record may really be sent */
    bool clock_trusted; /* as [gateway] clock says */
    void (*tell)(void *user, const struct probe_step *step);
    void *user;
    int64_t begun_ns; /* of the step at hand, 0: it has no time */
    unsigned counts[PROBE_VERDICTS];
    char scratch[160];         /* for texts that `prepare` makes */
    int64_t date_ms, heard_ms; /* the endpoint's clock and ours when it answered; 0: not heard */
};

/* What a type adds; all of it optional. */
struct uplink_probe {
    /* Changes the copy of the settings, so that the test does not disturb a gateway that runs. */
    void (*prepare)(struct probe *probe);
    /* Looks at what is needed before anything is connected: files, credentials. */
    void (*before)(struct probe *probe);
    /* Where it connects; false: nowhere. NULL: as the URL of transport_settings() says. */
    bool (*target)(const void *settings, struct probe_target *ret_target);
    /* Asks the service for something that changes nothing there. */
    void (*ask)(struct probe *probe);
    /* Tries to write in its own way, with or without `probe->write`; NULL: a marked record goes
     * through encode, transport and judge where it may. */
    void (*write)(struct probe *probe);
};

/* Runs all steps. probe's first seven members are given; counts are what came of it. -ENOMEM. */
must_check int probe_run(struct probe *probe);

/* The time of the step at hand begins now. */
void probe_begin(struct probe *probe);
/* Ends a step; mend may be NULL. */
void probe_say(struct probe *probe, const char *step, enum probe_verdict verdict, const char *mend,
               const char *format, ...) __attribute__((format(printf, 5, 6)));
/* Nothing was bad so far. */
static inline bool probe_is_well(const struct probe *probe)
{
    return probe->counts[PROBE_BAD] == 0;
}

/* An answer of the type's transport, copied; `reply` points into it. */
struct probe_answer {
    struct uplink_reply reply;
    struct buffer body, words;
    char content_type[80], code[16], etag[80], checksum_sha256[64];
};
/* Sends one request through the type's transport and waits for its end. -errno: it could not be
 * sent at all. probe_answer_finish() in any case; zero it before. */
must_check int probe_exchange(struct probe *probe, const struct uplink_request *request,
                              struct probe_answer *ret_answer);
void probe_answer_finish(struct probe_answer *answer);
#define auto_answer __attribute__((cleanup(probe_answer_finish)))

/* Parts of probe_run(), for types that connect elsewhere, too. True: it is well so far. */
bool probe_connect(struct probe *probe, const struct probe_target *target);
/* Host, port and scheme of an https:// or http:// URL. False: it is none. */
bool probe_target_of_url(const struct transport_settings *settings, const char *url,
                         struct probe_target *ret_target);
/* A secret's file, which the configuration has read and whose mode it has checked. */
void probe_secret(struct probe *probe, const char *key, const struct config_secret *secret);
