#include "uplink/sink/sink_aws.h"

#include "gateway/base/clock.h"
#include "gateway/base/log.h"
#include "uplink/aws/sigv4.h"
#include "uplink/sink/sink_timestream.h"

#include <errno.h>
#include <openssl/crypto.h>
#include <string.h>
#include <strings.h>
#include <time.h>

static const char algorithm[] = "AWS4-HMAC-SHA256 ";
static const char namespace_of_types[] = "com.amazonaws.timestream.v20181101#";

int sink_aws_key_parse(const char *text, struct sink_aws_key *ret_key)
{
    const char *colon = strchr(text, ':');
    struct sink_aws_key key = {.id = ""};
    if (colon == NULL || colon == text || (size_t)(colon - text) >= sizeof key.id ||
        colon[1] == '\0' || strlen(colon + 1) >= sizeof key.secret) {
        return -EINVAL;
    }
    memcpy(key.id, text, (size_t)(colon - text));
    memcpy(key.secret, colon + 1, strlen(colon + 1));
    *ret_key = key;
    return 0;
}

/* ---- the signature ---- */

/* Parts of an Authorization header; what is not there is empty. */
struct parts {
    char id[128], day[9], region[64], service[64], names[512], signature[65];
};

static int refuse(struct sink_aws_refusal *refusal, int status, const char *type,
                  const char *message)
{
    refusal->status = status;
    refusal->type = type;
    snprintf(refusal->message, sizeof refusal->message, "%s", message);
    return -EACCES;
}

static const char *header_of(const struct sink_request *request, const char *name, size_t len)
{
    for (size_t i = 0; i < request->header_count; i++) {
        const char *own = request->headers[i].name;
        if (strlen(own) == len && strncasecmp(own, name, len) == 0) {
            return request->headers[i].value;
        }
    }
    return NULL;
}
#define header(request, name) header_of((request), "" name, sizeof(name) - 1)

/* Copies up to one of `ends`; returns what follows it, or NULL where it does not fit or end. */
static const char *copy_until(const char *at, const char *ends, char *to, size_t size)
{
    size_t len = at == NULL ? 0 : strcspn(at, ends);
    if (at == NULL || len == 0 || len >= size) {
        return NULL;
    }
    memcpy(to, at, len);
    to[len] = '\0';
    return at[len] != '\0' ? at + len + 1 : at + len;
}

static const char *after(const char *text, const char *word)
{
    const char *at = strstr(text, word);
    return at == NULL ? NULL : at + strlen(word);
}

/* Credential=ID/DAY/REGION/SERVICE/aws4_request, SignedHeaders=a;b, Signature=HEX */
static bool parse(const char *text, struct parts *p)
{
    if (strncmp(text, algorithm, sizeof algorithm - 1) != 0) {
        return false;
    }
    const char *at = copy_until(after(text, "Credential="), "/,", p->id, sizeof p->id);
    at = copy_until(at, "/,", p->day, sizeof p->day);
    at = copy_until(at, "/,", p->region, sizeof p->region);
    at = copy_until(at, "/,", p->service, sizeof p->service);
    return at != NULL && strncmp(at, "aws4_request", 12) == 0 &&
           copy_until(after(text, "SignedHeaders="), ", ", p->names, sizeof p->names) != NULL &&
           copy_until(after(text, "Signature="), ", ", p->signature, sizeof p->signature) != NULL;
}

/* Whether a name stands in "a;b;c". */
static bool is_signed(const struct parts *p, const char *name)
{
    size_t len = strlen(name);
    for (const char *at = p->names; *at != '\0';) {
        size_t n = strcspn(at, ";");
        if (n == len && strncasecmp(at, name, n) == 0) {
            return true;
        }
        at += n;
        at += *at == ';' ? 1 : 0;
    }
    return false;
}

/* Host, the date, the type, and every x-amz-... header must be signed. */
static bool all_signed(const struct sink_request *request, const struct parts *p)
{
    for (size_t i = 0; i < request->header_count; i++) {
        const char *name = request->headers[i].name;
        bool needed = strncasecmp(name, "x-amz-", 6) == 0 || strcasecmp(name, "content-type") == 0;
        if (needed && !is_signed(p, name)) {
            return false;
        }
    }
    return is_signed(p, "host") && header(request, "host") != NULL;
}

