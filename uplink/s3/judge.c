#include "uplink/s3/s3.h"
#include "uplink/verdict.h"

#include <openssl/evp.h>

enum { MD5 = 16 };

/* Beside those that all services of AWS have. An object's content is never what is refused. */
static const struct {
    const char *code;
    enum uplink_outcome outcome;
    const char *words; /* NULL: the service's own */
} codes[] = {
    {"SlowDown", UPLINK_RETRY, "the service asks us to slow down (SlowDown)"},
    {"InternalError", UPLINK_RETRY, NULL},
    {"RequestTimeout", UPLINK_RETRY, NULL},
    {"OperationAborted", UPLINK_RETRY, NULL},
    {"TokenRefreshRequired", UPLINK_RETRY, NULL},
    {"BadDigest", UPLINK_RETRY, "the object was damaged on the way (BadDigest)"},
    {"XAmzContentSHA256Mismatch", UPLINK_RETRY, "the object was damaged on the way"},
    {"XAmzContentChecksumMismatch", UPLINK_RETRY, "the object was damaged on the way"},
    {"TemporaryRedirect", UPLINK_RETRY, "the bucket is new and its name not known everywhere yet"},
    {"RequestTimeTooSkewed", UPLINK_RETRY, "the clock differs; the next attempt corrects that"},
    {"NoSuchBucket", UPLINK_HOLD, "there is no such bucket: bucket, region"},
    {"InvalidBucketName", UPLINK_HOLD, "that cannot be a bucket: bucket"},
    {"InvalidAccessKeyId", UPLINK_HOLD, "the access key is not known: credentials"},
    {"InvalidToken", UPLINK_HOLD, "the session token is not taken: credentials"},
    {"AccessDenied", UPLINK_HOLD, "we may not put objects there: right s3:PutObject on the prefix"},
    {"InvalidStorageClass", UPLINK_HOLD, "there is no such storage class: storage_class"},
    {"EntityTooLarge", UPLINK_SPLIT, NULL},
};

/* The content of the first element of that name, without entities resolved. */
static void element(const char *text, size_t len, const char *name, char *value, size_t size)
{
    char open[40];
    size_t n = (size_t)snprintf(open, sizeof open, "<%s>", name);
    const char *from = memmem(text, len, open, n);
    value[0] = '\0';
    if (from == NULL) {
        return;
    }
    from += n;
    const char *end = memchr(from, '<', len - (size_t)(from - text));
    size_t count = end != NULL ? (size_t)(end - from) : 0;
    count = count < size ? count : size - 1;
    for (size_t i = 0; i < count; i++) {
        value[i] = from[i] >= ' ' && from[i] < 0x7f ? from[i] : '?';
    }
    value[count] = '\0';
}

void s3_parse_error(const char *text, size_t len, struct s3_error *ret_error)
{
    *ret_error = (struct s3_error){.code = ""};
    if (memmem(text, len, "<Error", 6) == NULL) {
        return;
    }
    element(text, len, "Code", ret_error->code, sizeof ret_error->code);
    element(text, len, "Message", ret_error->message, sizeof ret_error->message);
    element(text, len, "Region", ret_error->region, sizeof ret_error->region);
    element(text, len, "Endpoint", ret_error->endpoint, sizeof ret_error->endpoint);
}

/* The value of our own header, NULL: it was not sent. */
static const char *sent(const struct uplink_request *request, const char *name)
{
    const char *at = (const char *)request->headers.data, *end = at + request->headers.len;
    size_t len = strlen(name);
    for (; at < end; at += strlen(at) + 1) {
        if (strncmp(at, name, len) == 0 && strncmp(at + len, ": ", 2) == 0) {
            return at + len + 2;
        }
    }
    return NULL;
}

/* An ETag of an object that was put as a whole and is not encrypted with a key of KMS or of ours is
 * its MD5 in hexadecimal digits, in quotes. */
