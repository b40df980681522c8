/* file.h - the inside of type `file`: readings as lines of a file, for hand-over by USB and for
 * programs on the same machine.
 *
 * The encoders and the repair are pure. The transport is the sender's thread's: it appends a batch
 * to the file, makes it durable and only then says that it is delivered. */
#pragma once

#include "uplink/out.h"
#include "uplink/transport/transport.h"

enum file_format { FILE_NDJSON, FILE_CSV };
enum file_compress { FILE_PLAIN, FILE_GZIP };

struct file_settings {
    const char *path;
    int format, compress;
    int64_t rotate_size, rotate_interval_ms;
    int64_t keep_files, max_total; /* 0: no limit */
    int64_t min_free;              /* bytes of the file system that are left to others */
};

enum {
    FILE_REQUEST_MAX = 8 * 1024 * 1024, /* bytes of a batch's lines */
    /* What a power cut can have torn: the batches in flight. */
    FILE_TAIL_MAX = 2 * FILE_REQUEST_MAX,
};

extern const char file_csv_header[];

/* 0, -ENOMEM. One object a scan with the members of a batch record, the batch's own before them. */
must_check int file_encode_ndjson(const struct batch *batch, struct buffer *out);
/* One row a reading (RFC 4180, but lines end with LF as in every log of this machine). */
must_check int file_encode_csv(const struct batch *batch, struct buffer *out);

/* How much of a file's tail is whole lines: up to the last newline before the first NUL byte,
 * which file systems leave where they had no time to write data. */
size_t file_whole_lines(const uint8_t *tail, size_t len);

/* Files that were rotated: PATH.20260131T103000.123Z, with .gz behind it once compressed; rotate.c.
 * Functions return 0 or -errno. */
enum { FILE_STAMP_LEN = 20 };
struct file_rotated {
    char *name; /* in the directory of the running file */
    int64_t bytes;
    bool packed;
};
/* In order of their times; the caller frees. */
must_check int file_list(const char *path, struct file_rotated **ret_list, size_t *ret_count);
void file_list_free(struct file_rotated *list, size_t count);
/* The running file gets its name with the time, durably. */
must_check int file_rotate(const char *path, int64_t now_ms);
/* Removes the oldest ones beyond the limits. */
must_check int file_prune(const char *path, const struct file_settings *settings);
/* Makes names in the directory of that file durable. */
must_check int file_sync_directory(const char *path);
/* NAME beside the file `path`, malloc'd; NULL: no memory. */
must_check char *file_beside(const char *path, const char *name);

/* Compresses rotated files, a piece a call, so that new batches never wait for it; pack.c. Zero it
 * before use. */
struct file_packer {
    char *from, *to; /* NULL: none at hand */
    int from_fd, to_fd;
    struct gzFile_s *stream;
};
/* 1: there is more to do, 0: nothing is left, -errno: that file stays as it is. */
must_check int file_pack_step(struct file_packer *p, const char *path);
/* Gives up what is half done. */
void file_pack_stop(struct file_packer *p);

extern const struct transport transport_file;
extern const struct uplink_probe file_probe;
extern const struct uplink uplink_file;
