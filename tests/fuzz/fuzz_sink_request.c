/* Requests of hostile clients: the first bytes choose method, resource and encoding, the rest is
 * the query or the body. Whatever the sink's JSON reader takes, jansson must take too. */
#include "uplink/sink/sink_handler.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct sink_handler *open_handler(bool discard)
{
    static struct sink_options options[2];
    struct sink_handler *handler;
    char error[SINK_ERROR_SIZE];
    struct sink_options *mine = &options[discard ? 1 : 0];
    *mine = (struct sink_options){.discard = discard, .db = ":memory:", .decoded_max = 1 << 20};
    if (sink_handler_create(mine, &handler, error) < 0) {
        abort();
    }
    return handler;
}

static void check_json(const uint8_t *data, size_t size)
{
    struct json_in_arena arena = {NULL};
    struct json_in p;
    json_in_init(&p, (const char *)data, size, &arena);
    bool fine = json_in_skip(&p) && json_in_end(&p);
    json_in_arena_finish(&arena);
    if (fine) {
        json_error_t why;
        json_t *json = json_loadb((const char *)data, size, JSON_DECODE_ANY, &why);
        /* jansson holds whole numbers in 64 bits; ours end as doubles. */
        if (json == NULL && json_error_code(&why) != json_error_numeric_overflow) {
            abort();
        }
        json_decref(json);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct sink_handler *handlers[2];
    static const char *const paths[] = {"/v1/readings", "/sensor", "/v1/stats", "/"};
    static const char *const encodings[] = {NULL, "gzip", "zstd", "br"};
    if (handlers[0] == NULL) {
        handlers[0] = open_handler(false);
        handlers[1] = open_handler(true);
    }
    if (size < 1) {
        return 0;
    }
    /* The handlers read bounded bytes: a copy without a NUL behind it shows an overrun. */
    size_t len = size - 1;
    uint8_t *body = malloc(len + 1);
    memcpy(body, data + 1, len);
    body[len] = '\0';
    struct sink_request request = {.method = (data[0] & 0x40) != 0 ? SINK_GET : SINK_POST,
                                   .path = paths[data[0] & 3],
                                   .encoding = encodings[data[0] >> 2 & 3],
                                   .body = data + 1,
                                   .len = len};
    if (request.method == SINK_GET) {
        request.query = (const char *)body;
    }
    struct sink_reply reply = {.status = 0};
    sink_handler_handle(handlers[data[0] >> 4 & 1], &request, &reply);
    if (reply.status < 200 || reply.status > 599 || reply.body.len == 0) {
        abort();
    }
    buffer_finish(&reply.body);
    check_json(data + 1, len);
    free(body);
    return 0;
}
