#include "gateway/base/clock.h"
#include "uplink/kafka/kafka.h"
#include "uplink/transport/errand.h"
#include "uplink/transport/trust.h"

#include <errno.h>
#include <librdkafka/rdkafka.h>
#include <limits.h>
#include <poll.h>

enum { FAREWELL_MS = 2000, AFTERMATH_MS = 1000, CAREFUL_MAX = 1000000 };

static const char smaller_words[] =
    "the topic takes smaller batches than ours: messages go one by one for a while "
    "(max.message.bytes of the topic, max_message)";

static const char refused_words[] =
    "the topic refused a message; what was behind it goes again, in order";

/* A message on its way, and which records of which job it holds. */
struct sent {
    struct job *job;
    size_t first, count;
};

struct job {
    struct kafka_transport *owner;
    const struct uplink_request *request; /* NULL: the place is free */
    void (*done)(void *user, const struct uplink_reply *reply);
    void *user;
    size_t at;         /* the next message in the body */
    size_t unanswered; /* messages */
    size_t acked;      /* records */
    int code;          /* the first refusal of a message */
    bool too_large;    /* one with several records was */
    bool again;        /* one was in a batch that was too large */
    size_t published;  /* messages */
    struct sent *messages;
    size_t capacity;
    struct buffer fate; /* an int16_t a record so far published */
};

struct kafka_transport {
    const struct kafka_settings *settings;
    const char *gateway;
    struct trust *trust;
    unsigned generation;             /* of the files that the producer has read */
    struct kafka_producer *producer; /* NULL: none was needed yet, or the last one is gone */
    struct errands_left stale;       /* producers that have not quite ended */
    bool proven;                     /* this producer has delivered something */
    size_t outstanding;              /* messages that librdkafka has */
    int64_t progress_ms;             /* the last message or answer */
    uint64_t bytes_sent;             /* by producers that are gone */
    size_t careful_left;             /* messages still to go one by one */
    size_t careful_next;             /* how many the next time */
    size_t job_count;
    struct job jobs[];
};

static void bury(struct kafka_transport *t)
{
    if (t->producer == NULL) {
        return;
    }
    t->bytes_sent += kafka_producer_bytes_sent(t->producer);
    t->outstanding = 0;
    struct errand *errand = kafka_producer_bury(take_ptr(t->producer));
    struct errand **place = errands_left_room(&t->stale);
    if (place != NULL) {
        *place = errand;
    } else {
        errand_drop(errand);
    }
}

static void destroy(void *state)
{
    struct kafka_transport *t = state;
    if (t == NULL) {
        return;
    }
    bury(t);
    errands_left_end(&t->stale, FAREWELL_MS);
    for (size_t i = 0; i < t->job_count; i++) {
        buffer_finish(&t->jobs[i].fate);
        free(t->jobs[i].messages);
    }
    trust_destroy(t->trust);
    free(t);
}

static int create(const void *settings, const char *gateway, size_t parallel, void **ret_state)
{
    struct kafka_transport *t = calloc(1, sizeof *t + parallel * sizeof t->jobs[0]);
    if (t == NULL) {
        return -ENOMEM;
    }
    const struct kafka_settings *s = settings;
    t->settings = s;
    t->gateway = gateway;
    int r = trust_create(&s->line, "password_file", &t->trust);
    if (r < 0) {
        free(t);
        return r;
    }
    t->job_count = parallel;
    t->careful_next = KAFKA_CAREFUL_FIRST;
    *ret_state = t;
    return 0;
}

static int make_room(struct job *job, const struct buffer *body)
{
    struct kafka_frame frame;
    size_t messages = 0, records = 0;
    for (size_t at = 0; kafka_frame_next(body, &at, &frame); messages++) {
        records += frame.records;
    }
    if (messages > job->capacity) {
        struct sent *more = realloc(job->messages, messages * sizeof *more);
        if (more == NULL) {
            return -ENOMEM;
        }
        job->messages = more;
        job->capacity = messages;
    }
    buffer_clear(&job->fate);
    return buffer_reserve(&job->fate, (records + 1) * sizeof(int16_t)) != NULL ? 0 : -ENOMEM;
}

