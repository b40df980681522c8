/* wal.h - write-ahead blocks: the scans of all devices of one commit, as bytes.
 *
 * Pure, one owner. A block is a fixed header with CRC32C and a body of columns, through zstd-1
 * where that is smaller. Scans that have the same points, kinds, qualities and exponents share a
 * *shape*; the values of a shape lie column by column over all its scans, as differences from the
 * scan before, so that even one scan a device compresses across devices. Exact for every kind:
 * integers as zig-zag differences modulo 2^64, doubles as the XOR of their bits. Body, version 1
 * (varint = LEB128): rows, runs; by run: stream, device, rows, seq before; by row: seq gap, shape,
 * time, time - boot, window, text bytes; shapes; values shape by shape. */
#pragma once

#include "gateway/base/scan.h"

enum {
    WAL_VERSION = 1,
    WAL_HEADER_SIZE = 48,
    WAL_MEMORY_MAX = 512 * 1024, /* of the scans in one block */
    WAL_RAW_MAX = 2 * 1024 * 1024,
};

struct wal_header {
    int64_t written_ms, time_min_ms, time_max_ms;
    uint32_t scans, readings;
    uint32_t memory;   /* bytes of all scans, decoded */
    uint32_t raw_size; /* bytes of the body before compression */
};

/* A scan for the encoder, and what the decoder knows of it before its values. */
struct wal_row {
    const struct scan *scan; /* encoder only */
    uint64_t seq, prev_seq;  /* prev_seq: of the scan before it in this stream and device */
    int64_t time_ms, boot_ms;
    uint32_t device, window_s, text_len, shape;
    union {
        uint32_t offset; /* decoder: where its scan lies in the arena */
        uint32_t alike;  /* encoder: rows with the same one, not 0, differ in their values only */
    };
    uint16_t count, stream;
};

struct wal_shape {
    uint32_t first; /* its first entry in `words` */
    uint32_t rows;
    uint16_t count;
};

struct wal_encoder;
must_check int wal_encoder_create(struct wal_encoder **ret_encoder);
void wal_encoder_destroy(struct wal_encoder *encoder);
/* Its compressor, for others between two blocks. */
struct ZSTD_CCtx_s *wal_encoder_zstd(struct wal_encoder *encoder);

/* Appends a block of rows (scan, prev_seq and alike set; sorted by stream, device, seq) to
 * ret_block. -E2BIG: more than WAL_MEMORY_MAX. */
must_check int wal_encode(struct wal_encoder *encoder, struct wal_row *rows, size_t count,
                          int64_t written_ms, struct buffer *ret_block);

/* The header alone, without the checksum. -EBADMSG. */
must_check int wal_read_header(const void *block, size_t len, struct wal_header *ret_header);

struct wal_decoder;
must_check int wal_decoder_create(struct wal_decoder **ret_decoder);
void wal_decoder_destroy(struct wal_decoder *decoder);

/* Checks the block and decodes its rows, valid until the next call. -EBADMSG, -ENOMEM. */
must_check int wal_open(struct wal_decoder *decoder, const void *block, size_t len,
                        struct wal_header *ret_header, const struct wal_row **ret_rows);
/* The scans of the block opened last, each at its row's offset; arena has header.memory bytes,
 * aligned for a scan. -EBADMSG. */
must_check int wal_scans(struct wal_decoder *decoder, void *arena);
