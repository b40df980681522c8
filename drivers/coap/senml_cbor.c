#include "drivers/coap/cbor_item.h"
#include "drivers/coap/senml_build.h"

#include <errno.h>

static int take_field(struct cursor *cursor, const struct cbor_item *label,
                      enum senml_field *ret_field)
{
    bool must = false;
    (void)cursor;
    if (label->kind == CBOR_TEXT) {
        *ret_field = senml_field_of(label->data, label->len, &must);
        return *ret_field == SENML_FIELDS && must ? -ENOTSUP : 0;
    }
    if (label->kind != CBOR_NUMBER || label->number.kind != VALUE_DECIMAL ||
        label->number.exponent != 0) {
        return -EINVAL;
    }
    *ret_field = senml_field_of_number(label->number.integer);
    return 0;
}

static int take_value(struct cursor *cursor, enum senml_field field, struct senml_fields *fields)
{
    struct cbor_item item;
    int r = cbor_take(cursor, &item);
    if (r != 0) {
        return r;
    }
    if (field == SENML_FIELDS) {
        return cbor_skip(cursor, &item, SENML_DEPTH_MAX);
    }
    struct senml_value value = {0};
    if (item.kind == CBOR_TEXT || item.kind == CBOR_BYTES) {
        value.text = item.data;
        value.len = item.len;
        value.bytes = item.kind == CBOR_BYTES;
    } else {
        r = cbor_number(cursor, &item, &value.number);
    }
    if (r != 0 || !senml_fits(field, &value)) {
        return -EINVAL;
    }
    fields->at[field] = value;
    return 0;
}

static int add_record(struct senml_builder *builder, struct cursor *cursor,
                      const struct cbor_item *map)
{
    struct senml_fields fields = {0};
    if (map->kind != CBOR_MAP) {
        return -EINVAL;
    }
    for (uint64_t i = 0; map->indefinite || i < map->count; i++) {
        struct cbor_item label;
        enum senml_field field;
        int r = cbor_take(cursor, &label);
        if (r == 0 && label.kind == CBOR_BREAK && map->indefinite) {
            break;
        }
        r = r != 0 ? r : take_field(cursor, &label, &field);
        r = r != 0 ? r : take_value(cursor, field, &fields);
        if (r != 0) {
            return r;
        }
    }
    return senml_add(builder, &fields);
}

static int add_records(struct senml_builder *builder, struct cursor *cursor)
{
    struct cbor_item array;
    int r = cbor_take(cursor, &array);
    if (r != 0 || array.kind != CBOR_ARRAY) {
        return -EINVAL;
    }
    for (uint64_t i = 0; array.indefinite || i < array.count; i++) {
        struct cbor_item record;
        r = cbor_take(cursor, &record);
        if (r == 0 && record.kind == CBOR_BREAK && array.indefinite) {
            break;
        }
        r = r != 0 ? r : add_record(builder, cursor, &record);
        if (r != 0) {
            return r;
        }
    }
    return cursor->at == cursor->end ? 0 : -EINVAL;
}

int senml_parse_cbor(const uint8_t *bytes, size_t len, int64_t now_ms, struct senml_pack *ret_pack)
{
    if (len > SENML_BYTES_MAX) {
        return -EMSGSIZE;
    }
    struct cursor cursor = {.at = bytes, .end = bytes + len};
    struct senml_builder builder;
    senml_begin(&builder, now_ms);
    return senml_end(&builder, add_records(&builder, &cursor), ret_pack);
}
