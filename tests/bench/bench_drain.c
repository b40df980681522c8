/* bench_drain URL CA_FILE [KEYS] - a backlog of a million readings, from a store to an endpoint
 * such as `windrow sink --discard`: seconds and CPU until nothing waits, beside a bare libcurl loop
 * that posts the same documents, made beforehand and uncompressed. KEYS are further lines of
 * [uplink], separated by ';', for example "compress = zstd;parallel = 4". */
#include "gateway/base/clock.h"
#include "gateway/base/log.h"
#include "reference_signal.h"
#include "uplink/http/http.h"
#include "uplink/sender.h"

#include <curl/curl.h>
#include <errno.h>
#include <poll.h>
#include <string.h>
#include <time.h>

enum { DEVICES = 50, POINTS = 20, SCANS = 1000, A_COMMIT = 5, LIMIT_MS = 20000 };
enum { BATCH = 500, PARALLEL = 4, BODIES_MAX = DEVICES * SCANS };

static const double millions = (double)DEVICES * SCANS * POINTS / 1e6;

struct figures {
    double wall_s, cpu_s;
};

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
    fprintf(f,
            "[gateway]\nname = bench\nclock = trusted\n[uplink cloud]\ntype = http\nurl = "
            "%s\nca_file = %s\n",
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

static void line(const char *name, double value, const char *unit, double limit)
{
    printf("{\"bench\":\"drain\",\"name\":\"%s\",\"value\":%.3f,\"unit\":\"%s\",\"limit\":%.3f,"
           "\"ratio\":%.3f}\n",
           name, value, unit, limit, value / limit);
}

static struct figures drain(struct store *store, unsigned uplink, const struct config *config)
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
    struct figures took = {.wall_s = (double)(clock_mono_ms() - began_ms) / 1000,
                           .cpu_s = cpu_s() - cpu};
    sender_status(sender, &status);
    sender_destroy(sender);
    if (total.waiting > 0) {
        fprintf(stderr, "bench_drain: %llu still wait: %s\n", (unsigned long long)total.waiting,
                status.last_error);
        exit(1);
    }
    printf("{\"bench\":\"drain\",\"name\":\"on the wire\",\"value\":%.3f,\"unit\":\"B a reading\","
           "\"limit\":null,\"ratio\":null}\n",
           (double)status.bytes_sent / millions / 1e6);
    return took;
}

/* The documents of the whole backlog, cut as the sender cuts them. */
static size_t make_bodies(struct store *store, unsigned uplink, struct buffer *bodies)
{
    static const struct http_settings settings = {.format = HTTP_BATCH};
    static struct batch_record records[BATCH];
    struct store_reader *reader;
    auto_buffer struct buffer arena = {0};
    const struct scan **scans = NULL;
    size_t count, made = 0;
    need(store_reader_create(store, uplink, false, &reader), "reader");
    for (;;) {
        need(store_reader_take(reader, STORE_LANE_BACKFILL, STREAM_RAW, BATCH, SIZE_MAX / 2, &arena,
                               &scans, &count),
             "take");
        if (count == 0 || made == BODIES_MAX) {
            break;
        }
        for (size_t i = 0; i < count; i++) {
            records[i] = (struct batch_record){.scan = scans[i],
                                               .names = store_names(store, scans[i]->device)};
            struct store_settlement done = {.device = scans[i]->device,
                                            .first_seq = scans[i]->seq,
                                            .last_seq = scans[i]->seq,
                                            .fates[FATE_DELIVERED] = POINTS};
            need(store_reader_settle(reader, &done), "settle");
        }
        struct batch batch = {
            .gateway = "bench", .store_id = store_id(store), .records = records, .count = count};
        struct uplink_request request = {0};
        need(uplink_http.encode(&settings, &batch, &request), "encode");
        buffer_finish(&request.headers);
        bodies[made++] = request.body;
    }
    free(scans);
    store_reader_destroy(reader);
    return made;
}

static size_t discard(char *bytes, size_t size, size_t count, void *user)
{
    (void)bytes;
    (void)user;
    return size * count;
}

