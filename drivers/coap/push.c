#include "drivers/coap/push.h"

#include "gateway/base/clock.h"

#include <errno.h>
#include <event2/event.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/queue.h>

/* Shared by the field thread and the pipeline's; freed by the last that holds it. */
struct mailbox {
    pthread_mutex_t lock;
    struct push *first; /* that are durable, or failed */
    int fd;
    bool closed;
    _Atomic int references;
};

struct push {
    struct push *next; /* in the mailbox */
    struct mailbox *mailbox;
    _Atomic int scans; /* not settled yet, and one for the field thread while it submits */
    _Atomic int error;
    /* The field thread's own: */
    LIST_ENTRY(push) entry;
    coap_session_t *session;
    uint8_t token[8];
    size_t token_len;
    bool confirmable;
    int block1; /* the option's value, to be repeated (RFC 7959 section 2.3); -1: none */
    uint64_t key;
};

struct push_desk {
    struct coap_loop *loop;
    struct recent *recent;
    struct mailbox *mailbox;
    struct event *event;
    LIST_HEAD(push_list, push) pushes;
    size_t count;
};

static void mailbox_release(struct mailbox *mailbox)
{
    if (atomic_fetch_sub_explicit(&mailbox->references, 1, memory_order_acq_rel) == 1) {
        close(mailbox->fd);
        pthread_mutex_destroy(&mailbox->lock);
        free(mailbox);
    }
}

static void push_free(struct push *push)
{
    mailbox_release(push->mailbox);
    free(push);
}

/* Any thread: one part of the push is settled; after the last it goes to the mailbox. */
static void settle(struct push *push, int error)
{
    if (error != 0) {
        atomic_store_explicit(&push->error, error, memory_order_relaxed);
    }
    if (atomic_fetch_sub_explicit(&push->scans, 1, memory_order_acq_rel) != 1) {
        return;
    }
    struct mailbox *mailbox = push->mailbox;
    pthread_mutex_lock(&mailbox->lock);
    bool closed = mailbox->closed;
    if (!closed) {
        push->next = mailbox->first;
        mailbox->first = push;
        uint64_t one = 1;
        /* A full counter is a pending wake-up all the same. */
        ssize_t ignored = write(mailbox->fd, &one, sizeof(one));
        (void)ignored;
    }
    pthread_mutex_unlock(&mailbox->lock);
    if (closed) {
        push_free(push);
    }
}

static void on_durable(void *user, int error)
{
    settle(user, error);
}

static void add_number(coap_pdu_t *pdu, uint16_t option, unsigned number)
{
    uint8_t bytes[4];
    unsigned len = coap_encode_var_safe(bytes, sizeof(bytes), number);
    coap_add_option(pdu, option, len, bytes);
}

void push_busy(coap_pdu_t *response)
{
    coap_pdu_set_code(response, COAP_RESPONSE_CODE_SERVICE_UNAVAILABLE);
    add_number(response, COAP_OPTION_MAXAGE, PUSH_RETRY_S);
}

/* The separate response (RFC 7252 section 5.2.2). */
static void answer(struct push_desk *desk, struct push *push)
{
    int error = atomic_load_explicit(&push->error, memory_order_relaxed);
    coap_session_t *session = push->session;
    recent_settle(desk->recent, push->key, error == 0);
    coap_pdu_t *pdu = coap_pdu_init(
        push->confirmable ? COAP_MESSAGE_CON : COAP_MESSAGE_NON,
        error == 0 ? COAP_RESPONSE_CODE_CHANGED : COAP_RESPONSE_CODE_SERVICE_UNAVAILABLE,
        coap_new_message_id(session), coap_session_max_pdu_size(session));
    if (pdu != NULL) {
        coap_add_token(pdu, push->token_len, push->token);
        if (error != 0) {
            add_number(pdu, COAP_OPTION_MAXAGE, PUSH_RETRY_S);
        }
        if (push->block1 >= 0) {
            add_number(pdu, COAP_OPTION_BLOCK1, (unsigned)push->block1);
        }
        /* A sender that is gone by now asks again, and recent_find() knows it. */
        (void)coap_send(session, pdu);
    }
}

static void forget(struct push_desk *desk, struct push *push)
{
    LIST_REMOVE(push, entry);
    desk->count--;
    coap_session_release(push->session);
    push->session = NULL;
}

static void on_mail(evutil_socket_t fd, short what, void *user)
{
    struct push_desk *desk = user;
    struct mailbox *mailbox = desk->mailbox;
    uint64_t ignored;
    ssize_t got = read(fd, &ignored, sizeof(ignored));
    (void)got;
    (void)what;
    pthread_mutex_lock(&mailbox->lock);
    struct push *push = mailbox->first;
    mailbox->first = NULL;
    pthread_mutex_unlock(&mailbox->lock);
    while (push != NULL) {
        struct push *next = push->next;
        answer(desk, push);
        forget(desk, push);
        push_free(push);
        push = next;
    }
    coap_loop_kick(desk->loop);
}

