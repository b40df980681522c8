#include "gateway/daemon.h"

#include <errno.h>
#include <string.h>

static void host_each_device(void *user, void (*fn)(void *arg, struct device *device), void *arg)
{
    struct gateway *gateway = user;
    pthread_mutex_lock(&gateway->lock);
    for (size_t i = 0; i < gateway->device_count; i++) {
        fn(arg, gateway->devices[i]);
    }
    pthread_mutex_unlock(&gateway->lock);
}

static void host_each_uplink(void *user,
                             void (*fn)(void *arg, const struct config_uplink *config,
                                        unsigned index, struct sender *sender),
                             void *arg)
{
    struct gateway *gateway = user;
    pthread_mutex_lock(&gateway->lock);
    for (size_t i = 0; i < gateway->desk_count; i++) {
        fn(arg, gateway->desks[i].config, gateway->desks[i].index, gateway->desks[i].sender);
    }
    pthread_mutex_unlock(&gateway->lock);
}

static struct store *host_store(void *user)
{
    return ((struct gateway *)user)->store;
}

static struct pipeline *host_pipeline(void *user)
{
    return ((struct gateway *)user)->pipeline;
}

static const struct config *host_config(void *user)
{
    struct gateway *gateway = user;
    pthread_mutex_lock(&gateway->lock);
    const struct config *config = config_ref(gateway->config);
    pthread_mutex_unlock(&gateway->lock);
    return config;
}

static struct device *host_find_device(void *user, const char *name)
{
    struct gateway *gateway = user;
    struct device *device = NULL;
    pthread_mutex_lock(&gateway->lock);
    for (size_t i = 0; i < gateway->device_count && device == NULL; i++) {
        if (strcmp(gateway->devices[i]->config->name, name) == 0) {
            device = device_ref(gateway->devices[i]);
        }
    }
    pthread_mutex_unlock(&gateway->lock);
    return device;
}

static int host_ask_device(void *user, const char *name, const size_t *points, size_t count,
                           const char *value, int64_t deadline_ms,
                           void (*done)(void *arg, int error, const char *why, json_t *result),
                           void *arg)
{
    struct gateway *gateway = user;
    struct device *device = host_find_device(gateway, name);
    if (device == NULL) {
        return -ENOENT;
    }
    int r = field_ask(gateway->field, device, points, count, value, deadline_ms, done, arg);
    device_unref(device);
    return r;
}

/* The api's thread only looks whether the new configuration is good; the main thread applies it,
 * since that may restart the api itself. */
static int host_reload(void *user, struct buffer *ret_text)
{
    struct gateway *gateway = user;
    struct config_errors *errors = config_errors_create();
    if (errors == NULL) {
        return -ENOMEM;
    }
    const struct config *config;
    int r = config_load(gateway->config_path, errors, &config);
    daemon_tell_errors(errors, ret_text);
    config_errors_destroy(errors);
    if (r < 0) {
        return -EINVAL;
    }
    config_unref(config);
    pthread_mutex_lock(&gateway->lock);
    gateway->reload_asked = true;
    pthread_mutex_unlock(&gateway->lock);
    uint64_t one = 1;
    return write(gateway->wake_fd, &one, sizeof one) == sizeof one ? 0 : -EIO;
}

static void host_write(void *user, const struct write_command *command,
                       void (*done)(void *arg, int status, struct buffer *body), void *arg)
{
    writes_execute(((struct gateway *)user)->writes, command, done, arg);
}

int daemon_start_writes(struct gateway *gateway)
{
    const struct writes_host host = {.user = gateway,
                                     .config = host_config,
                                     .find_device = host_find_device,
                                     .ask_device = host_ask_device};
    return writes_create(gateway->store, gateway->pipeline, &host, &gateway->writes);
}

void daemon_host_init(struct gateway *gateway)
{
    gateway->host = (struct api_host){.user = gateway,
                                      .each_device = host_each_device,
                                      .each_uplink = host_each_uplink,
                                      .store = host_store,
                                      .pipeline = host_pipeline,
                                      .config = host_config,
                                      .started_boot_ms = gateway->started_boot_ms,
                                      .ask_device = host_ask_device,
                                      .write = host_write,
                                      .reload = host_reload};
}
