#include "gateway/api/reply.h"

#include "gateway/api/json_out.h"

#include <event2/buffer.h>
#include <event2/keyvalq_struct.h>
#include <stdarg.h>
#include <stdio.h>

static const char *status_text(int status)
{
    static const struct {
        int status;
        const char *text;
    } texts[] = {{200, "OK"},
                 {202, "Accepted"},
                 {400, "Bad Request"},
                 {401, "Unauthorized"},
                 {403, "Forbidden"},
                 {404, "Not Found"},
                 {405, "Method Not Allowed"},
                 {409, "Conflict"},
                 {413, "Content Too Large"},
                 {422, "Unprocessable Content"},
                 {429, "Too Many Requests"},
                 {500, "Internal Server Error"},
                 {501, "Not Implemented"},
                 {502, "Bad Gateway"},
                 {503, "Service Unavailable"},
                 {504, "Gateway Timeout"}};
    for (size_t i = 0; i < ARRAY_SIZE(texts); i++) {
        if (texts[i].status == status) {
            return texts[i].text;
        }
    }
    return "Error";
}

void reply_headers(struct evhttp_request *request, const char *content_type)
{
    struct evkeyvalq *headers = evhttp_request_get_output_headers(request);
    evhttp_add_header(headers, "Content-Type", content_type);
    evhttp_add_header(headers, "Cache-Control", "no-store");
    evhttp_add_header(headers, "X-Content-Type-Options", "nosniff");
}

static void free_bytes(const void *data, size_t len, void *user)
{
    (void)data;
    (void)len;
    free(user);
}

void reply_send(struct evhttp_request *request, int status, const char *content_type,
                struct buffer *body)
{
    if (buffer_failed(body)) {
        buffer_finish(body);
        reply_error(request, 500, "too_large", "the answer does not fit into memory");
        return;
    }
    struct evbuffer *out = evhttp_request_get_output_buffer(request);
    if (evhttp_request_get_command(request) == EVHTTP_REQ_HEAD) {
        /* evhttp would send the body all the same. */
        char len[24];
        snprintf(len, sizeof len, "%zu", body->len);
        evhttp_add_header(evhttp_request_get_output_headers(request), "Content-Length", len);
    } else if (body->len > 0 &&
               evbuffer_add_reference(out, body->data, body->len, free_bytes, body->data) == 0) {
        *body = (struct buffer){.max = body->max};
    }
    reply_headers(request, content_type);
    if (status == 503) {
        evhttp_add_header(evhttp_request_get_output_headers(request), "Retry-After",
                          REPLY_RETRY_AFTER_S);
    }
    evhttp_send_reply(request, status, status_text(status), NULL);
}

void reply_write_error(struct buffer *body, const char *code, const char *message)
{
    struct json_out out = {.b = body};
    json_out_open(&out, NULL, '{');
    json_out_open(&out, "error", '{');
    json_out_text(&out, "code", code);
    json_out_text(&out, "message", message);
    json_out_close(&out, '}');
    json_out_close(&out, '}');
}

void reply_error(struct evhttp_request *request, int status, const char *code, const char *format,
                 ...)
{
    char message[400];
    va_list args;
    va_start(args, format);
    vsnprintf(message, sizeof message, format, args);
    va_end(args);
    auto_buffer struct buffer body = {0};
    reply_write_error(&body, code, message);
    if (status == 401) {
        evhttp_add_header(evhttp_request_get_output_headers(request), "WWW-Authenticate", "Bearer");
    }
    if (buffer_failed(&body)) {
        evhttp_send_reply(request, 500, status_text(500), NULL);
        return;
    }
    reply_send(request, status, REPLY_JSON, &body);
}
