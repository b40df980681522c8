/* powercut_ext4 [--images N] [--hours H] [--seed S] [--life NAME] [--recorder SO] [--keep DIR]
 *
 * Power cuts of a whole disk: a load leads the store through one of the lives of life.h on a real
 * ext4 file system, whose disk writes down every write and flush. Then, at N moments (300) spread
 * over the life, an image is built by the model of disk.h: what was written before the last
 * completed flush is there, each sector of what came later is or is not. The kernel mounts it and
 * replays its journal, and the store on it is held to the truth and put to work again. Goes on with
 * new seeds, each life in its turn (or NAME alone), until N distinct images were judged, or for H
 * hours.
 *
 * One thing does not tear: ext4's superblock, two sectors under one checksum that is looked at
 * before the journal is. A disk that tears it leaves a file system that nobody mounts, whatever
 * lies on it.
 *
 * In the same run the first life is led with each planted bug: MDB_NOSYNC, MDB_NOMETASYNC, and
 * acknowledging before the commit. The last line is a JSON summary; the exit status is 0 when no
 * image was bad and every bug was caught, 77 where nothing of this can be mounted. */
#include "examine.h"
#include "ext4.h"
#include "hashes.h"
#include "images.h"
#include "life.h"
#include "record.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <lmdb.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>

enum {
    SEQS = 6000,
    ROUNDS = 12,        /* commits in a phase of the load */
    A_LOAD = 100,       /* images of one life at most, before the next one */
    AN_EVENT = 8,       /* at most, of all that are possible at one moment */
    BUG_BAD_ENOUGH = 5, /* images */
    SKIPPED = 77,
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

struct tally {
    uint64_t loads, events, flushes, commits, distinct, scans, verdicts[VERDICTS];
};

struct bench {
    struct ext4 ext4;
    uint64_t images, seed, rng;
    double hours;
    int life; /* -1: all, by seed */
    const char *keep;

    const struct bug *bug;
    struct truth *truth;
    struct tally *tally;
    struct examiner *examiner;
    struct disk *disk;
    struct buffer image;
    struct hashes hashes;
    uint64_t event, of_event, wanted;
    double share; /* of the images of this event that are judged */
    uint32_t acked, attempted;
};

static int promises = -1; /* the trace, for the load */

static double seconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

static double chance(struct bench *bench)
{
    bench->rng ^= bench->rng << 13;
    bench->rng ^= bench->rng >> 7;
    bench->rng ^= bench->rng << 17;
    return (double)(bench->rng >> 11) * 0x1p-53;
}

static enum life life_of(const struct bench *bench)
{
    return bench->life < 0 ? (enum life)(bench->seed % LIVES) : (enum life)bench->life;
}

static void promise_in_trace(enum promise promise, uint32_t commit)
{
    struct trace_event event = {.type = promise == PROMISE_KEPT ? TRACE_KEPT : TRACE_BEGUN,
                                .number = commit};
    if (write(promises, &event, sizeof(event)) != sizeof(event)) {
        abort();
    }
}

/* In a child. */
static int lead_life(const struct bench *bench)
{
    struct load load = {.dir = bench->ext4.data,
                        .truth = bench->truth,
                        .early = bench->bug->early,
                        .promise = promise_in_trace,
                        .rng = bench->seed * 0x9E3779B97F4A7C15ull + 1};
    record_lmdb_flags = bench->bug->lmdb_flags;
    promises = open(bench->ext4.trace, O_WRONLY | O_APPEND | O_CLOEXEC);
    int rc = promises < 0 ? -errno : life_run(&load, life_of(bench), ROUNDS);
    if (rc < 0) {
        fprintf(stderr, "seed %llu: the life %s itself failed at commit %u: %s\n",
                (unsigned long long)bench->seed, life_name(life_of(bench)), bench->truth->attempted,
                strerror(-rc));
    }
    return rc;
}

static int record_life(struct bench *bench)
{
    int rc = ext4_record(&bench->ext4);
    if (rc < 0) {
        return rc;
    }
    pid_t pid = fork();
    if (pid == 0) {
        _exit(lead_life(bench) < 0);
    }
    int status = 0;
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR) {
    }
    rc = ext4_recorded(&bench->ext4);
    return rc < 0 ? rc : status != 0 ? -EPROTO : 0;
}

/* The disk's bytes in an image of disk.h: behind the head of its only file. */
static const uint8_t *disk_bytes(const struct buffer *image)
{
    return image->data + image->len - EXT4_BYTES;
}

