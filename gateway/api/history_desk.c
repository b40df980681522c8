#include "gateway/api/history.h"
#include "gateway/api/reply.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>

struct history_desk {
    struct store *store;
    pthread_t thread;
    _Atomic bool stop;
    pthread_mutex_t lock; /* over what follows */
    pthread_cond_t wake;
    struct history_job {
        struct history_query query;
        struct ticket *ticket;
        void (*work)(void *arg, struct ticket *ticket); /* NULL: the query */
        void (*drop)(void *arg);
        void *arg;
    } jobs[HISTORY_JOBS_MAX]; /* a ring */
    size_t first, count;
};

static void answer(struct history_desk *desk, const struct history_job *job)
{
    if (job->work != NULL) {
        job->work(job->arg, job->ticket);
        job->drop(job->arg);
        return;
    }
    auto_buffer struct buffer body = {0};
    const char *why = "";
    int r = history_write(desk->store, &job->query, &desk->stop, &body, &why);
    if (r == 0) {
        ticket_answer(job->ticket, 200, NULL, &body);
        return;
    }
    buffer_clear(&body);
    reply_write_error(&body,
                      r == -ENOENT   ? "no_such_point"
                      : r == -EINVAL ? "bad_query"
                                     : "store",
                      why);
    ticket_answer(job->ticket, r == -ENOENT ? 404 : r == -EINVAL ? 400 : 500, NULL, &body);
}

/* Waits for a job; false: stop. */
static bool take(struct history_desk *desk, struct history_job *ret_job)
{
    pthread_mutex_lock(&desk->lock);
    while (desk->count == 0 && !desk->stop) {
        pthread_cond_wait(&desk->wake, &desk->lock);
    }
    bool taken = !desk->stop;
    if (taken) {
        *ret_job = desk->jobs[desk->first];
        desk->first = (desk->first + 1) % HISTORY_JOBS_MAX;
        desk->count--;
    }
    pthread_mutex_unlock(&desk->lock);
    return taken;
}

static void *run(void *user)
{
    struct history_desk *desk = user;
    struct history_job job;
    while (take(desk, &job)) {
        answer(desk, &job);
    }
    return NULL;
}

int history_desk_start(struct store *store, struct history_desk **ret_desk)
{
    struct history_desk *desk = calloc(1, sizeof *desk);
    if (desk == NULL) {
        return -ENOMEM;
    }
    desk->store = store;
    pthread_mutex_init(&desk->lock, NULL);
    pthread_cond_init(&desk->wake, NULL);
    int r = pthread_create(&desk->thread, NULL, run, desk);
    if (r != 0) {
        pthread_cond_destroy(&desk->wake);
        pthread_mutex_destroy(&desk->lock);
        free(desk);
        return -r;
    }
    *ret_desk = desk;
    return 0;
}

/* A ticket nobody worked on must still be answered once, or its memory stays. */
static void refuse_waiting(struct history_desk *desk)
{
    for (; desk->count > 0; desk->count--) {
        auto_buffer struct buffer body = {0};
        reply_write_error(&body, "stopping", "the gateway is stopping");
        const struct history_job *job = &desk->jobs[desk->first];
        ticket_answer(job->ticket, 503, NULL, &body);
        if (job->drop != NULL) {
            job->drop(job->arg);
        }
        desk->first = (desk->first + 1) % HISTORY_JOBS_MAX;
    }
}

void history_desk_stop(struct history_desk *desk)
{
    if (desk == NULL) {
        return;
    }
    pthread_mutex_lock(&desk->lock);
    desk->stop = true;
    pthread_cond_signal(&desk->wake);
    pthread_mutex_unlock(&desk->lock);
    pthread_join(desk->thread, NULL);
    refuse_waiting(desk);
    pthread_cond_destroy(&desk->wake);
    pthread_mutex_destroy(&desk->lock);
    free(desk);
}

static int put(struct history_desk *desk, const struct history_job *job)
{
    int r = -EBUSY;
    pthread_mutex_lock(&desk->lock);
    if (desk->count < HISTORY_JOBS_MAX) {
        desk->jobs[(desk->first + desk->count) % HISTORY_JOBS_MAX] = *job;
        desk->count++;
        pthread_cond_signal(&desk->wake);
        r = 0;
    }
    pthread_mutex_unlock(&desk->lock);
    return r;
}

int history_desk_ask(struct history_desk *desk, const struct history_query *query,
                     struct ticket *ticket)
{
    return put(desk, &(struct history_job){.query = *query, .ticket = ticket});
}

int history_desk_do(struct history_desk *desk, void (*work)(void *arg, struct ticket *ticket),
                    void (*drop)(void *arg), void *arg, struct ticket *ticket)
{
    return put(desk,
               &(struct history_job){.ticket = ticket, .work = work, .drop = drop, .arg = arg});
}
