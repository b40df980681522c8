/* powercut_salvage [--one-in N] [--seed S] [--workers W] [--work DIR]
 *
 * Power cuts at file level (disk.h) while a store is damaged, set aside, and what is readable of it
 * comes back: scans that wait, dead letters, records of commands. Each image is opened as the next
 * start would find it (where the cut came early it is set aside then) and salvaged to the end: then
 * every scan that somebody waited for is there once, waiting for whom it waited; what was dead is
 * dead with one letter; what was delivered does not come; records are all there; what the new store
 * acknowledged is there, and the ledger adds up. N: of the images one in so many is judged (1).
 *
 * In the same run the same is done with MDB_NOSYNC, which must be caught. The last line is a JSON
 * summary; exit status 0: no image was bad, and that bug was caught. */
#include "gateway/store/dead.h"
#include "gateway/store/salvage_work.h"
#include "hashes.h"
#include "images.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>

enum {
    DEVICES = 2,
    SEQS = 60,
    POINTS = 5,
    RECORDS = 4,
    STEP_BYTES = 400, /* of scans with a commit: so that there are many */
    COMMITS_MAX = 400,
    STEPS_MAX = 200000,
    JUDGE_SECONDS = 120,
    WORKERS_MAX = 8,
    BAD_ENOUGH = 20, /* of the planted bug */
    TOLD_MAX = 5,
};
static const int64_t base_ms = 1767225600000; /* 2026-01-01 */
static const char live_note[] = "live";

enum fate { FATE_HANDED, FATE_BURIED, FATE_OPEN }; /* for the uplink `cloud` */

/* What became of it in the old store: refused, delivered, or it waits. `local` waits for the last
 * third, whatever `cloud` has done. */
static enum fate fate_of(uint64_t seq)
{
    return seq > SEQS / 2 ? FATE_OPEN : seq % 5 == 0 ? FATE_BURIED : FATE_HANDED;
}

static bool local_waits(uint64_t seq)
{
    return seq > SEQS / 3;
}

static int64_t value_of(unsigned device, uint64_t seq, unsigned p)
{
    return (int64_t)(seq * 1000003 + device * 131 + p * 7) % 100000;
}

struct tally {
    _Atomic uint64_t events, built, distinct, judged, bad, told;
};

struct options {
    uint64_t seed, one_in;
    unsigned workers;
    const char *work;
};

static const struct store_settings settings = {.commit_interval_ms = 1000,
                                               .max_size_bytes = 8 << 20,
                                               .keep_ms = 86400000,
                                               .when_full = STORE_FULL_DROP_OLDEST};

struct bench {
    struct store *store;
    unsigned cloud, local;
    uint32_t devices[DEVICES], live;
};

static int open_store(struct bench *bench, const char *dir)
{
    int rc = store_open(dir, &settings, &bench->store);
    rc = rc < 0 ? rc : store_add_uplink(bench->store, "cloud", 1, 0, &bench->cloud);
    rc = rc < 0 ? rc : store_add_uplink(bench->store, "local", 1, 0, &bench->local);
    rc = rc < 0 ? rc : store_device(bench->store, "live", "", &bench->live);
    for (unsigned d = 0; d < DEVICES && rc == 0; d++) {
        char name[16];
        snprintf(name, sizeof(name), "t%u", d);
        rc = store_device(bench->store, name, "", &bench->devices[d]);
    }
    for (unsigned p = 0; p < POINTS * (DEVICES + 1) && rc == 0; p++) {
        uint32_t id = p % (DEVICES + 1) == DEVICES ? bench->live
                                                   : bench->devices[p % (DEVICES + 1)];
        char name[16];
        uint16_t point;
        snprintf(name, sizeof(name), "p%u", p / (DEVICES + 1));
        rc = store_point(bench->store, id, name, "", &point);
    }
    return rc;
}

