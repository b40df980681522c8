/* bench_drain URL CA_FILE [KEYS] - a backlog of a million readings, from a store to an endpoint
 * such as `windrow sink --discard`: seconds and CPU until nothing waits. KEYS are further lines of
 * [uplink], separated by ';', for example "compress = zstd;parallel = 4". */
#include "gateway/base/clock.h"
#include "gateway/base/log.h"
#include "reference_signal.h"
#include "uplink/sender.h"

#include <poll.h>
#include <string.h>
#include <time.h>

enum { DEVICES = 50, POINTS = 20, SCANS = 1000, A_COMMIT = 5, LIMIT_MS = 20000 };

static double cpu_s(void)
{
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static int need(int r, const char *what)
{
    if (r < 0) {
        fprintf(stderr, "bench_drain: %s: %s\n", what, strerror(-r));
        exit(1);
    }
    return r;
}

static void name_devices(struct store *store, uint32_t ids[DEVICES])
{
    for (int d = 0; d < DEVICES; d++) {
        char name[16];
        snprintf(name, sizeof name, "t%02d", d);
        need(store_device(store, name, "{\"type\":\"V90\"}", &ids[d]), name);
        for (int p = 0; p < POINTS; p++) {
            uint16_t id;
            snprintf(name, sizeof name, "channel_%02d", reference_signal_20[p]);
            need(store_point(store, ids[d], name, "", &id), name);
        }
    }
}

static void append(struct store *store, struct reference_signal *signal, uint32_t device,
                   uint64_t seq)
{
    static union {
        struct scan scan;
        char room[sizeof(struct scan) + POINTS * sizeof(struct reading)];
    } u;
    int32_t row[REFERENCE_CHANNELS];
    reference_signal_next(signal, row);
    u.scan = (struct scan){.seq = seq,
                           .time_ms = clock_wall_ms() - (SCANS - (int64_t)seq) * 1000,
                           .device = device,
                           .count = POINTS};
    for (uint16_t p = 0; p < POINTS; p++) {
        u.scan.readings[p] = (struct reading){.point = p,
                                              .kind = VALUE_DECIMAL,
                                              .exponent = -2,
                                              .integer = row[reference_signal_20[p]]};
    }
    need(store_append(store, &u.scan), "append");
}

static void fill(struct store *store)
{
    static struct reference_signal signals[DEVICES];
    uint32_t ids[DEVICES];
    name_devices(store, ids);
    for (unsigned d = 0; d < DEVICES; d++) {
        reference_signal_init(&signals[d], d + 1);
    }
    for (uint64_t seq = 1; seq <= SCANS; seq++) {
        for (unsigned d = 0; d < DEVICES; d++) {
            append(store, &signals[d], ids[d], seq);
        }
        if (seq % A_COMMIT == 0) {
            need(store_commit(store), "commit");
        }
    }
}

static const struct config *configure(const char *dir, char **argv, int argc)
{
    char path[200];
    snprintf(path, sizeof path, "%s/windrow.ini", dir);
    FILE *f = fopen(path, "w");
    if (f == NULL) {
        need(-1, path);
    }
    fprintf(f, "[gateway]\nname = bench\n[uplink cloud]\ntype = http\nurl = %s\nca_file = %s\n",
            argv[1], argv[2]);
    for (const char *at = argc > 3 ? argv[3] : ""; *at != '\0'; at++) {
        fputc(*at == ';' ? '\n' : *at, f);
    }
    fputc('\n', f);
    fclose(f);
    const struct config *config = NULL;
    struct config_errors *errors = config_errors_create();
    if (config_load(path, errors, &config) < 0) {
        fprintf(stderr, "bench_drain: %s\n", config_errors_at(errors, 0)->why);
        exit(1);
    }
    config_errors_destroy(errors);
    return config;
}

static void drain(struct store *store, unsigned uplink, const struct config *config)
{
    struct sender *sender = NULL;
    struct sender_status status;
    struct ledger_device total = {.waiting = 1};
    need(sender_create(store, uplink, &config->uplinks[0], config, &sender), "sender_create");
    int64_t began_ms = clock_mono_ms(), end_ms = began_ms + LIMIT_MS;
    double cpu = cpu_s();
    need(sender_start(sender), "sender_start");
    while (total.waiting > 0 && clock_mono_ms() < end_ms) {
        poll(NULL, 0, 20);
        need(store_commit(store), "commit");
        need(store_ledger_total(store, (int)uplink, &total), "ledger");
    }
    double took_s = (double)(clock_mono_ms() - began_ms) / 1000;
    cpu = cpu_s() - cpu;
    sender_status(sender, &status);
    sender_destroy(sender);
    if (total.waiting > 0) {
        fprintf(stderr, "bench_drain: %llu still wait: %s\n", (unsigned long long)total.waiting,
                status.last_error);
        exit(1);
    }
    double millions = (double)DEVICES * SCANS * POINTS / 1e6;
    printf("{\"bench\":\"drain\",\"name\":\"backlog gone\",\"value\":%.3f,\"unit\":\"s a million\","
           "\"limit\":1.5,\"ratio\":%.3f}\n",
           took_s / millions, took_s / millions / 1.5);
    printf(
        "{\"bench\":\"drain\",\"name\":\"sender CPU\",\"value\":%.3f,\"unit\":\"s a million\"}\n",
        cpu / millions);
    printf(
        "{\"bench\":\"drain\",\"name\":\"on the wire\",\"value\":%.3f,\"unit\":\"B a reading\"}\n",
        (double)status.bytes_sent / millions / 1e6);
}

int main(int argc, char **argv)
{
    if (argc < 3) {
        fprintf(stderr, "usage: bench_drain URL CA_FILE [KEYS]\n");
        return 2;
    }
    log_set_level(LOG_LEVEL_ERROR);
    char dir[] = "/tmp/windrow-drain-XXXXXX", command[100];
    if (mkdtemp(dir) == NULL) {
        return 1;
    }
    struct store_settings settings = {
        .commit_interval_ms = 1000, .max_size_bytes = 256 << 20, .when_full = STORE_FULL_PAUSE};
    struct store *store = NULL;
    unsigned uplink;
    need(store_open(dir, &settings, &store), "store_open");
    need(store_add_uplink(store, "cloud", 1, 0, &uplink), "store_add_uplink");
    fill(store);
    const struct config *config = configure(dir, argv, argc);
    drain(store, uplink, config);
    config_unref(config);
    store_close(store);
    snprintf(command, sizeof command, "rm -r %s", dir);
    return system(command) == 0 ? 0 : 1;
}
