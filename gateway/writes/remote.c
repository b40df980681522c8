#include "gateway/writes/remote.h"

#include "gateway/writes/write_answer.h"

#include <errno.h>
#include <fnmatch.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

struct order {
    struct remote *remote;
    struct order *next; /* among the answered */
    struct remote_answer answer;
};

/* Held by its owner and by each order that is under way: the last one frees it. */
struct remote {
    _Atomic int references;
    struct remote_host host;
    struct remote_rights rights;
    size_t open; /* not yet taken by the owner; owner's thread */
    int fd;
    pthread_mutex_t lock; /* over what follows, short */
    struct order *first, **last;
    bool closed;
};

static void remote_unref(struct remote *remote)
{
    if (atomic_fetch_sub(&remote->references, 1) == 1) {
        cleanup_close(&remote->fd);
        pthread_mutex_destroy(&remote->lock);
        free(remote);
    }
}

int remote_create(const struct remote_host *host, const struct remote_rights *rights,
                  struct remote **ret_remote)
{
    struct remote *remote = calloc(1, sizeof *remote);
    if (remote == NULL) {
        return -ENOMEM;
    }
    remote->references = 1;
    remote->host = *host;
    remote->rights = *rights;
    remote->last = &remote->first;
    pthread_mutex_init(&remote->lock, NULL);
    remote->fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (remote->fd < 0) {
        int r = -errno;
        remote_unref(remote);
        return r;
    }
    *ret_remote = remote;
    return 0;
}

static void order_free(struct order *order)
{
    struct remote *remote = order->remote;
    free(order);
    remote_unref(remote);
}

void remote_close(struct remote *remote)
{
    if (remote == NULL) {
        return;
    }
    pthread_mutex_lock(&remote->lock);
    struct order *order = remote->first;
    remote->first = NULL;
    remote->last = &remote->first;
    remote->closed = true;
    pthread_mutex_unlock(&remote->lock);
    while (order != NULL) {
        struct order *next = order->next;
        order_free(order);
        order = next;
    }
    remote_unref(remote);
}

/* [any thread] */
static void on_done(void *arg, int status, struct buffer *body)
{
    struct order *order = arg;
    struct remote *remote = order->remote;
    const char *text = buffer_text(body);
    order->answer.status = status;
    snprintf(order->answer.body, sizeof order->answer.body, "%s", text != NULL ? text : "{}");
    pthread_mutex_lock(&remote->lock);
    bool closed = remote->closed;
    if (!closed) {
        *remote->last = order;
        remote->last = &order->next;
        uint64_t one = 1;
        ssize_t ignored = write(remote->fd, &one, sizeof one);
        (void)ignored; /* at its bound it is readable as well */
    }
    pthread_mutex_unlock(&remote->lock);
    if (closed) {
        order_free(order);
    }
}

static void refuse(struct order *order, const struct write_command *command, int status,
                   const char *code, const char *message)
{
    auto_buffer struct buffer body = {0};
    auto_free struct write_record *record = calloc(1, sizeof *record);
    if (record != NULL) {
        snprintf(record->id, sizeof record->id, "%s", command->id != NULL ? command->id : "");
        write_answer_refuse(record, status, code, message);
        buffer_add_text(&body, record->body);
    }
    on_done(order, status, &body);
}

bool remote_may(const struct remote_rights *rights, const char *device, const char *point)
{
    char name[2 * WRITE_NAME_MAX + 2];
    snprintf(name, sizeof name, "%.*s.%.*s", WRITE_NAME_MAX, device, WRITE_NAME_MAX, point);
    for (size_t i = 0; i < rights->points->count; i++) {
        if (fnmatch(rights->points->items[i], name, 0) == 0) {
            return true;
        }
    }
    return false;
}

int remote_order(struct remote *remote, const struct write_command *command, uint64_t tag)
{
    if (remote->open >= REMOTE_OPEN_MAX) {
        return -EBUSY;
    }
    struct order *order = calloc(1, sizeof *order);
    if (order == NULL) {
        return -ENOMEM;
    }
    atomic_fetch_add(&remote->references, 1);
    remote->open++;
    order->remote = remote;
    order->answer.tag = tag;
    const struct remote_rights *rights = &remote->rights;
    int64_t ahead_ms = command->expires_ms - remote->host.now_ms(remote->host.user);
    if (!rights->allowed) {
        refuse(order, command, 403, "off", "this uplink may change nothing: its `writes` is off");
    } else if (!remote_may(rights, command->device, command->point)) {
        refuse(order, command, 403, "not_allowed",
               "this uplink may not write that point: it is not among its `write_points`");
    } else if (command->id == NULL || command->expires_ms <= 0) {
        refuse(order, command, 422, "incomplete", "a command from afar needs id and expires");
    } else if (ahead_ms > rights->horizon_ms) {
        refuse(order, command, 422, "too_far",
               "expires lies further ahead than `write_expiry` allows");
    } else {
        struct write_command marked = *command;
        marked.afar = true;
        remote->host.write(remote->host.user, &marked, on_done, order);
    }
    return 0;
}

int remote_fd(const struct remote *remote)
{
    return remote->fd;
}

bool remote_next(struct remote *remote, struct remote_answer *ret_answer)
{
    uint64_t count;
    pthread_mutex_lock(&remote->lock);
    struct order *order = remote->first;
    if (order != NULL) {
        remote->first = order->next;
        if (remote->first == NULL) {
            remote->last = &remote->first;
        }
    }
    if (remote->first == NULL) {
        ssize_t ignored = read(remote->fd, &count, sizeof count);
        (void)ignored;
    }
    pthread_mutex_unlock(&remote->lock);
    if (order == NULL) {
        return false;
    }
    remote->open--;
    *ret_answer = order->answer;
    order_free(order);
    return true;
}