static int append(struct bench *bench, uint32_t device, unsigned d, uint64_t seq, int64_t time_ms)
{
    auto_free struct scan *scan = calloc(1, scan_size_for(POINTS, 0));
    if (scan == NULL) {
        return -ENOMEM;
    }
    scan->seq = seq;
    scan->time_ms = time_ms;
    scan->device = device;
    scan->count = POINTS;
    for (unsigned p = 0; p < POINTS; p++) {
        scan->readings[p] = (struct reading){
            .point = (uint16_t)p, .kind = VALUE_DECIMAL, .integer = value_of(d, seq, p)};
    }
    store_count(bench->store, device, LEDGER_READ, POINTS);
    return store_append(bench->store, scan);
}

static int settle_one(struct store_reader *reader, const struct scan *scan, bool local)
{
    struct store_settlement s = {
        .device = scan->device, .first_seq = scan->seq, .last_seq = scan->seq};
    bool buried = !local && fate_of(scan->seq) == FATE_BURIED;
    bool open = local ? local_waits(scan->seq) : fate_of(scan->seq) == FATE_OPEN;
    if (open) {
        store_reader_return(reader, STREAM_RAW, scan->device, scan->seq, scan->seq);
        return 0;
    }
    int rc = buried ? store_dead_letter(reader, scan, NULL, 0, "422 unit unknown") : 0;
    s.fates[buried ? FATE_DEAD : FATE_DELIVERED] = POINTS;
    return rc < 0 ? rc : store_reader_settle(reader, &s);
}

static int settle(struct bench *bench, bool local)
{
    auto_buffer struct buffer arena = {0};
    const struct scan **scans;
    size_t count = 0;
    struct store_reader *reader;
    int rc = store_reader_create(bench->store, local ? bench->local : bench->cloud, false, &reader);
    rc = rc < 0 ? rc
                : store_reader_take(reader, STORE_LANE_BACKFILL, STREAM_RAW, DEVICES * SEQS,
                                    1 << 20, &arena, &scans, &count);
    for (size_t i = 0; i < count && rc == 0; i++) {
        rc = settle_one(reader, scans[i], local);
    }
    rc = rc < 0 ? rc : store_commit(bench->store);
    store_reader_destroy(reader);
    return rc < 0 ? rc : count == DEVICES * SEQS ? 0 : -EPROTO;
}

/* The store that will be damaged; its last commits bring nothing, so that all is in both trees. */
static int make_old(const char *dir)
{
    struct bench bench = {.store = NULL};
    int rc = open_store(&bench, dir);
    for (uint64_t seq = 1; seq <= SEQS && rc == 0; seq++) {
        for (unsigned d = 0; d < DEVICES && rc == 0; d++) {
            rc = append(&bench, bench.devices[d], d, seq, base_ms + (int64_t)seq * 1000);
        }
        rc = rc < 0 || seq % 10 != 0 ? rc : store_commit(bench.store);
    }
    rc = rc < 0 ? rc : settle(&bench, false);
    rc = rc < 0 ? rc : settle(&bench, true);
    for (uint64_t i = 1; i <= RECORDS && rc == 0; i++) {
        rc = store_set_record(bench.store, i, "what was done", 9 + i);
    }
    for (unsigned i = 0; i < 3 && rc == 0; i++) {
        rc = store_commit(bench.store);
        store_set_note(bench.store, "old", i);
    }
    store_close(bench.store);
    return rc;
}

/* One of its two meta pages. */
static int damage(const char *dir)
{
    static const uint8_t zeros[4096];
    char path[400];
    snprintf(path, sizeof(path), "%s/store/data.mdb", dir);
    auto_close int fd = open(path, O_RDWR | O_CLOEXEC);
    return fd < 0 || pwrite(fd, zeros, sizeof(zeros), 0) != sizeof(zeros) || fdatasync(fd) < 0
               ? -EIO
               : 0;
}

static void pause_a_little(void)
{
    struct timespec pause = {.tv_nsec = 200000};
    nanosleep(&pause, NULL);
}

