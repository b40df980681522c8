/* powercut_kill [--kills N] [--seed S] [--hours H] [--work DIR]
 *
 * kill -9 at a random moment, N times (1,000), while one thread appends and commits and two threads
 * take and settle. After each, the store is opened beside the truth: it must be at the last commit
 * that was acknowledged or at the one under way, and lack nothing. Every ROUNDS_A_STORE kills it is
 * emptied and a new one begins, so that creation is hit, too. The last line is a JSON summary. */
#include "disk.h"
#include "examine.h"

#include <errno.h>
#include <getopt.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>

enum {
    SEQS = 20000,
    ROUNDS_A_STORE = 10,
    LIFE_US_MAX = 30000,
    START_US_MAX = 2500,
    SHOWN_MAX = 10,
    SMALL = 6
};

struct bench {
    char work[300];
    uint64_t seed, rng;
    struct truth *truth;
    struct examiner *examiner;
    struct store_settings settings;
    uint64_t thinning, kills, in_creation, ended, commits, scans, bad;
};

/* A settling thread: a load of its own, on the same store, readers and truth. */
struct settling {
    struct load load;
    unsigned uplink;
};

static void *settle_on(void *user)
{
    struct settling *settling = user;
    struct load *load = &settling->load;
    for (;;) {
        if (load_deliver(load, settling->uplink) < 0) {
            abort();
        }
        struct timespec pause = {.tv_nsec = 100000 + (long)load_chance(load, 500000)};
        nanosleep(&pause, NULL);
    }
    return NULL;
}

static void start_settling(const struct load *load, struct settling settling[TRUTH_UPLINKS])
{
    for (unsigned u = 0; u < TRUTH_UPLINKS; u++) {
        pthread_t thread;
        settling[u] = (struct settling){.load = *load, .uplink = u};
        settling[u].load.beside = true;
        settling[u].load.rng += u + 1;
        settling[u].load.arena = (struct buffer){.max = load->arena.max};
        if (pthread_create(&thread, NULL, settle_on, &settling[u]) != 0) {
            abort();
        }
    }
}

/* Until it is killed. */
static int live(struct bench *bench)
{
    struct rlimit no_core = {0, 0};
    setrlimit(RLIMIT_CORE, &no_core);
    static struct load load;
    static struct settling settling[TRUTH_UPLINKS];
    load = (struct load){
        .dir = bench->work, .truth = bench->truth, .settings = bench->settings, .rng = bench->rng};
    int rc = load_open(&load);
    if (rc < 0) {
        fprintf(stderr, "open after a kill: %s\n", strerror(-rc));
        return 1;
    }
    start_settling(&load, settling);
    while (rc == 0 || rc == -ENOSPC) {
        unsigned scans = 1 + load_chance(&load, 4);
        for (unsigned i = 0; i < scans && (rc == 0 || rc == -ENOSPC); i++) {
            unsigned stream = load_chance(&load, 8) == 0 ? STREAM_AGGREGATE : STREAM_RAW;
            unsigned count = load_chance(&load, 3) == 0 ? TRUTH_POINTS : SMALL;
            rc = load_append(&load, stream, load_chance(&load, TRUTH_DEVICES), count);
        }
        rc = rc == 0 || rc == -ENOSPC ? load_commit(&load) : rc;
    }
    fprintf(stderr, "the load failed: %s\n", strerror(-rc));
    return 1;
}

