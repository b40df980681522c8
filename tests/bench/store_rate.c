/* Readings a second through append and durable commit, beside LMDB committing the same bytes. */
#include "gateway/store/internal.h"
#include "store_bench.h"

#include <lmdb.h>
#include <string.h>
#include <sys/stat.h>

enum { ROUNDS = 9, KEPT = 2, CUTS = 8 }; /* KEPT: commits that bare LMDB holds, as the store does */

/* The bytes of a commit: its blocks, encoded as the store encodes them, and its state record. */
struct encoded {
    struct wal_encoder *encoder;
    struct wal_row *rows;
    struct buffer bytes;
    const struct buffer *state;
    size_t ends[CUTS], cuts;
};

struct bare {
    MDB_env *env;
    MDB_dbi dbi;
    uint64_t next, first; /* keys of blocks, from 1 on; the state is 0 */
    char dir[200];
};

struct figures {
    double wall_s, cpu_s;
};

static void bare_must(int rc, const char *what)
{
    if (rc != 0) {
        fprintf(stderr, "bench_store: LMDB: %s: %s\n", what, mdb_strerror(rc));
        exit(1);
    }
}

static void bare_open(struct bare *bare, const char *base)
{
    bare->next = bare->first = 1;
    snprintf(bare->dir, sizeof(bare->dir), "%s/bench_lmdb.XXXXXX", base);
    bench_must(mkdtemp(bare->dir) == NULL ? -errno : 0, base);
    MDB_txn *txn;
    bare_must(mdb_env_create(&bare->env), "create");
    bare_must(mdb_env_set_mapsize(bare->env, (size_t)1 << 30), "map");
    bare_must(mdb_env_open(bare->env, bare->dir, MDB_NOTLS, 0600), "open");
    bare_must(mdb_txn_begin(bare->env, NULL, 0, &txn), "begin");
    bare_must(mdb_dbi_open(txn, NULL, 0, &bare->dbi), "dbi");
    bare_must(mdb_txn_commit(txn), "commit");
}

static void bare_close(struct bare *bare)
{
    char path[256];
    mdb_env_close(bare->env);
    snprintf(path, sizeof(path), "%s/data.mdb", bare->dir);
    remove(path);
    snprintf(path, sizeof(path), "%s/lock.mdb", bare->dir);
    remove(path);
    remove(bare->dir);
}

static MDB_val bare_key(uint8_t bytes[8], uint64_t number)
{
    for (int i = 0; i < 8; i++) {
        bytes[i] = (uint8_t)(number >> (56 - 8 * i));
    }
    return (MDB_val){.mv_size = 8, .mv_data = bytes};
}

static void bare_commit(struct bare *bare, const struct encoded *encoded)
{
    MDB_txn *txn;
    uint8_t bytes[8];
    bare_must(mdb_txn_begin(bare->env, NULL, 0, &txn), "begin");
    for (size_t i = 0, from = 0; i < encoded->cuts; from = encoded->ends[i++]) {
        MDB_val key = bare_key(bytes, bare->next++);
        MDB_val value = {.mv_size = encoded->ends[i] - from, .mv_data = encoded->bytes.data + from};
        bare_must(mdb_put(txn, bare->dbi, &key, &value, MDB_APPEND), "put");
    }
    for (; bare->first + KEPT * encoded->cuts < bare->next; bare->first++) {
        MDB_val key = bare_key(bytes, bare->first);
        bare_must(mdb_del(txn, bare->dbi, &key, NULL), "delete");
    }
    MDB_val key = bare_key(bytes, 0);
    MDB_val value = {.mv_size = encoded->state->len, .mv_data = encoded->state->data};
    bare_must(mdb_put(txn, bare->dbi, &key, &value, 0), "put");
    bare_must(mdb_txn_commit(txn), "commit");
}

/* By device, as the store sorts them, and cut where the store cuts. */
static void encode(struct encoded *encoded, const struct bench_load *load)
{
    size_t count = 0, memory = 0;
    buffer_clear(&encoded->bytes);
    encoded->cuts = 0;
    for (size_t d = 0; d < load->devices; d++) {
        for (size_t r = 0; r < load->rows; r++) {
            struct scan *scan = bench_load_scan(load, r * load->devices + d);
            bool last = d + 1 == load->devices && r + 1 == load->rows;
            encoded->rows[count++] = (struct wal_row){
                .scan = scan, .seq = scan->seq, .prev_seq = scan->seq - 1};
            memory += scan_size(scan);
            if (last || memory + scan_size(scan) > WAL_MEMORY_MAX) {
                bench_must(wal_encode(encoded->encoder, encoded->rows, count, scan->time_ms,
                                      &encoded->bytes),
                           "encode");
                encoded->ends[encoded->cuts++] = encoded->bytes.len;
                count = memory = 0;
            }
        }
    }
}

