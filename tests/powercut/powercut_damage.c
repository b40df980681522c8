/* powercut_damage [--files N] [--seed S] [--hours H] [--work DIR]
 *
 * N damaged copies (2,000) of a good store: flipped bits, zeroed and exchanged pages, foreign
 * bytes, a file cut off, another version, no meta page. Each is lived with as the daemon would, in
 * a child that must not crash: the store opens, sound or set aside; it hands out nothing that was
 * never stored, and takes new scans; and what is readable of a file that was set aside comes back,
 * or not, but ends. What LMDB finds out only while it writes may latch the store:
 * then the next start must do. The last line is a JSON summary. */
#include "disk.h"
#include "examine.h"
#include "gateway/store/salvage.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>

enum {
    SEQS = 3000,
    ROUNDS = 10,
    PAGE = 4096,
    STARTS_MAX = 3,
    LIFE_SECONDS = 20,
    SHOWN_MAX = 20,
    APPENDS = 8,
};

/* How a life with a damaged file went; in shared memory, so that a crash tells how far it came. */
struct life {
    bool set_aside, latched;
    uint64_t bad_blocks, scans, salvaged;
    char step[24];
    char wrong[96]; /* empty: nothing */
};

struct bench {
    char work[300];
    uint64_t seed, rng;
    struct truth *truth;
    struct life *life;
    struct store *store; /* in the child */
    uint8_t *good;
    size_t size;
    uint64_t files, set_aside, salvaged, with_bad_blocks, latched, unnoticed, crashed, hung, wrong,
        shown;
};

static uint64_t chance(struct bench *bench, uint64_t bound)
{
    bench->rng = bench->rng * 6364136223846793005ull + 1442695040888963407ull;
    return (bench->rng >> 33) % bound;
}

static void flip_bits(struct bench *bench, uint8_t *file, size_t *len)
{
    for (uint64_t n = 1 + chance(bench, 8); n > 0; n--) {
        file[chance(bench, *len)] ^= (uint8_t)(1u << chance(bench, 8));
    }
}

/* The first bytes of a page say what it is and where its parts lie. */
static void flip_in_heads(struct bench *bench, uint8_t *file, size_t *len)
{
    for (uint64_t n = 1 + chance(bench, 3); n > 0; n--) {
        uint64_t page = chance(bench, *len / PAGE);
        file[page * PAGE + chance(bench, 40)] ^= (uint8_t)(1u << chance(bench, 8));
    }
}

static void zero_pages(struct bench *bench, uint8_t *file, size_t *len)
{
    for (uint64_t n = 1 + chance(bench, 4); n > 0; n--) {
        memset(file + (2 + chance(bench, *len / PAGE - 2)) * PAGE, 0, PAGE);
    }
}

static void swap_pages(struct bench *bench, uint8_t *file, size_t *len)
{
    uint8_t *a = file + (2 + chance(bench, *len / PAGE - 2)) * PAGE;
    uint8_t *b = file + (2 + chance(bench, *len / PAGE - 2)) * PAGE;
    uint8_t page[PAGE];
    memcpy(page, a, PAGE);
    memmove(a, b, PAGE);
    memcpy(b, page, PAGE);
}

static void foreign_bytes(struct bench *bench, uint8_t *file, size_t *len)
{
    size_t at = (size_t)chance(bench, *len - 600);
    for (size_t i = 0, n = (size_t)chance(bench, 600); i < n; i++) {
        file[at + i] = (uint8_t)chance(bench, 256);
    }
}

static void cut_off(struct bench *bench, uint8_t *file, size_t *len)
{
    (void)file;
    *len = chance(bench, 4) == 0 ? (size_t)chance(bench, 2 * PAGE) : (size_t)chance(bench, *len);
}

