/* powercut_cuts [--images N] [--hours H] [--seed S] [--life NAME] [--workers W] [--work DIR]
 *               [--keep DIR]
 *
 * Power cuts at file level, by the model of disk.h: a load leads the store through one of the lives
 * of life.h while every write and barrier is recorded; then, at every event, the images that a cut
 * may leave are built, and each distinct one is opened, held to the truth, and put to work again.
 * Goes on with new seeds, each life in its turn (or NAME alone), until N distinct images (50,000)
 * were judged and every life was led, or for H hours.
 *
 * In the same run each life is led three times more with a planted bug: MDB_NOSYNC, MDB_NOMETASYNC,
 * and acknowledging before the commit. A proof that does not catch those proves nothing. The last
 * line is a JSON summary; the exit status is 0 when no image was bad and every bug was caught in
 * every life. */
#include "examine.h"
#include "hashes.h"
#include "images.h"
#include "life.h"

#include <errno.h>
#include <getopt.h>
#include <lmdb.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>

enum {
    WORKERS_MAX = 16,
    SEQS = 6000,
    ROUNDS_FULL = 12, /* commits in a phase of the load */
    ROUNDS_MOVES = 12,
    ROUNDS_LIGHT = 24,
    CONTROL_STRIDE = 3,      /* of the planted bugs every third event is enough */
    CONTROL_BAD_ENOUGH = 25, /* images, for each worker */
    KEPT_BAD_MAX = 5,
};

struct bug {
    const char *name;
    unsigned lmdb_flags;
    bool early;
};
static const struct bug no_bug = {.name = "none"};
static const struct bug bugs[] = {
    {.name = "nosync", .lmdb_flags = MDB_NOSYNC},
    {.name = "nometasync", .lmdb_flags = MDB_NOMETASYNC},
    {.name = "acknowledge_before_commit", .early = true},
};

/* Sums of all workers, in shared memory. */
struct tally {
    _Atomic uint64_t events, commits, refused, built, distinct, judged, scans;
    _Atomic uint64_t dropping, expiring, thinning; /* images whose store had done that */
    _Atomic uint64_t burying, raising;             /* had dead letters; had sent some once more */
    _Atomic uint64_t verdicts[VERDICTS];
};

struct options {
    uint64_t images, seed;
    double hours;
    unsigned workers;
    int life; /* -1: all, by seed */
    const char *work, *keep;
};

struct replay {
    const struct options *options;
    const struct bug *bug;
    struct truth *truth;
    struct tally *tally;
    unsigned worker;
    struct disk *disk;
    struct examiner *examiner;
    struct hashes contents, cases;
    struct buffer image;
    uint64_t event, seed, bad;
    uint32_t acked, attempted;
};

static double seconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

static enum life life_of(const struct options *options, uint64_t seed)
{
    return options->life < 0 ? (enum life)(seed % LIVES) : (enum life)options->life;
}

/* Where the store is filled, images are larger and fewer will do. */
static unsigned rounds_of(enum life life)
{
    return life == LIFE_STEADY ? ROUNDS_LIGHT : life == LIFE_MOVES ? ROUNDS_MOVES : ROUNDS_FULL;
}

/* In a child: the store's life, recorded. */
static int record_load(const char *folder, const char *trace, struct truth *truth,
                       const struct bug *bug, enum life life, uint64_t seed)
{
    struct load load = {.dir = folder,
                        .truth = truth,
                        .early = bug->early,
                        .promise = record_promise,
                        .rng = seed * 0x9E3779B97F4A7C15ull + 1};
    record_lmdb_flags = bug->lmdb_flags;
    int rc = image_clear(folder);
    rc = rc < 0 ? rc : record_start(folder, trace);
    rc = rc < 0 ? rc : life_run(&load, life, rounds_of(life));
    record_stop();
    (void)image_clear(folder);
    (void)rmdir(folder);
    if (rc < 0) {
        fprintf(stderr, "seed %llu: the life %s itself failed at commit %u: %s\n",
                (unsigned long long)seed, life_name(life), truth->attempted, strerror(-rc));
    }
    return rc;
}

