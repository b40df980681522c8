/* relay LISTEN_PORT TO_PORT [DELAY_MS [KBIT_S]]: a long or thin line on loopback. What comes in on
 * 127.0.0.1:LISTEN_PORT goes to 127.0.0.1:TO_PORT, each byte DELAY_MS later and so back, and in
 * either direction at most KBIT_S over all connections together: one queue of at most QUEUE_MS, as
 * at a modem, that all of them share in turn. On SIGUSR1 and at its end it prints what it has
 * passed on: {"up":BYTES,"down":BYTES,"connections":N}. Of TCP these are the payloads; the
 * connection itself is made at once, only what it carries is delayed. */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>
#include <time.h>
#include <unistd.h>

enum { CHUNK = 64 * 1024, SEGMENT = 1448, QUEUE_MS = 100, SOCKET_BYTES = 16 * 1024, EVENTS = 64 };
/* Of a connection and direction; more is not read before some has gone. */
enum { HELD_MAX = 32 * 1024 * 1024 };

struct chunk {
    struct chunk *next;
    int64_t due_us;
    size_t len, from;
    uint8_t data[];
};

/* One direction of a connection. */
struct way {
    int in, out;
    bool up, ended, closed;
    struct chunk *first, *last;
    size_t held;
};

struct line {
    struct line *next;
    struct way ways[2];
    int fds[2];
};

struct relay {
    int epoll_fd, listen_fd, signal_fd;
    uint16_t to_port;
    int64_t delay_us, bit_s;
    int64_t free_us[2]; /* when each direction's line has sent what it took */
    uint64_t passed[2], connections;
    struct line *lines;
};

static int64_t now_us(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000 + t.tv_nsec / 1000;
}

static void need(bool good, const char *what)
{
    if (!good) {
        perror(what);
        exit(1);
    }
}

