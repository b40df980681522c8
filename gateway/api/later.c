#include "gateway/api/later.h"

#include "gateway/api/reply.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/eventfd.h>

struct ticket {
    struct later *later;
    struct evhttp_request *request; /* api thread only; NULL: the client went away */
    struct ticket *next_open, *next_answered;
    int status;
    json_t *json;
    struct buffer body;
};

/* Held by the api and by each open ticket: the last one frees it. */
struct later {
    _Atomic int references;
    struct event *wake;
    int fd;
    struct ticket *open; /* api thread only */
    size_t open_count;
    pthread_mutex_t lock; /* over what follows */
    struct ticket *answered;
    bool closed;
};

static void later_unref(struct later *later)
{
    if (atomic_fetch_sub(&later->references, 1) == 1) {
        close(later->fd);
        pthread_mutex_destroy(&later->lock);
        free(later);
    }
}

static void ticket_free(struct ticket *ticket)
{
    json_decref(ticket->json);
    buffer_finish(&ticket->body);
    later_unref(ticket->later);
    free(ticket);
}

static void forget_open(struct ticket *ticket)
{
    struct ticket **at = &ticket->later->open;
    while (*at != ticket) {
        at = &(*at)->next_open;
    }
    *at = ticket->next_open;
    ticket->later->open_count--;
}

/* The connection ends. When evhttp has already parted it from the request, the request is ours to
 * free; otherwise evhttp frees both. */
static void on_gone(struct evhttp_connection *connection, void *user)
{
    (void)connection;
    struct ticket *ticket = user;
    struct evhttp_request *request = ticket->request;
    ticket->request = NULL;
    if (request != NULL && evhttp_request_get_connection(request) == NULL) {
        evhttp_request_free(request);
    }
}

static struct evhttp_request *take_request(struct ticket *ticket)
{
    struct evhttp_request *request = ticket->request;
    ticket->request = NULL;
    if (request != NULL) {
        evhttp_connection_set_closecb(evhttp_request_get_connection(request), NULL, NULL);
    }
    return request;
}

static void send_answer(struct ticket *ticket)
{
    struct evhttp_request *request = take_request(ticket);
    if (request == NULL) {
        return;
    }
    if (ticket->json != NULL) {
        char *text = json_dumps(ticket->json, JSON_COMPACT);
        buffer_clear(&ticket->body);
        if (text != NULL) {
            buffer_add_text(&ticket->body, text);
        } else {
            ticket->body.failed = true;
        }
        free(text);
    }
    reply_send(request, ticket->status, REPLY_JSON, &ticket->body);
}

static void on_wake(evutil_socket_t fd, short what, void *user)
{
    (void)what;
    struct later *later = user;
    uint64_t count;
    ssize_t ignored = read(fd, &count, sizeof count);
    (void)ignored;
    pthread_mutex_lock(&later->lock);
    struct ticket *list = later->answered;
    later->answered = NULL;
    pthread_mutex_unlock(&later->lock);
    while (list != NULL) {
        struct ticket *ticket = list;
        list = ticket->next_answered;
        forget_open(ticket);
        send_answer(ticket);
        ticket_free(ticket);
    }
}

int later_create(struct event_base *base, struct later **ret_later)
{
    struct later *later = calloc(1, sizeof *later);
    if (later == NULL) {
        return -ENOMEM;
    }
    atomic_init(&later->references, 1);
    pthread_mutex_init(&later->lock, NULL);
    later->fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    later->wake = later->fd < 0 ? NULL
                                : event_new(base, later->fd, EV_READ | EV_PERSIST, on_wake, later);
    if (later->wake == NULL || event_add(later->wake, NULL) < 0) {
        int r = later->fd < 0 ? -errno : -ENOMEM;
        if (later->wake != NULL) {
            event_free(later->wake);
        }
        later_unref(later);
        return r;
    }
    *ret_later = later;
    return 0;
}

void later_destroy(struct later *later)
{
    if (later == NULL) {
        return;
    }
    event_free(later->wake);
    pthread_mutex_lock(&later->lock);
    later->closed = true;
    struct ticket *answered = later->answered;
    later->answered = NULL;
    pthread_mutex_unlock(&later->lock);
    for (struct ticket *ticket = later->open; ticket != NULL; ticket = ticket->next_open) {
        struct evhttp_request *request = take_request(ticket);
        if (request != NULL) {
            reply_error(request, 503, "stopping", "the gateway is stopping");
        }
    }
    while (answered != NULL) {
        struct ticket *ticket = answered;
        answered = ticket->next_answered;
        ticket_free(ticket);
    }
    later_unref(later);
}

int ticket_open(struct later *later, struct evhttp_request *request, struct ticket **ret_ticket)
{
    if (later->open_count == LATER_TICKETS_MAX) {
        return -EBUSY;
    }
    struct ticket *ticket = calloc(1, sizeof *ticket);
    if (ticket == NULL) {
        return -ENOMEM;
    }
    atomic_fetch_add(&later->references, 1);
    *ticket = (struct ticket){.later = later, .request = request, .next_open = later->open};
    later->open = ticket;
    later->open_count++;
    evhttp_connection_set_closecb(evhttp_request_get_connection(request), on_gone, ticket);
    *ret_ticket = ticket;
    return 0;
}

void ticket_cancel(struct ticket *ticket)
{
    take_request(ticket);
    forget_open(ticket);
    ticket_free(ticket);
}

void ticket_answer(struct ticket *ticket, int status, json_t *json, struct buffer *body)
{
    struct later *later = ticket->later;
    ticket->status = status;
    ticket->json = json;
    if (body != NULL) {
        ticket->body = *body;
        *body = (struct buffer){0};
    }
    pthread_mutex_lock(&later->lock);
    bool closed = later->closed;
    if (!closed) {
        ticket->next_answered = later->answered;
        later->answered = ticket;
        uint64_t one = 1;
        ssize_t ignored = write(later->fd, &one, sizeof one);
        (void)ignored;
    }
    pthread_mutex_unlock(&later->lock);
    if (closed) {
        ticket_free(ticket);
    }
}
