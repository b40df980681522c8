/* powercut_faults [--stride N] [--seed S] [--fault NAME --at N] [--hours H] [--work DIR]
 *
 * Every call that the store makes of the C library fails once, one session for each: with EIO,
 * ENOSPC, EINTR, a short write, and with EIO and ENOSPC for that call and all after it; through
 * start, steady state, stop and a second start. Then every allocation, alone and with all after it.
 * After each session the store is opened without faults and must hold exactly what was promised;
 * the session itself must neither crash nor hang nor promise anything after a failed commit.
 * --stride N tries every N-th call only; --fault and --at do one session again; --hours goes on
 * with new seeds; the seed also says which of the lives of life.h is led. The last line is a JSON
 * summary; the exit status is 0 when nothing was bad. */
#include "disk.h"
#include "examine.h"
#include "fault.h"
#include "life.h"

#include <errno.h>
#include <getopt.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>

enum {
    SEQS = 3000,
    ROUNDS_CALLS = 13,
    ROUNDS_ALLOCATIONS = 4,
    SESSION_SECONDS = 20,
    SHOWN_MAX = 20,
    ENDED_UNTRUE = 3
};

struct fault {
    const char *name;
    enum fault_kind kind;
    int error;
    bool onwards;
};
static const struct fault faults[] = {
    {"eio", FAULT_CALLS, EIO, false},           {"enospc", FAULT_CALLS, ENOSPC, false},
    {"eintr", FAULT_CALLS, EINTR, false},       {"short", FAULT_CALLS, FAULT_SHORT, false},
    {"eio_on", FAULT_CALLS, EIO, true},         {"enospc_on", FAULT_CALLS, ENOSPC, true},
    {"no_memory", FAULT_ALLOCATIONS, 0, false}, {"no_memory_on", FAULT_ALLOCATIONS, 0, true},
};

struct bench {
    char work[300];
    uint64_t seed, stride, at;
    const char *fault; /* with `at`: this session only */
    struct truth *truth;
    struct fault_plan *plan;
    struct examiner *examiner;
    uint64_t sessions[FAULT_KINDS], failed[FAULT_KINDS], bad, shown;
};

static enum life life_of(const struct bench *bench)
{
    return (enum life)((bench->seed - 1) % LIVES);
}

static int session(struct bench *bench)
{
    struct rlimit no_core = {0, 0};
    setrlimit(RLIMIT_CORE, &no_core);
    alarm(SESSION_SECONDS);
    if (freopen("/dev/null", "w", stderr) == NULL) {
        return 1;
    }
    struct load load = {.dir = bench->work,
                        .truth = bench->truth,
                        .faulty = true,
                        .rng = bench->seed * 0x9E3779B97F4A7C15ull + 1};
    fault_arm(bench->plan);
    bool calls = bench->plan->kind == FAULT_CALLS;
    int rc = life_run(&load, life_of(bench), calls ? ROUNDS_CALLS : ROUNDS_ALLOCATIONS);
    fault_disarm();
    return rc == -EPROTO ? ENDED_UNTRUE : 0;
}

static void blame(struct bench *bench, const struct fault *fault, const char *what,
                  const char *reason)
{
    bench->bad++;
    if (bench->shown++ < SHOWN_MAX) {
        fprintf(stderr, "seed %llu (%s) %s at %llu (%s), commits %u..%u: %s: %s\n",
                (unsigned long long)bench->seed, life_name(life_of(bench)), fault->name,
                (unsigned long long)bench->plan->at, bench->plan->first, bench->truth->acked,
                bench->truth->attempted, what, reason);
    }
}

/* One session with that call failing; the calls it made are in the plan. */
static void run(struct bench *bench, const struct fault *fault, uint64_t at)
{
    truth_reset(bench->truth);
    *bench->plan = (struct fault_plan){
        .kind = fault->kind, .at = at, .onwards = fault->onwards, .error = fault->error};
    if (image_clear(bench->work) < 0) {
        abort();
    }
    pid_t pid = fork();
    if (pid == 0) {
        _exit(session(bench));
    }
    int status = 0;
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR) {
    }
    char words[32];
    snprintf(words, sizeof(words), "status 0x%x", (unsigned)status);
    if (WIFSIGNALED(status)) {
        bool hung = WTERMSIG(status) == SIGALRM;
        blame(bench, fault, hung ? "the session hung" : "the session crashed", words);
    } else if (WEXITSTATUS(status) != 0) {
        blame(bench, fault, "the session promised what does not hold", words);
    }
    enum verdict verdict = examine_here(bench->examiner, bench->truth->acked,
                                        bench->truth->attempted, false);
    if (verdict != VERDICT_GOOD) {
        blame(bench, fault, verdict_name(verdict), examiner_judgement(bench->examiner)->reason);
    }
    bench->sessions[fault->kind]++;
    bench->failed[fault->kind] += bench->plan->failed;
}

