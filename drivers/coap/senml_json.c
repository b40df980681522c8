#include "drivers/coap/number.h"
#include "drivers/coap/senml_build.h"

#include <errno.h>
#include <jansson.h>
#include <string.h>

static struct senml_value value_of(const json_t *json)
{
    struct senml_value value = {0};
    if (json_is_string(json)) {
        value.text = (const uint8_t *)json_string_value(json);
        value.len = json_string_length(json);
    } else if (json_is_integer(json)) {
        value.number = number_from_integer(json_integer_value(json));
    } else if (json_is_real(json)) {
        value.number = number_from_double(json_real_value(json));
    } else if (json_is_boolean(json)) {
        value.number = (struct reading){.kind = VALUE_BOOL, .integer = json_is_true(json)};
    }
    return value;
}

static int add_record(struct senml_builder *builder, json_t *object)
{
    struct senml_fields fields = {0};
    const char *label;
    json_t *json;
    if (!json_is_object(object)) {
        return -EINVAL;
    }
    json_object_foreach(object, label, json)
    {
        bool must;
        enum senml_field field = senml_field_of((const uint8_t *)label, strlen(label), &must);
        if (field == SENML_FIELDS) {
            if (must) {
                return -ENOTSUP;
            }
            continue;
        }
        struct senml_value value = value_of(json);
        bool absent = value.text == NULL && value.number.kind == VALUE_NULL;
        if (absent || !senml_fits(field, &value)) {
            return -EINVAL;
        }
        fields.at[field] = value;
    }
    return senml_add(builder, &fields);
}

/* Integers beyond 64 bits are numbers all the same: then all of them are read as doubles. */
static json_t *load(const uint8_t *bytes, size_t len)
{
    json_error_t error;
    json_t *root = json_loadb((const char *)bytes, len, JSON_REJECT_DUPLICATES, &error);
    if (root == NULL && json_error_code(&error) == json_error_numeric_overflow) {
        root = json_loadb((const char *)bytes, len,
                          JSON_REJECT_DUPLICATES | JSON_DECODE_INT_AS_REAL, &error);
    }
    return root;
}

int senml_parse_json(const uint8_t *bytes, size_t len, int64_t now_ms, struct senml_pack *ret_pack)
{
    if (len > SENML_BYTES_MAX) {
        return -EMSGSIZE;
    }
    json_t *root = load(bytes, len);
    struct senml_builder builder;
    senml_begin(&builder, now_ms);
    int r = json_is_array(root) ? 0 : -EINVAL;
    for (size_t i = 0; r == 0 && i < json_array_size(root); i++) {
        r = add_record(&builder, json_array_get(root, i));
    }
    r = senml_end(&builder, r, ret_pack);
    json_decref(root);
    return r;
}
