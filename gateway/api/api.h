/* api.h - the local API: what the command and the page are made of.
 *
 * One thread with an event base and evhttp: on the Unix socket run_dir/windrow.sock, where anything
 * may be asked and changed, and on [api] listen, where tokens decide. It owns no state of the
 * gateway: it asks through struct api_host, whose functions are safe from its thread. */
#pragma once

#include "config/config.h"
#include "gateway/pipeline/pipeline.h"
#include "gateway/store/store.h"
#include "uplink/sender.h"

#include <jansson.h>

/* [api]; the table is api_config_table. */
struct api_settings {
    const char *listen; /* NULL: off */
    const char *cert_file, *key_file;
    struct config_secret tokens;
    bool allow_writes; /* POST /v1/write over TCP, too */
};
extern const struct config_table api_config_table;

struct api;
struct write_command;

/* The running gateway as the api sees it; implemented by the daemon. */
struct api_host {
    void *user;
    const char *socket_path;
    /* Calls fn for each device (uplink) present, under the daemon's lock: no blocking inside. */
    void (*each_device)(void *user, void (*fn)(void *arg, struct device *device), void *arg);
    void (*each_uplink)(void *user,
                        void (*fn)(void *arg, const struct config_uplink *config, unsigned index,
                                   struct sender *sender),
                        void *arg);
    struct store *(*store)(void *user);
    struct pipeline *(*pipeline)(void *user);
    const struct config *(*config)(void *user); /* gives a reference */
    int64_t started_boot_ms;
    /* Reads (value NULL) or writes points of a device off schedule; done is called once, on any
     * thread, with a JSON object it owns or an error in words. -ENOENT: no such device, -ENOSYS:
     * the driver cannot, -EBUSY: too many requests. points: indexes, copied. */
    int (*ask_device)(void *user, const char *device, const size_t *points, size_t count,
                      const char *value, int64_t deadline_ms,
                      void (*done)(void *arg, int error, const char *why, json_t *result),
                      void *arg);
    /* Writes a point, at most once; `done` is called once, on any thread, with a status and a JSON
     * body. Optional: without it nothing can be written. */
    void (*write)(void *user, const struct write_command *command,
                  void (*done)(void *arg, int status, struct buffer *body), void *arg);
    /* Reloads the configuration now; errors as text lines in ret_text. 0 or -EINVAL. */
    int (*reload)(void *user, struct buffer *ret_text);
};

/* Binds and starts the thread. On failure ret_why says which address and why. */
must_check int api_start(const struct api_host *host, const struct api_settings *settings,
                         struct api **ret_api, char *ret_why, size_t why_size);
/* Answers what is open with 503, ends the thread, removes the socket. Takes NULL. `done` of a
 * question to a device may still come afterwards; it is then thrown away. */
void api_stop(struct api *api);
/* The TCP port, 0 when there is none: `listen = HOST:0` takes any that is free. */
unsigned api_port(const struct api *api);