/* Both meta pages: their magic, version, roots and sizes. */
static void ruin_meta(struct bench *bench, uint8_t *file, size_t *len)
{
    (void)len;
    size_t at = 16 + (size_t)chance(bench, 136);
    uint8_t bits = (uint8_t)(1 + chance(bench, 255));
    file[at] ^= bits;
    if (chance(bench, 2) == 0) {
        file[PAGE + at] ^= bits;
    }
}

static void (*const damages[])(struct bench *bench, uint8_t *file, size_t *len) = {
    flip_bits, flip_in_heads, zero_pages, swap_pages, foreign_bytes, cut_off, ruin_meta,
};
static const char *const damage_names[] = {
    "flipped bits",      "flipped bits in page heads",
    "zeroed pages",      "exchanged pages",
    "foreign bytes",     "cut off",
    "ruined meta pages",
};

static void step(struct life *life, const char *name)
{
    snprintf(life->step, sizeof(life->step), "%s", name);
}

/* A scan that comes out must be what was put in, however damaged the rest is. */
static int look_at(void *user, const struct scan *scan)
{
    struct bench *bench = user;
    struct truth *truth = bench->truth;
    bool known = scan->stream < STREAM_COUNT && scan->device >= 1 &&
                 scan->device <= TRUTH_DEVICES && scan->seq < truth->seqs &&
                 truth_at(truth, scan->stream, scan->device - 1, scan->seq)->commit != 0;
    unsigned count = known ? truth_at(truth, scan->stream, scan->device - 1, scan->seq)->count : 0;
    bench->life->scans++;
    if (!known || !truth_equal(truth, count, scan)) {
        snprintf(bench->life->wrong, sizeof(bench->life->wrong),
                 "a scan of device %u, seq %llu, that was never stored so", scan->device,
                 (unsigned long long)scan->seq);
        return 1;
    }
    return 0;
}

static void drain(struct bench *bench, struct store_reader *reader, enum stream stream)
{
    auto_buffer struct buffer arena = {0};
    for (unsigned turn = 0; turn < 2000; turn++) {
        const struct scan **scans = NULL;
        size_t count = 0;
        int rc = store_reader_take(reader, STORE_LANE_BACKFILL, stream, 100, 1 << 20, &arena,
                                   &scans, &count);
        if (rc == -EBADMSG) {
            continue; /* counted and passed over */
        }
        if (rc < 0 || count == 0) {
            return;
        }
        for (size_t i = 0; i < count; i++) {
            struct store_settlement settlement = {.stream = stream,
                                                  .device = scans[i]->device,
                                                  .first_seq = scans[i]->seq,
                                                  .last_seq = scans[i]->seq};
            settlement.fates[FATE_DELIVERED] = scans[i]->count;
            (void)look_at(bench, scans[i]);
            if (store_reader_settle(reader, &settlement) < 0) {
                return;
            }
        }
    }
    snprintf(bench->life->wrong, sizeof(bench->life->wrong), "%s is never drained",
             stream_name(stream));
}

static int look(struct bench *bench, struct store *store)
{
    struct life *life = bench->life;
    uint64_t blocks = 0;
    struct ledger_device total;
    struct store_stat stat;
    step(life, "verify");
    if (store_verify(store, &blocks, &life->bad_blocks) < 0) {
        life->bad_blocks++;
    }
    step(life, "history");
    for (unsigned s = 0; s < STREAM_COUNT; s++) {
        int rc = store_history(store, (enum stream)s, 0, INT64_MIN, INT64_MAX, look_at, bench);
        life->bad_blocks += rc < 0;
    }
    step(life, "figures");
    store_stat(store, &stat);
    return store_ledger_total(store, -1, &total);
}