static void keep_bad(struct replay *replay, enum verdict verdict, const char *pattern,
                     const char *reason)
{
    if (replay->bug != &no_bug || replay->bad > KEPT_BAD_MAX) {
        return;
    }
    fprintf(stderr, "seed %llu (%s) event %llu, %s, commits %u..%u: %s: %s\n",
            (unsigned long long)replay->seed, life_name(life_of(replay->options, replay->seed)),
            (unsigned long long)replay->event, pattern, replay->acked, replay->attempted,
            verdict_name(verdict), reason);
    if (replay->options->keep != NULL) {
        char path[512];
        snprintf(path, sizeof(path), "%s/%s-%llu-%llu", replay->options->keep,
                 verdict_name(verdict), (unsigned long long)replay->seed,
                 (unsigned long long)replay->event);
        if (image_write(path, replay->image.data, replay->image.len) < 0) {
            fprintf(stderr, "cannot keep it as %s\n", path);
        }
    }
}

static void judge_image(void *user, const char *pattern)
{
    struct replay *replay = user;
    if (replay->bug != &no_bug && replay->bad >= CONTROL_BAD_ENOUGH) {
        return;
    }
    buffer_clear(&replay->image);
    disk_image(replay->disk, &replay->image);
    uint64_t hash = hash_bytes(replay->image.data, replay->image.len, 1);
    if (hash % replay->options->workers != replay->worker) {
        return; /* another worker's */
    }
    replay->tally->built++;
    bool fresh = hashes_add(&replay->contents, hash);
    uint64_t promises = (uint64_t)replay->acked << 32 | replay->attempted;
    if (!hashes_add(&replay->cases, hash ^ promises * 0x9E3779B97F4A7C15ull)) {
        return;
    }
    bool litter = hash / replay->options->workers % 4 == 0;
    enum verdict verdict = examine(replay->examiner, &replay->image, replay->acked,
                                   replay->attempted, litter);
    const struct judgement *judgement = examiner_judgement(replay->examiner);
    replay->tally->distinct += fresh;
    replay->tally->scans += judgement->scans;
    replay->tally->dropping += judgement->dropped > 0;
    replay->tally->expiring += judgement->expired > 0;
    replay->tally->thinning += judgement->made > 0;
    replay->tally->burying += judgement->letters > 0;
    replay->tally->raising += judgement->risen > 0;
    replay->tally->judged++;
    replay->tally->verdicts[verdict]++;
    if (verdict != VERDICT_GOOD) {
        replay->bad++;
        keep_bad(replay, verdict, pattern, judgement->reason);
    }
}

static bool next_event(FILE *trace, struct trace_event *event, struct buffer *bytes)
{
    if (fread(event, sizeof(*event), 1, trace) != 1) {
        return false;
    }
    buffer_clear(bytes);
    uint8_t *to = buffer_reserve(bytes, (size_t)event->len + 1);
    return to != NULL && fread(to, 1, (size_t)event->len, trace) == event->len;
}

static int replay_trace(struct replay *replay, FILE *trace)
{
    auto_buffer struct buffer bytes = {0};
    struct trace_event event;
    for (replay->event = 1; next_event(trace, &event, &bytes); replay->event++) {
        if (event.type == TRACE_BEGUN) {
            replay->attempted = (uint32_t)event.number;
        } else if (event.type == TRACE_KEPT) {
            replay->acked = (uint32_t)event.number;
        }
        disk_apply(replay->disk, replay->event, &event, bytes.data);
        bool skipped = event.type == TRACE_SYNC_BEGIN || event.type == TRACE_BEGUN ||
                       (replay->bug != &no_bug && replay->event % CONTROL_STRIDE != 0);
        if (!skipped) {
            images_at(replay->disk, replay->event, replay->seed, judge_image, replay);
        }
    }
    replay->tally->events += replay->worker == 0 ? replay->event : 0;
    return ferror(trace) ? -EIO : 0;
}

