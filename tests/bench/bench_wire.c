/* bench_wire device|arrival DEVICES BATCHES URL CA_FILE [KEYS] - sends so many batches of 500 scans
 * of 20 points of the reference signal to an endpoint, for tests/bench/wire.py to count the bytes:
 * device: a backlog, sent in device order; arrival: as it comes in, each batch as soon as it is
 * full. KEYS are further lines of [uplink], separated by ';'. Prints what was sent. */
#include "reference_signal.h"
#include "tests/bench/backlog.inc"

enum { SCANS = 500, LIMIT_MS = 120000 };

/* Order-0 entropy of the differences of each channel: what no coder of single differences beats. */
static double entropy_bytes(uint64_t turbine, int steps)
{
    enum { SPAN = 4096 };
    static unsigned counts[POINTS][2 * SPAN];
    struct reference_signal signal;
    int32_t row[REFERENCE_CHANNELS], last[REFERENCE_CHANNELS];
    double bits = 0;
    reference_signal_init(&signal, turbine);
    reference_signal_next(&signal, last);
    for (int i = 0; i < steps; i++) {
        reference_signal_next(&signal, row);
        for (int p = 0; p < POINTS; p++) {
            int difference = row[reference_signal_20[p]] - last[reference_signal_20[p]];
            need(abs(difference) < SPAN ? 0 : -ERANGE, "difference");
            counts[p][difference + SPAN]++;
        }
        memcpy(last, row, sizeof last);
    }
    for (int p = 0; p < POINTS; p++) {
        for (int i = 0; i < 2 * SPAN; i++) {
            double part = (double)counts[p][i] / steps;
            bits -= part > 0 ? part * log2(part) : 0;
        }
    }
    return bits / 8 / POINTS;
}

static void send_as_it_comes(struct site *site, struct sender *sender, unsigned batches)
{
    for (unsigned b = 0; b < batches; b++) {
        for (unsigned scans = 0; scans < SCANS; scans += site->devices) {
            site_scan_all(site, clock_wall_ms());
            need(store_commit(site->store), "commit");
        }
        site_drain(site, sender, LIMIT_MS);
    }
}

int main(int argc, char **argv)
{
    if (argc < 6) {
        fprintf(stderr, "usage: bench_wire device|arrival DEVICES BATCHES URL CA_FILE [KEYS]\n");
        return 2;
    }
    static struct site site;
    log_set_level(LOG_LEVEL_ERROR);
    unsigned devices = (unsigned)strtoul(argv[2], NULL, 10);
    unsigned batches = (unsigned)strtoul(argv[3], NULL, 10);
    bool arrival = strcmp(argv[1], "arrival") == 0;
    if (devices == 0 || SCANS % devices != 0) {
        fprintf(stderr, "bench_wire: DEVICES divides %d\n", SCANS);
        return 2;
    }
    site_open(&site, devices);
    if (!arrival) {
        site_fill(&site, (uint64_t)batches * SCANS / devices, 2);
    }
    const struct config *config = site_configure(&site, argv[4], argv[5], argc > 6 ? argv[6] : "");
    double cpu = cpu_s();
    struct sender *sender = site_sender(&site, config);
    if (arrival) {
        send_as_it_comes(&site, sender, batches);
    } else {
        site_drain(&site, sender, LIMIT_MS);
    }
    struct sender_status status;
    sender_status(sender, &status);
    sender_stop(sender, 1000);
    sender_destroy(sender);
    printf("{\"readings\":%llu,\"requests\":%llu,\"bytes_sent\":%llu,\"cpu_s\":%.4f,\"entropy\":%."
           "4f}\n",
           (unsigned long long)status.delivered, (unsigned long long)status.requests,
           (unsigned long long)status.bytes_sent, cpu_s() - cpu, entropy_bytes(1, 20000));
    config_unref(config);
    site_close(&site);
    return 0;
}
