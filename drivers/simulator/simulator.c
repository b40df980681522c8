#include "drivers/simulator/simulator.h"

#include "drivers/simulator/sim_mast.h"
#include "drivers/simulator/sim_record.h"
#include "drivers/simulator/sim_unit.h"
#include "gateway/base/address.h"
#include "gateway/base/clock.h"

#include <errno.h>
#include <event2/event.h>
#include <event2/listener.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <string.h>
#include <sys/queue.h>
#include <sys/resource.h>

enum {
    BACKLOG = 16,
    SPARE_DESCRIPTORS = 64,
    BASE_PORT_FROM = 10000, /* below the ports that the kernel gives to outgoing connections */
    BASE_PORT_TO = 32000,
    BASE_PORT_TRIES = 200,
    LIES = 6, /* the sixth is the truth */
    OWN_UNIT = 1
};

struct turbine {
    struct simulator *simulator;
    struct sim_unit unit;
    struct evconnlistener *listener; /* NULL: absent */
    uint64_t answers;
    size_t connections;
    bool said_done;
};

struct connection {
    struct turbine *turbine;
    int fd;
    struct event *readable, *timer;
    uint8_t in[2 * MBAP_FRAME_MAX];
    size_t in_len;
    uint8_t out[MBAP_FRAME_MAX]; /* an answer on its way: late, or byte by byte */
    size_t out_len, out_sent;
    struct sim_served served;
    LIST_ENTRY(connection) entry;
};

LIST_HEAD(connection_list, connection);

struct simulator {
    struct event_base *base;
    FILE *out, *record;
    struct sim_site site;
    struct sim_replay replay;
    struct turbine *turbines;
    struct sim_mast *mast; /* NULL: none */
    unsigned count;
    uint16_t port;
    struct connection_list connections;
};

static void close_connection(struct connection *c)
{
    c->turbine->connections--;
    LIST_REMOVE(c, entry);
    event_free(c->readable);
    event_free(c->timer);
    close(c->fd);
    free(c);
}

/* ---- answers ---- */

/* Everything that happens once an answer has left as it should. */
static void settle(struct connection *c)
{
    struct turbine *t = c->turbine;
    struct simulator *s = t->simulator;
    sim_unit_count(&t->unit, &c->served);
    if (s->record != NULL && c->served.count > 0) {
        sim_record_write(s->record, &t->unit, &c->served, clock_wall_ms());
    }
    if (t->unit.replay_done && !t->said_done) {
        t->said_done = true;
        fprintf(s->out, "{\"replay\":\"done\",\"turbine\":%u,\"rows\":%zu}\n", t->unit.turbine,
                s->replay.rows);
        fflush(s->out);
    }
    c->served.count = 0;
}

/* A client that does not take a whole answer is not worth a queue. */
static bool send_bytes(const struct connection *c, const uint8_t *bytes, size_t len)
{
    return send(c->fd, bytes, len, MSG_NOSIGNAL | MSG_DONTWAIT) == (ssize_t)len;
}

/* Lets the answer wait; nothing more is read meanwhile. */
static bool answer_later(struct connection *c, int64_t ms)
{
    const struct timeval wait = {.tv_sec = ms / 1000, .tv_usec = ms % 1000 * 1000};
    c->out_sent = 0;
    return event_del(c->readable) == 0 && event_add(c->timer, &wait) == 0;
}

/* One lie after the other, each in a field that a master has to check. Returns whether it lied. */
static bool lie(struct connection *c)
{
    uint64_t turn = c->turbine->answers % LIES;
    uint8_t *function = &c->out[MBAP_HEADER_SIZE];
    switch (turn) {
    case 0:
        c->out[1] ^= 0x55; /* transaction */
        return true;
    case 1:
        c->out[6] ^= 0x02; /* unit */
        return true;
    case 2:
        function[1] = (uint8_t)(function[1] + 2); /* byte count, or the address of a write */
        return true;
    case 3:
        *function ^= 0x07;
        return true;
    case 4:
        c->out[3] = 1; /* protocol */
        return true;
    default:
        return false;
    }
}

/* Sends the answer in c->out in the manner of the turbine. False: the connection is to be closed.
 */
static bool answer(struct connection *c)
{
    uint64_t turn = c->turbine->answers;
    bool fine = true;
    switch (c->turbine->unit.fault) {
    case SIM_SLOW:
        fine = answer_later(c, SIM_SLOW_MS);
        break;
    case SIM_DRIP:
        fine = answer_later(c, SIM_DRIP_MS);
        break;
    case SIM_LYING:
        if (lie(c)) {
            c->served.count = 0;
        }
        fine = send_bytes(c, c->out, c->out_len);
        settle(c);
        break;
    case SIM_TORN:
        if (turn % 2 == 0) {
            send_bytes(c, c->out, c->out_len / 2);
            fine = false;
            break;
        }
        /* fall through */
    default:
        fine = send_bytes(c, c->out, c->out_len);
        if (fine) {
            settle(c);
        }
        fine = fine && c->turbine->unit.fault != SIM_CLOSING;
        break;
    }
    c->turbine->answers++;
    return fine;
}

