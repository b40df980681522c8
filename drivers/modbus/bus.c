#include "drivers/modbus/bus.h"

#include "gateway/base/clock.h"
#include "gateway/base/log.h"

#include <errno.h>
#include <event2/event.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/eventfd.h>

enum { WHY_SIZE = 160 };

/* A request on its way to the bus thread and back. */
struct slot {
    struct slot *next;
    struct session_request *request; /* field thread only; NULL: taken back */
    struct mbap_request ask;
    uint8_t data[MBAP_PDU_MAX]; /* of a write */
    uint8_t unit;
    _Atomic bool sent;
    int64_t timeout_ms, not_after_ms;
    struct serial_reply reply;
    struct session_result result;
};

struct bus {
    struct wire wire; /* first */
    char *name, *port;
    struct serial_settings settings;
    void (*gone)(void *user, struct bus *bus);
    void *user;
    struct event *event;
    int stop_fd, done_fd;
    pthread_t thread;
    _Atomic int64_t pause_ms, busy_us;

    pthread_mutex_t lock; /* over the queues and `why` */
    pthread_cond_t work;
    bool stopping;
    struct slot *waiting, *done, *spare;
    char why[WHY_SIZE];
    struct slot slots[BUS_QUEUE_MAX];

    /* bus thread only */
    struct serial serial;
    int open_error;
    int64_t reopen_ms, reopen_pause_ms;
};

/* --- the bus thread --- */

static void append(struct slot **list, struct slot *slot)
{
    while (*list != NULL) {
        list = &(*list)->next;
    }
    slot->next = NULL;
    *list = slot;
}

static void signal_fd(int fd)
{
    uint64_t one = 1;
    ssize_t ignored = write(fd, &one, sizeof(one));
    (void)ignored;
}

static void set_trouble(struct bus *bus, const char *why)
{
    pthread_mutex_lock(&bus->lock);
    bool same = strcmp(bus->why, why) == 0;
    snprintf(bus->why, sizeof(bus->why), "%s", why);
    pthread_mutex_unlock(&bus->lock);
    if (!same && why[0] != '\0') {
        log_warning("bus %s: %s %s", bus->name, bus->port, why);
    } else if (!same) {
        log_info("bus %s: %s is open again", bus->name, bus->port);
    }
}

static void close_port(struct bus *bus)
{
    serial_close(&bus->serial);
    bus->reopen_pause_ms = bus->reopen_pause_ms == 0 ? BUS_REOPEN_MIN_MS : bus->reopen_pause_ms * 2;
    if (bus->reopen_pause_ms > BUS_REOPEN_MAX_MS) {
        bus->reopen_pause_ms = BUS_REOPEN_MAX_MS;
    }
    bus->reopen_ms = clock_mono_ms() + bus->reopen_pause_ms;
}

static int ensure_open(struct bus *bus)
{
    if (serial_is_open(&bus->serial)) {
        return 0;
    }
    if (clock_mono_ms() < bus->reopen_ms) {
        return bus->open_error;
    }
    char why[WHY_SIZE];
    bus->open_error = serial_open(&bus->serial, &bus->settings, bus->stop_fd, why, sizeof(why));
    if (bus->open_error != 0) {
        close_port(bus);
        set_trouble(bus, why);
        return bus->open_error;
    }
    set_trouble(bus, "");
    return 0;
}

static void port_lost(struct bus *bus, int error)
{
    char why[WHY_SIZE];
    snprintf(why, sizeof(why), "was lost: %s (unplugged?)", strerror(error));
    bus->open_error = -error;
    close_port(bus);
    set_trouble(bus, why);
}

