#include "uplink/sender.h"

#include "gateway/base/clock.h"
#include "gateway/base/log.h"
#include "uplink/sender_loop.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/random.h>

static int watch(int epoll_fd, int fd)
{
    struct epoll_event event = {.events = EPOLLIN};
    return epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &event) == 0 ? 0 : -errno;
}

static size_t least(size_t a, size_t b)
{
    return a < b ? a : b;
}

static void set_limits(struct sender *s)
{
    s->records_max = least((size_t)s->common->batch_records, UPLINK_BATCH_RECORDS_MAX);
    s->part_limit = least(s->records_max, s->type->max_records);
    if (s->type->records_limit != NULL) {
        s->part_limit = least(s->part_limit, s->type->records_limit(s->config->settings));
    }
    s->part_max = s->part_limit;
    s->flight_count = least((size_t)s->common->parallel, UPLINK_PARALLEL_MAX);
}

static int make(struct sender *s)
{
    set_limits(s);
    s->stop_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    s->wake_fd = epoll_create1(EPOLL_CLOEXEC);
    if (s->stop_fd < 0 || s->wake_fd < 0) {
        return -errno;
    }
    s->flights = calloc(s->flight_count, sizeof *s->flights);
    if (s->flights == NULL) {
        return -ENOMEM;
    }
    for (size_t i = 0; i < s->flight_count; i++) {
        s->flights[i].sender = s;
    }
    if (getrandom(&s->random, sizeof s->random, GRND_NONBLOCK) < 0) {
        s->random = (uint64_t)clock_mono_ns();
    }
    int r = selector_create(&s->common->points, &s->selector);
    return r < 0 ? r : watch(s->wake_fd, s->stop_fd);
}

int sender_create(struct store *store, unsigned uplink_index, const struct config_uplink *config,
                  const struct config *owner, struct sender **ret_sender)
{
    const struct uplink *type = uplink_find(config->type);
    if (type == NULL) {
        return -ENOENT;
    }
    struct sender *s = calloc(1, sizeof *s);
    if (s == NULL) {
        return -ENOMEM;
    }
    s->store = store;
    s->uplink_index = uplink_index;
    s->owner = config_ref(owner);
    s->config = config;
    s->common = config->common;
    s->type = type;
    s->gateway = owner->gateway->name;
    s->store_id = store_id(store);
    s->split = s->common->replay == UPLINK_LIVE_AND_BACKFILL;
    s->streams = uplink_streams(s->common);
    s->stop_fd = s->wake_fd = -1;
    s->status.state = SENDER_STOPPED;
    s->status.backlog_eta_s = -1;
    pthread_mutex_init(&s->lock, NULL);
    int r = make(s);
    if (r < 0) {
        sender_destroy(s);
        return r;
    }
    *ret_sender = s;
    return 0;
}

void sender_destroy(struct sender *s)
{
    if (s == NULL) {
        return;
    }
    sender_stop(s, 0);
    for (size_t i = 0; s->flights != NULL && i < s->flight_count; i++) {
        flight_finish(&s->flights[i]);
    }
    free(s->flights);
    selector_destroy(s->selector);
    cleanup_close(&s->stop_fd);
    cleanup_close(&s->wake_fd);
    config_unref(s->owner);
    pthread_mutex_destroy(&s->lock);
    free(s);
}

/* Neither outlives the thread: a stopped sender holds nothing of the store. */
static void release(struct sender *s)
{
    if (s->transport != NULL) {
        s->type->transport->destroy(s->transport);
        s->transport = NULL;
    }
    store_reader_destroy(s->reader);
    s->reader = NULL;
}

/* Signals are the main thread's; SIGPIPE blocked means that a broken connection is an error. */
static int start_thread(struct sender *s)
{
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int r = -pthread_create(&s->thread, NULL, sender_loop, s);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return r;
}

static int make_transport(struct sender *s)
{
    const void *settings = s->config->settings;
    if (s->type->transport_settings != NULL) {
        settings = s->type->transport_settings(settings);
    }
    const struct transport *transport = s->type->transport;
    int r = transport->create(settings, s->gateway, s->flight_count, &s->transport);
    if (r == 0 && s->host != NULL && transport->attach != NULL) {
        r = transport->attach(s->transport, s->host, s->config->name);
    }
    return r;
}

void sender_set_host(struct sender *sender, const struct uplink_host *host)
{
    sender->host = host;
}

int sender_start(struct sender *s)
{
    if (s->running) {
        return -EALREADY;
    }
    uint64_t old;
    ssize_t drained = read(s->stop_fd, &old, sizeof old);
    (void)drained;
    s->stop_by_ms = 0;
    int r = make_transport(s);
    if (r == 0) {
        r = store_reader_create(s->store, s->uplink_index, s->split, &s->reader);
    }
    if (r == 0) {
        r = watch(s->wake_fd, store_reader_eventfd(s->reader));
    }
    if (r == 0) {
        r = start_thread(s);
    }
    if (r < 0) {
        release(s);
        return r;
    }
    s->running = true;
    return 0;
}

void sender_stop(struct sender *s, int64_t grace_ms)
{
    if (!s->running) {
        return;
    }
    s->stop_by_ms = clock_mono_ms() + grace_ms;
    uint64_t one = 1;
    ssize_t written = write(s->stop_fd, &one, sizeof one);
    (void)written; /* an eventfd at its bound is readable as well */
    pthread_join(s->thread, NULL);
    s->running = false;
    release(s);
    s->status.state = SENDER_STOPPED;
}
