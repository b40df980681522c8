#include "uplink/sink/sink_body.h"

#define ZLIB_CONST /* next_in takes const bytes */
#include <errno.h>
#include <strings.h>
#include <zlib.h>
#include <zstd.h>

enum {
    ROOM_STEP = 256 * 1024,
    GZIP_WINDOW = 15 + 16, /* the largest window, gzip framing only (zlib's manual) */
    ZSTD_WINDOW_LOG = 23   /* 8 MiB: what zstd -19 asks for; more is a claim on our memory */
};

/* Room for the next piece, one byte beyond the bound at most, so that an overrun shows. */
static uint8_t *next_room(struct buffer *out, size_t max, size_t *ret_room)
{
    size_t room = max - out->len + 1 < ROOM_STEP ? max - out->len + 1 : ROOM_STEP;
    *ret_room = room;
    return buffer_reserve(out, room);
}

static int decode_gzip(const uint8_t *bytes, size_t len, size_t max, struct buffer *out)
{
    z_stream stream = {.next_in = bytes, .avail_in = (uInt)len};
    if (inflateInit2(&stream, GZIP_WINDOW) != Z_OK) {
        return -ENOMEM;
    }
    int result = Z_OK, error = 0;
    while (result != Z_STREAM_END && error == 0) {
        size_t room;
        uint8_t *to = next_room(out, max, &room);
        if (to == NULL) {
            error = -ENOMEM;
            break;
        }
        stream.next_out = to;
        stream.avail_out = (uInt)room;
        result = inflate(&stream, Z_NO_FLUSH);
        out->len += room - stream.avail_out;
        if (out->len > max) {
            error = -EMSGSIZE;
        } else if (result != Z_OK && result != Z_STREAM_END) {
            error = -EBADMSG; /* Z_BUF_ERROR too: the bytes end before the stream does */
        }
    }
    if (error == 0 && stream.avail_in != 0) {
        error = -EBADMSG;
    }
    inflateEnd(&stream);
    return error;
}

static void cleanup_zstd(ZSTD_DCtx **context)
{
    ZSTD_freeDCtx(*context);
}

static int decode_zstd(const uint8_t *bytes, size_t len, size_t max, struct buffer *out)
{
    ZSTD_DCtx *context __attribute__((cleanup(cleanup_zstd))) = ZSTD_createDCtx();
    if (context == NULL ||
        ZSTD_isError(ZSTD_DCtx_setParameter(context, ZSTD_d_windowLogMax, ZSTD_WINDOW_LOG))) {
        return -ENOMEM;
    }
    ZSTD_inBuffer in = {.src = bytes, .size = len};
    for (size_t left = 1; left != 0;) {
        size_t room;
        uint8_t *to = next_room(out, max, &room);
        if (to == NULL) {
            return -ENOMEM;
        }
        ZSTD_outBuffer piece = {.dst = to, .size = room};
        left = ZSTD_decompressStream(context, &piece, &in);
        if (ZSTD_isError(left)) {
            return -EBADMSG;
        }
        out->len += piece.pos;
        if (out->len > max) {
            return -EMSGSIZE;
        }
        if (left != 0 && in.pos == in.size && piece.pos < piece.size) {
            return -EBADMSG;
        }
    }
    return in.pos == in.size ? 0 : -EBADMSG;
}

int sink_body_decode(const char *encoding, const uint8_t *bytes, size_t len, size_t max,
                     struct buffer *out)
{
    if (len > UINT32_MAX / 2 || out->len > max) {
        return -EMSGSIZE;
    }
    if (strcasecmp(encoding, "gzip") == 0) {
        return decode_gzip(bytes, len, max, out);
    }
    if (strcasecmp(encoding, "zstd") == 0) {
        return decode_zstd(bytes, len, max, out);
    }
    return -ENOTSUP;
}