static void kill_once(struct bench *bench)
{
    bench->rng = bench->rng * 6364136223846793005ull + 1442695040888963407ull;
    uint32_t acked = bench->truth->acked;
    pid_t pid = fork();
    if (pid == 0) {
        _exit(live(bench));
    }
    long most_us = bench->rng >> 40 & 1 ? LIFE_US_MAX : START_US_MAX;
    struct timespec life = {.tv_nsec = (long)((bench->rng >> 33) % (uint64_t)most_us) * 1000};
    nanosleep(&life, NULL);
    kill(pid, SIGKILL);
    int status = 0;
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR) {
    }
    bench->kills++;
    bool killed = WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL;
    bench->ended += !killed;
    bench->in_creation += bench->truth->acked == 0;
    bench->commits += bench->truth->acked - (bench->truth->acked < acked ? 0 : acked);
    enum verdict verdict = examine_here(bench->examiner, bench->truth->acked,
                                        bench->truth->attempted, true);
    const struct judgement *judgement = examiner_judgement(bench->examiner);
    bench->scans += judgement->scans;
    bench->thinning += judgement->made > 0;
    if (verdict != VERDICT_GOOD || !killed) {
        bench->bad++;
        if (bench->bad <= SHOWN_MAX) {
            fprintf(stderr, "kill %llu, status 0x%x, commits %u..%u: %s: %s\n",
                    (unsigned long long)bench->kills, (unsigned)status, bench->truth->acked,
                    bench->truth->attempted, verdict_name(verdict), judgement->reason);
        }
    }
}

static double seconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

static int prove(struct bench *bench, uint64_t kills, double hours)
{
    double began = seconds();
    bench->truth = truth_create(bench->seed, SEQS);
    bench->examiner = bench->truth == NULL
                          ? NULL
                          : examiner_create(bench->work, bench->truth, &bench->settings);
    if (bench->examiner == NULL) {
        return 2;
    }
    while (bench->kills < kills || seconds() - began < hours * 3600) {
        if (bench->kills % ROUNDS_A_STORE == 0) {
            bool thin = bench->kills / ROUNDS_A_STORE % 2 != 0;
            bench->settings = load_settings(thin ? STORE_FULL_THIN : STORE_FULL_DROP_OLDEST);
            examiner_expect(bench->examiner, &bench->settings);
            truth_reset(bench->truth);
            if (image_clear(bench->work) < 0) {
                return 2;
            }
        }
        kill_once(bench);
    }
    examiner_destroy(bench->examiner);
    printf("{\"program\": \"powercut_kill\", \"good\": %s, \"seconds\": %.1f, \"kills\": %llu, "
           "\"before_the_first_commit\": %llu, \"commits\": %llu, \"scans_met\": %llu, "
           "\"of_stores_that_thinned\": %llu, \"seed\": %llu, \"bad\": %llu}\n",
           bench->bad == 0 ? "true" : "false", seconds() - began, (unsigned long long)bench->kills,
           (unsigned long long)bench->in_creation, (unsigned long long)bench->commits,
           (unsigned long long)bench->scans, (unsigned long long)bench->thinning,
           (unsigned long long)bench->seed, (unsigned long long)bench->bad);
    return bench->bad == 0 ? 0 : 1;
}

int main(int argc, char **argv)
{
    static const struct option names[] = {
        {"kills", required_argument, NULL, 'n'},
        {"seed", required_argument, NULL, 's'},
        {"hours", required_argument, NULL, 'h'},
        {"work", required_argument, NULL, 'd'},
        {NULL, 0, NULL, 0},
    };
    struct bench bench = {.seed = 1};
    char made[] = "/dev/shm/powercut.XXXXXX";
    const char *work = NULL;
    uint64_t kills = 1000;
    double hours = 0;
    int option;
    while ((option = getopt_long(argc, argv, "", names, NULL)) != -1) {
        switch (option) {
        case 'n':
            kills = strtoull(optarg, NULL, 10);
            break;
        case 's':
            bench.seed = strtoull(optarg, NULL, 10);
            break;
        case 'h':
            hours = strtod(optarg, NULL);
            break;
        case 'd':
            work = optarg;
            break;
        default:
            return 2;
        }
    }
    work = work == NULL ? mkdtemp(made) : work;
    if (work == NULL) {
        return 2;
    }
    bench.rng = bench.seed;
    snprintf(bench.work, sizeof(bench.work), "%s/store-dir", work);
    int status = prove(&bench, kills, hours);
    (void)rmdir(work);
    return status;
}