/* What came is committed with a scan of this store's own; while nothing comes nothing is. */
static int step(struct bench *bench, uint32_t *commit)
{
    int rc = store_salvage_step(bench->store);
    if (rc < 0 || !store_has_pending(bench->store)) {
        pause_a_little();
        return rc < 0 ? rc : 0;
    }
    rc = append(bench, bench->live, DEVICES, *commit, base_ms - 1000);
    store_set_note(bench->store, live_note, *commit);
    record_promise(PROMISE_BEGUN, *commit);
    rc = rc < 0 ? rc : store_commit(bench->store);
    if (rc == 0) {
        record_promise(PROMISE_KEPT, (*commit)++);
    }
    return rc;
}

/* In a child: all of it, recorded. */
static int record_salvage(const char *dir, const char *trace, unsigned lmdb_flags)
{
    struct bench bench = {.store = NULL};
    int rc = image_clear(dir);
    rc = rc < 0 ? rc : record_start(dir, trace);
    rc = rc < 0 ? rc : make_old(dir);
    rc = rc < 0 ? rc : damage(dir);
    record_promise(PROMISE_KEPT, 0); /* from here on images are judged */
    record_lmdb_flags = lmdb_flags;
    rc = rc < 0 ? rc : open_store(&bench, dir);
    rc = rc < 0 ? rc : store_salvage_start(bench.store, NULL);
    uint32_t commit = 1;
    for (unsigned i = 0; rc == 0 && store_salvage_busy(bench.store); i++) {
        bench.store->salvage->step_bytes = STEP_BYTES;
        rc = commit > COMMITS_MAX || i > STEPS_MAX ? -EPROTO : step(&bench, &commit);
    }
    store_close(bench.store);
    record_stop();
    return rc;
}

struct look {
    struct bench *bench;
    uint8_t seen[DEVICES][SEQS + 1], waits[DEVICES][SEQS + 1], letters[DEVICES][SEQS + 1];
    uint8_t (*into)[SEQS + 1];
    bool wrong;
};

/* Its time says which scan it was. */
static bool identify(const struct look *look, const struct scan *scan, unsigned *ret_device,
                     uint64_t *ret_seq)
{
    unsigned d = 0;
    while (d < DEVICES && look->bench->devices[d] != scan->device) {
        d++;
    }
    uint64_t seq = (uint64_t)(scan->time_ms - base_ms) / 1000;
    bool good = d < DEVICES && seq >= 1 && seq <= SEQS && scan->count == POINTS;
    for (unsigned p = 0; p < POINTS && good; p++) {
        good = scan->readings[p].integer == value_of(d, seq, scan->readings[p].point);
    }
    *ret_device = d;
    *ret_seq = seq;
    return good;
}

static int see(void *user, const struct scan *scan)
{
    struct look *look = user;
    unsigned d;
    uint64_t seq;
    if (scan->device == look->bench->live) {
        return 0;
    }
    if (!identify(look, scan, &d, &seq)) {
        look->wrong = true;
        return 1;
    }
    look->into[d][seq]++;
    return 0;
}

static int see_letter(void *user, const struct store_letter *letter)
{
    struct look *look = user;
    look->wrong |= strcmp(letter->uplink, "cloud") != 0 || letter->refused_count != POINTS;
    look->into = look->letters;
    return see(user, letter->scan);
}

static const char *check_scans(struct look *look)
{
    for (unsigned d = 0; d < DEVICES; d++) {
        for (uint64_t seq = 1; seq <= SEQS; seq++) {
            bool buried = fate_of(seq) == FATE_BURIED, open = fate_of(seq) == FATE_OPEN;
            bool wanted = buried || open || local_waits(seq);
            if (look->seen[d][seq] != wanted) {
                return look->seen[d][seq] > wanted ? "a scan is there twice, or was delivered"
                                                   : "a scan is lost";
            }
            if (look->letters[d][seq] != buried) {
                return look->letters[d][seq] > buried ? "a letter too many" : "a letter is lost";
            }
            if (look->waits[d][seq] != open) {
                return look->waits[d][seq] > open ? "a scan is sent that does not wait"
                                                  : "a scan that waited is not sent";
            }
        }
    }
    return NULL;
}

