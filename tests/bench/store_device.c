/* Bytes written to the device: by the kernel's own counters of a block device that holds nothing
 * but this store, since a process's counters say what it wrote to the page cache. */
#include "gateway/base/clock.h"
#include "gateway/store/internal.h"
#include "store_bench.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

/* JOURNAL_S: ext4 writes the file's times so often by itself (its default), where they changed. */
enum { JOURNAL_S = 5, SECTOR = 512, WARM = 100, WARM_OFFLINE = 2100 };
enum { WEEK_S = 7 * 86400, KEYS_A_COMMIT = 20000 };

enum how { DELIVERED, OFFLINE, WEEK_OFFLINE };
static const char *const how_names[] = {"delivered at once", "offline", "offline for a week"};

static const double emmc_bytes = 8e9 * 3000, year_s = 365.25 * 86400;

struct site {
    const char *name;
    unsigned devices, channels;
    bool automatic; /* the commit interval */
    double limit;
};

/* Field 7 of /sys/block/X/stat: sectors written. */
static uint64_t written(const char *counter)
{
    unsigned long long field[7] = {0};
    FILE *f = fopen(counter, "re");
    bench_must(f == NULL ? -errno : 0, counter);
    for (int i = 0; i < 7; i++) {
        bench_must(fscanf(f, "%llu", &field[i]) == 1 ? 0 : -EIO, counter);
    }
    fclose(f);
    return field[6] * SECTOR;
}

struct trial {
    struct bench_store at;
    struct bench_load load;
    struct store_reader *reader;
    struct buffer arena;
    const char *counter;
    double *bytes; /* of each commit, when it returned */
    size_t commits;
    int64_t due_ms;
    int fd; /* the file */
};

static void commit(struct trial *run)
{
    uint64_t before = written(run->counter);
    bench_must(store_commit(run->at.store), "commit");
    run->bytes[run->commits++] = (double)(written(run->counter) - before);
    run->due_ms = clock_mono_ms() + store_commit_interval_ms(run->at.store);
}

/* The file system's own write. Seconds pass in microseconds here, too fast for a file's times: they
 * are moved by hand. */
static void write_journal(const struct trial *run)
{
    bench_must(futimens(run->fd, NULL) < 0 || syncfs(run->fd) < 0 ? -errno : 0, "journal");
}

/* Seconds of the site's life; the clocks are held and moved along. */
static void live(struct trial *run, unsigned seconds, bool delivered)
{
    bool changed = false;
    for (unsigned s = 0; s < seconds; s++) {
        bench_load_next(&run->load);
        bench_load_append(&run->load, run->at.store);
        clock_advance_ms(1000);
        bool due = clock_mono_ms() >= run->due_ms;
        if (due) {
            commit(run);
        }
        if (due && delivered) {
            bench_deliver(run->reader, &run->arena, 0);
        }
        changed |= due;
        if (run->load.seq % JOURNAL_S == 0 && changed) {
            write_journal(run);
            changed = false;
        }
    }
}

/* What a week leaves in the trees: the keys of its large blocks, of devices that nobody asks for,
 * each with as many bytes in its leaf as a block of pages of its own has there. */
static void fall_behind(struct trial *run, const struct site *site)
{
    uint64_t rounds = (uint64_t)WEEK_S * site->channels / FLUSH_READINGS, put = 0;
    MDB_txn *txn = NULL;
    for (uint64_t i = 0; i < rounds * site->devices; i++) {
        uint64_t device = i % site->devices, first_seq = i / site->devices * 800 + 1;
        struct key key = key_large(STREAM_RAW, STATE_DEVICES_MAX + 1 + (uint32_t)device, first_seq);
        if (txn == NULL) {
            bench_must(env_write(run->at.store->env, &txn), "a week's keys");
        }
        bench_must(env_put(txn, &key, &first_seq, sizeof(first_seq), 0), "a week's keys");
        if (++put % KEYS_A_COMMIT == 0 || i + 1 == rounds * site->devices) {
            bench_must(env_error(mdb_txn_commit(take_ptr(txn))), "a week's keys");
        }
    }
}