static int send_request(void *state, const struct uplink_request *request,
                        void (*done)(void *user, const struct uplink_reply *reply), void *user)
{
    struct kafka_transport *t = state;
    for (size_t i = 0; i < t->job_count; i++) {
        struct job *job = &t->jobs[i];
        if (job->request != NULL) {
            continue;
        }
        int r = make_room(job, &request->body);
        if (r == 0) {
            *job = (struct job){.owner = t,
                                .request = request,
                                .done = done,
                                .user = user,
                                .messages = job->messages,
                                .capacity = job->capacity,
                                .fate = job->fate};
        }
        return r;
    }
    return -EBUSY;
}

static void set_fate(struct job *job, size_t first, size_t count, int code)
{
    int16_t fate = (int16_t)code;
    for (size_t i = 0; i < count; i++) {
        memcpy(job->fate.data + (first + i) * sizeof fate, &fate, sizeof fate);
    }
}

/* Room was made for all of the request's records. */
static size_t add_fates(struct job *job, size_t count)
{
    size_t first = job->fate.len / sizeof(int16_t);
    job->fate.len += count * sizeof(int16_t);
    set_fate(job, first, count, KAFKA_UNACKNOWLEDGED);
    return first;
}

static bool all_published(const struct job *job)
{
    return job->at >= job->request->body.len;
}

/* Ends a job with what is known of its records; words say why others are not acknowledged, and a
 * code what they mean. */
static void finish(struct job *job, int code, const char *words)
{
    char number[12];
    struct kafka_frame frame;
    while (kafka_frame_next(&job->request->body, &job->at, &frame)) {
        add_fates(job, frame.records);
    }
    bool whole = words == NULL || job->acked > 0 || job->code != 0;
    const char *fate = buffer_text(&job->fate);
    whole = whole && fate != NULL && !job->too_large;
    snprintf(number, sizeof number, "%d", code);
    struct uplink_reply reply = {
        .status = job->too_large ? 413
                  : whole        ? 200
                                 : 0,
        .code = !whole && !job->too_large && code != 0 ? number : NULL,
        .body = whole ? fate : "",
        .len = whole ? job->fate.len : 0,
        .content_type = "",
        .retry_after_ms = -1,
        .error = words != NULL ? words : smaller_words,
    };
    job->request = NULL;
    job->done(job->user, &reply);
}

/* Ends the jobs that have come to their end; how many. */
static size_t finish_answered(struct kafka_transport *t)
{
    size_t ended = 0;
    for (size_t i = 0; i < t->job_count; i++) {
        struct job *job = &t->jobs[i];
        bool over = job->request != NULL && job->unanswered == 0 &&
                    (all_published(job) || job->too_large || job->again);
        if (over) {
            finish(job, 0, job->again ? smaller_words : NULL);
            ended++;
        }
    }
    return ended;
}

/* The producer is of no use any more; so is every job that is on its way. */
static size_t give_up(struct kafka_transport *t, int code, const char *words)
{
    size_t ended = 0;
    for (size_t i = 0; i < t->job_count; i++) {
        if (t->jobs[i].request != NULL) {
            finish(&t->jobs[i], code, t->jobs[i].again ? smaller_words : words);
            ended++;
        }
    }
    bury(t);
    return ended;
}

/* Messages of one producer share batches, and a batch is refused as a whole: which of them is too
 * large shows when each is a batch of its own. */
static int learn_size(struct kafka_transport *t, struct job *job, const struct sent *sent)
{
    if (!kafka_producer_single(t->producer)) {
        if (t->careful_left == 0) {
            t->careful_left = t->careful_next;
            t->careful_next = t->careful_next * 4 < CAREFUL_MAX ? t->careful_next * 4 : CAREFUL_MAX;
        }
        job->again = true;
        return KAFKA_UNACKNOWLEDGED;
    }
    job->too_large |= sent->count > 1;
    return RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE;
}

/* What says nothing about the message: it was let go with the producer or its batch. */
static bool says_nothing(int code)
{
    return code == RD_KAFKA_RESP_ERR__PURGE_QUEUE || code == RD_KAFKA_RESP_ERR__PURGE_INFLIGHT ||
           code == RD_KAFKA_RESP_ERR__FATAL || code == RD_KAFKA_RESP_ERR__GAPLESS_GUARANTEE ||
           code == RD_KAFKA_RESP_ERR__STATE;
}

