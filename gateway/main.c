/* windrowd: parses its arguments, starts the parts in order, minds signals, stops in reverse. */
#include "gateway/base/clock.h"
#include "gateway/base/log.h"
#include "gateway/daemon.h"

#include <curl/curl.h>
#include <errno.h>
#include <event2/thread.h>
#include <getopt.h>
#include <malloc.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <systemd/sd-daemon.h>

#define CONFIG_DEFAULT "/etc/windrow/windrow.ini"

/* How long requests in flight may take to end when the gateway stops. */
enum { STOP_GRACE_MS = 5000, HEARTBEAT_MS = 5000 };

static void usage(FILE *to)
{
    fprintf(to, "usage: windrowd [-c FILE]\n"
                "Reads field sensors, keeps every reading, forwards batches.\n\n"
                "  -c, --config FILE  the configuration (default " CONFIG_DEFAULT ")\n"
                "  -V, --version      prints the version\n"
                "  -h, --help         prints this\n\n"
                "Runs in the foreground and logs to stderr. SIGHUP reloads the configuration,\n"
                "SIGTERM and SIGINT stop. Check a configuration with: windrow check FILE\n");
}

/* 0: go on; otherwise the exit status plus one. */
static int parse_arguments(int argc, char **argv, const char **ret_path)
{
    static const struct option options[] = {{"config", required_argument, NULL, 'c'},
                                            {"version", no_argument, NULL, 'V'},
                                            {"help", no_argument, NULL, 'h'},
                                            {0}};
    int c;
    while ((c = getopt_long(argc, argv, "c:Vh", options, NULL)) != -1) {
        switch (c) {
        case 'c':
            *ret_path = optarg;
            break;
        case 'V':
            puts("windrowd " WINDROW_VERSION);
            return 1;
        case 'h':
            usage(stdout);
            return 1;
        default:
            usage(stderr);
            return 3;
        }
    }
    if (optind < argc) {
        usage(stderr);
        return 3;
    }
    return 0;
}

/* Signals are taken from a descriptor; threads inherit the mask. */
static int take_signals(void)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGHUP);
    pthread_sigmask(SIG_BLOCK, &set, NULL);
    signal(SIGPIPE, SIG_IGN);
    signal(SIGXFSZ, SIG_IGN); /* a file size limit shows as EFBIG instead */
    return signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
}

/* One descriptor a device and some: the soft limit of 1,024 is too small for a wind farm. */
static void raise_descriptor_limit(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur < limit.rlim_max) {
        limit.rlim_cur = limit.rlim_max;
        setrlimit(RLIMIT_NOFILE, &limit);
    }
}

static int load(struct gateway *gateway)
{
    struct config_errors *errors = config_errors_create();
    if (errors == NULL) {
        return -ENOMEM;
    }
    int r = config_load(gateway->config_path, errors, &gateway->config);
    daemon_tell_errors(errors, NULL);
    config_errors_destroy(errors);
    if (r == 0) {
        log_set_level((enum log_level)gateway->config->gateway->log_level);
    }
    return r;
}

static int make_directory(const char *path)
{
    if (mkdir(path, 0750) < 0 && errno != EEXIST) {
        log_error("%s: cannot be made: %s", path, strerror(errno));
        return -errno;
    }
    return 0;
}

static int start_store(struct gateway *gateway)
{
    const struct config_gateway *g = gateway->config->gateway;
    int r = make_directory(g->data_dir);
    r = r < 0 ? r : make_directory(g->run_dir);
    if (r < 0) {
        return r;
    }
    r = store_open(g->data_dir, gateway->config->store, &gateway->store);
    if (r < 0) {
        log_error("store in %s: %s", g->data_dir,
                  r == -EBUSY ? "another windrowd is at work on it" : strerror(-r));
        return r;
    }
    const char *aside = store_quarantined(gateway->store);
    if (aside != NULL) {
        log_error("store in %s was damaged: set aside as %s, a fresh one begins", g->data_dir,
                  aside);
    }
    return 0;
}

static int start_pipeline(struct gateway *gateway)
{
    int r = pipeline_create(gateway->store, gateway->config, &gateway->pipeline);
    if (r == 0) {
        pipeline_tell_failure(gateway->pipeline, gateway->wake_fd);
        r = pipeline_start(gateway->pipeline);
    }
    if (r < 0) {
        log_error("pipeline: %s", strerror(-r));
    }
    return r;
}

static int start_writes(struct gateway *gateway)
{
    daemon_host_init(gateway);
    daemon_uplink_host_init(gateway);
    int r = daemon_start_writes(gateway);
    if (r < 0) {
        log_error("writes: what the store remembers of them does not read: %s", strerror(-r));
    }
    return r;
}

static int start_field(struct gateway *gateway)
{
    int r = field_start(gateway->config, &gateway->field);
    if (r < 0) {
        log_error("field: %s", strerror(-r));
        return r;
    }
    return daemon_start_devices(gateway);
}

static int start_api(struct gateway *gateway)
{
    char why[200] = "";
    if (asprintf(&gateway->socket_path, "%s/windrow.sock", gateway->config->gateway->run_dir) < 0) {
        gateway->socket_path = NULL;
        return -ENOMEM;
    }
    gateway->host.socket_path = gateway->socket_path;
    int r = api_start(&gateway->host, gateway->config->api, &gateway->api, why, sizeof why);
    if (r < 0) {
        log_error("api: %s", why);
    }
    return r;
}