static bool is_up(const struct turbine *t)
{
    return t->unit.fault != SIM_FLAPPING ||
           (clock_mono_ms() - t->simulator->site.start_ms) / SIM_FLAP_MS % 2 == 0;
}

/* False: the connection is to be closed. */
static bool handle_frame(struct connection *c, const struct mbap_frame *frame)
{
    struct turbine *t = c->turbine;
    if (t->unit.fault == SIM_DEAD) {
        return true;
    }
    if (!is_up(t)) {
        return false;
    }
    uint8_t *pdu = c->out + MBAP_HEADER_SIZE;
    size_t len;
    if (frame->unit == OWN_UNIT || frame->unit == 0 || frame->unit == 0xff) {
        len = sim_unit_answer(&t->unit, clock_mono_ms(), frame->pdu, frame->pdu_len, pdu,
                              &c->served);
    } else {
        c->served.count = 0;
        len = mbap_reply_exception(pdu, frame->pdu[0], MBAP_GATEWAY_TARGET);
    }
    mbap_write_header(c->out, frame->transaction, frame->unit, len);
    c->out_len = MBAP_HEADER_SIZE + len;
    return answer(c);
}

/* Answers the frames that have arrived, until one has to wait. Closes the connection if need be. */
static void handle_frames(struct connection *c)
{
    size_t at = 0;
    while (!event_pending(c->timer, EV_TIMEOUT, NULL)) {
        struct mbap_frame frame;
        int size = mbap_parse_frame(c->in + at, c->in_len - at, &frame);
        if (size == 0) {
            break;
        }
        if (size < 0 || !handle_frame(c, &frame)) {
            close_connection(c);
            return;
        }
        at += (size_t)size;
    }
    memmove(c->in, c->in + at, c->in_len - at);
    c->in_len -= at;
}

static void on_readable(evutil_socket_t fd, short events, void *user)
{
    (void)events;
    struct connection *c = user;
    ssize_t n = recv(fd, c->in + c->in_len, sizeof c->in - c->in_len, MSG_DONTWAIT);
    if (n < 0 && (errno == EAGAIN || errno == EINTR)) {
        return;
    }
    if (n <= 0) {
        close_connection(c);
        return;
    }
    c->in_len += (size_t)n;
    handle_frames(c);
}

/* The time of a late answer has come, or of the next byte of a dripping one. */
static void on_timer(evutil_socket_t fd, short events, void *user)
{
    (void)fd, (void)events;
    struct connection *c = user;
    size_t len = c->turbine->unit.fault == SIM_DRIP ? 1 : c->out_len;
    bool fine = send_bytes(c, c->out + c->out_sent, len);
    c->out_sent += len;
    if (fine && c->out_sent < c->out_len) {
        const struct timeval wait = {.tv_usec = SIM_DRIP_MS * 1000};
        fine = event_add(c->timer, &wait) == 0;
    } else if (fine) {
        settle(c);
        fine = event_add(c->readable, NULL) == 0;
    }
    if (fine) {
        handle_frames(c);
    } else {
        close_connection(c);
    }
}

static void on_accept(struct evconnlistener *listener, evutil_socket_t fd, struct sockaddr *from,
                      int from_len, void *user)
{
    (void)listener, (void)from, (void)from_len;
    struct turbine *t = user;
    struct connection *c = NULL;
    if (t->connections < SIMULATOR_CONNECTIONS_MAX && is_up(t)) {
        c = calloc(1, sizeof *c);
    }
    if (c == NULL) {
        close(fd);
        return;
    }
    const int on = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    c->turbine = t;
    c->fd = fd;
    c->readable = event_new(t->simulator->base, fd, EV_READ | EV_PERSIST, on_readable, c);
    c->timer = event_new(t->simulator->base, -1, 0, on_timer, c);
    if (c->readable == NULL || c->timer == NULL || event_add(c->readable, NULL) < 0) {
        if (c->readable != NULL) {
            event_free(c->readable);
        }
        if (c->timer != NULL) {
            event_free(c->timer);
        }
        close(fd);
        free(c);
        return;
    }
    t->connections++;
    LIST_INSERT_HEAD(&t->simulator->connections, c, entry);
}

/* ---- set-up ---- */

static void stop_listening(struct simulator *s)
{
    for (unsigned i = 0; i < s->count; i++) {
        if (s->turbines[i].listener != NULL) {
            evconnlistener_free(take_ptr(s->turbines[i].listener));
        }
    }
}

