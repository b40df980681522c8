/* mini_gateway.h - a gateway without a field, for tests of the local API and of the command.
 *
 * A real configuration, store, pipeline and devices; readings are put in by mini_put(), questions
 * to devices are answered as the test says. One a test; everything lies in a temporary folder. The
 * api_host functions run on the api's thread, the rest on the test's. */
#pragma once

#include "gateway/api/api.h"
#include "gateway/base/clock.h"
#include "tests/unit/http_peer.h"
#include "tests/unit/scratch.h"

#include <pthread.h>
#include <stdatomic.h>

enum { MINI_DEVICES_MAX = 4 };

/* Three points: an int16 in tenths, a bool, a text-free uint16 with a unit. */
#define MINI_PROFILE                                                                               \
    "[profile p]\npoint.power = holding 0 int16, scale 0.1, unit kW\n"                             \
    "point.grid_ok = discrete 0\npoint.wind = holding 1 uint16, scale 0.01, unit m/s\n"

struct mini {
    char dir[64], ini[96], socket[96];
    const struct config *config;
    struct store *store;
    struct pipeline *pipeline;
    struct device *devices[MINI_DEVICES_MAX];
    size_t device_count;
    struct api_host host;
    struct api_settings settings;
    struct api *api;
    const char *reload_errors; /* NULL: reload is fine */
    _Atomic int reloads;
    int ask_error; /* what ask_device returns; 0: it keeps `done` for the test to call */
    void (*_Atomic done)(void *arg, int error, const char *why, json_t *result);
    void *done_arg;
    size_t asked_points;
};

static inline void mini_each_device(void *user, void (*fn)(void *arg, struct device *device),
                                    void *arg)
{
    struct mini *mini = user;
    for (size_t i = 0; i < mini->device_count; i++) {
        fn(arg, mini->devices[i]);
    }
}

static inline void mini_each_uplink(void *user,
                                    void (*fn)(void *, const struct config_uplink *, unsigned,
                                               struct sender *),
                                    void *arg)
{
    (void)user; /* senders have tests of their own */
    (void)fn;
    (void)arg;
}

static inline struct store *mini_store(void *user)
{
    return ((struct mini *)user)->store;
}

static inline struct pipeline *mini_pipeline(void *user)
{
    return ((struct mini *)user)->pipeline;
}

static inline const struct config *mini_config(void *user)
{
    return config_ref(((struct mini *)user)->config);
}

static inline int mini_ask(void *user, const char *device, const size_t *points, size_t count,
                           const char *value, int64_t deadline_ms,
                           void (*done)(void *, int, const char *, json_t *), void *arg)
{
    struct mini *mini = user;
    bool known = points != NULL || count == 0;
    if (mini->ask_error < 0 || !known || device == NULL || value != NULL || deadline_ms <= 0) {
        return mini->ask_error < 0 ? mini->ask_error : -EINVAL;
    }
    mini->asked_points = count;
    mini->done_arg = arg;
    mini->done = done; /* last: the test waits for it */
    return 0;
}

static inline int mini_reload(void *user, struct buffer *ret_text)
{
    struct mini *mini = user;
    mini->reloads++;
    buffer_add_text(ret_text, mini->reload_errors != NULL ? mini->reload_errors : "");
    return mini->reload_errors != NULL ? -EINVAL : 0;
}

/* tests/unit/mini_gateway.inc: what makes, feeds and ends it. */
/* listen: HOST:PORT, port 0 for any; NULL: the socket only. */
int mini_start(struct mini *mini, const char *listen);
void mini_stop(struct mini *mini);
/* One scan of the three points; waits until the live view has it. Wind NAN: bad, no answer. */
void mini_put(struct mini *mini, size_t device, int64_t time_ms, int power, bool grid, int wind);
