/* Everything of a request to the local API that our own code takes apart. */
#include "gateway/api/access.h"
#include "gateway/api/query.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void feed_access(const char *text)
{
    struct api_settings settings = {.listen = "127.0.0.1:8080"};
    settings.tokens.text = text;
    struct access *access = NULL;
    char why[200];
    if (access_create(&settings, "gateway", &access, why, sizeof why) < 0) {
        return;
    }
    const struct access_request request = {.host = text, .authorization = text};
    const char *reason;
    int status = access_judge(access, &request, &reason);
    if (status != 0 && status != 401 && status != 403) {
        abort();
    }
    access_destroy(access);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *text = malloc(size + 1);
    if (text == NULL) {
        return 0;
    }
    if (size > 0) {
        memcpy(text, data, size);
    }
    text[size] = '\0';
    struct query query;
    if (query_parse(text, &query) == 0) {
        for (size_t i = 0; i < query.count; i++) {
            int64_t ms;
            if (query_parse_time(query.params[i].value, 1769855400000, &ms) < 0 &&
                query_parse_span(query.params[i].value, &ms) < 0) {
                query_glob(query.params[i].value, query.path);
            }
        }
    }
    struct read_query read;
    const char *why;
    if (read_query_parse(text, size, &read, &why) == 0) {
        read_query_finish(&read);
    }
    feed_access(text);
    free(text);
    return 0;
}