static void keep_bad(const struct bench *bench, enum verdict verdict, const char *pattern,
                     const char *reason)
{
    if (bench->bug != &no_bug) {
        return;
    }
    fprintf(stderr, "seed %llu (%s) event %llu, %s, commits %u..%u: %s: %s\n",
            (unsigned long long)bench->seed, life_name(life_of(bench)),
            (unsigned long long)bench->event, pattern, bench->acked, bench->attempted,
            verdict_name(verdict), reason);
    if (bench->keep != NULL) {
        char path[512];
        snprintf(path, sizeof(path), "%s/%s-%llu-%llu.ext4", bench->keep, verdict_name(verdict),
                 (unsigned long long)bench->seed, (unsigned long long)bench->event);
        auto_close int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
        if (fd < 0 || write(fd, disk_bytes(&bench->image), EXT4_BYTES) != EXT4_BYTES) {
            fprintf(stderr, "cannot keep it as %s\n", path);
        }
    }
}

/* Both are always written together, so their versions are the same ones. */
static void join_superblock(struct disk *disk)
{
    enum { DISK = 1, FIRST = 1024 / DISK_SECTOR };
    struct cell *cells = &disk->inodes[DISK].sectors[FIRST];
    if (cells[0].count != cells[1].count) {
        abort();
    }
    cells[1].pick = cells[0].pick;
}

static void judge_image(void *user, const char *pattern)
{
    struct bench *bench = user;
    if (bench->of_event >= AN_EVENT || chance(bench) > bench->share) {
        return;
    }
    join_superblock(bench->disk);
    buffer_clear(&bench->image);
    disk_image(bench->disk, &bench->image);
    if (!hashes_add(&bench->hashes, hash_bytes(bench->image.data, bench->image.len, 1))) {
        return;
    }
    enum verdict verdict = VERDICT_UNOPENABLE;
    const char *reason = "the file system cannot be mounted";
    if (ext4_mount_image(&bench->ext4, disk_bytes(&bench->image)) == 0) {
        verdict = examine_here(bench->examiner, bench->acked, bench->attempted, false);
        reason = examiner_judgement(bench->examiner)->reason;
        bench->tally->scans += examiner_judgement(bench->examiner)->scans;
        if (ext4_unmount(&bench->ext4) < 0) {
            abort();
        }
    }
    bench->of_event++;
    bench->tally->distinct++;
    bench->tally->verdicts[verdict]++;
    if (verdict != VERDICT_GOOD) {
        keep_bad(bench, verdict, pattern, reason);
    }
}

static uint64_t bad_of(const struct tally *tally)
{
    uint64_t bad = 0;
    for (unsigned v = VERDICT_GOOD + 1; v < VERDICTS; v++) {
        bad += tally->verdicts[v];
    }
    return bad;
}

