/* The list of resources of whatever answers a scan: it ends, and nothing outside it is read. */
#include "drivers/coap/links.h"

#include <assert.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const char *text = (const char *)data;
    size_t len = size;
    struct link link;
    for (size_t before = len; link_next(&text, &len, &link) == 0; before = len) {
        assert(len < before && link.path[0] == '/');
        assert(strlen(link.path) <= LINK_PATH_MAX && link.format_count <= LINK_FORMATS_MAX);
    }
    assert(len == 0);
    return 0;
}
