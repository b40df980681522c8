/* compress.h - request bodies made smaller; one compressor a transport, its thread only. */
#pragma once

#include "uplink/transport/transport.h"

struct compressor;

/* mode is an enum transport_compress other than COMPRESS_NONE. -ENOMEM only. */
must_check int compressor_create(int mode, struct compressor **ret_compressor);
void compressor_destroy(struct compressor *c);

/* Replaces ret_out's content; the same bytes in give the same bytes out. dense: a reading takes few
 * bytes of it, so that a long search for each of them pays; then they may differ by the time there
 * is for it, of which compressor_waited() tells. */
must_check int compressor_run(struct compressor *c, const struct buffer *in, bool dense,
                              struct buffer *ret_out);
/* The thread has waited so long for others. */
void compressor_waited(struct compressor *c, int64_t ns);
/* "gzip", "zstd": the Content-Encoding. */
const char *compressor_name(const struct compressor *c);
