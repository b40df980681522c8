/* A message's way from its bytes to scans: any content format, points by name and by path. Every
 * scan is one that the pipeline takes. The first byte chooses the format. */
#include "drivers/coap/harvest.h"
#include "drivers/coap/payload.h"
#include "drivers/coap/settings.h"

#include <assert.h>
#include <errno.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct coap_point addresses[] = {
    {.offset = 6}, {.offset = 6}, {.offset = 6}, {.by_path = 1, .offset = 5}};
static struct config_point points[] = {
    {.name = "a", .source = "senml a", .address = &addresses[0]},
    {.name = "b", .source = "senml x/a", .address = &addresses[1]},
    {.name = "c", .source = "senml a", .address = &addresses[2]},
    {.name = "p", .source = "path /p", .address = &addresses[3]},
};
static const struct config_device device = {.name = "d", .points = {points, ARRAY_SIZE(points)}};

static int check(void *user, struct scan *scan)
{
    size_t *left = user;
    assert(scan->count > 0 && scan->count <= *left && scan->text_len <= SCAN_TEXT_MAX);
    *left -= scan->count;
    for (size_t i = 0; i < scan->count; i++) {
        const struct reading *reading = &scan->readings[i];
        assert(reading->point < ARRAY_SIZE(points) && reading->kind < VALUE_KINDS);
        assert(i == 0 || reading->point > scan->readings[i - 1].point);
        if (reading->kind == VALUE_TEXT) {
            assert(reading->text.offset + (size_t)reading->text.len <= scan->text_len);
        }
    }
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const unsigned formats[] = {PAYLOAD_TEXT, PAYLOAD_CBOR, PAYLOAD_SENML_JSON,
                                       PAYLOAD_SENML_CBOR, 11542};
    struct senml_pack pack;
    if (size == 0 || payload_parse(formats[data[0] % ARRAY_SIZE(formats)], data + 1, size - 1,
                                   INT64_C(1795262400000), &pack) != 0) {
        return 0;
    }
    struct harvest *harvest;
    if (harvest_create(&device, &harvest) == 0) {
        harvest_clear(harvest);
        int r = harvest_add(harvest, &pack);
        r = r < 0 ? r : harvest_add_value(harvest, 3, &pack);
        assert(r == 0 || r == -EINVAL || r == -EMSGSIZE);
        (void)harvest_scans(harvest);
        size_t left = harvest_count(harvest);
        r = harvest_each(harvest, INT64_C(1795262400000), check, &left);
        assert(r == 0 && left == 0);
        harvest_destroy(harvest);
    }
    senml_finish(&pack);
    return 0;
}