static void run_faults(struct bench *bench)
{
    for (size_t f = 0; f < ARRAY_SIZE(faults); f++) {
        if (bench->fault != NULL) {
            if (strcmp(bench->fault, faults[f].name) == 0) {
                run(bench, &faults[f], bench->at);
            }
            continue;
        }
        run(bench, &faults[f], 0);
        uint64_t calls = bench->plan->calls;
        for (uint64_t at = 1 + bench->seed % bench->stride; at <= calls; at += bench->stride) {
            run(bench, &faults[f], at);
        }
    }
}

/* One seed. */
static int run_seed(struct bench *bench)
{
    struct store_settings settings = life_settings(life_of(bench));
    bench->truth = truth_create(bench->seed, SEQS);
    bench->examiner = bench->truth == NULL ? NULL
                                           : examiner_create(bench->work, bench->truth, &settings);
    if (bench->examiner == NULL) {
        return -ENOMEM;
    }
    run_faults(bench);
    examiner_destroy(bench->examiner);
    truth_destroy(bench->truth);
    return 0;
}

static double seconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

static int prove(struct bench *bench, double hours)
{
    double began = seconds();
    uint64_t first = bench->seed;
    bench->plan = mmap(NULL, sizeof(*bench->plan), PROT_READ | PROT_WRITE,
                       MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (bench->plan == MAP_FAILED) {
        return 2;
    }
    do {
        if (run_seed(bench) < 0) {
            return 2;
        }
        bench->seed++;
    } while (seconds() - began < hours * 3600);
    printf("{\"program\": \"powercut_faults\", \"good\": %s, \"seed\": %llu, \"seeds\": %llu, "
           "\"seconds\": %.1f, \"bad\": %llu, \"call_sessions\": %llu, \"calls_failed\": %llu, "
           "\"allocation_sessions\": %llu, "
           "\"allocations_failed\": %llu}\n",
           bench->bad == 0 ? "true" : "false", (unsigned long long)first,
           (unsigned long long)(bench->seed - first), seconds() - began,
           (unsigned long long)bench->bad, (unsigned long long)bench->sessions[FAULT_CALLS],
           (unsigned long long)bench->failed[FAULT_CALLS],
           (unsigned long long)bench->sessions[FAULT_ALLOCATIONS],
           (unsigned long long)bench->failed[FAULT_ALLOCATIONS]);
    return bench->bad == 0 ? 0 : 1;
}

int main(int argc, char **argv)
{
    static const struct option names[] = {
        {"stride", required_argument, NULL, 'n'},
        {"seed", required_argument, NULL, 's'},
        {"hours", required_argument, NULL, 'h'},
        {"work", required_argument, NULL, 'd'},
        {"fault", required_argument, NULL, 'f'},
        {"at", required_argument, NULL, 'a'},
        {NULL, 0, NULL, 0},
    };
    struct bench bench = {.seed = 1, .stride = 1};
    char made[] = "/dev/shm/powercut.XXXXXX";
    const char *work = NULL;
    double hours = 0;
    int option;
    while ((option = getopt_long(argc, argv, "", names, NULL)) != -1) {
        switch (option) {
        case 'n':
            bench.stride = strtoull(optarg, NULL, 10);
            break;
        case 's':
            bench.seed = strtoull(optarg, NULL, 10);
            break;
        case 'h':
            hours = strtod(optarg, NULL);
            break;
        case 'f':
            bench.fault = optarg;
            break;
        case 'a':
            bench.at = strtoull(optarg, NULL, 10);
            break;
        case 'd':
            work = optarg;
            break;
        default:
            return 2;
        }
    }
    work = work == NULL ? mkdtemp(made) : work;
    if (work == NULL || bench.stride == 0) {
        fprintf(stderr, "usage: see the head of tests/powercut/powercut_faults.c\n");
        return 2;
    }
    snprintf(bench.work, sizeof(bench.work), "%s/store-dir", work);
    int status = prove(&bench, hours);
    (void)rmdir(work);
    return status;
}
