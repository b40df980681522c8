/* s3.h - the inside of type `s3`: batches as compressed NDJSON objects in a bucket of Amazon S3 or
 * of a store that speaks its protocol; the cold tier.
 *
 * A batch is one object, whose key comes of the identities in it: a repeat of the same batch
 * replaces the object by itself. An object is delivered when the reply shows that the service has
 * the bytes we sent, by ETag (their MD5) or by their SHA-256. Encoder and judge are pure; the
 * transport is the one of all types for AWS. */
#pragma once

#include "uplink/aws/aws.h"
#include "uplink/aws/aws_parts.h"
#include "uplink/record.h"

enum s3_style { S3_AUTO, S3_HOST, S3_PATH };

struct s3_settings {
    struct aws_settings aws;
    const char *bucket, *prefix;
    const char *storage_class; /* NULL: the bucket's own */
    int style, compress;
};

enum {
    S3_TEXT_MAX = 32 * 1024 * 1024, /* bytes of a batch before compression */
    S3_PREFIX_MAX = 120,            /* so that every key fits a request's path */
    S3_NAME_MAX = 60,               /* bytes of a name filled into the prefix */
    S3_BUCKET_MAX = 63,
};

/* Appends the prefix with {gateway}, {stream}, {device}, {date} (2026-01-31), {hour} (10), {year},
 * {month} and {day} of the record filled in, UTC. name.c */
void s3_write_prefix(struct buffer *out, const char *form, const struct batch *batch,
                     const struct batch_record *record);
/* What is wrong with a prefix, NULL: nothing. */
const char *s3_prefix_fault(const char *form);
/* The key of a batch's object. -ENOMEM. */
must_check int s3_write_key(struct buffer *out, const struct s3_settings *settings,
                            const struct batch *batch);
/* How many of the first records have the same prefix. */
size_t s3_together(const void *settings, const struct batch *batch);

/* Appends a key as it goes into a URL's path: each segment percent-encoded once. */
void s3_encode_key(struct buffer *out, const char *key, size_t len);
/* Whether the bucket stands in the host name or begins the path. */
bool s3_bucket_in_host(const struct s3_settings *settings);
/* The URL without path, the bucket in it where it belongs there. -EINVAL: it is too long, or there
 * is no such region. */
must_check int s3_url(const struct s3_settings *settings, char ret_url[AWS_URL_MAX]);

int s3_encode(const void *settings, const struct batch *batch, struct uplink_request *request);

/* An error of S3, XML: <Error><Code>..</Code><Message>..</Message>..</Error>. judge.c */
struct s3_error {
    char code[64], message[160], region[40], endpoint[128]; /* "" when absent */
};
void s3_parse_error(const char *text, size_t len, struct s3_error *ret_error);
void s3_judge(const void *settings, const struct batch *batch, const struct uplink_reply *reply,
              struct uplink_verdict *ret_verdict);

extern const struct config_table s3_config_table;
extern const struct uplink_probe s3_probe;
extern const struct transport transport_s3;
extern const struct uplink uplink_s3;
