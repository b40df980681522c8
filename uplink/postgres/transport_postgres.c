#include "gateway/base/clock.h"
#include "uplink/postgres/postgres.h"
#include "uplink/transport/errand.h"
#include "uplink/transport/trust.h"

#include <errno.h>
#include <limits.h>
#include <poll.h>

struct postgres_transport {
    struct trust *trust;
    uint64_t bytes_sent;
    struct pollfd *fds; /* one a session, and the wake-up */
    size_t count;
    struct postgres_session sessions[];
};

static void destroy(void *state)
{
    struct postgres_transport *t = state;
    if (t == NULL) {
        return;
    }
    for (size_t i = 0; i < t->count; i++) {
        errand_drop(t->sessions[i].lookup);
        postgres_session_close(&t->sessions[i]);
        buffer_finish(&t->sessions[i].sql);
    }
    trust_destroy(t->trust);
    free(t->fds);
    free(t);
}

static int create(const void *settings, const char *gateway, size_t parallel, void **ret_state)
{
    (void)gateway; /* every row names it */
    struct postgres_transport *t = calloc(1, sizeof *t + parallel * sizeof t->sessions[0]);
    if (t == NULL) {
        return -ENOMEM;
    }
    t->fds = calloc(parallel + 1, sizeof *t->fds);
    int r = t->fds == NULL ? -ENOMEM
                           : trust_create(&((const struct postgres_settings *)settings)->line,
                                          "password_file", &t->trust);
    if (r < 0) {
        destroy(t);
        return r;
    }
    t->count = parallel;
    for (size_t i = 0; i < parallel; i++) {
        t->sessions[i].settings = settings;
        t->sessions[i].trust = t->trust;
        t->sessions[i].deadline_ms = INT64_MAX;
    }
    *ret_state = t;
    return 0;
}

/* One that is connected goes first: few sessions where few are needed. */
static struct postgres_session *free_session(struct postgres_transport *t)
{
    struct postgres_session *found = NULL;
    for (size_t i = 0; i < t->count; i++) {
        struct postgres_session *s = &t->sessions[i];
        if (s->request == NULL && (found == NULL || found->connection == NULL)) {
            found = s;
        }
    }
    return found;
}

static int send_request(void *state, const struct uplink_request *request,
                        void (*done)(void *user, const struct uplink_reply *reply), void *user)
{
    struct postgres_session *s = free_session(state);
    if (s == NULL) {
        return -EBUSY;
    }
    s->request = request;
    s->done = done;
    s->user = user;
    return 0;
}

static void answer(struct postgres_transport *t, struct postgres_session *s, int status)
{
    struct uplink_reply reply = {.status = status,
                                 .code = status == 400 ? s->code : NULL,
                                 .body = "",
                                 .content_type = "",
                                 .retry_after_ms = -1,
                                 .error = s->words};
    t->bytes_sent += s->sent;
    s->sent = 0;
    s->request = NULL;
    s->done(s->user, &reply);
}

/* Steps all of them; the number of requests that ended. */
static size_t step_all(struct postgres_transport *t)
{
    size_t ended = 0;
    trust_look(t->trust, clock_mono_ms());
    for (size_t i = 0; i < t->count; i++) {
        int status = 0;
        if (postgres_session_step(&t->sessions[i], clock_mono_ms(), &status) > 0) {
            answer(t, &t->sessions[i], status);
            ended++;
        }
    }
    return ended;
}

static int64_t gather(struct postgres_transport *t, int64_t until_ms)
{
    for (size_t i = 0; i < t->count; i++) {
        const struct postgres_session *s = &t->sessions[i];
        t->fds[i] = (struct pollfd){.fd = postgres_session_fd(s), .events = s->events};
        until_ms = s->deadline_ms < until_ms ? s->deadline_ms : until_ms;
    }
    return until_ms;
}

static int run(void *state, int wake_fd, int64_t timeout_ms)
{
    struct postgres_transport *t = state;
    int64_t deadline_ms = timeout_ms < 0 ? INT64_MAX : clock_mono_ms() + timeout_ms;
    for (;;) {
        if (step_all(t) > 0) {
            return 0;
        }
        int64_t until_ms = gather(t, deadline_ms), now_ms = clock_mono_ms();
        int64_t left_ms = until_ms > now_ms ? until_ms - now_ms : 0;
        t->fds[t->count] = (struct pollfd){.fd = wake_fd, .events = POLLIN};
        int n = poll(t->fds, t->count + 1, left_ms > INT_MAX ? INT_MAX : (int)left_ms);
        if (n < 0 && errno != EINTR) {
            return -errno;
        }
        for (size_t i = 0; i < t->count; i++) {
            t->sessions[i].ready = n > 0 && t->fds[i].revents != 0;
        }
        if ((n > 0 && t->fds[t->count].revents != 0) || clock_mono_ms() >= deadline_ms) {
            return 0;
        }
    }
}

static uint64_t bytes_sent(const void *state)
{
    return ((const struct postgres_transport *)state)->bytes_sent;
}

static void warning(const void *state, char *words, size_t size)
{
    char text[TRUST_WORDS_MAX];
    trust_warning(((const struct postgres_transport *)state)->trust, clock_wall_ms(), text);
    snprintf(words, size, "%s", text);
}

const struct transport transport_postgres = {
    .name = "postgres",
    .create = create,
    .destroy = destroy,
    .send = send_request,
    .run = run,
    .bytes_sent = bytes_sent,
    .warning = warning,
};
