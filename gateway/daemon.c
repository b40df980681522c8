#include "gateway/daemon.h"

#include "gateway/base/log.h"
#include "uplink/uplink.h"

#include <errno.h>
#include <string.h>

void daemon_tell_errors(const struct config_errors *errors, struct buffer *ret_text)
{
    size_t count = config_errors_count(errors, false) + config_errors_count(errors, true);
    for (size_t i = 0; i < count; i++) {
        const struct config_error *e = config_errors_at(errors, i);
        auto_buffer struct buffer line = {0};
        config_error_write(e, &line);
        const char *text = buffer_text(&line);
        if (text == NULL) {
            continue;
        }
        log_line(e->warning ? LOG_LEVEL_WARNING : LOG_LEVEL_ERROR, "%s", text);
        if (ret_text != NULL) {
            buffer_printf(ret_text, "%s\n", text);
        }
    }
}

struct enrolment {
    struct gateway *gateway;
    const struct config_uplink *uplink;
    const struct config_device *device;
    unsigned index;
    uint32_t id;
    uint64_t last_seq[STREAM_COUNT];
    const void *store_settings;
};

static int enrol_uplink(void *arg)
{
    struct enrolment *e = arg;
    const struct uplink_settings *settings = e->uplink->common;
    return store_add_uplink(e->gateway->store, e->uplink->name, uplink_streams(settings),
                            settings->max_age_ms, &e->index);
}

static int dismiss_uplink(void *arg)
{
    struct enrolment *e = arg;
    store_drop_uplink(e->gateway->store, e->index);
    return 0;
}

static int enrol_device(void *arg)
{
    struct enrolment *e = arg;
    auto_buffer struct buffer tags = {0};
    buffer_add_text(&tags, e->device->tag_count > 0 ? "{" : "");
    for (size_t i = 0; i < e->device->tag_count; i++) {
        const struct config_tag *tag = &e->device->tags[i];
        buffer_add_text(&tags, i > 0 ? "," : "");
        json_write_string(&tags, tag->name, strlen(tag->name));
        buffer_add_text(&tags, ":");
        json_write_string(&tags, tag->value, strlen(tag->value));
    }
    buffer_add_text(&tags, e->device->tag_count > 0 ? "}" : "");
    const char *text = buffer_text(&tags);
    if (text == NULL) {
        return -ENOMEM;
    }
    int r = store_device(e->gateway->store, e->device->name, text, &e->id);
    for (int s = 0; r == 0 && s < STREAM_COUNT; s++) {
        e->last_seq[s] = store_last_seq(e->gateway->store, (enum stream)s, e->id);
    }
    return r;
}

static int apply_store_settings(void *arg)
{
    struct enrolment *e = arg;
    store_set_settings(e->gateway->store, e->store_settings);
    return 0;
}

static int start_uplink(struct gateway *gateway, const struct config_uplink *uplink)
{
    struct enrolment e = {.gateway = gateway, .uplink = uplink};
    struct sender *sender = NULL;
    int r = pipeline_call(gateway->pipeline, enrol_uplink, &e);
    if (r == 0) {
        r = sender_create(gateway->store, e.index, uplink, gateway->config, &sender);
    }
    if (r == 0) {
        sender_set_host(sender, &gateway->uplink_host);
        r = sender_start(sender);
    }
    struct desk *desks = NULL;
    if (r == 0) {
        pthread_mutex_lock(&gateway->lock);
        desks = realloc(gateway->desks, (gateway->desk_count + 1) * sizeof *desks);
        if (desks != NULL) {
            desks[gateway->desk_count++] = (struct desk){.owner = config_ref(gateway->config),
                                                         .config = uplink,
                                                         .index = e.index,
                                                         .sender = sender};
            gateway->desks = desks;
        }
        pthread_mutex_unlock(&gateway->lock);
    }
    if (desks == NULL) {
        sender_destroy(sender);
        log_error("uplink %s: cannot be started: %s", uplink->name, strerror(r < 0 ? -r : ENOMEM));
    }
    return r == 0 && desks == NULL ? -ENOMEM : 0;
}

