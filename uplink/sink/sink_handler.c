#include "uplink/sink/sink_handler.h"

#include "gateway/base/clock.h"
#include "gateway/base/log.h"
#include "uplink/sink/sink_aws.h"
#include "uplink/sink/sink_body.h"
#include "uplink/sink/sink_tokens.h"

#include <errno.h>
#include <event2/http.h>
#include <event2/keyvalq_struct.h>
#include <string.h>
#include <strings.h>
#include <sys/queue.h>

enum { SCRATCH_KEEP = 8 << 20 }; /* bytes of decompressed body whose memory is kept for the next */

struct sink_handler {
    const struct sink_options *options;
    struct sink_db *db;
    struct sink_tokens *tokens; /* NULL: everyone may do everything */
    struct sink_aws_key aws_key;
    struct buffer scratch;
    size_t decoded_max, body_max;
    uint64_t requests, refused_requests, rejected;
    uint64_t fails_left, loses_left;
};

void sink_handler_destroy(struct sink_handler *handler)
{
    if (handler == NULL) {
        return;
    }
    sink_db_close(handler->db);
    sink_tokens_destroy(handler->tokens);
    buffer_finish(&handler->scratch);
    explicit_bzero(&handler->aws_key, sizeof handler->aws_key);
    free(handler);
}

static int take_aws_key(struct sink_handler *handler, char ret_error[SINK_ERROR_SIZE])
{
    const char *text = handler->options->aws_key;
    int r = text == NULL ? 0 : sink_aws_key_parse(text, &handler->aws_key);
    if (r < 0) {
        snprintf(ret_error, SINK_ERROR_SIZE, "the key for Timestream is ID:SECRET");
    }
    return r;
}

static int load_tokens(struct sink_handler *handler, char ret_error[SINK_ERROR_SIZE])
{
    const char *path = handler->options->tokens;
    size_t line;
    int r = path == NULL ? 0 : sink_tokens_load(path, &handler->tokens, &line);
    if (r == -EPERM) {
        snprintf(ret_error, SINK_ERROR_SIZE, "%s: others can read it (chmod 600)", path);
    } else if (r == -EINVAL) {
        snprintf(ret_error, SINK_ERROR_SIZE, "%s:%zu: a line is NAME read|write TOKEN", path, line);
    } else if (r < 0) {
        snprintf(ret_error, SINK_ERROR_SIZE, "%s: %s", path, strerror(-r));
    }
    return r;
}

int sink_handler_create(const struct sink_options *options, struct sink_handler **ret_handler,
                        char ret_error[SINK_ERROR_SIZE])
{
    struct sink_handler *handler = calloc(1, sizeof *handler);
    if (handler == NULL) {
        return -ENOMEM;
    }
    handler->options = options;
    handler->fails_left = options->fail_status != 0 ? options->fail_count : 0;
    handler->loses_left = options->lose_count;
    handler->body_max = options->body_max != 0 ? options->body_max : SINK_BODY_MAX;
    handler->decoded_max = options->decoded_max != 0 ? options->decoded_max : SINK_DECODED_MAX;
    handler->scratch.max = handler->decoded_max + 1;
    int r = load_tokens(handler, ret_error);
    r = r < 0 ? r : take_aws_key(handler, ret_error);
    if (r == 0) {
        r = sink_db_open(options->discard ? NULL : options->db, &handler->db);
        if (r < 0) {
            snprintf(ret_error, SINK_ERROR_SIZE, "%s: cannot be opened as a database", options->db);
        }
    }
    if (r < 0) {
        sink_handler_destroy(handler);
        return r;
    }
    *ret_handler = handler;
    return 0;
}

json_t *sink_handler_stats(const struct sink_handler *handler)
{
    struct sink_counts counts = sink_db_counts(handler->db);
    return json_pack(
        "{s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I}", /* */
        "records", (json_int_t)counts.records, "readings", (json_int_t)counts.readings, "repeats",
        (json_int_t)counts.repeats, "restamped", (json_int_t)counts.restamped, "conflicts",
        (json_int_t)counts.conflicts, "rejected", (json_int_t)handler->rejected, "requests",
        (json_int_t)handler->requests, "refused", (json_int_t)handler->refused_requests);
}

