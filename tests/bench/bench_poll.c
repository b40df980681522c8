/* What a poll costs: the modbus-tcp driver against a bare epoll loop with just enough MBAP, both at
 * the same pace against the same forked slave, taken in turns; medians of the turns.
 *
 * Prints JSON lines {"bench","name","value","unit","limit","ratio"}; ratio is driver / bare, and
 * the exit status is 1 when a ratio is over its limit. The driver's side ends where the pipeline
 * begins: scans are copied and counted. */
#include "drivers/modbus/mbap.h"
#include "drivers/modbus/modbus_tcp.h"
#include "drivers/modbus/settings.h"
#include "drivers/schedule.h"
#include "gateway/base/clock.h"
#include "gateway/base/log.h"

#include <arpa/inet.h>
#include <event2/event.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <sys/wait.h>
#include <time.h>

enum { REGISTERS = 60, CONNECTIONS_MAX = 800, EVENTS = 256, TURNS = 3, DESCRIPTORS = 8192 };

#define CPU_LIMIT 1.5 /* of issue "poll": the driver's CPU a poll over the bare loop's */

static uint64_t scans;
static uint8_t sunk[8192];

int scan_submit(struct device *device, struct scan *scan)
{
    (void)device;
    size_t size = scan_size(scan);
    memcpy(sunk, scan, size < sizeof(sunk) ? size : sizeof(sunk));
    scans++;
    return 0;
}

/* Drivers that are linked in with the registry push. */
int scan_submit_pushed(struct device *device, struct scan *scan,
                       void (*durable)(void *user, int error), void *user)
{
    (void)device;
    (void)scan;
    (void)durable;
    (void)user;
    return -ENOSYS;
}

bool scan_has_room(const struct device *device, size_t readings)
{
    (void)device;
    return readings < 65536;
}

static double cpu_s(void)
{
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void die(const char *what)
{
    perror(what);
    exit(2);
}

static void watch(int epoll, int fd)
{
    struct epoll_event event = {.events = EPOLLIN, .data.fd = fd};
    if (epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event) != 0) {
        die("epoll_ctl");
    }
}

/* --- the slave --- */

static void slave_answer(int fd)
{
    static uint16_t values[MBAP_READ_REGISTERS_MAX];
    uint8_t in[MBAP_FRAME_MAX], out[MBAP_FRAME_MAX];
    struct mbap_frame frame;
    struct mbap_request request;
    ssize_t n = recv(fd, in, sizeof(in), 0);
    if (n <= 0) {
        close(fd);
        return;
    }
    if (mbap_parse_frame(in, (size_t)n, &frame) <= 0 ||
        mbap_parse_request(frame.pdu, frame.pdu_len, &request) != 0) {
        close(fd);
        return;
    }
    values[0]++;
    size_t len = mbap_reply_registers(out + MBAP_HEADER_SIZE, request.function, values,
                                      request.count);
    mbap_write_header(out, frame.transaction, frame.unit, len);
    if (send(fd, out, MBAP_HEADER_SIZE + len, MSG_NOSIGNAL) < 0) {
        close(fd);
    }
}

static void slave_run(int listener)
{
    struct epoll_event events[EVENTS];
    int epoll = epoll_create1(EPOLL_CLOEXEC), one = 1;
    watch(epoll, listener);
    for (;;) {
        int n = epoll_wait(epoll, events, EVENTS, -1);
        for (int i = 0; i < n; i++) {
            if (events[i].data.fd != listener) {
                slave_answer(events[i].data.fd);
                continue;
            }
            int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
            if (fd >= 0) {
                setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
                watch(epoll, fd);
            }
        }
    }
}

static pid_t slave_start(struct sockaddr_in *ret_at)
{
    socklen_t len = sizeof(*ret_at);
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    /* All of 127/8, and nothing else where the kernel lets us say so. */
    (void)setsockopt(listener, SOL_SOCKET, SO_BINDTODEVICE, "lo", 3);
    *ret_at = (struct sockaddr_in){.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_ANY)};
    if (listener < 0 || bind(listener, (struct sockaddr *)ret_at, len) != 0 ||
        listen(listener, CONNECTIONS_MAX) != 0 ||
        getsockname(listener, (struct sockaddr *)ret_at, &len) != 0) {
        die("listen");
    }
    pid_t pid = fork();
    if (pid < 0) {
        die("fork");
    }
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        slave_run(listener);
    }
    close(listener);
    return pid;
}

/* --- what both sides are asked to do, and what they took --- */

struct load {
    struct sockaddr_in at;
    unsigned connections;
    int64_t period_ms, duration_ms;
};

struct cost {
    double us_a_poll, polls_a_s;
    int64_t late_p50_us, late_p99_us, late_max_us; /* of the driver */
};

/* --- the bare loop --- */

struct bare {
    int epoll, timer;
    int fds[CONNECTIONS_MAX];
    uint16_t transactions[CONNECTIONS_MAX + 64]; /* by descriptor */
    bool waits[CONNECTIONS_MAX + 64];
    uint16_t values[REGISTERS];
    uint64_t polls;
};

