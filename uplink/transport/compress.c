#include "uplink/transport/compress.h"

#include <errno.h>
#include <time.h>
#include <zlib.h>
#include <zstd.h>

/* Measured on the reference signal, format = batch, 500 scans of one device (tests/bench/run
 * encode): gzip 1 65 ns and 3.4 B a reading, as it is tuned here 170 ns and 2.4 B, gzip 6 255 ns
 * and 2.3 B. */
enum {
    GZIP_LEVEL = 6, /* what follows is told to deflateTune() */
    GZIP_GOOD = 32,
    GZIP_LAZY = 16,
    GZIP_NICE = 256,
    GZIP_CHAIN = 96,
    GZIP_WINDOW = 14 + 16, /* + 16: with a gzip header */
};

/* How zstd looks for repeats. Which of WHOLE and ROWS suits a body is tried on its beginning, so
 * that the same bytes in always give the same bytes out. On the signal above and columns of it:
 * - WHOLE is zstd's own level 1: batch 2.1 B and 17 ns, columns 0.93 B and 11 ns.
 * - ROWS finds only what stands a record before, which in records of equal length is best found
 *   without other offers: batch 1.8 B and 15 ns. With rows of unequal length it is worse.
 * - COLUMNS looks at more places, and whether the next byte begins a better repeat: columns 0.89 B
 *   and 36 ns.
 * - DENSE weighs every choice: columns 0.86 B and 200 ns. It is taken as long as it costs no more
 *   than a part of the time that the thread waits: always where the line is what a backlog waits
 *   for (a quarter of a core are 8 Mbit/s), hardly ever where the thread itself is. */
enum {
    ZSTD_LEVEL = 1,
    SAMPLE_BYTES = 16 * 1024,
    DENSE_PART = 4,
    DENSE_SAVED_NS = 10000000, /* at most, for a burst after a pause */
};

struct search {
    int strategy, min_match, table_log, search_log, target; /* 0: as the level has it */
};
enum { WHOLE, ROWS, COLUMNS, DENSE };
static const struct search searches[] = {
    [WHOLE] = {0},
    [ROWS] = {.strategy = ZSTD_fast, .min_match = 6, .table_log = 7},
    [COLUMNS] = {.strategy = ZSTD_lazy, .min_match = 6, .table_log = 14, .search_log = 5},
    [DENSE] =
        {.strategy = ZSTD_btopt, .min_match = 5, .table_log = 13, .search_log = 4, .target = 24},
};

struct compressor {
    int mode;
    z_stream gzip;
    bool gzip_ready;
    ZSTD_CCtx *zstd;
    int64_t dense_ns; /* CPU time that DENSE may still take */
};

static int64_t cpu_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

int compressor_create(int mode, struct compressor **ret_compressor)
{
    struct compressor *c = calloc(1, sizeof *c);
    if (c == NULL) {
        return -ENOMEM;
    }
    c->mode = mode;
    c->dense_ns = DENSE_SAVED_NS;
    if (mode == COMPRESS_ZSTD) {
        c->zstd = ZSTD_createCCtx();
    } else {
        c->gzip_ready = deflateInit2(&c->gzip, GZIP_LEVEL, Z_DEFLATED, GZIP_WINDOW, 8,
                                     Z_FILTERED) == Z_OK;
    }
    if (c->zstd == NULL && !c->gzip_ready) {
        compressor_destroy(c);
        return -ENOMEM;
    }
    *ret_compressor = c;
    return 0;
}

void compressor_destroy(struct compressor *c)
{
    if (c != NULL) {
        if (c->gzip_ready) {
            deflateEnd(&c->gzip);
        }
        ZSTD_freeCCtx(c->zstd);
        free(c);
    }
}