/* All turbines from that port on. */
static int listen_from(struct simulator *s, struct sockaddr_storage *address, socklen_t len,
                       unsigned port)
{
    if (port + s->count - 1 > UINT16_MAX) {
        return -ERANGE;
    }
    for (unsigned i = 0; i < s->count; i++) {
        struct turbine *t = &s->turbines[i];
        if (t->unit.fault == SIM_ABSENT) {
            continue;
        }
        address_set_port(address, (uint16_t)(port + i));
        errno = 0;
        t->listener = evconnlistener_new_bind(s->base, on_accept, t,
                                              LEV_OPT_REUSEABLE | LEV_OPT_CLOSE_ON_FREE |
                                                  LEV_OPT_CLOSE_ON_EXEC,
                                              BACKLOG, (const struct sockaddr *)address, (int)len);
        if (t->listener == NULL) {
            int error = errno != 0 ? errno : EADDRNOTAVAIL;
            stop_listening(s);
            return -error;
        }
    }
    s->port = (uint16_t)port;
    return 0;
}

/* A row of free ports: a new start at each try, so that simulators beside each other part soon. */
static int listen_anywhere(struct simulator *s, struct sockaddr_storage *address, socklen_t len)
{
    uint64_t where = (uint64_t)clock_mono_ns() ^ ((uint64_t)getpid() << 20);
    int r = -EADDRINUSE;
    for (int i = 0; i < BASE_PORT_TRIES && r == -EADDRINUSE; i++) {
        where = where * 6364136223846793005u + 1442695040888963407u;
        r = listen_from(s, address, len,
                        BASE_PORT_FROM +
                            (unsigned)((where >> 33) % (BASE_PORT_TO - BASE_PORT_FROM)));
    }
    return r;
}

static int start_listening(struct simulator *s, const char *listen_at,
                           char ret_error[SIMULATOR_ERROR_SIZE])
{
    struct sockaddr_storage address;
    socklen_t len;
    if (address_parse(listen_at, &address, &len) < 0) {
        snprintf(ret_error, SIMULATOR_ERROR_SIZE, "%s: an address is IP:PORT", listen_at);
        return -EINVAL;
    }
    unsigned port = address_port(&address);
    int r = port == 0 ? listen_anywhere(s, &address, len) : listen_from(s, &address, len, port);
    if (r < 0) {
        snprintf(ret_error, SIMULATOR_ERROR_SIZE, "%s, %u ports from there: %s", listen_at,
                 s->count, strerror(-r));
    }
    return r;
}

/* A listener a turbine and its connections: more than the usual 1,024 descriptors. */
static int raise_descriptors(unsigned turbines, char ret_error[SIMULATOR_ERROR_SIZE])
{
    struct rlimit limit;
    rlim_t least = 2 * (rlim_t)turbines + SPARE_DESCRIPTORS;
    rlim_t most = (1 + SIMULATOR_CONNECTIONS_MAX) * (rlim_t)turbines + SPARE_DESCRIPTORS;
    if (getrlimit(RLIMIT_NOFILE, &limit) < 0) {
        return -errno;
    }
    if (limit.rlim_cur < most) {
        limit.rlim_cur = limit.rlim_max < most ? limit.rlim_max : most;
        if (setrlimit(RLIMIT_NOFILE, &limit) < 0) {
            return -errno;
        }
    }
    if (limit.rlim_cur < least) {
        snprintf(ret_error, SIMULATOR_ERROR_SIZE, "%u turbines need %llu descriptors (ulimit -n)",
                 turbines, (unsigned long long)least);
        return -EMFILE;
    }
    return 0;
}

static int load_replay(struct simulator *s, const char *path, char ret_error[SIMULATOR_ERROR_SIZE])
{
    size_t line;
    int r = path == NULL ? 0 : sim_replay_load(path, &s->replay, &line);
    if (r == -EINVAL) {
        snprintf(ret_error, SIMULATOR_ERROR_SIZE, "%s:%zu: no row of numbers under a header", path,
                 line);
    } else if (r < 0) {
        snprintf(ret_error, SIMULATOR_ERROR_SIZE, "%s: %s", path, strerror(-r));
    }
    s->site.replay = path == NULL ? NULL : &s->replay;
    return r;
}

static int make_turbines(struct simulator *s, const struct simulator_options *options,
                         char ret_error[SIMULATOR_ERROR_SIZE])
{
    s->turbines = calloc(options->turbines, sizeof *s->turbines);
    if (s->turbines == NULL) {
        return -ENOMEM;
    }
    uint8_t *faults = calloc(options->turbines, 1);
    if (faults == NULL) {
        return -ENOMEM;
    }
    int r = options->fault == NULL
                ? 0
                : sim_fault_parse(options->fault, faults, options->turbines, ret_error);
    s->count = r < 0 ? 0 : options->turbines;
    for (unsigned i = 0; i < s->count; i++) {
        s->turbines[i].simulator = s;
        sim_unit_init(&s->turbines[i].unit, &s->site, i + 1, options->seed,
                      (enum sim_fault)faults[i]);
    }
    free(faults);
    return r;
}