/* In a child: builds all images, judges its share of them. */
static int replay_run(struct replay *replay, const char *trace_path)
{
    char work[300];
    snprintf(work, sizeof(work), "%s/judge-%u", replay->options->work, replay->worker);
    struct store_settings settings = life_settings(life_of(replay->options, replay->seed));
    auto_fclose FILE *trace = fopen(trace_path, "rb");
    replay->disk = disk_create();
    replay->image.max = EXAMINE_IMAGE_MAX;
    replay->examiner = examiner_create(work, replay->truth, &settings);
    int rc = trace == NULL || replay->examiner == NULL ? -ENOMEM : replay_trace(replay, trace);
    examiner_destroy(replay->examiner);
    disk_destroy(replay->disk);
    hashes_finish(&replay->contents);
    hashes_finish(&replay->cases);
    buffer_finish(&replay->image);
    return rc;
}

static bool ended_well(pid_t pid)
{
    int status = 0;
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR) {
    }
    return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

/* One load, recorded and replayed by all workers. */
static bool run(const struct options *options, const struct bug *bug, uint64_t seed,
                struct tally *tally)
{
    char folder[300], trace[300];
    snprintf(folder, sizeof(folder), "%s/load", options->work);
    snprintf(trace, sizeof(trace), "%s/trace", options->work);
    struct truth *truth = truth_create(seed, SEQS);
    if (truth == NULL) {
        return false;
    }
    pid_t pid = fork();
    if (pid == 0) {
        _exit(record_load(folder, trace, truth, bug, life_of(options, seed), seed) < 0);
    }
    bool good = ended_well(pid);
    pid_t workers[WORKERS_MAX];
    for (unsigned w = 0; w < options->workers && good; w++) {
        struct replay replay = {.options = options,
                                .bug = bug,
                                .truth = truth,
                                .tally = tally,
                                .worker = w,
                                .seed = seed};
        workers[w] = fork();
        if (workers[w] == 0) {
            prctl(PR_SET_PDEATHSIG, SIGKILL);
            _exit(replay_run(&replay, trace) < 0);
        }
    }
    for (unsigned w = 0, all = good ? options->workers : 0; w < all; w++) {
        good &= ended_well(workers[w]);
    }
    tally->commits += truth->attempted;
    tally->refused += truth->scans_refused;
    (void)unlink(trace);
    truth_destroy(truth);
    return good;
}

static uint64_t bad_of(const struct tally *tally)
{
    uint64_t bad = 0;
    for (unsigned v = VERDICT_GOOD + 1; v < VERDICTS; v++) {
        bad += tally->verdicts[v];
    }
    return bad;
}

static void print_tally(const char *name, const struct tally *tally)
{
    printf("\"%s\": {\"events\": %llu, \"commits\": %llu, \"scans_refused\": %llu, "
           "\"images_built\": %llu, \"distinct_images\": %llu, "
           "\"judged\": %llu, \"of_stores_that_dropped\": %llu, "
           "\"of_stores_that_thinned\": %llu, \"of_stores_that_expired\": %llu, "
           "\"of_stores_with_letters\": %llu, \"of_stores_that_requeued\": %llu, "
           "\"scans_met\": %llu, \"bad\": %llu",
           name, (unsigned long long)tally->events, (unsigned long long)tally->commits,
           (unsigned long long)tally->refused, (unsigned long long)tally->built,
           (unsigned long long)tally->distinct, (unsigned long long)tally->judged,
           (unsigned long long)tally->dropping, (unsigned long long)tally->thinning,
           (unsigned long long)tally->expiring, (unsigned long long)tally->burying,
           (unsigned long long)tally->raising, (unsigned long long)tally->scans,
           (unsigned long long)bad_of(tally));
    for (unsigned v = VERDICT_GOOD + 1; v < VERDICTS; v++) {
        if (tally->verdicts[v] > 0) {
            printf(", \"%s\": %llu", verdict_name((enum verdict)v),
                   (unsigned long long)tally->verdicts[v]);
        }
    }
    printf("}");
}