static void on_answered(void *user, void *message, int code)
{
    struct kafka_transport *t = user;
    struct sent *sent = message;
    struct job *job = sent->job;
    t->outstanding--;
    job->unanswered--;
    t->progress_ms = clock_mono_ms();
    if (code == RD_KAFKA_RESP_ERR_NO_ERROR) {
        job->acked += sent->count;
        t->proven = true;
        t->careful_left -= t->careful_left > 0 && kafka_producer_single(t->producer);
    } else if (code == RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE) {
        code = learn_size(t, job, sent);
    }
    code = says_nothing(code) ? KAFKA_UNACKNOWLEDGED : code;
    set_fate(job, sent->first, sent->count, code);
    if (code != KAFKA_ACKNOWLEDGED && code != KAFKA_UNACKNOWLEDGED && job->code == 0) {
        job->code = code;
    }
}

static bool has_jobs(const struct kafka_transport *t)
{
    for (size_t i = 0; i < t->job_count; i++) {
        if (t->jobs[i].request != NULL) {
            return true;
        }
    }
    return false;
}

/* Makes a producer where one is needed; the number of jobs that end because none can be made. */
static size_t begin_when_needed(struct kafka_transport *t)
{
    static const struct kafka_producer_events events = {.answered = on_answered};
    if (t->producer != NULL || !has_jobs(t)) {
        return 0;
    }
    if (errands_left_room(&t->stale) == NULL) {
        return give_up(t, 0, "earlier attempts to connect have not ended: name server?");
    }
    char words[KAFKA_WORDS] = "no memory";
    t->proven = false;
    t->progress_ms = clock_mono_ms();
    trust_look_now(t->trust, t->progress_ms);
    t->generation = trust_generation(t->trust);
    int r = kafka_producer_create(t->settings, t->gateway, trust_token(t->trust),
                                  t->careful_left > 0, &events, t, words, &t->producer);
    if (r < 0) {
        return give_up(t, r == -EINVAL ? RD_KAFKA_RESP_ERR__INVALID_ARG : 0, words);
    }
    return 0;
}

/* False: no more fits at present. */
static bool publish_one(struct kafka_transport *t, struct job *job)
{
    struct kafka_frame frame;
    size_t at = job->at;
    int code = 0;
    if (!kafka_frame_next(&job->request->body, &at, &frame)) {
        job->at = job->request->body.len;
        return true;
    }
    struct sent *sent = &job->messages[job->published];
    *sent = (struct sent){
        .job = job, .first = job->fate.len / sizeof(int16_t), .count = frame.records};
    int r = kafka_producer_send(t->producer, t->settings, &frame, sent, &code);
    if (r == -EAGAIN) {
        return false;
    }
    add_fates(job, frame.records);
    job->at = at;
    job->published++;
    if (r < 0) { /* librdkafka itself refuses it */
        set_fate(job, sent->first, sent->count, says_nothing(code) ? KAFKA_UNACKNOWLEDGED : code);
        job->code = job->code == 0 ? code : job->code;
        return true;
    }
    job->unanswered++;
    t->outstanding++;
    t->progress_ms = clock_mono_ms();
    return true;
}

static void publish(struct kafka_transport *t)
{
    for (size_t i = 0; i < t->job_count; i++) {
        struct job *job = &t->jobs[i];
        while (job->request != NULL && !job->too_large && !job->again && !all_published(job)) {
            if (!publish_one(t, job)) {
                return;
            }
        }
    }
}

/* Whether this producer ends as soon as nothing is with it: it is of the wrong kind, or has read
 * other files than those that are there now. */
static bool to_be_changed(const struct kafka_transport *t)
{
    return kafka_producer_single(t->producer) != (t->careful_left > 0) ||
           t->generation != trust_generation(t->trust);
}