/* It offers what comes back to the uplinks, so it begins when they are there. */
static int start_salvage(struct gateway *gateway)
{
    int r = pipeline_salvage(gateway->pipeline, writes_take_over, gateway->writes);
    if (r < 0) {
        log_error("store: what was set aside cannot be salvaged: %s", strerror(-r));
    }
    return r;
}

/* The order in which the parts start. */
static int start(struct gateway *gateway)
{
    int r = load(gateway);
    r = r < 0 ? r : start_store(gateway);
    r = r < 0 ? r : start_pipeline(gateway);
    r = r < 0 ? r : start_writes(gateway);
    r = r < 0 ? r : daemon_start_uplinks(gateway);
    r = r < 0 ? r : start_field(gateway);
    r = r < 0 ? r : start_salvage(gateway);
    r = r < 0 ? r : start_api(gateway);
    return r;
}

/* The exact reverse; takes a gateway that started half. */
static void stop(struct gateway *gateway)
{
    api_stop(gateway->api);
    free(gateway->socket_path);
    field_stop(gateway->field);
    daemon_stop_uplinks(gateway, STOP_GRACE_MS);
    if (gateway->pipeline != NULL) {
        pipeline_stop(gateway->pipeline);
    }
    daemon_forget_devices(gateway);
    pipeline_destroy(gateway->pipeline);
    writes_destroy(gateway->writes);
    store_close(gateway->store);
    config_unref(gateway->config);
}

static void reload(struct gateway *gateway)
{
    sd_notify(0, "RELOADING=1");
    if (daemon_reload(gateway) < 0) {
        log_warning("reload: did not take effect in full");
    }
    sd_notify(0, "READY=1");
}

static bool reload_was_asked(struct gateway *gateway)
{
    uint64_t count;
    ssize_t ignored = read(gateway->wake_fd, &count, sizeof count);
    (void)ignored;
    pthread_mutex_lock(&gateway->lock);
    bool asked = gateway->reload_asked;
    gateway->reload_asked = false;
    pthread_mutex_unlock(&gateway->lock);
    return asked;
}

/* Until a signal says stop (0), or the store failed and only a restart can help (-errno). */
static int mind(struct gateway *gateway, int signal_fd)
{
    struct pollfd fds[] = {{.fd = signal_fd, .events = POLLIN},
                           {.fd = gateway->wake_fd, .events = POLLIN}};
    uint64_t field_beat = 0, pipeline_beat = 0;
    for (;;) {
        if (poll(fds, ARRAY_SIZE(fds), HEARTBEAT_MS) < 0 && errno != EINTR) {
            return -errno;
        }
        struct signalfd_siginfo info;
        while (read(signal_fd, &info, sizeof info) == sizeof info) {
            if (info.ssi_signo != SIGHUP) {
                return 0;
            }
            reload(gateway);
        }
        if (reload_was_asked(gateway)) {
            reload(gateway);
        }
        int r = pipeline_error(gateway->pipeline);
        if (r < 0) {
            return r;
        }
        uint64_t field_now = field_heartbeat(gateway->field);
        uint64_t pipeline_now = pipeline_heartbeat(gateway->pipeline);
        if (field_now != field_beat && pipeline_now != pipeline_beat) {
            sd_notify(0, "WATCHDOG=1");
        }
        field_beat = field_now;
        pipeline_beat = pipeline_now;
    }
}

int main(int argc, char **argv)
{
    struct gateway gateway = {.config_path = CONFIG_DEFAULT, .wake_fd = -1};
    int done = parse_arguments(argc, argv, &gateway.config_path);
    if (done != 0) {
        return done - 1;
    }
    mallopt(M_ARENA_MAX, 2); /* a heap a thread would multiply what is held in reserve */
    mallopt(M_MMAP_THRESHOLD, 128 * 1024); /* large buffers go back to the system at once */
    auto_close int signal_fd = take_signals();
    gateway.wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (signal_fd < 0 || gateway.wake_fd < 0 || evthread_use_pthreads() < 0 ||
        curl_global_init(CURL_GLOBAL_DEFAULT) != 0) {
        log_error("start: %s", strerror(errno));
        return 1;
    }
    pthread_mutex_init(&gateway.lock, NULL);
    raise_descriptor_limit();
    gateway.started_boot_ms = clock_boot_ms();
    int r = start(&gateway);
    if (r == 0) {
        log_info("windrowd %s: %zu devices, %zu uplinks, store %s", WINDROW_VERSION,
                 gateway.device_count, gateway.desk_count, store_id(gateway.store));
        sd_notify(0, "READY=1");
        r = mind(&gateway, signal_fd);
        if (r < 0) {
            log_error("the store failed: %s; stopping, a restart begins anew", strerror(-r));
        }
        sd_notify(0, "STOPPING=1");
    }
    bool misconfigured = gateway.config == NULL;
    stop(&gateway);
    close(gateway.wake_fd);
    pthread_mutex_destroy(&gateway.lock);
    curl_global_cleanup();
    return misconfigured ? 2 : r < 0 ? 1 : 0;
}
