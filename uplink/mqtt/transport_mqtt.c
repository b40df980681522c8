#include "gateway/base/clock.h"
#include "gateway/base/log.h"
#include "uplink/mqtt/link.h"
#include "uplink/mqtt/shunned.h"
#include "uplink/mqtt/side.h"
#include "uplink/transport/errand.h"
#include "uplink/transport/trust.h"

#include <errno.h>
#include <limits.h>
#include <mosquitto.h>
#include <mqtt_protocol.h>
#include <poll.h>

enum {
    MISC_MS = 1000,     /* how often the keep-alive is looked at */
    BURST_MESSAGES = 8, /* that may go at once within the rate */
    WARN_MS = 60000,
};

struct job {
    const struct uplink_request *request; /* NULL: the place is free */
    void (*done)(void *user, const struct uplink_reply *reply);
    void *user;
    size_t at;          /* the next message in the body */
    size_t unanswered;  /* messages */
    size_t acked;       /* records */
    int reason;         /* the first refusal of a message */
    bool too_large;     /* a message was, for this broker */
    struct buffer fate; /* a byte a record so far published */
};

/* A message on its way, and which records of which job it holds. */
struct pending {
    int message;
    const char *topic; /* in the job's request */
    struct job *job;
    size_t first, count;
};

struct mqtt_transport {
    const struct mqtt_settings *settings;
    const char *gateway;
    struct trust *trust;
    unsigned generation;       /* of the files that the link has read */
    struct mqtt_link *link;    /* NULL: none was needed yet, or the last one is gone */
    struct mqtt_side *side;    /* NULL: nothing but batches */
    bool told_up;              /* the side knows of the link */
    struct errands_left stale; /* dials that were given up, but have not ended */
    bool began;                /* the first connection is made without being asked for */
    int64_t interval_us;       /* between messages, 0: no limit */
    int64_t allowed_us;        /* when the next one is within the rate, were there no bursts */
    int64_t warn_at_ms;        /* not before */
    int64_t progress_ms;       /* the last message or acknowledgement */
    uint64_t bytes_sent;
    struct pending *pending; /* `inflight` places */
    size_t pending_count;
    /* How many messages may be on their way: one after a connection was lost with some, twice as
     * many with each acknowledgement. Brokers hang up on a topic that they do not allow (AWS IoT
     * Core always, mosquitto after it has said so); sent alone, it is known which. */
    size_t window;
    struct mqtt_shunned shunned; /* topics that are not asked about for a while */
    bool refused;                /* the broker has refused something on this connection */
    size_t job_count;
    struct job jobs[];
};

static void destroy(void *state)
{
    struct mqtt_transport *t = state;
    if (t == NULL) {
        return;
    }
    mqtt_link_destroy(t->link);
    mqtt_side_destroy(t->side);
    errands_left_end(&t->stale, 0);
    for (size_t i = 0; i < t->job_count; i++) {
        buffer_finish(&t->jobs[i].fate);
    }
    trust_destroy(t->trust);
    free(t->pending);
    free(t);
}

static int create(const void *settings, const char *gateway, size_t parallel, void **ret_state)
{
    struct mqtt_target target;
    struct mqtt_transport *t = calloc(1, sizeof *t + parallel * sizeof t->jobs[0]);
    if (t == NULL) {
        return -ENOMEM;
    }
    t->settings = settings;
    t->gateway = gateway;
    t->job_count = parallel;
    t->window = (size_t)t->settings->inflight;
    t->pending = calloc((size_t)t->settings->inflight, sizeof *t->pending);
    int r = t->pending == NULL                              ? -ENOMEM
            : !mqtt_target_parse(t->settings->url, &target) ? -EINVAL
            /* Never cleaned up: that would take OpenSSL's settings from everybody else. */
            : mosquitto_lib_init() != MOSQ_ERR_SUCCESS ? -ENOMEM
                                                       : 0;
    r = r < 0 ? r : trust_create(&t->settings->line, "password_file", &t->trust);
    if (r < 0) {
        destroy(t);
        return r;
    }
    int64_t rate = t->settings->publish_rate;
    rate = rate >= 0 ? rate : target.aws ? MQTT_AWS_RATE : 0;
    t->interval_us = rate > 0 ? 1000000 / rate : 0;
    *ret_state = t;
    return 0;
}

static int attach(void *state, const struct uplink_host *host, const char *uplink)
{
    struct mqtt_transport *t = state;
    return mqtt_side_create(t->settings, t->gateway, host, uplink, &t->side);
}

