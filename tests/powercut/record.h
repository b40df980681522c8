/* record.h - writes down everything that a process does to the files below one folder.
 *
 * Linking record.c takes the place of the C library's calls in this program and in liblmdb. Order
 * is what makes the record worth something: a write is logged before it is made, a barrier as its
 * begin and its end, a promise before anybody can know of it. One process, one thread; children of
 * the recording process are not recorded. */
#pragma once

#include "load.h"

enum trace_type {
    TRACE_OPEN = 1, /* handle, flags in offset; the path relative to the folder follows */
    TRACE_WRITE,    /* handle, offset; the bytes follow */
    TRACE_FORCED,   /* handle, offset, len in number: that range is on the disk (O_DSYNC) */
    TRACE_SYNC_BEGIN,
    TRACE_SYNC_END, /* it returned 0 */
    TRACE_RESIZE,   /* handle, the size in offset */
    TRACE_MKDIR,    /* path */
    TRACE_REMOVE,   /* path */
    TRACE_RENAME,   /* two paths, each with its NUL */
    TRACE_BEGUN,    /* commit in number */
    TRACE_KEPT,     /* commit in number */
};

/* In offset of a TRACE_OPEN. */
enum { TRACE_CREATED = 1, TRACE_FOLDER = 2, TRACE_TRUNCATED = 4 };

struct trace_event {
    uint32_t type, handle;
    uint64_t offset, number, len; /* len bytes follow */
};

/* Flags that mdb_env_open is given beside its own: a planted bug (MDB_NOSYNC, MDB_NOMETASYNC). */
extern unsigned record_lmdb_flags;

/* Records into the file `trace` what happens below `folder` until record_stop(). */
must_check int record_start(const char *folder, const char *trace);
void record_stop(void);
void record_promise(enum promise promise, uint32_t commit);