static int take_and_put(struct bench *bench, struct store *store)
{
    struct life *life = bench->life;
    unsigned uplink;
    uint32_t device;
    struct store_reader *reader = NULL;
    step(life, "uplink");
    int rc = store_add_uplink(store, "cloud", truth_uplink_streams[0], 0, &uplink);
    rc = rc < 0 ? rc : store_device(store, truth_device_names[0], "{\"site\":\"hill\"}", &device);
    rc = rc < 0 ? rc : store_reader_create(store, uplink, false, &reader);
    step(life, "drain");
    for (unsigned s = 0; s < STREAM_COUNT && rc == 0; s++) {
        drain(bench, reader, (enum stream)s);
    }
    step(life, "append");
    for (unsigned i = 0; i < APPENDS && rc == 0; i++) {
        _Alignas(8) uint8_t memory[TRUTH_SCAN_BYTES];
        struct scan *scan = (struct scan *)(void *)memory;
        truth_build(bench->truth, STREAM_RAW, 0, store_last_seq(store, STREAM_RAW, device) + 1,
                    TRUTH_POINTS, scan);
        scan->device = device;
        rc = store_append(store, scan);
        rc = rc < 0 ? rc : store_commit(store);
    }
    store_reader_destroy(reader);
    return rc;
}

/* What came back has another identity; its time says which scan it was. */
static int look_at_salvaged(void *user, const struct scan *scan)
{
    struct bench *bench = user;
    _Alignas(8) uint8_t memory[TRUTH_SCAN_BYTES];
    struct scan *was = (struct scan *)(void *)memory;
    const struct store_names *names = store_names(bench->store, scan->device);
    uint64_t seq = (uint64_t)(scan->time_ms - bench->truth->base_ms) / 1000;
    if (scan->boot_ms != 0) {
        return 0; /* one of its own */
    }
    memcpy(was, scan, scan_size(scan) < sizeof(memory) ? scan_size(scan) : sizeof(memory));
    was->seq = seq;
    was->boot_ms = scan->stream == STREAM_AGGREGATE ? 0 : 5000 + (int64_t)seq * 1000;
    was->device = 0;
    for (uint32_t d = 0; d < TRUTH_DEVICES && names != NULL; d++) {
        was->device = strcmp(names->device, truth_device_names[d]) == 0 ? d + 1 : was->device;
    }
    return look_at(bench, was);
}

/* Beside the work, as the daemon does it; by the end nothing is damaged or unaccounted for. */
static int salvage(struct bench *bench, struct store *store)
{
    enum { STEPS_MAX = 5000 };
    struct timespec pause = {.tv_nsec = 1000000};
    uint64_t blocks = 0, bad = 0;
    struct ledger_device total = {0};
    step(bench->life, "salvage");
    int rc = store_salvage_start(store, NULL);
    for (unsigned i = 0; rc == 0 && store_salvage_busy(store); i++) {
        rc = store_salvage_step(store);
        rc = rc < 0 ? rc : store_commit(store);
        nanosleep(&pause, NULL);
        if (i == STEPS_MAX) {
            snprintf(bench->life->wrong, sizeof(bench->life->wrong), "salvage does not end");
            break;
        }
    }
    rc = rc < 0 ? rc : store_verify(store, &blocks, &bad);
    rc = rc < 0 ? rc : store_ledger_total(store, 0, &total);
    bench->life->salvaged = total.counts[LEDGER_SALVAGED];
    bench->store = store;
    for (unsigned s = 0; s < STREAM_COUNT && rc == 0 && bench->life->set_aside; s++) {
        int shown = store_history(store, (enum stream)s, 0, INT64_MIN, INT64_MAX, look_at_salvaged,
                                  bench);
        rc = shown < 0 ? shown : 0;
    }
    if (rc == 0 && bench->life->set_aside && bad > 0) {
        snprintf(bench->life->wrong, sizeof(bench->life->wrong), "salvage made damaged blocks");
    }
    return rc;
}