static size_t records_in(const struct buffer *body)
{
    struct mqtt_frame frame;
    size_t at = 0, n = 0;
    while (mqtt_frame_next(body, &at, &frame)) {
        n += frame.records;
    }
    return n;
}

static int send_request(void *state, const struct uplink_request *request,
                        void (*done)(void *user, const struct uplink_reply *reply), void *user)
{
    struct mqtt_transport *t = state;
    for (size_t i = 0; i < t->job_count; i++) {
        struct job *job = &t->jobs[i];
        if (job->request == NULL) {
            struct buffer fate = job->fate;
            buffer_clear(&fate);
            bool roomy = buffer_reserve(&fate, records_in(&request->body) + 1) != NULL;
            *job = (struct job){.fate = fate};
            if (roomy) {
                job->request = request;
                job->done = done;
                job->user = user;
            }
            return roomy ? 0 : -ENOMEM;
        }
    }
    return -EBUSY;
}

/* Ends a job with what is known of its records: words say why the others are not acknowledged. */
static void finish(struct job *job, int reason, const char *words)
{
    char code[8] = "";
    struct mqtt_frame frame;
    while (mqtt_frame_next(&job->request->body, &job->at, &frame)) {
        for (size_t i = 0; i < frame.records; i++) {
            buffer_add_byte(&job->fate, MQTT_UNACKNOWLEDGED);
        }
    }
    const char *fate = buffer_text(&job->fate);
    bool any = fate != NULL && (job->acked > 0 || job->reason != 0);
    bool whole = words == NULL || any;
    if (reason != 0) {
        snprintf(code, sizeof code, "0x%02x", (unsigned)reason & 0xff);
    }
    struct uplink_reply reply = {.status = job->too_large ? 413
                                           : whole        ? 200
                                           : reason != 0  ? 400
                                                          : 0,
                                 .code = !whole && reason != 0 ? code : NULL,
                                 .body = whole && fate != NULL ? fate : "",
                                 .len = whole && fate != NULL ? job->fate.len : 0,
                                 .content_type = "",
                                 .retry_after_ms = -1,
                                 .error = words != NULL ? words : ""};
    if (job->too_large) {
        reply.body = "";
        reply.len = 0;
    }
    job->request = NULL;
    job->done(job->user, &reply);
}

static bool all_published(const struct job *job)
{
    return job->at >= job->request->body.len;
}

/* Ends the jobs that have come to their end; how many. */
static size_t finish_answered(struct mqtt_transport *t)
{
    size_t ended = 0;
    for (size_t i = 0; i < t->job_count; i++) {
        struct job *job = &t->jobs[i];
        bool over = job->request != NULL && job->unanswered == 0 &&
                    (all_published(job) || job->too_large);
        if (over) {
            finish(job, 0, NULL);
            ended++;
        }
    }
    return ended;
}

/* Nothing but readings is on its way. */
static bool side_rests(const struct mqtt_transport *t)
{
    return t->side == NULL || mqtt_side_notes(t->side)->inflight == 0;
}

/* The connection is of no use any more; so is every job that is on its way. */
static size_t drop_link(struct mqtt_transport *t, int reason, const char *words)
{
    size_t ended = 0;
    char alone[MQTT_WORDS];
    if (t->pending_count == 1 && t->window == 1 && !t->refused && side_rests(t)) {
        snprintf(alone, sizeof alone, "%.90s: after a message to %.80s; may we publish there?",
                 words, t->pending[0].topic);
        words = alone;
        mqtt_shunned_suspect(&t->shunned, t->pending[0].topic, clock_mono_ms());
    }
    t->window = t->pending_count > 0 ? 1 : t->window;
    t->pending_count = 0;
    for (size_t i = 0; i < t->job_count; i++) {
        if (t->jobs[i].request != NULL) {
            finish(&t->jobs[i], reason, words);
            ended++;
        }
    }
    struct errand **place = errands_left_room(&t->stale);
    if (t->link != NULL && place != NULL) {
        *place = mqtt_link_take_dial(t->link);
    }
    mqtt_link_destroy(take_ptr(t->link));
    t->told_up = false;
    if (t->side != NULL) {
        mqtt_side_down(t->side, clock_mono_ms());
    }
    return ended;
}