static void stop_uplink(struct gateway *gateway, size_t i, int64_t grace_ms)
{
    pthread_mutex_lock(&gateway->lock);
    struct desk desk = gateway->desks[i];
    gateway->desks[i] = gateway->desks[--gateway->desk_count];
    pthread_mutex_unlock(&gateway->lock);
    sender_stop(desk.sender, grace_ms);
    sender_destroy(desk.sender);
    config_unref(desk.owner);
}

static int start_device(struct gateway *gateway, const struct config_device *config,
                        const struct device *former)
{
    struct enrolment e = {.gateway = gateway, .device = config};
    struct device *device = NULL;
    int r = pipeline_call(gateway->pipeline, enrol_device, &e);
    for (int s = 0; r == 0 && former != NULL && s < STREAM_COUNT; s++) {
        e.last_seq[s] = former->seq[s];
    }
    if (r == 0) {
        r = device_create(gateway->config, config, e.id, e.last_seq, &device);
    }
    if (r < 0) {
        log_error("device %s: cannot be started: %s", config->name, strerror(-r));
        return r == -ENOMEM ? r : 0;
    }
    pthread_mutex_lock(&gateway->lock);
    struct device **devices = realloc(gateway->devices,
                                      (gateway->device_count + 1) * sizeof(struct device *));
    if (devices != NULL) {
        devices[gateway->device_count++] = device;
        gateway->devices = devices;
    }
    pthread_mutex_unlock(&gateway->lock);
    if (devices == NULL) {
        device_unref(device);
        return -ENOMEM;
    }
    r = pipeline_add_device(gateway->pipeline, device);
    if (r == 0) {
        r = field_add(gateway->field, device);
    }
    if (r < 0) {
        log_error("device %s: driver %s cannot read it: %s", config->name, config->driver,
                  strerror(-r));
    }
    return r == -ENOMEM ? r : 0;
}

/* Takes the device from the field and off the roster; the caller has its reference now. */
static struct device *stop_device(struct gateway *gateway, size_t i)
{
    struct device *device = gateway->devices[i];
    field_remove(gateway->field, device);
    int r = pipeline_retire_device(gateway->pipeline, device);
    if (r < 0) {
        log_error("device %s: cannot be retired: %s", device->config->name, strerror(-r));
    }
    pthread_mutex_lock(&gateway->lock);
    gateway->devices[i] = gateway->devices[--gateway->device_count];
    pthread_mutex_unlock(&gateway->lock);
    return device;
}

/* Uplinks that the store knows from an earlier configuration: nothing is kept for them. */
static int dismiss_strangers(struct gateway *gateway)
{
    int r = 0;
    for (unsigned i = 0; r == 0 && i < store_uplinks(gateway->store); i++) {
        const char *name = store_uplink_name(gateway->store, i);
        if (name[0] != '\0' && config_find_uplink(gateway->config, name) == NULL) {
            log_warning("uplink %s: not in the configuration any more, nothing is kept for it",
                        name);
            struct enrolment e = {.gateway = gateway, .index = i};
            r = pipeline_call(gateway->pipeline, dismiss_uplink, &e);
        }
    }
    return r;
}

int daemon_start_uplinks(struct gateway *gateway)
{
    int r = dismiss_strangers(gateway);
    for (size_t i = 0; r == 0 && i < gateway->config->uplink_count; i++) {
        r = start_uplink(gateway, &gateway->config->uplinks[i]);
    }
    return r;
}

int daemon_start_devices(struct gateway *gateway)
{
    int r = 0;
    for (size_t i = 0; r == 0 && i < gateway->config->device_count; i++) {
        r = start_device(gateway, &gateway->config->devices[i], NULL);
    }
    return r;
}

void daemon_stop_uplinks(struct gateway *gateway, int64_t grace_ms)
{
    while (gateway->desk_count > 0) {
        stop_uplink(gateway, gateway->desk_count - 1, grace_ms);
    }
    free(gateway->desks);
    gateway->desks = NULL;
}

void daemon_forget_devices(struct gateway *gateway)
{
    for (size_t i = 0; i < gateway->device_count; i++) {
        device_unref(gateway->devices[i]);
    }
    free(gateway->devices);
    gateway->devices = NULL;
    gateway->device_count = 0;
}

/* What cannot change while the gateway runs. */
static void warn_of_restart(const struct config *old, const struct config *new)
{
    if (strcmp(old->gateway->data_dir, new->gateway->data_dir) != 0 ||
        strcmp(old->gateway->run_dir, new->gateway->run_dir) != 0 ||
        strcmp(old->gateway->name, new->gateway->name) != 0) {
        log_warning(
            "reload: name, data_dir and run_dir of [gateway] take effect at the next start");
    }
}