static struct sockaddr_in loopback(uint16_t port)
{
    return (struct sockaddr_in){
        .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
}

static void watch(struct relay *r, int fd, uint32_t events, void *user)
{
    struct epoll_event event = {.events = events, .data.ptr = user};
    need(epoll_ctl(r->epoll_fd, EPOLL_CTL_ADD, fd, &event) == 0, "epoll_ctl");
}

static void accept_one(struct relay *r)
{
    int from = accept4(r->listen_fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC), one = 1;
    if (from < 0) {
        return;
    }
    int to = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct sockaddr_in address = loopback(r->to_port);
    if (to < 0 || connect(to, (struct sockaddr *)&address, sizeof address) < 0) {
        close(from);
        close(to);
        return;
    }
    fcntl(to, F_SETFL, O_NONBLOCK);
    setsockopt(from, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    setsockopt(to, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    struct line *line = calloc(1, sizeof *line);
    need(line != NULL, "memory");
    *line = (struct line){.next = r->lines,
                          .fds = {from, to},
                          .ways = {{.in = from, .out = to, .up = true}, {.in = to, .out = from}}};
    r->lines = line;
    r->connections++;
    watch(r, from, EPOLLIN | EPOLLOUT | EPOLLET, line);
    watch(r, to, EPOLLIN | EPOLLOUT | EPOLLET, line);
}

/* Whether this direction's line takes more at present. */
static bool has_room(const struct relay *r, const struct way *w, int64_t now)
{
    return w->held < HELD_MAX &&
           (r->bit_s == 0 || r->free_us[w->up] - now < (int64_t)QUEUE_MS * 1000);
}

/* Reads one piece; true: there may be more. */
static bool take(struct relay *r, struct way *w, int64_t now)
{
    size_t most = r->bit_s > 0 ? SEGMENT : CHUNK;
    struct chunk *c = malloc(sizeof *c + most);
    need(c != NULL, "memory");
    ssize_t n = read(w->in, c->data, most);
    if (n <= 0) {
        w->ended = n == 0 || (errno != EAGAIN && errno != EINTR);
        free(c);
        return false;
    }
    int64_t start = r->free_us[w->up] > now ? r->free_us[w->up] : now;
    r->free_us[w->up] = r->bit_s > 0 ? start + n * 8 * 1000000 / r->bit_s : now;
    *c = (struct chunk){.due_us = r->free_us[w->up] + r->delay_us, .len = (size_t)n};
    *(w->first != NULL ? &w->last->next : &w->first) = c;
    w->last = c;
    w->held += c->len;
    r->passed[w->up] += c->len;
    return true;
}

/* Hands on what is due; returns when the next piece is, INT64_MAX: none waits for its time. */
static int64_t hand_on(struct way *w, int64_t now)
{
    while (w->first != NULL) {
        struct chunk *c = w->first;
        if (c->due_us > now) {
            return c->due_us;
        }
        ssize_t n = send(w->out, c->data + c->from, c->len - c->from, MSG_NOSIGNAL);
        if (n < 0 && errno == EAGAIN) {
            return INT64_MAX;
        }
        c->from += n > 0 ? (size_t)n : c->len - c->from; /* nobody there: it is lost */
        w->ended = w->ended || n < 0;
        if (c->from == c->len) {
            w->held -= c->len;
            w->first = c->next;
            free(c);
        }
    }
    if (w->ended && !w->closed) {
        shutdown(w->out, SHUT_WR);
        w->closed = true;
    }
    return INT64_MAX;
}

/* One piece of each connection in turn, until none has more or the line is full. Returns when there
 * is something to do again. */
static int64_t turn(struct relay *r)
{
    int64_t now = now_us(), next = INT64_MAX;
    for (bool more = true; more;) {
        more = false;
        for (struct line *line = r->lines; line != NULL; line = line->next) {
            for (int i = 0; i < 2; i++) {
                struct way *w = &line->ways[i];
                more = (!w->ended && has_room(r, w, now) && take(r, w, now)) || more;
            }
        }
    }
    for (struct line **at = &r->lines; *at != NULL;) {
        struct line *line = *at;
        for (int i = 0; i < 2; i++) {
            int64_t due = hand_on(&line->ways[i], now);
            next = due < next ? due : next;
        }
        if (line->ways[0].closed && line->ways[1].closed) {
            close(line->fds[0]);
            close(line->fds[1]);
            *at = line->next;
            free(line);
        } else {
            at = &line->next;
        }
    }
    for (int i = 0; i < 2; i++) {
        if (r->bit_s > 0 && r->free_us[i] - now >= (int64_t)QUEUE_MS * 1000) {
            int64_t room = r->free_us[i] - (int64_t)QUEUE_MS * 1000 + 1;
            next = room < next ? room : next;
        }
    }
    return next;
}

static void report(const struct relay *r)
{
    printf("{\"up\":%" PRIu64 ",\"down\":%" PRIu64 ",\"connections\":%" PRIu64 "}\n", r->passed[1],
           r->passed[0], r->connections);
    fflush(stdout);
}

static void listen_on(struct relay *r, uint16_t port)
{
    int one = 1, small = SOCKET_BYTES;
    struct sockaddr_in address = loopback(port);
    r->listen_fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    setsockopt(r->listen_fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (r->bit_s > 0) { /* what waits is to wait in the line's queue, not in the kernel's */
        setsockopt(r->listen_fd, SOL_SOCKET, SO_RCVBUF, &small, sizeof small);
    }
    need(bind(r->listen_fd, (struct sockaddr *)&address, sizeof address) == 0 &&
             listen(r->listen_fd, 64) == 0,
         "listen");
    watch(r, r->listen_fd, EPOLLIN, &r->listen_fd);
}

int main(int argc, char **argv)
{
    if (argc < 3) {
        fprintf(stderr, "usage: relay LISTEN_PORT TO_PORT [DELAY_MS [KBIT_S]]\n");
        return 2;
    }
    struct relay r = {.to_port = (uint16_t)strtol(argv[2], NULL, 10),
                      .delay_us = argc > 3 ? strtol(argv[3], NULL, 10) * 1000 : 0,
                      .bit_s = argc > 4 ? strtol(argv[4], NULL, 10) * 1000 : 0,
                      .epoll_fd = epoll_create1(EPOLL_CLOEXEC)};
    sigset_t signals;
    sigemptyset(&signals);
    sigaddset(&signals, SIGUSR1);
    sigaddset(&signals, SIGTERM);
    sigprocmask(SIG_BLOCK, &signals, NULL);
    r.signal_fd = signalfd(-1, &signals, SFD_CLOEXEC | SFD_NONBLOCK);
    watch(&r, r.signal_fd, EPOLLIN, &r.signal_fd);
    listen_on(&r, (uint16_t)strtol(argv[1], NULL, 10));
    for (;;) {
        int64_t next = turn(&r), left = next == INT64_MAX ? -1 : next - now_us();
        struct timespec wait = {.tv_sec = left / 1000000, .tv_nsec = left % 1000000 * 1000};
        struct epoll_event events[EVENTS];
        static const struct timespec at_once;
        int n = epoll_pwait2(r.epoll_fd, events, EVENTS,
                             next == INT64_MAX ? NULL
                             : left < 0        ? &at_once
                                               : &wait,
                             NULL);
        for (int i = 0; i < n; i++) {
            struct signalfd_siginfo info = {0};
            if (events[i].data.ptr == &r.listen_fd) {
                accept_one(&r);
            } else if (events[i].data.ptr == &r.signal_fd &&
                       read(r.signal_fd, &info, sizeof info) == sizeof info) {
                report(&r);
                if (info.ssi_signo == SIGTERM) {
                    return 0;
                }
            }
        }
    }
}