static void on_acknowledged(void *user, int message, int reason)
{
    struct mqtt_transport *t = user;
    t->refused = t->refused || reason >= 0x80;
    for (size_t i = 0; i < t->pending_count; i++) {
        struct pending *p = &t->pending[i];
        if (p->message != message) {
            continue;
        }
        struct job *job = p->job;
        bool refused = reason >= 0x80;
        for (size_t r = 0; r < p->count; r++) {
            job->fate.data[p->first + r] = refused ? (uint8_t)reason : MQTT_ACKNOWLEDGED;
        }
        if (reason == MQTT_RC_NOT_AUTHORIZED) {
            mqtt_shunned_add(&t->shunned, p->topic, clock_mono_ms());
        }
        job->acked += refused ? 0 : p->count;
        job->reason = refused && job->reason == 0 ? reason : job->reason;
        job->unanswered--;
        *p = t->pending[--t->pending_count];
        t->window *= 2;
        t->window = t->window < (size_t)t->settings->inflight ? t->window
                                                              : (size_t)t->settings->inflight;
        t->progress_ms = clock_mono_ms();
        return;
    }
    /* What no job waits for: the side's, and the link's own status message. */
    if (t->side != NULL && mqtt_side_acknowledged(t->side, message, reason)) {
        t->progress_ms = clock_mono_ms();
    }
}

static void on_subscribed(void *user, int message, int reason)
{
    struct mqtt_transport *t = user;
    if (t->side != NULL) {
        mqtt_side_subscribed(t->side, message, reason);
    }
}

static void on_received(void *user, const char *topic, const void *payload, size_t len,
                        bool retained)
{
    struct mqtt_transport *t = user;
    if (t->side != NULL) {
        mqtt_side_received(t->side, topic, payload, len, retained);
    }
}

static bool has_jobs(const struct mqtt_transport *t)
{
    for (size_t i = 0; i < t->job_count; i++) {
        if (t->jobs[i].request != NULL) {
            return true;
        }
    }
    return false;
}

/* Makes a connection where one is needed; the number of jobs that end because none can be made. */
static size_t connect_when_needed(struct mqtt_transport *t)
{
    static const struct mqtt_link_events events = {
        .acknowledged = on_acknowledged, .subscribed = on_subscribed, .received = on_received};
    bool side_wants = t->side != NULL && mqtt_side_wait_ms(t->side, clock_mono_ms()) == 0;
    if (t->link != NULL || (t->began && !has_jobs(t) && !side_wants)) {
        return 0;
    }
    if (errands_left_room(&t->stale) == NULL) {
        return drop_link(t, 0, "earlier attempts to connect are still waiting for the network");
    }
    t->began = true;
    t->refused = false;
    t->progress_ms = clock_mono_ms();
    trust_look_now(t->trust, t->progress_ms);
    t->generation = trust_generation(t->trust);
    int r = mqtt_link_create(t->settings, t->gateway, trust_token(t->trust), &events, t, &t->link);
    if (r == 0) {
        return 0;
    }
    return drop_link(
        t, 0, r == -EINVAL ? "url, ca_file, cert_file or key_file cannot be used" : strerror(-r));
}

static int64_t now_us(void)
{
    return clock_mono_ns() / 1000;
}

/* Microseconds until a message is within the rate, which a short burst may exceed. */
static int64_t pause_us(const struct mqtt_transport *t)
{
    int64_t early = t->allowed_us - now_us() - BURST_MESSAGES * t->interval_us;
    return early > 0 ? early : 0;
}

/* A message went out: the next one is so much later. */
static void spend(struct mqtt_transport *t, const struct mqtt_frame *frame)
{
    int64_t now = now_us();
    t->allowed_us = (t->allowed_us > now ? t->allowed_us : now) + t->interval_us;
    t->bytes_sent += frame->len + strlen(frame->topic);
}

static int publish_one(struct mqtt_transport *t, struct job *job)
{
    struct mqtt_frame frame;
    size_t at = job->at, first = job->fate.len;
    int message;
    if (!mqtt_frame_next(&job->request->body, &at, &frame)) {
        return -E2BIG; /* not one of ours */
    }
    for (size_t i = 0; i < frame.records; i++) {
        buffer_add_byte(&job->fate, MQTT_UNACKNOWLEDGED);
    }
    bool shunned = mqtt_shunned_has(&t->shunned, frame.topic, clock_mono_ms());
    int r = shunned ? -EACCES : mqtt_link_publish(t->link, &frame, &message);
    if (r == -EINVAL || r == -EACCES) { /* not sent; the judge is told what a broker would say */
        int reason = shunned ? MQTT_RC_NOT_AUTHORIZED : MQTT_RC_TOPIC_NAME_INVALID;
        memset(job->fate.data + first, reason, frame.records);
        job->reason = job->reason == 0 ? reason : job->reason;
        job->at = at;
        return 0;
    }
    if (r < 0) {
        job->fate.len = first;
        return r;
    }
    job->at = at;
    job->unanswered++;
    t->pending[t->pending_count++] = (struct pending){.message = message,
                                                      .topic = frame.topic,
                                                      .job = job,
                                                      .first = first,
                                                      .count = frame.records};
    spend(t, &frame);
    t->progress_ms = clock_mono_ms();
    return 0;
}

