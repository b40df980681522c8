/* outfile.h - a file that is there whole, or not at all.
 *
 * It is written under another name, made durable, and only then gets its own; a sum file beside it
 * (`sha256sum -c` reads it) lets whoever carries it check it. One thread. */
#pragma once

#include "gateway/base/buffer.h"

struct outfile;

/* path NULL: stdout, with neither. Tells the user what is wrong and returns NULL. */
struct outfile *outfile_open(const char *command, const char *path);
/* -errno, also of an earlier call. */
must_check int outfile_write(struct outfile *out, const void *bytes, size_t len);
/* Durable under its name, with the sum file where `sums` says so; tells the user what is wrong. The
 * file is closed in any case. ret_sum: 64 hex digits. */
must_check int outfile_finish(struct outfile *out, bool sums, char ret_sum[65]);
/* Removes what was begun. Takes NULL. */
void outfile_abandon(struct outfile *out);