static void reply_error(struct sink_handler *handler, struct sink_reply *reply, int status,
                        const char *code, const char *message)
{
    handler->refused_requests++;
    buffer_clear(&reply->body);
    reply->status = status;
    buffer_add_text(&reply->body, "{\"error\":{\"code\":");
    json_write_string(&reply->body, code, strlen(code));
    buffer_add_text(&reply->body, ",\"message\":");
    json_write_string(&reply->body, message, strlen(message));
    buffer_add_text(&reply->body, "}}");
}

/* Gives the document away. */
static void reply_json(struct sink_handler *handler, struct sink_reply *reply, json_t *json)
{
    char *text = json == NULL ? NULL : json_dumps(json, JSON_COMPACT);
    json_decref(json);
    if (text == NULL) {
        reply_error(handler, reply, 500, "internal", "out of memory");
        return;
    }
    buffer_add_text(&reply->body, text);
    free(text);
    reply->status = 200;
}

/* ---- posts ---- */

struct posting {
    struct sink_handler *handler;
    size_t accepted, rejected;
    struct buffer rejections; /* JSON objects with commas between */
};

static void reject(struct posting *posting, const struct sink_record *record, const char *reason)
{
    struct buffer *b = &posting->rejections;
    buffer_printf(b, "%s{\"seq\":%lld,\"device\":", posting->rejected == 0 ? "" : ",",
                  (long long)record->seq);
    json_write_string(b, record->device.at, record->device.len);
    buffer_add_text(b, ",\"reason\":");
    json_write_string(b, reason, strlen(reason));
    buffer_add_byte(b, '}');
    posting->rejected++;
}

bool sink_reject_asked(const struct sink_options *options, const struct sink_record *record)
{
    return options->reject_device != NULL && record->seq == options->reject_seq &&
           json_in_text_is(record->device, options->reject_device);
}

static int take_record(void *user, const struct sink_record *record)
{
    struct posting *posting = user;
    if (record->refusal != NULL) {
        reject(posting, record, record->refusal);
        return 0;
    }
    if (sink_reject_asked(posting->handler->options, record)) {
        reject(posting, record, "rejected as asked");
        return 0;
    }
    enum sink_put put;
    int r = sink_db_put(posting->handler->db, record, &put);
    if (r < 0) {
        return r;
    }
    if (put == SINK_PUT_REFUSED) {
        reject(posting, record, "another value is held under this identity");
    } else {
        posting->accepted++;
    }
    return 0;
}

static void reply_storage(struct sink_handler *handler, struct sink_reply *reply)
{
    log_error("sink: the database refuses: %s", sink_db_error(handler->db));
    reply_error(handler, reply, 503, "storage", "the readings could not be kept");
    reply->retry = true;
}

static void reply_accepted(struct posting *posting, struct sink_reply *reply)
{
    buffer_printf(&reply->body, "{\"accepted\":%zu", posting->accepted);
    if (posting->rejected > 0) {
        buffer_add_text(&reply->body, ",\"rejected\":[");
        buffer_add(&reply->body, posting->rejections.data, posting->rejections.len);
        buffer_add_byte(&reply->body, ']');
    }
    buffer_add_byte(&reply->body, '}');
    reply->status = 200;
}

/* Parses and keeps a plain body in one transaction. */
static void post_body(struct sink_handler *handler, enum sink_form form, const char *body,
                      size_t len, struct sink_reply *reply)
{
    struct json_in_arena arena __attribute__((cleanup(json_in_arena_finish))) = {NULL};
    struct posting posting = {.handler = handler};
    const struct sink_taker taker = {.take = take_record, .user = &posting};
    char why[SINK_WHY_SIZE];
    int r = sink_db_begin(handler->db);
    if (r < 0) {
        reply_storage(handler, reply);
        return;
    }
    r = sink_records_parse(body, len, form, &arena, &taker, why);
    if (r == 0 && buffer_failed(&posting.rejections)) {
        snprintf(why, sizeof why, "more rejections than an answer holds");
        r = -EINVAL;
    }
    if (r == 0) {
        r = sink_db_commit(handler->db);
    }
    if (r == 0) {
        handler->rejected += posting.rejected;
        reply_accepted(&posting, reply);
    } else if (r == -EINVAL) {
        reply_error(handler, reply, 400, "bad_request", why);
    } else {
        reply_storage(handler, reply);
    }
    if (r < 0) {
        sink_db_rollback(handler->db);
    }
    buffer_finish(&posting.rejections);
}