/* One start of the daemon; -EIO: it would be started again. */
static int start_once(struct bench *bench)
{
    struct store_settings settings = load_settings(STORE_FULL_DROP_OLDEST);
    struct store *store = NULL;
    step(bench->life, "open");
    int rc = store_open(bench->work, &settings, &store);
    if (rc < 0) {
        return rc;
    }
    bench->life->set_aside |= store_quarantined(store) != NULL;
    rc = look(bench, store);
    rc = rc < 0 ? rc : take_and_put(bench, store);
    rc = rc < 0 ? rc : salvage(bench, store);
    step(bench->life, "close");
    store_close(store);
    return rc;
}

static int live(struct bench *bench)
{
    struct rlimit no_core = {0, 0};
    setrlimit(RLIMIT_CORE, &no_core);
    alarm(LIFE_SECONDS);
    if (freopen("/dev/null", "w", stderr) == NULL) {
        return 1;
    }
    int rc = -EIO;
    for (unsigned i = 0; i < STARTS_MAX && rc < 0; i++) {
        rc = start_once(bench);
        bench->life->latched |= rc < 0;
    }
    if (rc < 0 && bench->life->wrong[0] == '\0') {
        snprintf(bench->life->wrong, sizeof(bench->life->wrong), "does not start: %s",
                 strerror(-rc));
    }
    return 0;
}

static int put_file(const struct bench *bench, const uint8_t *file, size_t len)
{
    char path[400];
    int rc = image_clear(bench->work);
    snprintf(path, sizeof(path), "%s/store", bench->work);
    if (rc < 0 || mkdir(path, 0700) < 0) {
        return -EIO;
    }
    snprintf(path, sizeof(path), "%s/store/data.mdb", bench->work);
    auto_close int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    return fd >= 0 && write(fd, file, len) == (ssize_t)len ? 0 : -EIO;
}

static void show(struct bench *bench, uint64_t number, const char *damage, int status)
{
    if (bench->shown++ < SHOWN_MAX) {
        fprintf(stderr, "seed %llu file %llu, %s: status 0x%x at %s%s; %s\n",
                (unsigned long long)bench->seed, (unsigned long long)number, damage,
                (unsigned)status, bench->life->step,
                bench->life->set_aside ? " after it was set aside" : "", bench->life->wrong);
    }
}

static void damage_one(struct bench *bench, uint64_t number)
{
    bench->rng = (bench->seed << 32) + number * 0x9E3779B97F4A7C15ull;
    size_t len = bench->size, kind = (size_t)(number % ARRAY_SIZE(damages));
    auto_free uint8_t *file = malloc(len);
    if (file == NULL) {
        abort();
    }
    memcpy(file, bench->good, len);
    damages[kind](bench, file, &len);
    *bench->life = (struct life){.set_aside = false};
    if (put_file(bench, file, len) < 0) {
        abort();
    }
    pid_t pid = fork();
    if (pid == 0) {
        _exit(live(bench));
    }
    int status = 0;
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR) {
    }
    bool hung = WIFSIGNALED(status) && WTERMSIG(status) == SIGALRM;
    const struct life *life = bench->life;
    bench->files++;
    bench->hung += hung;
    bench->crashed += status != 0 && !hung;
    bench->wrong += life->wrong[0] != '\0';
    bench->set_aside += life->set_aside;
    bench->salvaged += life->salvaged > 0;
    bench->latched += life->latched;
    bench->with_bad_blocks += life->bad_blocks > 0;
    bench->unnoticed += !life->set_aside && !life->latched && life->bad_blocks == 0;
    if (status != 0 || life->wrong[0] != '\0') {
        show(bench, number, damage_names[kind], status);
    }
}

