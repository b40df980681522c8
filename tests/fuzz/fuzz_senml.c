/* SenML from anybody, JSON or CBOR by the first byte: nothing outside the bytes is read, and what
 * comes out keeps to its bounds. */
#include "drivers/coap/senml.h"

#include <assert.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(const struct senml_pack *pack)
{
    assert(pack->count <= SENML_RECORDS_MAX && pack->text.len <= SENML_TEXT_MAX);
    for (size_t i = 0; i < pack->count; i++) {
        const struct senml_record *record = &pack->records[i];
        const struct reading *value = &record->value;
        assert(record->name_len > 0 && record->name_len <= SENML_NAME_MAX);
        assert(record->base_len <= record->name_len);
        assert(record->name + (size_t)record->name_len <= pack->text.len);
        assert(value->kind < VALUE_KINDS && value->quality < QUALITY_COUNT);
        assert((value->kind == VALUE_NULL) == (value->quality != QUALITY_GOOD));
        if (value->kind == VALUE_TEXT) {
            assert(value->text.offset + (size_t)value->text.len <= pack->text.len);
        }
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct senml_pack pack;
    if (size == 0) {
        return 0;
    }
    int r = data[0] % 2 == 0 ? senml_parse_json(data + 1, size - 1, INT64_C(1795262400000), &pack)
                             : senml_parse_cbor(data + 1, size - 1, INT64_C(1795262400000), &pack);
    if (r == 0) {
        check(&pack);
        senml_finish(&pack);
    }
    return 0;
}