static int check_time(const char *stamp, const struct parts *p, int64_t now_ms, int64_t *ret_ms,
                      struct sink_aws_refusal *refusal)
{
    struct tm utc = {0};
    const char *end = stamp == NULL ? NULL : strptime(stamp, "%Y%m%dT%H%M%SZ", &utc);
    if (end == NULL || *end != '\0' || strncmp(stamp, p->day, 8) != 0) {
        return refuse(refusal, 400, "IncompleteSignatureException",
                      "X-Amz-Date is missing, no date, or not the day of the credential");
    }
    *ret_ms = (int64_t)timegm(&utc) * 1000;
    char words[100];
    if (*ret_ms < now_ms - SINK_AWS_SKEW_MS) {
        snprintf(words, sizeof words, "Signature expired: %.16s", stamp);
        return refuse(refusal, 403, "InvalidSignatureException", words);
    }
    if (*ret_ms > now_ms + SINK_AWS_SKEW_MS) {
        snprintf(words, sizeof words, "Signature not yet current: %.16s", stamp);
        return refuse(refusal, 403, "InvalidSignatureException", words);
    }
    return 0;
}

/* The lines of the signed headers that the signer does not add by itself. 0, or -EINVAL: one of
 * them is not there, or there are too many. */
static int collect(const struct sink_request *request, const struct parts *p, struct buffer *texts,
                   const char *lines[SIGV4_HEADERS_MAX], size_t *ret_count)
{
    static const char *const own[] = {"host", "x-amz-date", "x-amz-security-token"};
    size_t count = 0, starts[SIGV4_HEADERS_MAX];
    for (const char *at = p->names; *at != '\0';) {
        size_t n = strcspn(at, ";");
        bool skip = false;
        for (size_t i = 0; i < ARRAY_SIZE(own); i++) {
            skip |= strlen(own[i]) == n && strncasecmp(at, own[i], n) == 0;
        }
        const char *value = header_of(request, at, n);
        if (value == NULL || (!skip && count == SIGV4_HEADERS_MAX)) {
            return -EINVAL;
        }
        if (!skip) {
            starts[count++] = texts->len;
            buffer_printf(texts, "%.*s: %s", (int)n, at, value);
            buffer_add_byte(texts, 0);
        }
        at += n;
        at += *at == ';' ? 1 : 0;
    }
    for (size_t i = 0; i < count && !buffer_failed(texts); i++) {
        lines[i] = (const char *)texts->data + starts[i];
    }
    *ret_count = count;
    return buffer_failed(texts) ? -ENOMEM : 0;
}

/* Signs the request as the client should have, and compares. */
static int compare(const struct sink_aws_key *key, const struct sink_request *request,
                   const struct parts *p, int64_t time_ms, struct sink_aws_refusal *refusal)
{
    auto_buffer struct buffer texts = {0}, added = {0};
    const char *lines[SIGV4_HEADERS_MAX];
    size_t count = 0;
    struct sigv4_request what = {.method = "POST",
                                 .host = header(request, "host"),
                                 .path = request->path,
                                 .query = request->query != NULL ? request->query : "",
                                 .headers = lines,
                                 .body = request->body,
                                 .body_len = request->len};
    struct sigv4_credentials keys = {.access_key = key->id,
                                     .secret_key = key->secret,
                                     .session_token = header(request, "x-amz-security-token")};
    int r = collect(request, p, &texts, lines, &count);
    what.header_count = count;
    r = r < 0 ? r : sigv4_sign(&what, &keys, p->region, p->service, time_ms, &added);
    if (r == -ENOMEM) {
        return r;
    }
    const char *end = r < 0 ? NULL : (const char *)added.data + added.len - 1;
    bool same = end != NULL && strlen(p->signature) == 64 &&
                CRYPTO_memcmp(end - 64, p->signature, 64) == 0;
    return same ? 0
                : refuse(refusal, 403, "InvalidSignatureException",
                         "The request signature we calculated does not match the signature you "
                         "provided. Check your AWS Secret Access Key and signing method.");
}

int sink_aws_check(const struct sink_aws_key *key, const struct sink_request *request,
                   int64_t now_ms, struct sink_aws_refusal *ret_refusal)
{
    struct parts p = {.id = ""};
    int64_t time_ms;
    if (request->authorization == NULL) {
        return refuse(ret_refusal, 403, "MissingAuthenticationTokenException",
                      "Missing Authentication Token");
    }
    if (!parse(request->authorization, &p) || !all_signed(request, &p)) {
        return refuse(ret_refusal, 400, "IncompleteSignatureException",
                      "Credential, SignedHeaders (host, content-type, x-amz-*) and Signature of "
                      "AWS4-HMAC-SHA256 are needed");
    }
    if (strcmp(p.id, key->id) != 0) {
        return refuse(ret_refusal, 403, "UnrecognizedClientException",
                      "The security token included in the request is invalid.");
    }
    if (strcmp(p.service, "timestream") != 0) {
        return refuse(ret_refusal, 403, "InvalidSignatureException",
                      "Credential should be scoped to correct service: 'timestream'.");
    }
    int r = check_time(header(request, "x-amz-date"), &p, now_ms, &time_ms, ret_refusal);
    return r < 0 ? r : compare(key, request, &p, time_ms, ret_refusal);
}