static void bare_connect(struct bare *bare, const struct load *load)
{
    int one = 1;
    bare->epoll = epoll_create1(EPOLL_CLOEXEC);
    bare->timer = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC);
    watch(bare->epoll, bare->timer);
    for (unsigned i = 0; i < load->connections; i++) {
        int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        if (fd < 0 || fd >= (int)ARRAY_SIZE(bare->transactions) ||
            connect(fd, (const struct sockaddr *)&load->at, sizeof(load->at)) != 0) {
            die("connect");
        }
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
        watch(bare->epoll, fd);
        bare->fds[i] = fd;
    }
}

static void bare_ask(struct bare *bare, const struct load *load)
{
    uint8_t frame[12] = {0, 0, 0, 0, 0, 6, 1, MBAP_READ_HOLDING, 0, 0, 0, REGISTERS};
    for (unsigned i = 0; i < load->connections; i++) {
        int fd = bare->fds[i];
        if (bare->waits[fd]) {
            continue; /* as the driver does: an overrun skips the period */
        }
        bare->waits[fd] = true;
        mbap_put16(frame, ++bare->transactions[fd]);
        if (send(fd, frame, sizeof(frame), MSG_NOSIGNAL) != (ssize_t)sizeof(frame)) {
            die("send");
        }
    }
}

static void bare_take(struct bare *bare, int fd)
{
    uint8_t in[MBAP_FRAME_MAX];
    ssize_t n = recv(fd, in, sizeof(in), 0);
    if (n != 9 + 2 * REGISTERS || mbap_get16(in) != bare->transactions[fd] ||
        mbap_get16(in + 2) != 0 || in[6] != 1 || in[7] != MBAP_READ_HOLDING) {
        die("reply");
    }
    for (unsigned i = 0; i < REGISTERS; i++) {
        bare->values[i] = mbap_get16(in + 9 + 2 * i);
    }
    bare->waits[fd] = false;
    bare->polls++;
}

static struct cost run_bare(const struct load *load)
{
    static struct bare bare;
    struct epoll_event events[EVENTS];
    memset(&bare, 0, sizeof(bare));
    bare_connect(&bare, load);
    const struct timespec period = {load->period_ms / 1000, load->period_ms % 1000 * 1000000};
    const struct itimerspec every = {.it_interval = period, .it_value = {.tv_nsec = 1}};
    timerfd_settime(bare.timer, 0, &every, NULL);
    int64_t begin = clock_mono_ms();
    double cpu = cpu_s();
    uint64_t expirations;
    while (clock_mono_ms() - begin < load->duration_ms) {
        int n = epoll_wait(bare.epoll, events, EVENTS, 1000);
        for (int i = 0; i < n; i++) {
            if (events[i].data.fd != bare.timer) {
                bare_take(&bare, events[i].data.fd);
            } else if (read(bare.timer, &expirations, sizeof(expirations)) > 0) {
                bare_ask(&bare, load);
            }
        }
    }
    cpu = cpu_s() - cpu;
    double seconds = (double)(clock_mono_ms() - begin) / 1000;
    for (unsigned i = 0; i < load->connections; i++) {
        close(bare.fds[i]);
    }
    close(bare.timer);
    close(bare.epoll);
    return (struct cost){.us_a_poll = cpu * 1e6 / (double)bare.polls,
                         .polls_a_s = (double)bare.polls / seconds};
}

/* --- the driver --- */

struct rig {
    struct config_point points[REGISTERS];
    struct registers_point addresses[REGISTERS];
    struct modbus_settings settings[CONNECTIONS_MAX];
    struct config_device configs[CONNECTIONS_MAX];
    struct device devices[CONNECTIONS_MAX];
    char addresses_text[CONNECTIONS_MAX][32];
};

/* Each device gets a loopback address of its own: one endpoint, one connection each. */
static void prepare(struct rig *rig, const struct load *load)
{
    memset(rig, 0, sizeof(*rig));
    for (unsigned i = 0; i < REGISTERS; i++) {
        rig->addresses[i] = (struct registers_point){
            .type = i % 2 == 0 ? REGISTERS_UINT16 : REGISTERS_INT16,
            .first = (uint16_t)i,
            .width = 1,
        };
        rig->points[i] = (struct config_point){
            .name = "p", .source = "", .address = &rig->addresses[i], .scale = {1, 0}, .every = 1};
    }
    for (unsigned i = 0; i < load->connections; i++) {
        snprintf(rig->addresses_text[i], sizeof(rig->addresses_text[i]), "127.0.%u.%u:%u", i / 250,
                 i % 250 + 1, ntohs(load->at.sin_port));
        rig->settings[i] = (struct modbus_settings){
            .address = rig->addresses_text[i], .unit = 1, .max_gap = 16, .largest_request = 125};
        rig->configs[i] = (struct config_device){.name = "bench",
                                                 .driver = "modbus-tcp",
                                                 .points = {rig->points, REGISTERS},
                                                 .poll_ms = load->period_ms,
                                                 .timeout_ms = 2000,
                                                 .settings = &rig->settings[i]};
        rig->devices[i].config = &rig->configs[i];
    }
}

