#include "gateway/store/verify.h"

#include "gateway/base/clock.h"
#include "gateway/base/log.h"
#include "gateway/store/internal.h"
#include "gateway/store/large.h"
#include "gateway/store/store_clock.h"
#include "gateway/store/verify_work.h"

#include <errno.h>
#include <string.h>
#include <time.h>

enum { PAUSE_BYTES = 16 * 1024 };
static const char time_note[] = "verify.time", blocks_note[] = "verify.blocks",
                  bad_note[] = "verify.bad";

/* In the child. */
struct look {
    int out;
    uint64_t bytes_s, bytes; /* bytes: since the last pause */
    struct env *env;
    struct wal_decoder *decoder;
    struct buffer block, scans;
    struct verify_report report;
};

/* Counts the block, and keeps to the rate. */
static int count(struct look *look, bool good)
{
    look->report.blocks++;
    look->report.bad += !good;
    look->bytes += look->block.len;
    if (look->bytes >= PAUSE_BYTES) {
        double seconds = (double)look->bytes / (double)look->bytes_s;
        struct timespec pause = {.tv_sec = (time_t)seconds};
        pause.tv_nsec = (long)((seconds - (double)pause.tv_sec) * 1e9);
        nanosleep(&pause, NULL);
        look->bytes = 0;
    }
    return look->report.blocks % VERIFY_BEAT_BLOCKS != 0
               ? 0
               : child_write(look->out, &look->report, sizeof(look->report));
}

/* Copies the first large block from *key on and moves *key behind it. -ENOENT. */
static int copy_large(struct look *look, struct key *key, struct large *ret_large)
{
    MDB_txn *txn = NULL;
    int rc = env_read(look->env, &txn);
    if (rc < 0) {
        return rc;
    }
    MDB_val name, value;
    rc = env_seek_key(txn, key, &name, &value);
    if (rc == 0 && !large_read(&name, &value, ret_large)) {
        rc = -ENOENT;
    }
    if (rc == 0) {
        buffer_clear(&look->block);
        buffer_add(&look->block, value.mv_data, value.mv_size);
        rc = buffer_failed(&look->block) ? -ENOMEM : 0;
        *key = key_large(ret_large->stream, ret_large->device, ret_large->first_seq + 1);
    }
    env_read_end(look->env, txn);
    return rc;
}

static int look_at_large(struct look *look)
{
    struct key key = key_large(0, 0, 0);
    struct large large;
    int rc;
    while ((rc = copy_large(look, &key, &large)) == 0) {
        rc = large_decode(&large, look->block.data, look->block.len, &look->scans);
        if (rc == 0 || rc == -EBADMSG) {
            rc = count(look, rc == 0);
        }
        if (rc < 0) {
            return rc;
        }
    }
    return rc == -ENOENT ? 0 : rc;
}

static int look_at_log(struct look *look)
{
    uint64_t number = 0;
    int rc;
    while ((rc = env_copy(look->env, KEY_WAL, number, &number, &look->block)) == 0) {
        struct wal_header header;
        const struct wal_row *rows;
        rc = wal_open(look->decoder, look->block.data, look->block.len, &header, &rows);
        if (rc == 0) {
            buffer_clear(&look->scans);
            uint8_t *arena = buffer_reserve(&look->scans, header.memory);
            rc = arena == NULL ? -ENOMEM : wal_scans(look->decoder, arena);
        }
        if (rc == 0 || rc == -EBADMSG) {
            rc = count(look, rc == 0);
        }
        if (rc < 0) {
            return rc;
        }
        number++;
    }
    return rc == -ENOENT ? 0 : rc;
}

static int look_at_all(int out, void *user)
{
    const struct verify *v = user;
    struct look look = {.out = out, .bytes_s = v->bytes_s};
    int rc = wal_decoder_create(&look.decoder);
    rc = rc < 0 ? rc : env_open(v->path, 0, ENV_READER, &look.env);
    rc = rc < 0 ? rc : look_at_large(&look);
    rc = rc < 0 ? rc : look_at_log(&look);
    look.report.done = 1;
    rc = rc < 0 ? rc : child_write(out, &look.report, sizeof(look.report));
    env_close(look.env);
    return -rc;
}

/* In the daemon. */

static void conclude(struct store *store, const struct verify_report *report)
{
    if (report->bad > 0) {
        log_error("store: %llu of %llu blocks are damaged, their readings are lost",
                  (unsigned long long)report->bad, (unsigned long long)report->blocks);
    } else {
        log_info("store: all %llu blocks were read again, they are sound",
                 (unsigned long long)report->blocks);
    }
    store_set_note(store, blocks_note, (int64_t)report->blocks);
    store_set_note(store, bad_note, (int64_t)report->bad);
    store_set_note(store, time_note, store_now_ms(store));
    store->verify->done = true;
}

/* The last report that is complete. */
static void take_reports(struct store *store)
{
    struct verify *v = store->verify;
    size_t at = 0;
    for (; at + sizeof(struct verify_report) <= v->input.len; at += sizeof(struct verify_report)) {
        struct verify_report report;
        memcpy(&report, v->input.data + at, sizeof(report));
        if (report.done != 0) {
            conclude(store, &report);
        }
    }
    memmove(v->input.data, v->input.data + at, v->input.len - at);
    v->input.len -= at;
}

static void begin(struct store *store)
{
    struct verify *v = store->verify;
    if (v == NULL) {
        v = calloc(1, sizeof(*v));
        store->verify = v;
        if (v != NULL) {
            v->due_ms = clock_mono_ms() + VERIFY_DELAY_MS;
            v->bytes_s = VERIFY_BYTES_S;
            v->path = store->path;
        }
    } else if (clock_mono_ms() >= v->due_ms) {
        /* Its map is as large as any that the file ever had; what it allocates has bounds. */
        v->done = child_start(&v->child, 0, look_at_all, v) < 0; /* the next start will do */
    }
}

static void end(struct store *store, bool kill)
{
    struct verify *v = store->verify;
    if (child_finish(&v->child, kill) == CHILD_CRASHED) {
        log_error("store: a reader of all blocks crashed: the disk does not give them, or they "
                  "are damaged; see windrow store verify");
    }
    buffer_finish(&v->input);
    v->done = true; /* whatever came of it: once a start */
}

void store_verify_step(struct store *store)
{
    enum { READ_BYTES = 4096 };
    struct verify *v = store->verify;
    if (v == NULL || (!v->done && v->child.pid == 0)) {
        begin(store);
        return;
    }
    if (v->child.pid != 0) {
        ssize_t n = child_read(&v->child, READ_BYTES, &v->input);
        if (n > 0) {
            take_reports(store);
        } else if (n < 0) {
            end(store, n != -EPIPE);
        }
    }
}

void verify_stop(struct store *store)
{
    if (store->verify != NULL) {
        (void)child_finish(&store->verify->child, true);
        buffer_finish(&store->verify->input);
        free(store->verify);
        store->verify = NULL;
    }
}

static int64_t value_of(const struct state *state, const char *name)
{
    const struct state_note *note = state_note(state, name);
    return note == NULL ? 0 : note->value;
}

void store_verified(struct store *store, struct store_verified *ret_verified)
{
    struct state read = {0};
    bool fresh = store->readonly && store_read_state(store, &read) == 0;
    store_lock(store);
    const struct state *state = fresh ? &read : &store->state;
    *ret_verified = (struct store_verified){.time_ms = value_of(state, time_note),
                                            .blocks = (uint64_t)value_of(state, blocks_note),
                                            .bad = (uint64_t)value_of(state, bad_note)};
    store_unlock(store);
    state_finish(&read);
}
