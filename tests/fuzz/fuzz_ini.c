/* Any bytes as windrow.ini, cut at a NUL line into a second file: the loader must end with a config
 * or with reasons, and every path through values, ranges and points stays within its memory. */
#include "../unit/config_fakes.inc"
#include "config/load.h"
#include "gateway/base/log.h"

#include <errno.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void read_all(const struct config *config)
{
    size_t points = 0;
    for (size_t i = 0; i < config->device_count; i++) {
        const struct config_device *device = &config->devices[i];
        for (size_t j = 0; j < device->points.count; j++) {
            points += strlen(device->points.list[j].source) + device->points.list[j].every;
        }
        if (config_find_device(config, device->name) == NULL) {
            abort();
        }
    }
    if (points > ((size_t)1 << 40) || config->gateway->name[0] == '\0') {
        abort();
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const uint8_t *cut = memchr(data, '\0', size);
    size_t first = cut == NULL ? size : (size_t)(cut - data);
    const struct config_text texts[] = {
        {"windrow.ini", "/nowhere", (const char *)data, first},
        {"conf.d/1.ini", "/nowhere/conf.d", (const char *)data + (cut == NULL ? 0 : first + 1),
         cut == NULL ? 0 : size - first - 1},
    };
    struct config_errors *errors = config_errors_create();
    const struct config *config = NULL;
    int error = config_load_texts(texts, ARRAY_SIZE(texts), errors, &config);
    if ((error == 0) != (config != NULL) ||
        (error == 0) != (config_errors_count(errors, false) == 0)) {
        abort();
    }
    if (config != NULL) {
        read_all(config);
    }
    config_unref(config);
    config_errors_destroy(errors);
    return 0;
}
