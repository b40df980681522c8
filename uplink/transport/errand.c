#include "uplink/transport/errand.h"

#include "gateway/base/clock.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <sys/eventfd.h>

enum { STACK_BYTES = 256 * 1024 }; /* getaddrinfo() with its modules */

struct errand {
    void (*run)(void *arg);
    void (*release)(void *arg);
    void *arg;
    int fd;
    _Atomic bool done;
    _Atomic unsigned holders;
};

void errand_drop(struct errand *e)
{
    if (e != NULL && atomic_fetch_sub(&e->holders, 1) == 1) {
        e->release(e->arg);
        close(e->fd);
        free(e);
    }
}

static void *go(void *user)
{
    struct errand *e = user;
    e->run(e->arg);
    atomic_store(&e->done, true);
    uint64_t one = 1;
    ssize_t written = write(e->fd, &one, sizeof one);
    (void)written; /* it was 0 before */
    errand_drop(e);
    return NULL;
}

static int start_thread(struct errand *e)
{
    pthread_attr_t attributes;
    pthread_t thread;
    sigset_t all, before;
    sigfillset(&all);
    int r = pthread_attr_init(&attributes);
    if (r != 0) {
        return -r;
    }
    pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    pthread_attr_setstacksize(&attributes, STACK_BYTES);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    r = pthread_create(&thread, &attributes, go, e);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pthread_attr_destroy(&attributes);
    return -r;
}

int errand_start(void (*run)(void *arg), void (*release)(void *arg), void *arg,
                 struct errand **ret_errand)
{
    struct errand *e = calloc(1, sizeof *e);
    if (e == NULL) {
        return -ENOMEM;
    }
    *e = (struct errand){.run = run, .release = release, .arg = arg, .holders = 2};
    e->fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    int r = e->fd < 0 ? -errno : start_thread(e);
    if (r < 0) {
        cleanup_close(&e->fd);
        free(e);
        return r;
    }
    *ret_errand = e;
    return 0;
}

bool errand_done(const struct errand *e)
{
    return atomic_load(&e->done);
}

int errand_fd(const struct errand *e)
{
    return e->fd;
}

void *errand_arg(const struct errand *e)
{
    return e->arg;
}

struct errand **errands_left_room(struct errands_left *left)
{
    struct errand **found = NULL;
    for (size_t i = 0; i < ERRANDS_LEFT_MAX; i++) {
        struct errand **e = &left->list[i];
        if (*e != NULL && errand_done(*e)) {
            errand_drop(take_ptr(*e));
        }
        found = *e == NULL ? e : found;
    }
    return found;
}

void errands_left_end(struct errands_left *left, int64_t wait_ms)
{
    int64_t until_ms = clock_mono_ms() + wait_ms;
    for (size_t i = 0; i < ERRANDS_LEFT_MAX; i++) {
        int64_t left_ms = until_ms - clock_mono_ms();
        if (left->list[i] != NULL && left_ms > 0) {
            struct pollfd end = {.fd = errand_fd(left->list[i]), .events = POLLIN};
            poll(&end, 1, (int)left_ms);
        }
        errand_drop(take_ptr(left->list[i]));
    }
}
