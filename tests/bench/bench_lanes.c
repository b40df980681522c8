/* bench_lanes DEVICES BACKLOG SECONDS URL CA_FILE [KEYS] - so many scans of every device wait;
 * while they are sent, every device has a new scan each second, for SECONDS. Prints the first live
 * seq and what of the backlog is left; tests/bench/lanes.py looks at what arrives. KEYS are further
 * lines of [uplink], separated by ';'. */
#include "reference_signal.h"
#include "tests/bench/backlog.inc"

enum { PERIOD_MS = 1000, COMMIT_MS = 100, LAST_MS = 5000 };

/* Commits now and then what the sender settles, as the pipeline does. */
static void wait_until(struct site *site, int64_t until_ms)
{
    for (int64_t now_ms; (now_ms = clock_mono_ms()) < until_ms;) {
        int64_t left_ms = until_ms - now_ms;
        poll(NULL, 0, (int)(left_ms < COMMIT_MS ? left_ms : COMMIT_MS));
        if (clock_mono_ms() < until_ms) {
            need(store_commit(site->store), "commit");
        }
    }
}

int main(int argc, char **argv)
{
    if (argc < 6) {
        fprintf(stderr, "usage: bench_lanes DEVICES BACKLOG SECONDS URL CA_FILE [KEYS]\n");
        return 2;
    }
    static struct site site;
    log_set_level(LOG_LEVEL_ERROR);
    unsigned devices = (unsigned)strtoul(argv[1], NULL, 10);
    long seconds = strtol(argv[3], NULL, 10);
    need(devices > 0 && devices <= DEVICES_MAX ? 0 : -ERANGE, "DEVICES");
    site_open(&site, devices);
    site_fill(&site, strtoull(argv[2], NULL, 10), 10);
    uint64_t last_old = site.seq;
    const struct config *config = site_configure(&site, argv[4], argv[5], argc > 6 ? argv[6] : "");
    double cpu = cpu_s();
    struct sender *sender = site_sender(&site, config);
    int64_t at_ms = clock_mono_ms();
    for (long i = 0; i < seconds; i++) {
        wait_until(&site, at_ms += PERIOD_MS);
        site_scan_all(&site, clock_wall_ms());
        need(store_commit(site.store), "commit");
    }
    wait_until(&site, at_ms + LAST_MS);
    struct sender_status status;
    sender_status(sender, &status);
    printf("{\"first_live\":%llu,\"last_live\":%llu,\"waiting\":%llu,\"delivered\":%llu,"
           "\"failures\":%llu,\"cpu_s\":%.3f}\n",
           (unsigned long long)last_old + 1, (unsigned long long)site.seq,
           (unsigned long long)status.waiting, (unsigned long long)status.delivered,
           (unsigned long long)status.failures, cpu_s() - cpu);
    fflush(stdout);
    if (argc > 7 && strcmp(argv[7], "drain") == 0) {
        site_drain(&site, sender, 600000);
    }
    sender_stop(sender, 1000);
    sender_destroy(sender);
    config_unref(config);
    site_close(&site);
    return 0;
}