static void post(struct sink_handler *handler, enum sink_form form,
                 const struct sink_request *request, struct sink_reply *reply)
{
    if (request->len > handler->body_max) {
        reply_error(handler, reply, 413, "too_large", "the body is too large");
        return;
    }
    if (request->encoding == NULL || strcasecmp(request->encoding, "identity") == 0) {
        post_body(handler, form, (const char *)request->body, request->len, reply);
        return;
    }
    struct buffer *scratch = &handler->scratch;
    buffer_clear(scratch);
    int r = sink_body_decode(request->encoding, request->body, request->len, handler->decoded_max,
                             scratch);
    if (r == 0) {
        post_body(handler, form, (const char *)scratch->data, scratch->len, reply);
    } else if (r == -EMSGSIZE) {
        reply_error(handler, reply, 413, "too_large", "the body is too large when decompressed");
    } else if (r == -ENOTSUP) {
        reply_error(handler, reply, 415, "encoding", "Content-Encoding is gzip, zstd or identity");
    } else if (r == -EBADMSG) {
        reply_error(handler, reply, 400, "bad_encoding", "the compressed body is broken");
    } else {
        reply_error(handler, reply, 500, "internal", "out of memory");
    }
    if (scratch->capacity > SCRATCH_KEEP) {
        buffer_finish(scratch);
    }
}

static void post_batch(struct sink_handler *handler, const struct sink_request *request,
                       struct sink_reply *reply)
{
    post(handler, SINK_FORM_READINGS, request, reply);
}

static void post_flat(struct sink_handler *handler, const struct sink_request *request,
                      struct sink_reply *reply)
{
    post(handler, SINK_FORM_FLAT, request, reply);
}

/* Timestream: the signature stands for the token. */
static void post_aws(struct sink_handler *handler, const struct sink_request *request,
                     struct sink_reply *reply)
{
    sink_aws_post(&handler->aws_key, handler->db, handler->options, request, reply,
                  &handler->rejected);
    handler->refused_requests += reply->status >= 400 && reply->status != 419 ? 1 : 0;
}

/* ---- gets ---- */

static void reply_query(struct sink_handler *handler, struct sink_reply *reply, int r, json_t *json)
{
    if (r == 0) {
        reply_json(handler, reply, json);
    } else if (r == -ETIMEDOUT) {
        reply_error(handler, reply, 503, "too_slow", "the question takes too long: ask for less");
    } else {
        reply_storage(handler, reply);
    }
}

static void get_latest(struct sink_handler *handler, const struct sink_request *request,
                       struct sink_reply *reply)
{
    (void)request;
    json_t *json = NULL;
    int r = sink_db_latest(handler->db, &json);
    reply_query(handler, reply, r, json);
}

static void get_stats(struct sink_handler *handler, const struct sink_request *request,
                      struct sink_reply *reply)
{
    (void)request;
    reply_json(handler, reply, sink_handler_stats(handler));
}

/* RFC 3339, or milliseconds since 1970. */
static bool parse_when(const char *text, int64_t *ret_ms)
{
    char *end;
    errno = 0;
    long long ms = strtoll(text, &end, 10);
    if (end != text && *end == '\0' && errno == 0) {
        *ret_ms = ms;
        return true;
    }
    return clock_parse_utc(text, ret_ms) == 0;
}

/* Returns what is wrong, or NULL. The texts stay the parameters'. */
static const char *parse_query(struct evkeyvalq *parameters, struct sink_query *query)
{
    struct evkeyval *p;
    TAILQ_FOREACH(p, parameters, next)
    {
        if (strcmp(p->key, "device") == 0) {
            query->device = p->value;
        } else if (strcmp(p->key, "point") == 0) {
            query->point = p->value;
        } else if (strcmp(p->key, "from") == 0) {
            if (!parse_when(p->value, &query->from_ms)) {
                return "from is no time";
            }
        } else if (strcmp(p->key, "to") == 0) {
            if (!parse_when(p->value, &query->to_ms)) {
                return "to is no time";
            }
        } else if (strcmp(p->key, "limit") == 0) {
            if (!parse_when(p->value, &query->limit) || query->limit < 1 ||
                query->limit > SINK_QUERY_LIMIT_MAX) {
                return "limit is 1 to 10000";
            }
        } else {
            return "the parameters are device, point, from, to and limit";
        }
    }
    return NULL;
}

