#include "gateway/field.h"

#include "gateway/base/log.h"

#include <errno.h>
#include <event2/event.h>
#include <pthread.h>
#include <string.h>
#include <sys/eventfd.h>

/* One letter to the field thread. Letters that are waited for live on the sender's stack. */
struct letter {
    struct letter *next;
    void (*open)(struct field *field, struct letter *letter);
    bool waited, answered;
    int result;
    struct device *device;
};

struct question {
    struct letter letter;
    struct driver_request request;
    struct field *field;
    struct device *device;
    size_t *points;
    char *value;
    void (*done)(void *arg, int error, const char *why, json_t *result);
    void *arg;
};

struct field {
    struct event_base *base;
    struct event *wake_event;
    int wake_fd;
    pthread_t thread;
    const struct config *config;
    void **driver_states; /* by index in drivers[]; NULL: not created yet */

    pthread_mutex_t lock; /* over the mailbox */
    pthread_cond_t answered;
    struct letter *first, **last;
    bool stopping;
    _Atomic unsigned questions;
    _Atomic uint64_t heartbeat;

    struct device **devices; /* being read; field thread only */
    size_t device_count, device_capacity;
};

static void wake(struct field *field)
{
    uint64_t one = 1;
    /* A full eventfd counter is a pending wake-up all the same. */
    ssize_t ignored = write(field->wake_fd, &one, sizeof one);
    (void)ignored;
}

static void post(struct field *field, struct letter *letter)
{
    pthread_mutex_lock(&field->lock);
    letter->next = NULL;
    *field->last = letter;
    field->last = &letter->next;
    pthread_mutex_unlock(&field->lock);
    wake(field);
}

static int post_and_wait(struct field *field, struct letter *letter)
{
    letter->waited = true;
    post(field, letter);
    pthread_mutex_lock(&field->lock);
    while (!letter->answered) {
        pthread_cond_wait(&field->answered, &field->lock);
    }
    pthread_mutex_unlock(&field->lock);
    return letter->result;
}

static void on_wake(evutil_socket_t fd, short what, void *arg)
{
    struct field *field = arg;
    (void)what;
    uint64_t count;
    ssize_t ignored = read(fd, &count, sizeof count);
    (void)ignored;
    atomic_fetch_add_explicit(&field->heartbeat, 1, memory_order_relaxed);
    pthread_mutex_lock(&field->lock);
    struct letter *letter = field->first;
    field->first = NULL;
    field->last = &field->first;
    bool stopping = field->stopping;
    pthread_mutex_unlock(&field->lock);
    while (letter != NULL) {
        struct letter *next = letter->next;
        bool waited = letter->waited;
        letter->open(field, letter);
        if (waited) {
            pthread_mutex_lock(&field->lock);
            letter->answered = true;
            pthread_cond_broadcast(&field->answered);
            pthread_mutex_unlock(&field->lock);
        }
        letter = next;
    }
    if (stopping) {
        event_base_loopbreak(field->base);
    }
}

static const struct driver *driver_of(const struct field *field, const struct device *device,
                                      void ***ret_state)
{
    for (size_t i = 0; i < drivers_count; i++) {
        if (strcmp(drivers[i]->name, device->config->driver) == 0) {
            *ret_state = &field->driver_states[i];
            return drivers[i];
        }
    }
    return NULL;
}

static int remember(struct field *field, struct device *device)
{
    if (field->device_count == field->device_capacity) {
        size_t capacity = field->device_capacity == 0 ? 16 : field->device_capacity * 2;
        struct device **devices = realloc(field->devices, capacity * sizeof *devices);
        if (devices == NULL) {
            return -ENOMEM;
        }
        field->devices = devices;
        field->device_capacity = capacity;
    }
    field->devices[field->device_count++] = device;
    return 0;
}

static size_t find(const struct field *field, const struct device *device)
{
    size_t i = 0;
    while (i < field->device_count && field->devices[i] != device) {
        i++;
    }
    return i;
}

static void open_add(struct field *field, struct letter *letter)
{
    struct device *device = letter->device;
    void **state = NULL;
    const struct driver *driver = driver_of(field, device, &state);
    if (driver == NULL) {
        letter->result = -ENOENT;
        return;
    }
    if (*state == NULL) {
        letter->result = driver->create(field->base, device->owner, state);
        if (letter->result < 0) {
            return;
        }
    }
    letter->result = remember(field, device);
    if (letter->result < 0) {
        return;
    }
    letter->result = driver->add(*state, device);
    if (letter->result < 0) {
        field->device_count--;
    }
}

static void remove_at(struct field *field, size_t i)
{
    struct device *device = field->devices[i];
    field->devices[i] = field->devices[--field->device_count];
    void **state = NULL;
    const struct driver *driver = driver_of(field, device, &state);
    driver->remove(*state, device);
}

static void open_remove(struct field *field, struct letter *letter)
{
    size_t i = find(field, letter->device);
    if (i < field->device_count) {
        remove_at(field, i);
    }
}

static void question_free(struct question *question)
{
    atomic_fetch_sub(&question->field->questions, 1);
    device_unref(question->device);
    free(question->points);
    free(question->value);
    free(question);
}

static void question_done(struct driver_request *request, int error, const char *why,
                          json_t *result)
{
    struct question *question = request->user;
    question->done(question->arg, error, why, result);
    question_free(question);
}