static bool is_etag_of(const char *etag, const char *md5_base64)
{
    uint8_t hash[MD5 + 2];
    char hex[2 * MD5 + 3] = "\"";
    if (strlen(md5_base64) != 24 ||
        EVP_DecodeBlock(hash, (const uint8_t *)md5_base64, 24) != MD5 + 2) {
        return false;
    }
    for (size_t i = 0; i < MD5; i++) {
        snprintf(hex + 1 + 2 * i, 3, "%02x", hash[i]);
    }
    hex[1 + 2 * MD5] = '"';
    hex[2 + 2 * MD5] = '\0';
    return strcmp(etag, hex) == 0;
}

static bool accounts_for_it(const struct uplink_reply *reply)
{
    if (reply->answers == NULL) {
        return false;
    }
    const char *md5 = sent(reply->answers, "Content-MD5");
    const char *sum = sent(reply->answers, "x-amz-checksum-sha256");
    return (md5 != NULL && reply->etag != NULL && is_etag_of(reply->etag, md5)) ||
           (sum != NULL && reply->checksum_sha256 != NULL &&
            strcmp(reply->checksum_sha256, sum) == 0);
}

static void judge_success(const struct batch *batch, const struct uplink_reply *reply,
                          struct uplink_verdict *verdict)
{
    if (accounts_for_it(reply)) {
        verdict_delivered(verdict, batch);
        return;
    }
    bool named = reply->etag != NULL && reply->etag[0] != '\0';
    verdict_say(verdict, UPLINK_RETRY, reply,
                named ? "the reply has neither the object's MD5 nor its SHA-256: encrypted with "
                        "KMS in a store that tells no checksums?"
                      : "the reply does not account for the object: a captive portal?");
}

/* Redirects and signatures for another region are never followed: the next request would go astray
 * as well. False: it is about something else. */
static bool judge_place(const struct s3_error *e, const struct uplink_reply *reply,
                        struct uplink_verdict *verdict)
{
    bool moved = reply->status == 301 || (reply->status == 307 && e->code[0] == '\0') ||
                 strcmp(e->code, "PermanentRedirect") == 0 ||
                 strcmp(e->code, "AuthorizationHeaderMalformed") == 0;
    if (!moved) {
        return false;
    }
    const char *where = e->region[0] != '\0' ? e->region : e->endpoint;
    verdict->outcome = UPLINK_HOLD;
    snprintf(verdict->why, sizeof verdict->why, "the bucket lies elsewhere%s%.100s (%d): region",
             where[0] != '\0' ? ", it is " : "", where, reply->status);
    return true;
}

/* What the code says; false: it is not known. */
static bool judge_code(const struct s3_settings *s, const struct s3_error *e,
                       struct uplink_verdict *verdict)
{
    const char *words = NULL;
    enum uplink_outcome outcome = UPLINK_RETRY;
    bool known = aws_type_outcome(&s->aws, e->code, strlen(e->code), e->message, &outcome);
    for (size_t i = 0; i < ARRAY_SIZE(codes); i++) {
        if (strcmp(codes[i].code, e->code) == 0) {
            outcome = codes[i].outcome;
            words = codes[i].words;
            known = true;
        }
    }
    if (known) {
        verdict->outcome = outcome;
        snprintf(verdict->why, sizeof verdict->why, "%s%s%s: %.90s", words != NULL ? words : "",
                 words != NULL ? "; it said " : "", e->code, e->message);
    }
    return known;
}

void s3_judge(const void *settings, const struct batch *batch, const struct uplink_reply *reply,
              struct uplink_verdict *ret_verdict)
{
    const struct s3_settings *s = settings;
    json_t *own = NULL;
    enum verdict_class class_of = aws_verdict(&s->aws, reply, ret_verdict, &own);
    bool settled = reply->status == 0 || aws_error_is(own, "CredentialsMissing");
    json_decref(own);
    struct s3_error e;
    s3_parse_error(reply->body, reply->len, &e);
    if (class_of == VERDICT_SUCCESS) {
        judge_success(batch, reply, ret_verdict);
    } else if (!settled && !judge_place(&e, reply, ret_verdict) &&
               !judge_code(s, &e, ret_verdict) && class_of == VERDICT_BAD_DATA) {
        char what[140];
        snprintf(what, sizeof what, "the service refuses the request (%d)", reply->status);
        verdict_say(ret_verdict, UPLINK_HOLD, reply, what);
    }
}
