/* bench_drain URL CA_FILE [KEYS [SCANS [alone]]] - a backlog of SCANS scans of 50 devices of 20
 * points (1000: a million readings), from a store to an endpoint such as `windrow sink --discard`:
 * seconds and CPU until nothing waits, for tests/bench/drain.py. Before that a bare libcurl loop
 * posts the same readings as `format = batch`, uncompressed documents made beforehand; alone:
 * without it, and with the most anonymous memory that was in use. KEYS are further lines of
 * [uplink], separated by ';', for example "compress = zstd;parallel = 4". */
#include "reference_signal.h"
#include "tests/bench/backlog.inc"
#include "uplink/http/http.h"

#include <curl/curl.h>

enum { DEVICES = 50, A_COMMIT = 1, LIMIT_MS = 600000 };
enum { BATCH = 500, PARALLEL = 4 };

struct figures {
    double wall_s, cpu_s;
};

static struct figures drain(struct site *site, const struct config *config,
                            struct sender_status *ret_status)
{
    double cpu = cpu_s();
    int64_t began_ms = clock_mono_ms();
    struct sender *sender = site_sender(site, config);
    site_drain(site, sender, LIMIT_MS);
    struct figures took = {.wall_s = (double)(clock_mono_ms() - began_ms) / 1000,
                           .cpu_s = cpu_s() - cpu};
    sender_status(sender, ret_status);
    sender_destroy(sender);
    return took;
}

/* The documents of the whole backlog, cut as the sender cuts them. */
static size_t make_bodies(struct store *store, unsigned uplink, struct buffer *bodies, size_t most)
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
        if (count == 0 || made == most) {
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

static struct figures measure_bare(struct site *site, unsigned copy, char **argv)
{
    size_t most = site->seq * DEVICES;
    struct buffer *bodies = calloc(most, sizeof *bodies);
    need(bodies == NULL ? -ENOMEM : 0, "bodies");
    size_t count = make_bodies(site->store, copy, bodies, most);
    store_drop_uplink(site->store, copy);
    struct figures took = bare(argv[1], argv[2], bodies, count);
    for (size_t i = 0; i < count; i++) {
        buffer_finish(&bodies[i]);
    }
    free(bodies);
    return took;
}

int main(int argc, char **argv)
{
    if (argc < 3) {
        fprintf(stderr, "usage: bench_drain URL CA_FILE [KEYS [SCANS [alone]]]\n");
        return 2;
    }
    static struct site site;
    struct sender_status status;
    struct figures plain = {0};
    unsigned copy;
    bool alone = argc > 5 && strcmp(argv[5], "alone") == 0;
    log_set_level(LOG_LEVEL_ERROR);
    site_open(&site, DEVICES);
    if (!alone) {
        need(store_add_uplink(site.store, "copy", 1, 0, &copy), "store_add_uplink");
    }
    site_fill(&site, argc > 4 ? strtoull(argv[4], NULL, 10) : 1000, A_COMMIT);
    const struct config *config = site_configure(&site, argv[1], argv[2], argc > 3 ? argv[3] : "");
    if (!alone) {
        plain = measure_bare(&site, copy, argv);
    }
    struct figures ours = drain(&site, config, &status);
    printf("{\"readings\":%llu,\"requests\":%llu,\"bytes_sent\":%llu,\"wall_s\":%.3f,"
           "\"cpu_s\":%.3f,\"bare_wall_s\":%.3f,\"bare_cpu_s\":%.3f,\"anon_bytes\":%llu}\n",
           (unsigned long long)status.delivered, (unsigned long long)status.requests,
           (unsigned long long)status.bytes_sent, ours.wall_s, ours.cpu_s, plain.wall_s,
           plain.cpu_s, (unsigned long long)site.anon_bytes);
    config_unref(config);
    site_close(&site);
    return 0;
}
