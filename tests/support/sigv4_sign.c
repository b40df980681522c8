/* sigv4_sign - signs requests given as JSON lines on stdin, prints the added headers as JSON lines.
 * For the comparison with botocore in tests/contract. A request with a "key" is one to S3, whose
 * path is made of it; then the path is printed before the headers. */
#include "uplink/aws/sigv4.h"
#include "uplink/s3/s3.h"

#include <jansson.h>
#include <string.h>

enum { LINE_MAX_BYTES = 1 << 20 };

static const char *text_of(const json_t *request, const char *key)
{
    const char *text = json_string_value(json_object_get(request, key));
    return text != NULL ? text : "";
}

/* The body travels as hexadecimal digits. */
static size_t body_of(const char *hex, uint8_t *body)
{
    size_t len = strlen(hex) / 2;
    for (size_t i = 0; i < len; i++) {
        unsigned byte = 0;
        if (sscanf(hex + 2 * i, "%2x", &byte) != 1) {
            return 0;
        }
        body[i] = (uint8_t)byte;
    }
    return len;
}

static int sign(const json_t *request)
{
    static uint8_t body[LINE_MAX_BYTES];
    const char *headers[SIGV4_HEADERS_MAX];
    const json_t *list = json_object_get(request, "headers");
    size_t count = json_array_size(list) < SIGV4_HEADERS_MAX ? json_array_size(list)
                                                             : SIGV4_HEADERS_MAX;
    for (size_t i = 0; i < count; i++) {
        headers[i] = json_string_value(json_array_get(list, i));
    }
    auto_buffer struct buffer path = {0};
    const char *key = json_string_value(json_object_get(request, "key"));
    buffer_add_text(&path, key != NULL ? "/" : text_of(request, "path"));
    s3_encode_key(&path, key != NULL ? key : "", key != NULL ? strlen(key) : 0);
    struct sigv4_request r = {.path_as_is = key != NULL,
                              .method = text_of(request, "method"),
                              .host = text_of(request, "host"),
                              .path = buffer_text(&path),
                              .query = text_of(request, "query"),
                              .headers = headers,
                              .header_count = count,
                              .body = body,
                              .body_len = body_of(text_of(request, "body"), body)};
    struct sigv4_credentials credentials = {
        .access_key = text_of(request, "access_key"),
        .secret_key = text_of(request, "secret_key"),
        .session_token = json_string_value(json_object_get(request, "token"))};
    auto_buffer struct buffer out = {0};
    if (sigv4_sign(&r, &credentials, text_of(request, "region"), text_of(request, "service"),
                   json_integer_value(json_object_get(request, "time_ms")), &out) < 0) {
        return 1;
    }
    json_t *lines = json_array();
    if (key != NULL) {
        json_array_append_new(lines, json_string(r.path));
    }
    for (size_t at = 0; at < out.len; at += strlen((const char *)out.data + at) + 1) {
        json_array_append_new(lines, json_string((const char *)out.data + at));
    }
    json_dumpf(lines, stdout, JSON_COMPACT);
    putchar('\n');
    json_decref(lines);
    return 0;
}

int main(void)
{
    static char line[LINE_MAX_BYTES];
    while (fgets(line, sizeof line, stdin) != NULL) {
        json_t *request = json_loads(line, 0, NULL);
        int r = request == NULL ? 1 : sign(request);
        json_decref(request);
        if (r != 0) {
            return r;
        }
    }
    return 0;
}