static int report(const struct site *site, const char *how, struct trial *run, uint64_t bytes,
                  double seconds)
{
    char name[140];
    double readings = seconds * site->devices * site->channels;
    qsort(run->bytes, run->commits, sizeof(*run->bytes), bench_by_size);
    snprintf(name, sizeof(name), "written at the device, %s, %s", site->name, how);
    int bad = bench_line(name, (double)bytes / readings, "B/reading", BENCH_AT_MOST, site->limit);
    snprintf(name, sizeof(name), "one commit at the device, %s, %s", site->name, how);
    bad += bench_line(name, run->bytes[run->commits / 2], "B",
                      site->automatic ? BENCH_AT_MOST : BENCH_SHOWN, 17 * 1024);
    snprintf(name, sizeof(name), "life of an 8 GB eMMC of 3,000 cycles, %s, %s", site->name, how);
    bench_line(name, emmc_bytes / ((double)bytes / seconds) / year_s, "years", BENCH_SHOWN, 0);
    return bad;
}

static int measure(const char *base, const char *counter, const struct site *site, enum how how,
                   unsigned commits)
{
    bool delivered = how == DELIVERED;
    struct store_settings settings = {.commit_interval_ms = site->automatic ? -1 : 1000,
                                      .max_size_bytes = 256 << 20};
    struct trial run = {
        .counter = counter,
        .load = {
            .devices = site->devices, .channels = site->channels, .rows = 1, .recorded = true}};
    unsigned uplink;
    clock_hold(1769855400000, 1000000000);
    bench_store_make(&run.at, base, &settings);
    bench_must(store_add_uplink(run.at.store, "cloud", 1u << STREAM_RAW, 0, &uplink), "uplink");
    bench_must(store_reader_create(run.at.store, uplink, false, &run.reader), "reader");
    bench_load_init(&run.load, run.at.store);
    char path[256];
    snprintf(path, sizeof(path), "%s/store/data.mdb", run.at.dir);
    run.fd = open(path, O_RDONLY | O_CLOEXEC);
    bench_must(run.fd < 0 ? -errno : 0, path);
    unsigned a_commit = site->automatic ? 10 : 1, warm = delivered ? WARM : WARM_OFFLINE;
    run.bytes = calloc(a_commit * (size_t)(warm + commits), sizeof(*run.bytes));
    bench_must(run.bytes == NULL ? -ENOMEM : 0, "commits");
    if (how == WEEK_OFFLINE) {
        fall_behind(&run, site);
    }
    live(&run, warm * a_commit, delivered); /* until blocks come and go as they always will */
    write_journal(&run);
    run.commits = 0;
    uint64_t before = written(counter);
    live(&run, commits * a_commit, delivered);
    write_journal(&run);
    int bad = report(site, how_names[how], &run, written(counter) - before, commits * a_commit);
    close(run.fd);
    free(run.bytes);
    store_reader_destroy(run.reader);
    buffer_finish(&run.arena);
    bench_load_finish(&run.load);
    bench_store_remove(&run.at);
    clock_release();
    return bad;
}

int bench_device(const char *base, const char *counter, unsigned commits)
{
    static const struct site sites[] = {
        {"770 x 20 at 1 Hz", 770, 20, false, 6},
        {"10,000 readings/s", 500, 20, false, 9},
        {"50 readings/s, auto", 5, 10, true, 90},
    };
    int bad = 0;
    for (size_t i = 0; i < ARRAY_SIZE(sites); i++) {
        for (unsigned how = DELIVERED; how <= WEEK_OFFLINE; how++) {
            bad += measure(base, counter, &sites[i], how, commits);
        }
    }
    return bad;
}