/* Notes count as well: IoT Core bounds what is unacknowledged on a connection, whatever it is. */
static bool has_place(const struct mqtt_transport *t)
{
    size_t notes = t->side != NULL ? mqtt_side_notes(t->side)->inflight : 0;
    return t->pending_count + notes < (size_t)t->settings->inflight;
}

/* One message at a time, of either kind: then what the broker hangs up on is known, and its answer
 * is not lost to a write that comes after it has hung up. */
static bool may_join(const struct mqtt_transport *t)
{
    return t->window > 1 || (t->pending_count == 0 && side_rests(t));
}

static bool room(const struct mqtt_transport *t)
{
    return t->pending_count < t->window && may_join(t) && has_place(t) && pause_us(t) == 0;
}

/* Publishes a job's messages as far as bounds and rate allow. False: the link is down. */
static bool publish_job(struct mqtt_transport *t, struct job *job)
{
    while (!job->too_large && !all_published(job) && room(t)) {
        int r = publish_one(t, job);
        if (r == -E2BIG) {
            job->too_large = true;
        } else if (r < 0) {
            return false;
        }
    }
    return true;
}

/* They go first: there are few, and the rate bounds them as well. */
static void publish_notes(struct mqtt_transport *t)
{
    struct mqtt_notes *notes = mqtt_side_notes(t->side);
    struct mqtt_note *note;
    while (may_join(t) && has_place(t) && pause_us(t) == 0 &&
           (note = mqtt_notes_next(notes)) != NULL) {
        int message, r = mqtt_link_publish(t->link, &note->frame, &message);
        if (r == -ENOTCONN) {
            return;
        }
        if (r < 0) {
            log_warning("%s: a message on %s cannot be sent", t->settings->url, note->frame.topic);
            mqtt_notes_drop(notes, note);
            continue;
        }
        spend(t, &note->frame);
        mqtt_notes_sent(notes, note, message);
        t->progress_ms = clock_mono_ms();
    }
}

/* Certificates have changed: nothing more is published by this link. */
static bool is_outdated(const struct mqtt_transport *t)
{
    return t->link != NULL && t->generation != trust_generation(t->trust);
}

static void work_aside(struct mqtt_transport *t)
{
    if (t->side == NULL) {
        return;
    }
    bool up = t->link != NULL && mqtt_link_state(t->link) == MQTT_UP;
    if (up && !t->told_up) {
        t->told_up = true;
        trust_saw_peer(t->trust, mqtt_link_peer_until_ms(t->link));
        mqtt_side_up(t->side, t->link, clock_mono_ms());
    }
    mqtt_side_step(t->side, clock_mono_ms());
    if (up && !is_outdated(t)) {
        publish_notes(t);
    }
}

/* A fight of two clients over one client_id is over in a moment each time, so that no failure lasts
 * long enough for the sender to speak of it. */
static void warn(struct mqtt_transport *t, bool contested, const char *words)
{
    int64_t now_ms = clock_mono_ms();
    if (contested && now_ms >= t->warn_at_ms) {
        log_warning("%s: %s", t->settings->url, words);
        t->warn_at_ms = now_ms + WARN_MS;
    }
}

/* Takes leave of an outdated link once the broker has acknowledged what it was sent. */
static void renew(struct mqtt_transport *t)
{
    trust_look(t->trust, clock_mono_ms());
    if (!is_outdated(t) || t->pending_count > 0 || mqtt_link_state(t->link) != MQTT_UP ||
        !side_rests(t)) {
        return;
    }
    mqtt_link_destroy(take_ptr(t->link));
    t->told_up = t->began = false; /* the next one is made at once */
    if (t->side != NULL) {
        mqtt_side_down(t->side, clock_mono_ms());
    }
}