static int make_mast(struct simulator *s, const struct simulator_options *options,
                     char ret_error[SIMULATOR_ERROR_SIZE])
{
    const struct sim_mast_options mast = {
        .listen = options->coap,
        .psk = options->psk,
        .seed = options->seed,
        .step_ms = options->step_by_poll ? 1000 : s->site.step_ms,
    };
    return options->coap == NULL ? 0 : sim_mast_create(&mast, s->base, &s->mast, ret_error);
}

static int open_record(struct simulator *s, const char *path, char ret_error[SIMULATOR_ERROR_SIZE])
{
    if (path == NULL) {
        return 0;
    }
    s->record = fopen(path, "we");
    if (s->record == NULL) {
        snprintf(ret_error, SIMULATOR_ERROR_SIZE, "%s: %s", path, strerror(errno));
        return -errno;
    }
    return 0;
}

int simulator_create(const struct simulator_options *options, struct event_base *base, FILE *out,
                     struct simulator **ret_simulator, char ret_error[SIMULATOR_ERROR_SIZE])
{
    struct simulator *s = calloc(1, sizeof *s);
    if (s == NULL) {
        return -ENOMEM;
    }
    s->base = base;
    s->out = out;
    s->site = (struct sim_site){.step_by_poll = options->step_by_poll,
                                .step_ms = options->step_ms > 0 ? options->step_ms : 1000,
                                .start_ms = clock_mono_ms()};
    LIST_INIT(&s->connections);
    ret_error[0] = '\0';
    int r = raise_descriptors(options->turbines, ret_error);
    r = r < 0 ? r : load_replay(s, options->replay, ret_error);
    r = r < 0 ? r : make_turbines(s, options, ret_error);
    r = r < 0 ? r : start_listening(s, options->listen, ret_error);
    r = r < 0 ? r : make_mast(s, options, ret_error);
    r = r < 0 ? r : open_record(s, options->record, ret_error);
    if (r < 0) {
        if (ret_error[0] == '\0') {
            snprintf(ret_error, SIMULATOR_ERROR_SIZE, "%s", strerror(-r));
        }
        simulator_destroy(s);
        return r;
    }
    *ret_simulator = s;
    return 0;
}

int simulator_destroy(struct simulator *s)
{
    int r = 0;
    if (s == NULL) {
        return 0;
    }
    for (struct connection *c = LIST_FIRST(&s->connections), *next; c != NULL; c = next) {
        next = LIST_NEXT(c, entry);
        close_connection(c);
    }
    stop_listening(s);
    sim_mast_destroy(s->mast);
    if (s->record != NULL) {
        bool failed = ferror(s->record) != 0;
        r = fclose(s->record) != 0 || failed ? -EIO : 0;
    }
    sim_replay_finish(&s->replay);
    free(s->turbines);
    free(s);
    return r;
}

uint16_t simulator_port(const struct simulator *s)
{
    return s->port;
}

json_t *simulator_summary(const struct simulator *s)
{
    json_t *list = json_array();
    struct sim_counts all = {0};
    for (unsigned i = 0; i < s->count; i++) {
        const struct sim_counts *c = &s->turbines[i].unit.counts;
        all.requests += c->requests;
        all.registers += c->registers;
        all.points += c->points;
        all.rounds += c->rounds;
        all.exceptions += c->exceptions;
        all.writes += c->writes;
        json_array_append_new(
            list,
            json_pack("{s:i, s:i, s:I, s:I, s:I, s:I, s:I, s:I, s:I}", "turbine", (int)i + 1,
                      "port", (int)(s->port + i), "requests", (json_int_t)c->requests, "registers",
                      (json_int_t)c->registers, "bits", (json_int_t)c->bits, "points",
                      (json_int_t)c->points, "rounds", (json_int_t)c->rounds, "exceptions",
                      (json_int_t)c->exceptions, "writes", (json_int_t)c->writes));
    }
    uint64_t mast = s->mast == NULL ? 0 : sim_mast_served(s->mast);
    return json_pack("{s:i, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:o}", "turbines", (int)s->count,
                     "requests", (json_int_t)all.requests, "registers", (json_int_t)all.registers,
                     "points", (json_int_t)all.points, "rounds", (json_int_t)all.rounds,
                     "exceptions", (json_int_t)all.exceptions, "writes", (json_int_t)all.writes,
                     "mast", (json_int_t)mast, "per_turbine", list);
}