static bool adds_up(const struct ledger_device *row)
{
    uint64_t fates = row->waiting;
    for (unsigned f = 0; f < FATE_COUNTS; f++) {
        fates += row->fates[f];
    }
    return row->counts[LEDGER_READ] == row->counts[LEDGER_STORED] && fates == row->offered;
}

static const char *check_ledger(struct bench *bench, int64_t commit)
{
    uint64_t open[2] = {0, 0}, buried = 0, live = (uint64_t)commit * POINTS;
    for (uint64_t seq = 1; seq <= SEQS; seq++) {
        buried += fate_of(seq) == FATE_BURIED ? DEVICES * POINTS : 0;
        open[0] += fate_of(seq) == FATE_OPEN ? DEVICES * POINTS : 0;
        open[1] += local_waits(seq) ? DEVICES * POINTS : 0;
    }
    for (unsigned u = 0; u < 2; u++) {
        struct ledger_device total;
        int rc = store_ledger_total(bench->store, (int)(u == 0 ? bench->cloud : bench->local),
                                    &total);
        if (rc < 0 || !adds_up(&total)) {
            return "the ledger does not add up";
        }
        if (total.waiting != open[u] + live || total.fates[FATE_DEAD] != (u == 0 ? buried : 0) ||
            total.counts[LEDGER_LOST] != 0) {
            return "the ledger tells of others";
        }
    }
    return NULL;
}

static bool has_records(struct bench *bench)
{
    auto_buffer struct buffer bytes = {0};
    uint64_t number = 0, count = 0;
    while (store_copy_record(bench->store, number + 1, &number, &bytes) == 0) {
        count += bytes.len == 9 + number && memcmp(bytes.data, "what was done", bytes.len) == 0;
    }
    return count == RECORDS;
}

/* What `cloud` is handed out. */
static int take_waiting(struct look *look)
{
    auto_buffer struct buffer arena = {0};
    const struct scan **scans;
    size_t count = 1;
    struct store_reader *reader;
    int rc = store_reader_create(look->bench->store, look->bench->cloud, false, &reader);
    look->into = look->waits;
    while (rc == 0 && count > 0) {
        rc = store_reader_take(reader, STORE_LANE_BACKFILL, STREAM_RAW, 64, 1 << 20, &arena, &scans,
                               &count);
        for (size_t i = 0; i < count && rc == 0; i++) {
            struct store_settlement s = {.device = scans[i]->device,
                                         .first_seq = scans[i]->seq,
                                         .last_seq = scans[i]->seq,
                                         .fates = {[FATE_DELIVERED] = scans[i]->count}};
            (void)see(look, scans[i]);
            rc = store_reader_settle(reader, &s);
        }
    }
    store_reader_destroy(reader);
    return rc;
}

static const char *judge(struct bench *bench, uint32_t acked, uint32_t attempted)
{
    static struct look look;
    int64_t commit = 0;
    look = (struct look){.bench = bench};
    (void)store_note(bench->store, live_note, &commit);
    if (commit < acked || commit > attempted) {
        return "the new store is not at the commit that it promised";
    }
    int rc = store_salvage_start(bench->store, NULL);
    for (unsigned i = 0; rc == 0 && store_salvage_busy(bench->store); i++) {
        rc = i > STEPS_MAX ? -ETIMEDOUT : store_salvage_step(bench->store);
        rc = rc < 0 ? rc : store_commit(bench->store);
        pause_a_little();
    }
    look.into = look.seen;
    rc = rc < 0 ? rc : store_history(bench->store, STREAM_RAW, 0, INT64_MIN, INT64_MAX, see, &look);
    rc = rc != 0 ? rc : store_letters(bench->store, see_letter, &look);
    const char *why = rc != 0 ? "salvage does not end, or what it made does not read"
                              : check_ledger(bench, commit);
    why = why != NULL ? why : has_records(bench) ? NULL : "records are lost";
    why = why != NULL ? why : take_waiting(&look) < 0 ? "it does not drain" : NULL;
    why = why != NULL ? why : look.wrong ? "another value" : check_scans(&look);
    return why != NULL                                                                 ? why
           : store_last_seq(bench->store, STREAM_RAW, bench->live) == (uint64_t)commit ? NULL
                                                                                       : "seqs";
}