/* Every planted bug in every life. */
static bool run_bugs(const struct options *options, struct tally *tallies, bool *caught)
{
    bool ran = true;
    uint64_t lives = options->life < 0 ? LIVES : 1;
    for (size_t b = 0; b < ARRAY_SIZE(bugs); b++) {
        for (uint64_t i = 0; i < lives && ran; i++) {
            uint64_t before = bad_of(&tallies[b]), seed = options->seed + i;
            ran = run(options, &bugs[b], seed, &tallies[b]);
            if (bad_of(&tallies[b]) == before) {
                fprintf(stderr, "seed %llu (%s): the planted bug %s was not caught\n",
                        (unsigned long long)seed, life_name(life_of(options, seed)), bugs[b].name);
                *caught = false;
            }
        }
    }
    return ran;
}

/* 0: all good; 1: a bad image, or a planted bug that was not caught; 2: it did not run. */
static int prove(const struct options *options)
{
    struct tally *tallies = mmap(NULL, (ARRAY_SIZE(bugs) + 1) * sizeof(*tallies),
                                 PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (tallies == MAP_FAILED) {
        return 2;
    }
    double began = seconds();
    bool good = true;
    bool ran = run_bugs(options, tallies + 1, &good);
    uint64_t seed = options->seed, lives = options->life < 0 ? LIVES : 1;
    do {
        ran = ran && run(options, &no_bug, seed++, &tallies[0]);
    } while (ran && (seconds() - began < options->hours * 3600 ||
                     tallies[0].distinct < options->images || seed - options->seed < lives));
    good &= bad_of(&tallies[0]) == 0;
    printf("{\"program\": \"powercut_cuts\", \"good\": %s, \"seed\": %llu, \"loads\": %llu, "
           "\"seconds\": %.1f, ",
           ran && good ? "true" : "false", (unsigned long long)options->seed,
           (unsigned long long)(seed - options->seed), seconds() - began);
    print_tally("store", &tallies[0]);
    for (size_t b = 0; b < ARRAY_SIZE(bugs); b++) {
        printf(", ");
        print_tally(bugs[b].name, &tallies[b + 1]);
    }
    printf("}\n");
    return !ran ? 2 : good ? 0 : 1;
}

static bool parse(int argc, char **argv, struct options *options)
{
    static const struct option names[] = {
        {"images", required_argument, NULL, 'i'},  {"hours", required_argument, NULL, 'h'},
        {"seed", required_argument, NULL, 's'},    {"life", required_argument, NULL, 'l'},
        {"workers", required_argument, NULL, 'w'}, {"work", required_argument, NULL, 'd'},
        {"keep", required_argument, NULL, 'k'},    {NULL, 0, NULL, 0},
    };
    int option;
    while ((option = getopt_long(argc, argv, "", names, NULL)) != -1) {
        switch (option) {
        case 'i':
            options->images = strtoull(optarg, NULL, 10);
            break;
        case 'h':
            options->hours = strtod(optarg, NULL);
            break;
        case 's':
            options->seed = strtoull(optarg, NULL, 10);
            break;
        case 'l':
            options->life = life_named(optarg);
            if (options->life < 0) {
                return false;
            }
            break;
        case 'w':
            options->workers = (unsigned)strtoul(optarg, NULL, 10);
            break;
        case 'd':
            options->work = optarg;
            break;
        case 'k':
            options->keep = optarg;
            break;
        default:
            return false;
        }
    }
    return optind == argc && options->workers >= 1 && options->workers <= WORKERS_MAX;
}

int main(int argc, char **argv)
{
    long cores = sysconf(_SC_NPROCESSORS_ONLN);
    struct options options = {.images = 50000,
                              .seed = 1,
                              .life = -1,
                              .workers = cores < 1             ? 1
                                         : cores > WORKERS_MAX ? WORKERS_MAX
                                                               : (unsigned)cores};
    if (!parse(argc, argv, &options)) {
        fprintf(stderr, "usage: see the head of tests/powercut/powercut_cuts.c\n");
        return 2;
    }
    char made[] = "/dev/shm/powercut.XXXXXX";
    if (options.work == NULL) {
        options.work = mkdtemp(made);
    }
    if (options.work == NULL) {
        perror("/dev/shm");
        return 2;
    }
    int status = prove(&options);
    (void)rmdir(options.work);
    return status;
}