static int reconcile_devices(struct gateway *gateway)
{
    const struct config *config = gateway->config;
    int r = 0;
    for (size_t i = gateway->device_count; i-- > 0;) {
        const struct config_device *is = gateway->devices[i]->config;
        const struct config_device *shall = config_find_device(config, is->name);
        if (shall != NULL && shall->fingerprint == is->fingerprint) {
            continue;
        }
        log_info("reload: device %s %s", is->name, shall == NULL ? "removed" : "changed");
        struct device *former = stop_device(gateway, i);
        if (shall != NULL) {
            int s = start_device(gateway, shall, former);
            r = r == 0 ? s : r;
        }
        device_unref(former);
    }
    for (size_t i = 0; r == 0 && i < config->device_count; i++) {
        size_t at = 0;
        while (at < gateway->device_count &&
               strcmp(gateway->devices[at]->config->name, config->devices[i].name) != 0) {
            at++;
        }
        if (at == gateway->device_count) {
            log_info("reload: device %s added", config->devices[i].name);
            r = start_device(gateway, &config->devices[i], NULL);
        }
    }
    return r;
}

static int reconcile_uplinks(struct gateway *gateway)
{
    const struct config *config = gateway->config;
    int r = 0;
    for (size_t i = gateway->desk_count; i-- > 0;) {
        const struct config_uplink *is = gateway->desks[i].config;
        const struct config_uplink *shall = config_find_uplink(config, is->name);
        if (shall != NULL && shall->fingerprint == is->fingerprint) {
            continue;
        }
        log_info("reload: uplink %s %s", is->name, shall == NULL ? "removed" : "changed");
        struct enrolment e = {.gateway = gateway, .index = gateway->desks[i].index};
        stop_uplink(gateway, i, 2000);
        if (shall == NULL) {
            r = pipeline_call(gateway->pipeline, dismiss_uplink, &e);
        }
    }
    for (size_t i = 0; r == 0 && i < config->uplink_count; i++) {
        size_t at = 0;
        while (at < gateway->desk_count &&
               strcmp(gateway->desks[at].config->name, config->uplinks[i].name) != 0) {
            at++;
        }
        if (at == gateway->desk_count) {
            log_info("reload: uplink %s started", config->uplinks[i].name);
            r = start_uplink(gateway, &config->uplinks[i]);
        }
    }
    return r;
}

static int restart_api(struct gateway *gateway)
{
    char why[200];
    api_stop(gateway->api);
    gateway->api = NULL;
    int r = api_start(&gateway->host, gateway->config->api, &gateway->api, why, sizeof why);
    if (r < 0) {
        log_error("reload: api: %s", why);
    }
    return r;
}

int daemon_reload(struct gateway *gateway)
{
    struct config_errors *errors = config_errors_create();
    if (errors == NULL) {
        return -ENOMEM;
    }
    const struct config *new;
    int r = config_load(gateway->config_path, errors, &new);
    daemon_tell_errors(errors, NULL);
    config_errors_destroy(errors);
    if (r < 0) {
        log_error("reload: refused, the configuration in force stays");
        return r;
    }
    const struct config *old = gateway->config;
    warn_of_restart(old, new);
    pthread_mutex_lock(&gateway->lock);
    gateway->config = new;
    pthread_mutex_unlock(&gateway->lock);
    log_set_level((enum log_level) new->gateway->log_level);
    struct enrolment e = {.gateway = gateway, .store_settings = new->store};
    if (old->store_fingerprint != new->store_fingerprint) {
        r = pipeline_call(gateway->pipeline, apply_store_settings, &e);
    }
    int results[] = {r, pipeline_set_config(gateway->pipeline, new), reconcile_devices(gateway),
                     reconcile_uplinks(gateway),
                     old->api_fingerprint != new->api_fingerprint ? restart_api(gateway) : 0};
    for (size_t i = 0; i < ARRAY_SIZE(results); i++) {
        r = r == 0 ? results[i] : r;
    }
    config_unref(old);
    log_info("reload: done, %zu devices, %zu uplinks", gateway->device_count, gateway->desk_count);
    return r;
}