static size_t work(struct mqtt_transport *t, short revents)
{
    renew(t);
    size_t ended = connect_when_needed(t);
    if (t->link != NULL) {
        mqtt_link_step(t->link, revents);
    }
    work_aside(t);
    if (t->link == NULL) {
        return ended;
    }
    bool may = mqtt_link_state(t->link) == MQTT_UP && !is_outdated(t);
    for (size_t i = 0; may && i < t->job_count; i++) {
        if (t->jobs[i].request != NULL && !publish_job(t, &t->jobs[i])) {
            break;
        }
    }
    ended += finish_answered(t);
    if (mqtt_link_state(t->link) == MQTT_DOWN) {
        int reason;
        bool contested;
        char words[MQTT_WORDS];
        snprintf(words, sizeof words, "%s", mqtt_link_why(t->link, &reason, &contested));
        warn(t, contested, words);
        return ended + drop_link(t, reason, words);
    }
    /* Notes as well: where one message goes at a time, readings wait for them. */
    bool asked = t->pending_count > 0 || !side_rests(t);
    if (asked && clock_mono_ms() - t->progress_ms >= t->settings->line.timeout_ms) {
        return ended + drop_link(t, 0, "the broker acknowledges nothing any more (timeout)");
    }
    return ended;
}

/* Whether a job or the side has something that the rate holds back. */
static bool held_back(const struct mqtt_transport *t)
{
    if (t->side != NULL && mqtt_notes_next(mqtt_side_notes(t->side)) != NULL) {
        return has_place(t);
    }
    for (size_t i = 0; i < t->job_count; i++) {
        const struct job *job = &t->jobs[i];
        if (job->request != NULL && !all_published(job) && !job->too_large) {
            return t->pending_count < t->window && has_place(t);
        }
    }
    return false;
}

static int64_t wait_ms(const struct mqtt_transport *t, int64_t deadline_ms)
{
    int64_t left_ms = deadline_ms - clock_mono_ms();
    left_ms = left_ms < 0 ? 0 : left_ms;
    bool up = t->link != NULL && mqtt_link_state(t->link) == MQTT_UP;
    if (t->side != NULL && (up || t->link == NULL)) {
        int64_t side_ms = mqtt_side_wait_ms(t->side, clock_mono_ms());
        left_ms = side_ms < left_ms ? side_ms : left_ms;
    }
    if (t->link == NULL) {
        return left_ms;
    }
    left_ms = left_ms < MISC_MS ? left_ms : MISC_MS;
    if (up && held_back(t)) {
        int64_t pause_ms = pause_us(t) / 1000 + 1;
        left_ms = left_ms < pause_ms ? left_ms : pause_ms;
    }
    return left_ms;
}

static short look(const struct mqtt_transport *t)
{
    struct pollfd fd = {.fd = t->link != NULL ? mqtt_link_fd(t->link) : -1, .events = POLLIN};
    return poll(&fd, 1, 0) > 0 ? fd.revents : 0;
}

static int run(void *state, int wake_fd, int64_t timeout_ms)
{
    struct mqtt_transport *t = state;
    int64_t deadline_ms = timeout_ms < 0 ? INT64_MAX : clock_mono_ms() + timeout_ms;
    /* What the broker has said meanwhile, a goodbye perhaps, is heard before anything is sent. */
    short revents = look(t);
    for (;;) {
        if (work(t, revents) > 0) {
            return 0;
        }
        struct pollfd fds[] = {{.fd = wake_fd, .events = POLLIN}, {.fd = -1}, {.fd = -1}};
        if (t->link != NULL) {
            fds[1].fd = mqtt_link_fd(t->link);
            fds[1].events = mqtt_link_wants(t->link);
        }
        if (t->side != NULL) {
            fds[2].fd = mqtt_side_fd(t->side);
            fds[2].events = POLLIN;
        }
        int64_t left_ms = wait_ms(t, deadline_ms);
        int n = poll(fds, ARRAY_SIZE(fds), left_ms > INT_MAX ? INT_MAX : (int)left_ms);
        if (n < 0 && errno != EINTR) {
            return -errno;
        }
        revents = n > 0 ? fds[1].revents : 0;
        if ((n > 0 && fds[0].revents != 0) || clock_mono_ms() >= deadline_ms) {
            return 0;
        }
    }
}

static uint64_t bytes_sent(const void *state)
{
    return ((const struct mqtt_transport *)state)->bytes_sent;
}

static void warning(const void *state, char *words, size_t size)
{
    char text[TRUST_WORDS_MAX];
    trust_warning(((const struct mqtt_transport *)state)->trust, clock_wall_ms(), text);
    snprintf(words, size, "%s", text);
}

static void beside(const void *state, struct uplink_beside *ret_beside)
{
    const struct mqtt_transport *t = state;
    if (t->side != NULL) {
        mqtt_side_tell(t->side, ret_beside);
    }
}

const struct transport transport_mqtt = {
    .name = "mqtt",
    .create = create,
    .destroy = destroy,
    .attach = attach,
    .send = send_request,
    .run = run,
    .bytes_sent = bytes_sent,
    .warning = warning,
    .beside = beside,
};