static void open_question(struct field *field, struct letter *letter)
{
    struct question *question = (struct question *)letter;
    if (find(field, question->device) == field->device_count) {
        question_done(&question->request, -ENOENT, "the device was removed by a reload", NULL);
        return;
    }
    void **state = NULL;
    const struct driver *driver = driver_of(field, question->device, &state);
    int r = question->value == NULL ? driver->read_now(*state, question->device, &question->request)
                                    : driver->write(*state, question->device, &question->request);
    if (r < 0) {
        question_done(&question->request, r, strerror(-r), NULL);
    }
}

static void *field_main(void *arg)
{
    struct field *field = arg;
    pthread_setname_np(pthread_self(), "field");
    event_base_dispatch(field->base);
    while (field->device_count > 0) {
        remove_at(field, field->device_count - 1);
    }
    for (size_t i = 0; i < drivers_count; i++) {
        if (field->driver_states[i] != NULL) {
            drivers[i]->destroy(field->driver_states[i]);
        }
    }
    return NULL;
}

static void field_free(struct field *field)
{
    if (field->wake_event != NULL) {
        event_free(field->wake_event);
    }
    if (field->base != NULL) {
        event_base_free(field->base);
    }
    if (field->wake_fd >= 0) {
        close(field->wake_fd);
    }
    config_unref(field->config);
    free(field->driver_states);
    free(field->devices);
    pthread_mutex_destroy(&field->lock);
    pthread_cond_destroy(&field->answered);
    free(field);
}

/* The base is used by its own thread only, so it needs no locks. Its timers may be coarse: what
 * must be on time (drivers/schedule.c) has a timer descriptor of its own. */
static struct event_base *base_create(void)
{
    struct event_config *wish = event_config_new();
    if (wish == NULL) {
        return NULL;
    }
    event_config_set_flag(wish, EVENT_BASE_FLAG_NOLOCK);
    struct event_base *base = event_base_new_with_config(wish);
    event_config_free(wish);
    return base;
}

int field_start(const struct config *config, struct field **ret_field)
{
    struct field *field = calloc(1, sizeof *field);
    if (field == NULL) {
        return -ENOMEM;
    }
    pthread_mutex_init(&field->lock, NULL);
    pthread_cond_init(&field->answered, NULL);
    field->last = &field->first;
    field->config = config_ref(config);
    field->driver_states = calloc(drivers_count + 1, sizeof *field->driver_states);
    field->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    field->base = base_create();
    if (field->driver_states == NULL || field->wake_fd < 0 || field->base == NULL) {
        field_free(field);
        return -ENOMEM;
    }
    field->wake_event = event_new(field->base, field->wake_fd, EV_READ | EV_PERSIST, on_wake,
                                  field);
    if (field->wake_event == NULL || event_add(field->wake_event, NULL) < 0) {
        field_free(field);
        return -ENOMEM;
    }
    int r = -pthread_create(&field->thread, NULL, field_main, field);
    if (r < 0) {
        field_free(field);
        return r;
    }
    *ret_field = field;
    return 0;
}

void field_stop(struct field *field)
{
    if (field == NULL) {
        return;
    }
    pthread_mutex_lock(&field->lock);
    field->stopping = true;
    pthread_mutex_unlock(&field->lock);
    wake(field);
    pthread_join(field->thread, NULL);
    field_free(field);
}

int field_add(struct field *field, struct device *device)
{
    struct letter letter = {.open = open_add, .device = device};
    return post_and_wait(field, &letter);
}

void field_remove(struct field *field, struct device *device)
{
    struct letter letter = {.open = open_remove, .device = device};
    /* Always succeeds: a device that is not there is removed already. */
    (void)post_and_wait(field, &letter);
}

static int question_copy(struct question *question, const size_t *points, size_t count,
                         const char *value)
{
    if (points != NULL) {
        question->points = malloc((count + 1) * sizeof *points);
        if (question->points == NULL) {
            return -ENOMEM;
        }
        memcpy(question->points, points, count * sizeof *points);
    }
    if (value != NULL) {
        question->value = strdup(value);
        if (question->value == NULL) {
            return -ENOMEM;
        }
    }
    return 0;
}

int field_ask(struct field *field, struct device *device, const size_t *points, size_t count,
              const char *value, int64_t deadline_ms,
              void (*done)(void *arg, int error, const char *why, json_t *result), void *arg)
{
    void **state = NULL;
    const struct driver *driver = driver_of(field, device, &state);
    if (driver == NULL || (value == NULL ? driver->read_now == NULL : driver->write == NULL)) {
        return -ENOSYS;
    }
    struct question *question = calloc(1, sizeof *question);
    if (question == NULL) {
        return -ENOMEM;
    }
    question->field = field;
    question->device = device_ref(device);
    unsigned before = atomic_fetch_add(&field->questions, 1);
    int r = before >= FIELD_REQUESTS_MAX ? -EBUSY : question_copy(question, points, count, value);
    if (r < 0) {
        question_free(question);
        return r;
    }
    question->done = done;
    question->arg = arg;
    question->letter.open = open_question;
    question->request = (struct driver_request){.deadline_ms = deadline_ms,
                                                .points = question->points,
                                                .point_count = count,
                                                .value = question->value,
                                                .done = question_done,
                                                .user = question};
    post(field, &question->letter);
    return 0;
}

uint64_t field_heartbeat(struct field *field)
{
    wake(field);
    return atomic_load_explicit(&field->heartbeat, memory_order_relaxed);
}