static void begin(struct figures *figures)
{
    figures->wall_s -= bench_wall_s();
    figures->cpu_s -= bench_cpu_s();
}

static void end(struct figures *figures)
{
    figures->wall_s += bench_wall_s();
    figures->cpu_s += bench_cpu_s();
}

static int report(const char *what, const struct bench_load *load, double kib, double per_s,
                  double cpu_us, double least_per_s)
{
    char name[140];
    snprintf(name, sizeof(name), "append and durable commit, %.0f KiB a commit, %s", kib, what);
    int bad = bench_line(name, per_s, "readings/s", least_per_s > 0 ? BENCH_AT_LEAST : BENCH_SHOWN,
                         least_per_s);
    snprintf(name, sizeof(name), "CPU of a commit of %zu readings, %s",
             load->scan_count * load->channels, what);
    bench_line(name, cpu_us, "us", BENCH_SHOWN, 0);
    return bad;
}

/* Commits of the store and of bare LMDB take turns, so that both see the same disk; both write the
 * same bytes under as many keys. */
static int compare(const char *base, unsigned devices, unsigned rows, unsigned commits,
                   bool waiting, double least_per_s, double least_ratio)
{
    struct store_settings settings = {.commit_interval_ms = 1000, .max_size_bytes = -1};
    struct bench_store at;
    struct bare bare = {0};
    bench_store_make(&at, base, &settings);
    bare_open(&bare, base);
    unsigned uplink;
    if (waiting) {
        bench_must(store_add_uplink(at.store, "cloud", 1u << STREAM_RAW, 0, &uplink), "uplink");
    }
    struct bench_load load = {.devices = devices, .channels = 20, .rows = rows, .recorded = true};
    bench_load_init(&load, at.store);
    struct encoded encoded = {.rows = calloc(load.scan_count, sizeof(*encoded.rows)),
                              .state = &at.store->record};
    bench_must(encoded.rows == NULL ? -ENOMEM : wal_encoder_create(&encoded.encoder), "encoder");
    double ratios[ROUNDS], speeds[ROUNDS], bytes = 0;
    struct figures all = {0};
    unsigned each = commits / ROUNDS + 1;
    for (unsigned round = 0; round < ROUNDS; round++) {
        struct figures ours = {0}, theirs = {0};
        for (unsigned c = 0; c < each; c++) {
            bench_load_next(&load);
            begin(&ours);
            bench_load_append(&load, at.store);
            bench_must(store_commit(at.store), "commit");
            end(&ours);
            encode(&encoded, &load);
            bytes += (double)encoded.bytes.len;
            begin(&theirs);
            bare_commit(&bare, &encoded);
            end(&theirs);
        }
        ratios[round] = theirs.wall_s / ours.wall_s;
        speeds[round] = (double)load.scan_count * load.channels * each / ours.wall_s;
        all.cpu_s += ours.cpu_s;
    }
    qsort(ratios, ROUNDS, sizeof(*ratios), bench_by_size);
    qsort(speeds, ROUNDS, sizeof(*speeds), bench_by_size);
    double kib = bytes / (each * ROUNDS) / 1024;
    const char *what = waiting ? "all of it waits" : "nothing waits";
    int bad = report(what, &load, kib, speeds[ROUNDS / 2], all.cpu_s / (each * ROUNDS) * 1e6,
                     least_per_s);
    char name[140];
    snprintf(name, sizeof(name), "speed beside bare LMDB, %.0f KiB a commit, %s", kib, what);
    bad += bench_line(name, ratios[ROUNDS / 2], "times",
                      least_ratio > 0 ? BENCH_AT_LEAST : BENCH_SHOWN, least_ratio);
    wal_encoder_destroy(encoded.encoder);
    free(encoded.rows);
    buffer_finish(&encoded.bytes);
    bench_load_finish(&load);
    bare_close(&bare);
    bench_store_remove(&at);
    return bad;
}

/* Where all of it waits, at a thousand times the pace of a site, its passing into large blocks is
 * measured as well, which bare LMDB does not do: that ratio is only shown. */
int bench_rate(const char *base, unsigned commits)
{
    int bad = compare(base, 770, 6, commits, false, 5e6, 0.4);
    bad += compare(base, 520, 1, commits, false, 0, 0.7);
    bad += compare(base, 770, 6, commits, true, 5e6, 0);
    return bad + compare(base, 520, 1, commits, true, 0, 0);
}