/* A store with something of everything in it, read into memory. */
static int make_good(struct bench *bench)
{
    struct load load = {.dir = bench->work,
                        .truth = bench->truth,
                        .settings = load_settings(STORE_FULL_DROP_OLDEST),
                        .rng = bench->seed + 1};
    char path[400];
    int rc = image_clear(bench->work);
    rc = rc < 0 ? rc : load_open(&load);
    for (unsigned i = 0; i < ROUNDS * 20 && rc == 0; i++) {
        unsigned stream = i % 5 == 0 ? STREAM_AGGREGATE : i % 7 == 0 ? STREAM_EVENT : STREAM_RAW;
        rc = load_append(&load, stream, i % TRUTH_DEVICES, i % 3 == 0 ? TRUTH_POINTS : 6);
        rc = rc < 0 ? rc : load_commit(&load);
        rc = rc == 0 && i % 9 == 0 ? load_deliver(&load, i % TRUTH_UPLINKS) : rc;
    }
    load_close(&load);
    snprintf(path, sizeof(path), "%s/store/data.mdb", bench->work);
    auto_close int fd = open(path, O_RDONLY | O_CLOEXEC);
    struct stat st;
    if (rc < 0 || fd < 0 || fstat(fd, &st) < 0) {
        return rc < 0 ? rc : -EIO;
    }
    bench->size = (size_t)st.st_size;
    bench->good = malloc(bench->size);
    return bench->good != NULL && read(fd, bench->good, bench->size) == st.st_size ? 0 : -EIO;
}

static double seconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

static int prove(struct bench *bench, uint64_t files, double hours, uint64_t only)
{
    double began = seconds();
    do {
        if (make_good(bench) < 0) {
            return 2;
        }
        for (uint64_t i = only; i < files; i++) {
            damage_one(bench, i);
        }
        free(take_ptr(bench->good));
        truth_reset(bench->truth);
        bench->seed++;
    } while (seconds() - began < hours * 3600);
    (void)image_clear(bench->work);
    (void)rmdir(bench->work);
    bool good = bench->crashed + bench->hung + bench->wrong == 0;
    printf("{\"program\": \"powercut_damage\", \"good\": %s, \"seconds\": %.1f, \"files\": %llu, "
           "\"set_aside\": %llu, \"salvaged\": %llu, \"with_bad_blocks\": %llu, \"latched\": %llu, "
           "\"without_effect\": %llu, \"crashed\": %llu, \"hung\": %llu, \"wrong\": %llu}\n",
           good ? "true" : "false", seconds() - began, (unsigned long long)bench->files,
           (unsigned long long)bench->set_aside, (unsigned long long)bench->salvaged,
           (unsigned long long)bench->with_bad_blocks, (unsigned long long)bench->latched,
           (unsigned long long)bench->unnoticed, (unsigned long long)bench->crashed,
           (unsigned long long)bench->hung, (unsigned long long)bench->wrong);
    return good ? 0 : 1;
}

int main(int argc, char **argv)
{
    static const struct option names[] = {
        {"files", required_argument, NULL, 'n'}, {"seed", required_argument, NULL, 's'},
        {"hours", required_argument, NULL, 'h'}, {"work", required_argument, NULL, 'd'},
        {"from", required_argument, NULL, 'f'},  {NULL, 0, NULL, 0},
    };
    struct bench bench = {.seed = 1};
    char made[] = "/dev/shm/powercut.XXXXXX";
    const char *work = NULL;
    uint64_t files = 2000, from = 0;
    double hours = 0;
    int option;
    while ((option = getopt_long(argc, argv, "", names, NULL)) != -1) {
        switch (option) {
        case 'n':
            files = strtoull(optarg, NULL, 10);
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
        case 'f':
            from = strtoull(optarg, NULL, 10);
            break;
        default:
            return 2;
        }
    }
    work = work == NULL ? mkdtemp(made) : work;
    bench.truth = truth_create(bench.seed, SEQS);
    bench.life = mmap(NULL, sizeof(*bench.life), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS,
                      -1, 0);
    if (work == NULL || bench.truth == NULL || bench.life == MAP_FAILED) {
        return 2;
    }
    snprintf(bench.work, sizeof(bench.work), "%s/store-dir", work);
    int status = prove(&bench, files, hours, from);
    (void)rmdir(work);
    return status;
}
