#include "drivers/coap/payload.h"

#include "drivers/coap/cbor_item.h"
#include "drivers/coap/number.h"

#include <errno.h>

bool payload_known(unsigned format)
{
    switch (format) {
    case PAYLOAD_TEXT:
    case PAYLOAD_CBOR:
    case PAYLOAD_SENML_JSON:
    case PAYLOAD_SENSML_JSON:
    case PAYLOAD_SENML_CBOR:
    case PAYLOAD_SENSML_CBOR:
        return true;
    default:
        return false;
    }
}

/* A pack of one nameless record; text NULL: the value is in `value`. */
static int single(int64_t now_ms, const struct reading *value, const uint8_t *text, size_t len,
                  struct senml_pack *ret_pack)
{
    struct senml_pack pack = {.text = {.max = SENML_TEXT_MAX}};
    pack.records = calloc(1, sizeof(*pack.records));
    if (pack.records == NULL) {
        return -ENOMEM;
    }
    pack.count = 1;
    pack.records[0] = (struct senml_record){.time_ms = now_ms, .value = *value};
    if (text != NULL) {
        buffer_add(&pack.text, text, len);
        pack.records[0].value = (struct reading){.kind = VALUE_TEXT, .text = {0, (uint32_t)len}};
    }
    if (buffer_failed(&pack.text)) {
        senml_finish(&pack);
        return -ENOMEM;
    }
    *ret_pack = pack;
    return 0;
}

static int parse_text(const uint8_t *bytes, size_t len, int64_t now_ms, struct senml_pack *ret_pack)
{
    struct reading value = {.kind = VALUE_NULL, .quality = QUALITY_BAD_INVALID};
    if (len == 0) {
        return single(now_ms, &value, NULL, 0, ret_pack);
    }
    if (number_parse((const char *)bytes, len, &value) == 0) {
        return single(now_ms, &value, NULL, 0, ret_pack);
    }
    return single(now_ms, &value, bytes, len, ret_pack);
}

static int parse_cbor(const uint8_t *bytes, size_t len, int64_t now_ms, struct senml_pack *ret_pack)
{
    struct cursor cursor = {.at = bytes, .end = bytes + len};
    struct cbor_item item;
    struct reading value = {.kind = VALUE_NULL, .quality = QUALITY_BAD_INVALID};
    int r = cbor_take(&cursor, &item);
    if (r == 0 && item.kind != CBOR_TEXT && item.kind != CBOR_NULL) {
        r = cbor_number(&cursor, &item, &value);
    }
    if (r != 0 || cursor.at != cursor.end) {
        return -EINVAL;
    }
    return single(now_ms, &value, item.kind == CBOR_TEXT ? item.data : NULL, item.len, ret_pack);
}

int payload_parse(unsigned format, const uint8_t *bytes, size_t len, int64_t now_ms,
                  struct senml_pack *ret_pack)
{
    if (len > SENML_BYTES_MAX) {
        return -EMSGSIZE;
    }
    switch (format) {
    case PAYLOAD_TEXT:
        return parse_text(bytes, len, now_ms, ret_pack);
    case PAYLOAD_CBOR:
        return parse_cbor(bytes, len, now_ms, ret_pack);
    case PAYLOAD_SENML_JSON:
    case PAYLOAD_SENSML_JSON:
        return senml_parse_json(bytes, len, now_ms, ret_pack);
    case PAYLOAD_SENML_CBOR:
    case PAYLOAD_SENSML_CBOR:
        return senml_parse_cbor(bytes, len, now_ms, ret_pack);
    default:
        return -ENOTSUP;
    }
}