static int run_gzip(struct compressor *c, const struct buffer *in, struct buffer *out)
{
    if (in->len > UINT32_MAX / 2 || deflateReset(&c->gzip) != Z_OK ||
        deflateTune(&c->gzip, GZIP_GOOD, GZIP_LAZY, GZIP_NICE, GZIP_CHAIN) != Z_OK) {
        return -E2BIG;
    }
    size_t bound = deflateBound(&c->gzip, in->len);
    uint8_t *to = buffer_reserve(out, bound);
    if (to == NULL) {
        return -ENOMEM;
    }
    c->gzip.next_in = in->data;
    c->gzip.avail_in = (uInt)in->len;
    c->gzip.next_out = to;
    c->gzip.avail_out = (uInt)bound;
    if (deflate(&c->gzip, Z_FINISH) != Z_STREAM_END) {
        return -EIO;
    }
    out->len = bound - c->gzip.avail_out;
    return 0;
}

/* An error (ZSTD_isError) is larger than any size. */
static size_t pack(ZSTD_CCtx *zstd, const struct search *how, void *to, size_t bound,
                   const void *from, size_t len)
{
    ZSTD_CCtx_reset(zstd, ZSTD_reset_session_and_parameters);
    ZSTD_CCtx_setParameter(zstd, ZSTD_c_compressionLevel, ZSTD_LEVEL);
    ZSTD_CCtx_setParameter(zstd, ZSTD_c_strategy, how->strategy);
    ZSTD_CCtx_setParameter(zstd, ZSTD_c_minMatch, how->min_match);
    ZSTD_CCtx_setParameter(zstd, ZSTD_c_hashLog, how->table_log);
    ZSTD_CCtx_setParameter(zstd, ZSTD_c_chainLog, how->table_log);
    ZSTD_CCtx_setParameter(zstd, ZSTD_c_searchLog, how->search_log);
    ZSTD_CCtx_setParameter(zstd, ZSTD_c_targetLength, how->target);
    return ZSTD_compress2(zstd, to, bound, from, len);
}

static const struct search *choose(ZSTD_CCtx *zstd, void *to, size_t bound, const struct buffer *in)
{
    size_t sample = in->len < SAMPLE_BYTES ? in->len : SAMPLE_BYTES;
    size_t whole = pack(zstd, &searches[WHOLE], to, bound, in->data, sample);
    size_t rows = pack(zstd, &searches[ROWS], to, bound, in->data, sample);
    return &searches[rows < whole ? ROWS : WHOLE];
}

static size_t pack_dense(struct compressor *c, void *to, size_t bound, const struct buffer *in)
{
    int64_t began_ns = cpu_ns();
    bool dense = c->dense_ns > 0;
    size_t n = pack(c->zstd, &searches[dense ? DENSE : COLUMNS], to, bound, in->data, in->len);
    c->dense_ns -= dense ? cpu_ns() - began_ns : 0;
    return n;
}

static int run_zstd(struct compressor *c, const struct buffer *in, bool dense, struct buffer *out)
{
    size_t bound = ZSTD_compressBound(in->len);
    uint8_t *to = buffer_reserve(out, bound);
    if (to == NULL) {
        return -ENOMEM;
    }
    size_t n = dense ? pack_dense(c, to, bound, in)
                     : pack(c->zstd, choose(c->zstd, to, bound, in), to, bound, in->data, in->len);
    if (ZSTD_isError(n)) {
        return -EIO;
    }
    out->len = n;
    return 0;
}

int compressor_run(struct compressor *c, const struct buffer *in, bool dense,
                   struct buffer *ret_out)
{
    buffer_clear(ret_out);
    return c->mode == COMPRESS_ZSTD ? run_zstd(c, in, dense, ret_out) : run_gzip(c, in, ret_out);
}

void compressor_waited(struct compressor *c, int64_t ns)
{
    c->dense_ns += ns / DENSE_PART;
    c->dense_ns = c->dense_ns < DENSE_SAVED_NS ? c->dense_ns : DENSE_SAVED_NS;
}

const char *compressor_name(const struct compressor *c)
{
    return c->mode == COMPRESS_ZSTD ? "zstd" : "gzip";
}