/* ---- the operations ---- */

static void reply_error(struct sink_reply *reply, int status, const char *type, const char *message)
{
    buffer_clear(&reply->body);
    reply->status = status;
    buffer_printf(&reply->body, "{\"__type\":\"%s%s\",\"message\":", namespace_of_types, type);
    json_write_string(&reply->body, message, strlen(message));
    buffer_add_byte(&reply->body, '}');
}

/* This server, under the name by which it was asked. */
static void describe_endpoints(const struct sink_request *request, struct sink_reply *reply)
{
    const char *host = header(request, "host");
    buffer_add_text(&reply->body, "{\"Endpoints\":[{\"Address\":");
    json_write_string(&reply->body, host, strlen(host));
    buffer_add_text(&reply->body, ",\"CachePeriodInMinutes\":1440}]}");
    reply->status = 200;
}

struct writing {
    struct sink_db *db;
    const struct sink_options *options;
    size_t index, rejected;
    struct buffer rejections; /* JSON objects with commas between */
};

static int take_record(void *user, const struct sink_record *record)
{
    struct writing *w = user;
    enum sink_put put = SINK_PUT_KEPT;
    bool asked = sink_reject_asked(w->options, record);
    int r = asked ? 0 : sink_db_put(w->db, record, &put);
    if (r == 0 && (asked || put == SINK_PUT_REFUSED)) {
        buffer_printf(&w->rejections, "%s{\"RecordIndex\":%zu,\"Reason\":\"%s\"%s}",
                      w->rejected++ > 0 ? "," : "", w->index,
                      asked ? "rejected as asked"
                            : "A record with another value is held under this identity and version",
                      asked ? "" : ",\"ExistingVersion\":1");
    }
    w->index++;
    return r;
}

static void reply_written(const struct writing *w, size_t count, struct sink_reply *reply)
{
    if (w->rejected == 0) {
        buffer_printf(&reply->body,
                      "{\"RecordsIngested\":{\"Total\":%zu,\"MemoryStore\":%zu,"
                      "\"MagneticStore\":0}}",
                      count, count);
        reply->status = 200;
        return;
    }
    buffer_printf(&reply->body,
                  "{\"__type\":\"%sRejectedRecordsException\",\"Message\":\"One or more records "
                  "have been rejected. See RejectedRecords for details.\",\"RejectedRecords\":[",
                  namespace_of_types);
    buffer_add(&reply->body, w->rejections.data, w->rejections.len);
    buffer_add_text(&reply->body, "]}");
    reply->status = 419;
}

static void write_records(struct sink_db *db, const struct sink_options *options,
                          const struct sink_request *request, struct sink_reply *reply,
                          uint64_t *ret_rejected)
{
    struct writing w = {.db = db, .options = options};
    const struct sink_taker taker = {.take = take_record, .user = &w};
    char why[SINK_WHY_SIZE];
    size_t count;
    int r = sink_db_begin(db);
    r = r < 0
            ? r
            : sink_timestream_parse((const char *)request->body, request->len, &taker, &count, why);
    r = r < 0 ? r : sink_db_commit(db);
    if (r == 0 && !buffer_failed(&w.rejections)) {
        reply_written(&w, count, reply);
        *ret_rejected += w.rejected;
    } else if (r == -EINVAL) {
        reply_error(reply, 400, "ValidationException", why);
    } else {
        log_error("sink: the database refuses: %s", sink_db_error(db));
        reply_error(reply, 500, "InternalServerException", "the records could not be kept");
    }
    if (r < 0) {
        sink_db_rollback(db);
    }
    buffer_finish(&w.rejections);
}

void sink_aws_post(const struct sink_aws_key *key, struct sink_db *db,
                   const struct sink_options *options, const struct sink_request *request,
                   struct sink_reply *reply, uint64_t *ret_rejected)
{
    struct sink_aws_refusal refusal;
    const char *target = header(request, "x-amz-target");
    reply->content_type = "application/x-amz-json-1.0";
    int r = sink_aws_check(key, request, clock_wall_ms(), &refusal);
    if (r == -EACCES) {
        reply_error(reply, refusal.status, refusal.type, refusal.message);
    } else if (r < 0) {
        reply_error(reply, 500, "InternalServerException", "out of memory");
    } else if (target != NULL && strcmp(target, "Timestream_20181101.DescribeEndpoints") == 0) {
        describe_endpoints(request, reply);
    } else if (target != NULL && strcmp(target, "Timestream_20181101.WriteRecords") == 0) {
        write_records(db, options, request, reply, ret_rejected);
    } else {
        reply_error(reply, 400, "UnknownOperationException",
                    "DescribeEndpoints and WriteRecords of Timestream_20181101 are known here");
    }
}