struct replay {
    const struct options *options;
    struct tally *tally;
    unsigned worker;
    bool planted;
    struct disk *disk;
    struct hashes contents;
    struct buffer image;
    char dir[300];
    uint64_t event;
    uint32_t acked, attempted;
    bool begun;
};

/* In a child of its own: a crash or a hang is a verdict. */
static void judge_here(struct replay *replay, const char *pattern)
{
    struct bench bench = {.store = NULL};
    alarm(JUDGE_SECONDS);
    int null = open("/dev/null", O_WRONLY), err = dup(2);
    dup2(null, 2); /* what the store has to say of it */
    int rc = image_write(replay->dir, replay->image.data, replay->image.len);
    rc = rc < 0 ? rc : open_store(&bench, replay->dir);
    const char *why = rc < 0 ? "it does not open" : judge(&bench, replay->acked, replay->attempted);
    store_close(bench.store);
    if (why != NULL && !replay->planted && replay->tally->told++ < TOLD_MAX) {
        dprintf(err, "seed %llu event %llu, %s, commits %u..%u: %s\n",
                (unsigned long long)replay->options->seed, (unsigned long long)replay->event,
                pattern, replay->acked, replay->attempted, why);
    }
    _exit(why != NULL);
}

static void judge_image(void *user, const char *pattern)
{
    struct replay *replay = user;
    const struct options *o = replay->options;
    if (replay->planted && replay->tally->bad >= BAD_ENOUGH) {
        return;
    }
    buffer_clear(&replay->image);
    disk_image(replay->disk, &replay->image);
    uint64_t hash = hash_bytes(replay->image.data, replay->image.len, 1);
    uint64_t promises = (uint64_t)replay->acked << 32 | replay->attempted;
    if (hash % o->workers != replay->worker) {
        return;
    }
    replay->tally->built++;
    if (hash / o->workers % o->one_in != o->seed % o->one_in ||
        !hashes_add(&replay->contents, hash ^ promises * 0x9E3779B97F4A7C15ull)) {
        return;
    }
    pid_t pid = fork();
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        judge_here(replay, pattern);
    }
    int status = 0;
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR) {
    }
    if (WIFSIGNALED(status) && !replay->planted) {
        fprintf(stderr, "seed %llu event %llu, %s: signal %d\n", (unsigned long long)o->seed,
                (unsigned long long)replay->event, pattern, WTERMSIG(status));
    }
    replay->tally->judged++;
    replay->tally->bad += status != 0;
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

/* In a child: builds all images, judges its share. */
static int replay_run(struct replay *replay, const char *path)
{
    auto_fclose FILE *trace = fopen(path, "rb");
    auto_buffer struct buffer bytes = {0};
    struct trace_event event;
    replay->disk = disk_create();
    for (replay->event = 1; trace != NULL && next_event(trace, &event, &bytes); replay->event++) {
        if (event.type == TRACE_BEGUN) {
            replay->attempted = (uint32_t)event.number;
        } else if (event.type == TRACE_KEPT) {
            replay->acked = (uint32_t)event.number;
            replay->begun = true;
        }
        disk_apply(replay->disk, replay->event, &event, bytes.data);
        if (replay->begun && event.type != TRACE_SYNC_BEGIN && event.type != TRACE_BEGUN) {
            images_at(replay->disk, replay->event, replay->options->seed, judge_image, replay);
        }
    }
    replay->tally->events += replay->worker == 0 ? replay->event : 0;
    disk_destroy(replay->disk);
    hashes_finish(&replay->contents);
    buffer_finish(&replay->image);
    (void)image_clear(replay->dir);
    (void)rmdir(replay->dir);
    return trace == NULL || ferror(trace) ? -EIO : 0;
}