static int mailbox_create(struct mailbox **ret_mailbox)
{
    struct mailbox *mailbox = calloc(1, sizeof(*mailbox));
    if (mailbox == NULL) {
        return -ENOMEM;
    }
    mailbox->fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (mailbox->fd < 0) {
        int r = -errno;
        free(mailbox);
        return r;
    }
    pthread_mutex_init(&mailbox->lock, NULL);
    atomic_init(&mailbox->references, 1);
    *ret_mailbox = mailbox;
    return 0;
}

int push_desk_create(struct event_base *base, struct coap_loop *loop, struct recent *recent,
                     struct push_desk **ret_desk)
{
    struct push_desk *desk = calloc(1, sizeof(*desk));
    if (desk == NULL) {
        return -ENOMEM;
    }
    desk->loop = loop;
    desk->recent = recent;
    LIST_INIT(&desk->pushes);
    struct mailbox *mailbox = NULL;
    int r = mailbox_create(&mailbox);
    if (r != 0 || mailbox == NULL) {
        free(desk);
        return r;
    }
    desk->mailbox = mailbox;
    desk->event = event_new(base, mailbox->fd, EV_READ | EV_PERSIST, on_mail, desk);
    if (desk->event == NULL || event_add(desk->event, NULL) < 0) {
        push_desk_destroy(desk);
        return -ENOMEM;
    }
    *ret_desk = desk;
    return 0;
}

/* Answered pushes are freed here, those that the pipeline still has are freed by it. */
void push_desk_destroy(struct push_desk *desk)
{
    if (desk == NULL) {
        return;
    }
    if (desk->event != NULL) {
        event_free(desk->event);
    }
    while (!LIST_EMPTY(&desk->pushes)) {
        forget(desk, LIST_FIRST(&desk->pushes));
    }
    if (desk->mailbox != NULL) {
        pthread_mutex_lock(&desk->mailbox->lock);
        desk->mailbox->closed = true;
        struct push *push = desk->mailbox->first;
        desk->mailbox->first = NULL;
        pthread_mutex_unlock(&desk->mailbox->lock);
        while (push != NULL) {
            struct push *next = push->next;
            push_free(push);
            push = next;
        }
        mailbox_release(desk->mailbox);
    }
    free(desk);
}

struct submission {
    struct push *push;
    struct device *device;
    size_t submitted;
};

static int submit_scan(void *user, struct scan *scan)
{
    struct submission *submission = user;
    struct push *push = submission->push;
    atomic_fetch_add_explicit(&push->scans, 1, memory_order_relaxed);
    int r = scan_submit_pushed(submission->device, scan, on_durable, push);
    if (r != 0) {
        atomic_fetch_sub_explicit(&push->scans, 1, memory_order_relaxed);
        return r;
    }
    submission->submitted++;
    return 0;
}

static struct push *push_create(struct push_desk *desk, coap_session_t *session,
                                const coap_pdu_t *request, uint64_t key)
{
    struct push *push = calloc(1, sizeof(*push));
    if (push == NULL) {
        return NULL;
    }
    coap_bin_const_t token = coap_pdu_get_token(request);
    push->mailbox = desk->mailbox;
    atomic_fetch_add_explicit(&push->mailbox->references, 1, memory_order_relaxed);
    atomic_init(&push->scans, 1);
    atomic_init(&push->error, 0);
    push->session = coap_session_reference(session);
    push->token_len = token.length < sizeof(push->token) ? token.length : sizeof(push->token);
    if (push->token_len > 0) {
        memcpy(push->token, token.s, push->token_len);
    }
    push->confirmable = coap_pdu_get_type(request) == COAP_MESSAGE_CON;
    coap_block_t block;
    bool in_blocks = coap_get_block(request, COAP_OPTION_BLOCK1, &block) != 0;
    push->block1 = in_blocks ? (int)(block.num << 4 | block.szx) : -1;
    push->key = key;
    LIST_INSERT_HEAD(&desk->pushes, push, entry);
    desk->count++;
    return push;
}

int push_begin(struct push_desk *desk, struct device *device, struct harvest *harvest,
               coap_session_t *session, const coap_pdu_t *request, uint64_t key)
{
    size_t scans = harvest_scans(harvest);
    if (scans > PUSH_SCANS_MAX) {
        return -EMSGSIZE;
    }
    /* Asked before anything is taken: half a post must not be stored and then refused. */
    if (desk->count >= PUSHES_MAX || !scan_has_room(device, harvest_count(harvest))) {
        return -ENOBUFS;
    }
    struct push *push = push_create(desk, session, request, key);
    if (push == NULL) {
        return -ENOBUFS;
    }
    uint64_t seq = atomic_load_explicit(&device->seq[STREAM_RAW], memory_order_relaxed);
    recent_begin(desk->recent, key, device->config->name, seq + scans, clock_boot_ms());
    struct submission submission = {.push = push, .device = device};
    int r = harvest_each(harvest, clock_wall_ms(), submit_scan, &submission);
    if (r != 0 && submission.submitted == 0) {
        recent_settle(desk->recent, key, false);
        forget(desk, push);
        push_free(push);
        return -ENOBUFS;
    }
    settle(push, r);
    return 0;
}

size_t push_waiting(const struct push_desk *desk)
{
    return desk->count;
}