static void get_readings(struct sink_handler *handler, const struct sink_request *request,
                         struct sink_reply *reply)
{
    struct sink_query query = {.from_ms = INT64_MIN, .to_ms = INT64_MAX, .limit = 1000};
    struct evkeyvalq parameters = {0};
    TAILQ_INIT(&parameters);
    const char *wrong = NULL;
    if (request->query != NULL && request->query[0] != '\0') {
        wrong = evhttp_parse_query_str(request->query, &parameters) < 0
                    ? "the parameters cannot be read"
                    : parse_query(&parameters, &query);
    }
    if (wrong != NULL) {
        reply_error(handler, reply, 400, "bad_request", wrong);
    } else {
        json_t *json = NULL;
        int r = sink_db_query(handler->db, &query, &json);
        reply_query(handler, reply, r, json);
    }
    evhttp_clear_headers(&parameters);
}

/* ---- routes ---- */

static const struct route {
    const char *path;
    void (*get)(struct sink_handler *, const struct sink_request *, struct sink_reply *);
    void (*post)(struct sink_handler *, const struct sink_request *, struct sink_reply *);
} routes[] = {
    {.path = "/v1/readings", .get = get_readings, .post = post_batch},
    {.path = "/sensor", .get = get_latest, .post = post_flat},
    {.path = "/v1/stats", .get = get_stats},
    {.path = "/", .post = post_aws},
};

static bool allowed(struct sink_handler *handler, const struct sink_request *request,
                    struct sink_reply *reply)
{
    if (handler->tokens == NULL || strcmp(request->path, "/") == 0) {
        return true;
    }
    enum sink_right needed = request->method == SINK_GET ? SINK_RIGHT_READ : SINK_RIGHT_WRITE;
    enum sink_right has = sink_tokens_right(handler->tokens, request->authorization);
    if (has == SINK_RIGHT_NONE) {
        reply_error(handler, reply, 401, "unauthorized", "a known bearer token is needed");
    } else if (has != needed) {
        reply_error(handler, reply, 403, "forbidden", "this token does not give that right");
    }
    return has == needed;
}

static bool fault_asked(struct sink_handler *handler, const struct sink_request *request,
                        struct sink_reply *reply)
{
    if (handler->options->captive) {
        reply->status = 200;
        reply->content_type = "text/html";
        buffer_add_text(&reply->body, "<html><title>Welcome</title>Please log in.</html>\n");
        return true;
    }
    if (request->method == SINK_POST && handler->fails_left > 0) {
        handler->fails_left--;
        reply_error(handler, reply, handler->options->fail_status, "asked", "fails as asked");
        reply->retry = handler->options->fail_status == 503 || handler->options->fail_status == 429;
        return true;
    }
    return false;
}

void sink_handler_handle(struct sink_handler *handler, const struct sink_request *request,
                         struct sink_reply *reply)
{
    handler->requests++;
    reply->content_type = "application/json";
    reply->retry = reply->lose = false;
    if (fault_asked(handler, request, reply)) {
        return;
    }
    const struct route *route = NULL;
    for (size_t i = 0; i < ARRAY_SIZE(routes); i++) {
        if (strcmp(routes[i].path, request->path) == 0) {
            route = &routes[i];
        }
    }
    if (route == NULL || (route->post == post_aws && handler->options->aws_key == NULL)) {
        reply_error(handler, reply, 404, "not_found", "no such resource");
        return;
    }
    if (!allowed(handler, request, reply)) {
        return;
    }
    if (request->method == SINK_GET && route->get != NULL) {
        route->get(handler, request, reply);
    } else if (request->method == SINK_POST && route->post != NULL) {
        route->post(handler, request, reply);
        if (handler->loses_left > 0) {
            handler->loses_left--;
            reply->lose = true;
        }
    } else {
        reply_error(handler, reply, 405, "method", "this resource does not take that method");
    }
}
