/* daemon.h - the running gateway: who is on the roster, and how a reload changes it.
 *
 * struct gateway holds every part; main.c creates and starts the parts in a visible order and stops
 * them in the reverse one. The roster (devices and senders at work) is changed by the main thread
 * only and looked at by the api under `lock`. */
#pragma once

#include "gateway/api/api.h"
#include "gateway/field.h"
#include "gateway/pipeline/pipeline.h"
#include "gateway/store/store.h"
#include "gateway/writes/writes.h"
#include "uplink/host.h"
#include "uplink/sender.h"

#include <pthread.h>

struct gateway {
    const char *config_path;
    const struct config *config; /* the one in force */
    struct store *store;
    struct pipeline *pipeline;
    struct writes *writes;
    struct field *field;
    struct api *api;
    struct api_host host;
    struct uplink_host uplink_host;
    char *socket_path;
    int wake_fd; /* makes the main thread look at `reload_asked` */
    int64_t started_boot_ms;

    pthread_mutex_t lock; /* over the roster, `config` and `reload_asked`, short */
    struct device **devices;
    size_t device_count;
    struct desk {                   /* an uplink at work */
        const struct config *owner; /* holds `config`; one reference */
        const struct config_uplink *config;
        unsigned index; /* in the store */
        struct sender *sender;
    } * desks;
    size_t desk_count;
    bool reload_asked;
};

/* Puts the devices and uplinks of gateway->config on the roster and to work, before (after) the
 * pipeline runs. One that cannot be started is logged and left out; only -ENOMEM is returned. */
must_check int daemon_start_uplinks(struct gateway *gateway);
must_check int daemon_start_devices(struct gateway *gateway);
void daemon_stop_uplinks(struct gateway *gateway, int64_t grace_ms);
void daemon_forget_devices(struct gateway *gateway);

/* Reads the configuration anew; where it is good, restarts what differs and nothing else. -EINVAL:
 * it is not, every error was logged, the present one stays in force. Main thread only. */
must_check int daemon_reload(struct gateway *gateway);

/* Logs each error and warning; text lines into ret_text where it is not NULL. */
void daemon_tell_errors(const struct config_errors *errors, struct buffer *ret_text);

/* Starts gateway->writes (daemon_host.c). */
must_check int daemon_start_writes(struct gateway *gateway);

/* Fills gateway->host, the api's view (daemon_host.c). */
void daemon_host_init(struct gateway *gateway);
/* Fills gateway->uplink_host, after the former (daemon_uplink.c). */
void daemon_uplink_host_init(struct gateway *gateway);