static CURL *bare_handle(const char *url, const char *ca, struct curl_slist *headers)
{
    CURL *easy = curl_easy_init();
    if (easy == NULL) {
        need(-ENOMEM, "curl");
    }
    curl_easy_setopt(easy, CURLOPT_URL, url);
    curl_easy_setopt(easy, CURLOPT_CAINFO, ca);
    curl_easy_setopt(easy, CURLOPT_HTTPHEADER, headers);
    curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, discard);
    curl_easy_setopt(easy, CURLOPT_POST, 1L);
    return easy;
}

static void post(CURLM *multi, CURL *easy, const struct buffer *body)
{
    curl_easy_setopt(easy, CURLOPT_POSTFIELDS, body->data);
    curl_easy_setopt(easy, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)body->len);
    curl_multi_add_handle(multi, easy);
}

static size_t collect(CURLM *multi, const struct buffer *bodies, size_t count, size_t *next)
{
    size_t ended = 0;
    int left;
    CURLMsg *message;
    while ((message = curl_multi_info_read(multi, &left)) != NULL) {
        long status = 0;
        curl_easy_getinfo(message->easy_handle, CURLINFO_RESPONSE_CODE, &status);
        need(message->data.result == CURLE_OK && status == 200 ? 0 : -EIO, "bare post");
        curl_multi_remove_handle(multi, message->easy_handle);
        ended++;
        if (*next < count) {
            post(multi, message->easy_handle, &bodies[(*next)++]);
        }
    }
    return ended;
}

static struct figures bare(const char *url, const char *ca, const struct buffer *bodies,
                           size_t count)
{
    struct curl_slist *headers = curl_slist_append(NULL, "Content-Type: application/json");
    headers = curl_slist_append(headers, "Expect:");
    CURLM *multi = curl_multi_init();
    CURL *handles[PARALLEL];
    size_t next = 0, ended = 0;
    int running = 0;
    double cpu = cpu_s();
    int64_t began_ms = clock_mono_ms();
    for (size_t i = 0; i < PARALLEL; i++) {
        handles[i] = bare_handle(url, ca, headers);
        if (next < count) {
            post(multi, handles[i], &bodies[next++]);
        }
    }
    while (ended < count) {
        curl_multi_perform(multi, &running);
        size_t now = collect(multi, bodies, count, &next);
        ended += now;
        if (now == 0) { /* what was just added has to be performed before it is waited for */
            curl_multi_poll(multi, NULL, 0, 1000, NULL);
        }
    }
    struct figures took = {.wall_s = (double)(clock_mono_ms() - began_ms) / 1000,
                           .cpu_s = cpu_s() - cpu};
    for (size_t i = 0; i < PARALLEL; i++) {
        curl_multi_remove_handle(multi, handles[i]);
        curl_easy_cleanup(handles[i]);
    }
    curl_multi_cleanup(multi);
    curl_slist_free_all(headers);
    return took;
}

static void compare(struct store *store, unsigned uplink, unsigned copy,
                    const struct config *config, char **argv)
{
    struct buffer *bodies = calloc(BODIES_MAX, sizeof *bodies);
    need(bodies == NULL ? -ENOMEM : 0, "bodies");
    size_t count = make_bodies(store, copy, bodies);
    store_drop_uplink(store, copy);
    struct figures plain = bare(argv[1], argv[2], bodies, count);
    struct figures ours = drain(store, uplink, config);
    line("bare loop", plain.wall_s / millions, "s a million", 1.5);
    line("backlog gone", ours.wall_s / millions, "s a million", 1.5);
    line("time against the bare loop", ours.wall_s / plain.wall_s, "times", 1 / 0.6);
    line("CPU against the bare loop", ours.cpu_s / millions, "s a million", plain.cpu_s / millions);
    for (size_t i = 0; i < count; i++) {
        buffer_finish(&bodies[i]);
    }
    free(bodies);
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
    unsigned uplink, copy;
    need(store_open(dir, &settings, &store), "store_open");
    need(store_add_uplink(store, "cloud", 1, 0, &uplink), "store_add_uplink");
    need(store_add_uplink(store, "copy", 1, 0, &copy), "store_add_uplink");
    fill(store);
    const struct config *config = configure(dir, argv, argc);
    compare(store, uplink, copy, config, argv);
    config_unref(config);
    store_close(store);
    snprintf(command, sizeof command, "rm -r %s", dir);
    return system(command) == 0 ? 0 : 1;
}