/* Some of the images of this moment, in one of `events` moments of a life. */
static void judge_event(struct bench *bench, uint64_t events)
{
    enum { USUAL = 3 }; /* images that come of a moment, since many have few */
    if (chance(bench) > (double)bench->wanted / (double)(events * USUAL)) {
        return;
    }
    enum { BEYOND = 80 }; /* images where not every subset is tried */
    size_t dirty = disk_dirty(bench->disk);
    double possible = dirty <= IMAGES_EXHAUSTIVE ? (double)(1u << dirty) : BEYOND;
    bench->share = AN_EVENT / possible;
    bench->of_event = 0;
    images_at(bench->disk, bench->event, bench->seed, judge_image, bench);
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

/* events 0: counts those that are moments of a cut; otherwise builds images at them. */
static uint64_t replay(struct bench *bench, uint64_t events)
{
    auto_buffer struct buffer bytes = {0};
    auto_fclose FILE *trace = fopen(bench->ext4.trace, "rb");
    struct trace_event event;
    uint64_t moments = 0;
    bench->acked = bench->attempted = 0;
    for (bench->event = 1; trace != NULL && next_event(trace, &event, &bytes); bench->event++) {
        if (event.type == TRACE_BEGUN) {
            bench->attempted = (uint32_t)event.number;
        } else if (event.type == TRACE_KEPT) {
            bench->acked = (uint32_t)event.number;
        }
        bool moment = bench->attempted > 0 && event.type != TRACE_SYNC_BEGIN;
        moments += moment;
        bench->tally->flushes += events > 0 && event.type == TRACE_SYNC_END;
        if (events > 0) {
            disk_apply(bench->disk, bench->event, &event, bytes.data);
        }
        bool enough = bench->bug != &no_bug && bad_of(bench->tally) >= BUG_BAD_ENOUGH;
        if (events > 0 && moment && !enough) {
            judge_event(bench, events);
        }
    }
    return moments;
}

/* One life, recorded and cut. */
static bool run(struct bench *bench, const struct bug *bug, struct tally *tally, uint64_t wanted)
{
    struct store_settings settings = life_settings(life_of(bench));
    bench->bug = bug;
    bench->tally = tally;
    bench->wanted = wanted;
    bench->rng = (bench->seed + 1) * 0x9E3779B97F4A7C15ull;
    bench->truth = truth_create(bench->seed, SEQS);
    if (bench->truth == NULL) {
        return false;
    }
    bool good = record_life(bench) == 0;
    bench->examiner = good ? examiner_create(bench->ext4.data, bench->truth, &settings) : NULL;
    if (bench->examiner != NULL) {
        bench->disk = disk_create();
        uint64_t events = replay(bench, 0);
        (void)replay(bench, events);
        tally->events += events;
        tally->commits += bench->truth->attempted;
        tally->loads++;
        examiner_destroy(bench->examiner);
        disk_destroy(bench->disk);
    }
    truth_destroy(bench->truth);
    return good;
}

static void print_tally(const char *name, const struct tally *tally)
{
    printf(", \"%s\": {\"loads\": %llu, \"events\": %llu, \"flushes\": %llu, \"commits\": %llu, "
           "\"distinct_images\": %llu, \"scans_met\": %llu, \"bad\": %llu",
           name, (unsigned long long)tally->loads, (unsigned long long)tally->events,
           (unsigned long long)tally->flushes, (unsigned long long)tally->commits,
           (unsigned long long)tally->distinct, (unsigned long long)tally->scans,
           (unsigned long long)bad_of(tally));
    for (unsigned v = VERDICT_GOOD + 1; v < VERDICTS; v++) {
        if (tally->verdicts[v] > 0) {
            printf(", \"%s\": %llu", verdict_name((enum verdict)v),
                   (unsigned long long)tally->verdicts[v]);
        }
    }
    printf("}");
}

/* 0: all good; 1: a bad image, or a planted bug that was not caught; 2: it did not run. */
static int prove(struct bench *bench)
{
    static struct tally store, of_bugs[ARRAY_SIZE(bugs)];
    double began = seconds();
    uint64_t first = bench->seed;
    bool ran = true, caught = true;
    for (size_t b = 0; b < ARRAY_SIZE(bugs) && ran; b++) {
        ran = run(bench, &bugs[b], &of_bugs[b], A_LOAD);
        caught &= bad_of(&of_bugs[b]) > 0;
    }
    while (ran && (store.distinct < bench->images || seconds() - began < bench->hours * 3600)) {
        uint64_t left = bench->images > store.distinct ? bench->images - store.distinct : A_LOAD;
        ran = run(bench, &no_bug, &store, left < A_LOAD ? left + A_LOAD / 4 : A_LOAD);
        bench->seed++;
    }
    bool good = ran && caught && bad_of(&store) == 0;
    printf("{\"program\": \"powercut_ext4\", \"good\": %s, \"seed\": %llu, \"seconds\": %.1f",
           good ? "true" : "false", (unsigned long long)first, seconds() - began);
    print_tally("store", &store);
    for (size_t b = 0; b < ARRAY_SIZE(bugs); b++) {
        print_tally(bugs[b].name, &of_bugs[b]);
    }
    printf("}\n");
    return !ran ? 2 : good ? 0 : 1;
}

static bool parse(int argc, char **argv, struct bench *bench, const char **ret_recorder)
{
    static const struct option names[] = {
        {"images", required_argument, NULL, 'i'},
        {"hours", required_argument, NULL, 'h'},
        {"seed", required_argument, NULL, 's'},
        {"life", required_argument, NULL, 'l'},
        {"recorder", required_argument, NULL, 'r'},
        {"keep", required_argument, NULL, 'k'},
        {NULL, 0, NULL, 0},
    };
    int option;
    while ((option = getopt_long(argc, argv, "", names, NULL)) != -1) {
        switch (option) {
        case 'i':
            bench->images = strtoull(optarg, NULL, 10);
            break;
        case 'h':
            bench->hours = strtod(optarg, NULL);
            break;
        case 's':
            bench->seed = strtoull(optarg, NULL, 10);
            break;
        case 'l':
            bench->life = life_named(optarg);
            break;
        case 'r':
            *ret_recorder = optarg;
            break;
        case 'k':
            bench->keep = optarg;
            break;
        default:
            return false;
        }
    }
    return optind == argc;
}

int main(int argc, char **argv)
{
    static struct bench bench = {.images = 300, .seed = 1, .life = -1};
    const char *recorder = NBD_RECORDER;
    if (!parse(argc, argv, &bench, &recorder)) {
        fprintf(stderr, "usage: see the head of tests/powercut/powercut_ext4.c\n");
        return 2;
    }
    bench.image.max = EXT4_BYTES + 4096;
    const char *why = ext4_prepare(&bench.ext4, recorder);
    if (why != NULL) {
        printf("{\"program\": \"powercut_ext4\", \"skipped\": \"%s\"}\n", why);
    }
    int status = why != NULL ? SKIPPED : prove(&bench);
    ext4_finish(&bench.ext4);
    hashes_finish(&bench.hashes);
    buffer_finish(&bench.image);
    return status;
}