static void run(struct bus *bus, struct slot *slot)
{
    struct session_result *result = &slot->result;
    struct mbap_reply values;
    *result = (struct session_result){0};
    int r = ensure_open(bus);
    if (r != 0) {
        result->error = DEVICE_ERROR_CONNECT;
        result->detail = -r;
        return;
    }
    int64_t began_ns = clock_mono_ns();
    if (slot->not_after_ms != 0 && began_ns / 1000000 > slot->not_after_ms) {
        result->error = DEVICE_ERROR_TIMEOUT;
        return;
    }
    atomic_store(&slot->sent, true);
    r = serial_exchange(&bus->serial, slot->unit, &slot->ask, slot->timeout_ms,
                        atomic_load_explicit(&bus->pause_ms, memory_order_relaxed), &slot->reply,
                        &values);
    int64_t took_ns = clock_mono_ns() - began_ns;
    atomic_fetch_add_explicit(&bus->busy_us, took_ns / 1000, memory_order_relaxed);
    result->cost_ms = took_ns / 1000000;
    result->rtt_us = slot->reply.rtt_us;
    result->mismatches = slot->reply.mismatches;
    switch (r) {
    case 0:
        bus->reopen_pause_ms = 0;
        result->error = values.exception != 0 ? DEVICE_ERROR_EXCEPTION : DEVICE_ERROR_NONE;
        result->detail = (int)values.exception;
        result->data = values.data;
        result->data_len = values.data_len;
        break;
    case -ETIMEDOUT:
        result->error = DEVICE_ERROR_TIMEOUT;
        break;
    case -EPROTO:
        result->error = DEVICE_ERROR_FRAMING;
        break;
    case -ECANCELED:
        result->error = DEVICE_ERROR_CLOSED;
        break;
    default:
        result->error = DEVICE_ERROR_CLOSED;
        result->detail = -r;
        port_lost(bus, -r);
        break;
    }
}

static void *bus_main(void *arg)
{
    struct bus *bus = arg;
    pthread_setname_np(pthread_self(), "bus");
    pthread_mutex_lock(&bus->lock);
    while (!bus->stopping) {
        struct slot *slot = bus->waiting;
        if (slot == NULL) {
            pthread_cond_wait(&bus->work, &bus->lock);
            continue;
        }
        bus->waiting = slot->next;
        pthread_mutex_unlock(&bus->lock);
        run(bus, slot);
        pthread_mutex_lock(&bus->lock);
        append(&bus->done, slot);
        signal_fd(bus->done_fd);
    }
    pthread_mutex_unlock(&bus->lock);
    serial_close(&bus->serial);
    return NULL;
}

/* --- the field thread --- */

static void on_done(evutil_socket_t fd, short what, void *user)
{
    struct bus *bus = user;
    uint64_t count;
    (void)what;
    ssize_t ignored = read(fd, &count, sizeof(count));
    (void)ignored;
    pthread_mutex_lock(&bus->lock);
    struct slot *slot = bus->done;
    bus->done = NULL;
    pthread_mutex_unlock(&bus->lock);
    while (slot != NULL) {
        struct slot *next = slot->next;
        struct session_request *request = slot->request;
        slot->request = NULL;
        if (request != NULL) {
            request->sent = atomic_load(&slot->sent);
            request->done(request, &slot->result);
        }
        pthread_mutex_lock(&bus->lock);
        slot->next = bus->spare;
        bus->spare = slot;
        pthread_mutex_unlock(&bus->lock);
        slot = next;
    }
}

static void fill_slot(struct slot *slot, struct session_request *request)
{
    slot->request = request;
    slot->ask = request->ask;
    slot->unit = request->unit;
    slot->timeout_ms = request->timeout_ms;
    slot->not_after_ms = request->not_after_ms;
    atomic_store(&slot->sent, false);
    request->sent = false;
    if (request->ask.data != NULL) {
        memcpy(slot->data, request->ask.data, request->ask.data_len);
        slot->ask.data = slot->data;
    }
}

static int submit(struct wire *wire, struct session_request *request, bool front)
{
    struct bus *bus = (struct bus *)wire;
    uint8_t pdu[MBAP_PDU_MAX];
    if (mbap_encode_request(&request->ask, pdu) < 0 || request->unit > RTU_UNIT_MAX ||
        (request->unit == RTU_BROADCAST && request->ask.function <= MBAP_READ_INPUT)) {
        return -EINVAL;
    }
    pthread_mutex_lock(&bus->lock);
    struct slot *slot = bus->spare;
    if (slot != NULL) {
        bus->spare = slot->next;
        fill_slot(slot, request);
        if (front) {
            slot->next = bus->waiting;
            bus->waiting = slot;
        } else {
            append(&bus->waiting, slot);
        }
        pthread_cond_signal(&bus->work);
    }
    pthread_mutex_unlock(&bus->lock);
    return slot != NULL ? 0 : -ENOBUFS;
}