static void run_loop(struct event_base *base, int64_t ms)
{
    const struct timeval time = {.tv_sec = ms / 1000, .tv_usec = ms % 1000 * 1000};
    event_base_loopexit(base, &time);
    event_base_dispatch(base);
}

static struct cost run_driver(const struct load *load)
{
    static struct rig rig;
    struct event_base *base = event_base_new();
    void *driver = NULL;
    prepare(&rig, load);
    if (base == NULL || modbus_tcp_driver.create(base, NULL, &driver) != 0) {
        die("create");
    }
    for (unsigned i = 0; i < load->connections; i++) {
        if (modbus_tcp_driver.add(driver, &rig.devices[i]) != 0) {
            die("add");
        }
    }
    /* Connecting is not part of a poll. */
    run_loop(base, load->period_ms > 1000 ? load->period_ms : 1000);
    struct schedule *schedule = modbus_tcp_schedule(driver);
    schedule_forget_lateness(schedule);
    scans = 0;
    int64_t begin = clock_mono_ms();
    double cpu = cpu_s();
    run_loop(base, load->duration_ms);
    cpu = cpu_s() - cpu;
    double seconds = (double)(clock_mono_ms() - begin) / 1000;
    struct cost cost = {.us_a_poll = cpu * 1e6 / (double)scans,
                        .polls_a_s = (double)scans / seconds,
                        .late_p50_us = schedule_late_us(schedule, 0.5),
                        .late_p99_us = schedule_late_us(schedule, 0.99),
                        .late_max_us = schedule_late_us(schedule, 1)};
    for (unsigned i = 0; i < load->connections; i++) {
        modbus_tcp_driver.remove(driver, &rig.devices[i]);
    }
    modbus_tcp_driver.destroy(driver);
    event_base_free(base);
    return cost;
}

/* --- reporting --- */

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

static double median(double values[TURNS])
{
    qsort(values, TURNS, sizeof(*values), compare);
    return values[TURNS / 2];
}

static void print_line(const char *what, const struct load *load, double value, const char *unit,
                       double limit, double ratio)
{
    printf("{\"bench\":\"poll\",\"name\":\"%s_%u_at_%lldms\",\"value\":%.2f,\"unit\":\"%s\"", what,
           load->connections, (long long)load->period_ms, value, unit);
    if (limit > 0) {
        printf(",\"limit\":%.2f", limit);
    } else {
        printf(",\"limit\":null");
    }
    if (ratio > 0) {
        printf(",\"ratio\":%.2f}\n", ratio);
    } else {
        printf(",\"ratio\":null}\n");
    }
    fflush(stdout);
}

/* Whether the driver kept the limit. */
static bool compare_both(const struct load *load)
{
    double bare_us[TURNS], driver_us[TURNS], bare_rate[TURNS], driver_rate[TURNS];
    struct cost cost = {0};
    for (unsigned i = 0; i < TURNS; i++) {
        cost = run_bare(load);
        bare_us[i] = cost.us_a_poll;
        bare_rate[i] = cost.polls_a_s;
        cost = run_driver(load);
        driver_us[i] = cost.us_a_poll;
        driver_rate[i] = cost.polls_a_s;
    }
    double bare = median(bare_us), driver = median(driver_us);
    double rate = median(driver_rate), rate_bare = median(bare_rate);
    print_line("bare_cpu", load, bare, "us/poll", 0, 0);
    print_line("driver_cpu", load, driver, "us/poll", bare * CPU_LIMIT, driver / bare);
    print_line("driver_rate", load, rate, "polls/s", 0, rate / rate_bare);
    print_line("late_p50", load, (double)cost.late_p50_us, "us", 0, 0);
    print_line("late_p99", load, (double)cost.late_p99_us, "us", 0, 0);
    print_line("late_max", load, (double)cost.late_max_us, "us", 0, 0);
    return driver <= bare * CPU_LIMIT;
}

int main(int argc, char **argv)
{
    struct rlimit files = {DESCRIPTORS, DESCRIPTORS};
    int64_t duration_ms = argc > 1 ? strtol(argv[1], NULL, 10) : 2000;
    if (setrlimit(RLIMIT_NOFILE, &files) != 0 && getrlimit(RLIMIT_NOFILE, &files) == 0) {
        files.rlim_cur = files.rlim_max;
        setrlimit(RLIMIT_NOFILE, &files);
    }
    log_set_level(LOG_LEVEL_ERROR);
    struct load load = {.duration_ms = duration_ms > 0 ? duration_ms : 2000};
    pid_t slave = slave_start(&load.at);
    const struct {
        unsigned connections;
        int64_t period_ms;
    } loads[] = {{200, 20}, {800, 20}, {800, 1000}};
    bool good = true;
    for (size_t i = 0; i < ARRAY_SIZE(loads); i++) {
        load.connections = loads[i].connections;
        load.period_ms = loads[i].period_ms;
        good = compare_both(&load) && good;
    }
    kill(slave, SIGKILL);
    waitpid(slave, NULL, 0);
    return good ? 0 : 1;
}