/* When the brokers' silence is too long; INT64_MAX: there is none. */
static int64_t patience_ms(const struct kafka_transport *t)
{
    if (t->producer == NULL || !has_jobs(t)) {
        return INT64_MAX;
    }
    int64_t dead_ms = kafka_producer_dead_since_ms(t->producer);
    if (dead_ms != 0) {
        return t->outstanding > 0 ? dead_ms + AFTERMATH_MS : dead_ms;
    }
    int64_t down_ms = kafka_producer_down_since_ms(t->producer);
    int64_t until_ms = t->progress_ms + t->settings->line.timeout_ms;
    if (down_ms != 0) {
        /* A broker that starts anew is waited for: the same producer repeats nothing. */
        int64_t grace_ms = t->proven ? t->settings->line.connect_timeout_ms : 0;
        /* It may have gone while there was nothing to send. */
        int64_t since_ms = down_ms > t->progress_ms ? down_ms : t->progress_ms;
        until_ms = since_ms + grace_ms < until_ms ? since_ms + grace_ms : until_ms;
    }
    return until_ms;
}

static size_t lose_patience(struct kafka_transport *t)
{
    int code;
    char words[KAFKA_WORDS];
    const char *why = kafka_producer_why(t->producer, &code);
    why = why[0] != '\0' ? why : "the brokers acknowledge nothing (timeout)";
    why = code == RD_KAFKA_RESP_ERR__GAPLESS_GUARANTEE ? refused_words : why;
    snprintf(words, sizeof words, "%s", why);
    return give_up(t, kafka_producer_dead_since_ms(t->producer) != 0 ? code : 0, words);
}

static size_t work(struct kafka_transport *t)
{
    trust_look(t->trust, clock_mono_ms());
    size_t ended = begin_when_needed(t);
    if (t->producer == NULL) {
        return ended;
    }
    kafka_producer_step(t->producer);
    int64_t peer_until_ms = kafka_producer_peer_until_ms(t->producer);
    if (peer_until_ms != 0) { /* else what the last producer has seen stands */
        trust_saw_peer(t->trust, peer_until_ms);
    }
    if (kafka_producer_dead_since_ms(t->producer) == 0 && !to_be_changed(t)) {
        publish(t);
    }
    ended += finish_answered(t);
    if (clock_mono_ms() >= patience_ms(t)) {
        return ended + lose_patience(t);
    }
    if (to_be_changed(t) && t->outstanding == 0) {
        bury(t);
        return ended + work(t);
    }
    return ended;
}

static int run(void *state, int wake_fd, int64_t timeout_ms)
{
    struct kafka_transport *t = state;
    int64_t deadline_ms = timeout_ms < 0 ? INT64_MAX : clock_mono_ms() + timeout_ms;
    for (;;) {
        if (work(t) > 0) {
            return 0;
        }
        struct pollfd fds[] = {
            {.fd = wake_fd, .events = POLLIN},
            {.fd = t->producer != NULL ? kafka_producer_fd(t->producer) : -1, .events = POLLIN}};
        int64_t until_ms = patience_ms(t), now_ms = clock_mono_ms();
        until_ms = until_ms < deadline_ms ? until_ms : deadline_ms;
        int64_t left_ms = until_ms > now_ms ? until_ms - now_ms : 0;
        int n = poll(fds, ARRAY_SIZE(fds), left_ms > INT_MAX ? INT_MAX : (int)left_ms);
        if (n < 0 && errno != EINTR) {
            return -errno;
        }
        if ((n > 0 && fds[0].revents != 0) || clock_mono_ms() >= deadline_ms) {
            return 0;
        }
    }
}

static uint64_t bytes_sent(const void *state)
{
    const struct kafka_transport *t = state;
    return t->bytes_sent + (t->producer != NULL ? kafka_producer_bytes_sent(t->producer) : 0);
}

static void warning(const void *state, char *words, size_t size)
{
    char found[TRUST_WORDS_MAX] = "";
    trust_warning(((const struct kafka_transport *)state)->trust, clock_wall_ms(), found);
    snprintf(words, size, "%s", found);
}

const struct transport transport_kafka = {
    .name = "kafka",
    .create = create,
    .destroy = destroy,
    .send = send_request,
    .run = run,
    .bytes_sent = bytes_sent,
    .warning = warning,
};