static void cancel(struct wire *wire, struct session_request *request)
{
    struct bus *bus = (struct bus *)wire;
    struct slot *slot = bus->slots;
    while (slot < bus->slots + BUS_QUEUE_MAX && slot->request != request) {
        slot++;
    }
    if (slot == bus->slots + BUS_QUEUE_MAX) {
        return;
    }
    slot->request = NULL;
    pthread_mutex_lock(&bus->lock);
    struct slot **at = &bus->waiting;
    while (*at != NULL && *at != slot) {
        at = &(*at)->next;
    }
    /* One that runs, or is done, comes back through on_done(). */
    request->sent = *at != slot;
    if (*at == slot) {
        *at = slot->next;
        slot->next = bus->spare;
        bus->spare = slot;
    }
    pthread_mutex_unlock(&bus->lock);
}

static void destroy(struct bus *bus)
{
    if (bus->event != NULL) {
        event_free(bus->event);
    }
    if (bus->stop_fd >= 0) {
        close(bus->stop_fd);
    }
    if (bus->done_fd >= 0) {
        close(bus->done_fd);
    }
    pthread_mutex_destroy(&bus->lock);
    pthread_cond_destroy(&bus->work);
    free(bus->name);
    free(bus->port);
    free(bus);
}

static void put(struct wire *wire)
{
    struct bus *bus = (struct bus *)wire;
    if (--wire->users > 0) {
        return;
    }
    if (bus->gone != NULL) {
        bus->gone(bus->user, bus);
    }
    pthread_mutex_lock(&bus->lock);
    bus->stopping = true;
    pthread_cond_signal(&bus->work);
    pthread_mutex_unlock(&bus->lock);
    signal_fd(bus->stop_fd);
    pthread_join(bus->thread, NULL);
    destroy(bus);
}

static const struct wire_ops bus_ops = {
    .submit = submit,
    .cancel = cancel,
    .put = put,
};

static int prepare(struct bus *bus, struct event_base *base, const char *name, const char *port)
{
    bus->name = strdup(name);
    bus->port = strdup(port);
    bus->stop_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    bus->done_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (bus->name == NULL || bus->port == NULL) {
        return -ENOMEM;
    }
    if (bus->stop_fd < 0 || bus->done_fd < 0) {
        return -EMFILE;
    }
    bus->settings.port = bus->port;
    bus->event = event_new(base, bus->done_fd, EV_READ | EV_PERSIST, on_done, bus);
    return bus->event == NULL || event_add(bus->event, NULL) != 0 ? -ENOMEM : 0;
}

int bus_create(struct event_base *base, const char *name, const struct serial_settings *settings,
               struct bus **ret_bus)
{
    struct bus *bus = calloc(1, sizeof(*bus));
    if (bus == NULL) {
        return -ENOMEM;
    }
    bus->wire = (struct wire){.ops = &bus_ops, .users = 1};
    bus->settings = *settings;
    pthread_mutex_init(&bus->lock, NULL);
    pthread_cond_init(&bus->work, NULL);
    for (size_t i = 0; i < BUS_QUEUE_MAX; i++) {
        bus->slots[i].next = i + 1 < BUS_QUEUE_MAX ? &bus->slots[i + 1] : NULL;
    }
    bus->spare = bus->slots;
    int r = prepare(bus, base, name, settings->port);
    if (r == 0) {
        r = -pthread_create(&bus->thread, NULL, bus_main, bus);
    }
    if (r != 0) {
        destroy(bus);
        return r;
    }
    *ret_bus = bus;
    return 0;
}

struct wire *bus_wire(struct bus *bus)
{
    return &bus->wire;
}

void bus_on_gone(struct bus *bus, void (*gone)(void *user, struct bus *bus), void *user)
{
    bus->gone = gone;
    bus->user = user;
}

void bus_ask_pause(struct bus *bus, int64_t pause_ms)
{
    if (pause_ms > atomic_load_explicit(&bus->pause_ms, memory_order_relaxed)) {
        atomic_store_explicit(&bus->pause_ms, pause_ms, memory_order_relaxed);
    }
}

int64_t bus_busy_us(const struct bus *bus)
{
    return atomic_load_explicit(&bus->busy_us, memory_order_relaxed);
}

void bus_trouble(struct bus *bus, char *text, size_t size)
{
    pthread_mutex_lock(&bus->lock);
    snprintf(text, size, "%s", bus->why);
    pthread_mutex_unlock(&bus->lock);
}