static bool ended_well(pid_t pid)
{
    int status = 0;
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR) {
    }
    return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

static bool run(const struct options *options, bool planted, struct tally *tally)
{
    char dir[300], trace[300];
    pid_t workers[WORKERS_MAX];
    snprintf(dir, sizeof(dir), "%s/load", options->work);
    snprintf(trace, sizeof(trace), "%s/trace", options->work);
    pid_t pid = fork();
    if (pid == 0) {
        int null = open("/dev/null", O_WRONLY);
        dup2(null, 2);
        _exit(record_salvage(dir, trace, planted ? MDB_NOSYNC : 0) < 0);
    }
    bool good = ended_well(pid);
    for (unsigned w = 0; w < options->workers && good; w++) {
        struct replay replay = {
            .options = options, .tally = tally, .worker = w, .planted = planted};
        snprintf(replay.dir, sizeof(replay.dir), "%s/judge-%u", options->work, w);
        workers[w] = fork();
        if (workers[w] == 0) {
            prctl(PR_SET_PDEATHSIG, SIGKILL);
            _exit(replay_run(&replay, trace) < 0);
        }
    }
    for (unsigned w = 0, all = good ? options->workers : 0; w < all; w++) {
        good &= ended_well(workers[w]);
    }
    (void)unlink(trace);
    (void)image_clear(dir);
    (void)rmdir(dir);
    return good;
}

static bool parse(int argc, char **argv, struct options *options)
{
    static const struct option names[] = {
        {"one-in", required_argument, NULL, 'o'},
        {"seed", required_argument, NULL, 's'},
        {"workers", required_argument, NULL, 'w'},
        {"work", required_argument, NULL, 'd'},
        {NULL, 0, NULL, 0},
    };
    int option;
    while ((option = getopt_long(argc, argv, "", names, NULL)) != -1) {
        switch (option) {
        case 'o':
            options->one_in = strtoull(optarg, NULL, 10);
            break;
        case 's':
            options->seed = strtoull(optarg, NULL, 10);
            break;
        case 'w':
            options->workers = (unsigned)strtoul(optarg, NULL, 10);
            break;
        case 'd':
            options->work = optarg;
            break;
        default:
            return false;
        }
    }
    return optind == argc && options->one_in > 0 && options->workers >= 1 &&
           options->workers <= WORKERS_MAX;
}

int main(int argc, char **argv)
{
    struct options options = {.seed = 1, .one_in = 1, .workers = 2};
    if (!parse(argc, argv, &options)) {
        fprintf(stderr, "usage: see the head of tests/powercut/powercut_salvage.c\n");
        return 2;
    }
    char made[] = "/dev/shm/powercut.XXXXXX";
    options.work = options.work != NULL ? options.work : mkdtemp(made);
    struct tally *tallies = mmap(NULL, 2 * sizeof(*tallies), PROT_READ | PROT_WRITE,
                                 MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (options.work == NULL || tallies == MAP_FAILED) {
        return 2;
    }
    bool ran = run(&options, false, &tallies[0]) && run(&options, true, &tallies[1]);
    bool good = ran && tallies[0].judged > 0 && tallies[0].bad == 0 && tallies[1].bad > 0;
    printf("{\"program\": \"powercut_salvage\", \"good\": %s, \"seed\": %llu, \"events\": %llu, "
           "\"images_built\": %llu, \"distinct_images\": %llu, \"bad\": %llu, \"nosync\": "
           "{\"judged\": %llu, \"bad\": %llu}}\n",
           good ? "true" : "false", (unsigned long long)options.seed,
           (unsigned long long)tallies[0].events, (unsigned long long)tallies[0].built,
           (unsigned long long)tallies[0].judged, (unsigned long long)tallies[0].bad,
           (unsigned long long)tallies[1].judged, (unsigned long long)tallies[1].bad);
    (void)rmdir(options.work);
    return !ran ? 2 : good ? 0 : 1;
}
