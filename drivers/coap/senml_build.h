/* senml_build.h - what the JSON and the CBOR reader share: a record's fields as they stand, and the
 * builder that applies base fields to them.
 *
 * Pure; one owner. Texts of a record are only looked at during senml_add(). */
#pragma once

#include "drivers/coap/senml.h"

/* In the order of RFC 8428 table 4, where each has its label. */
enum senml_field {
    SENML_BVER,
    SENML_BN,
    SENML_BT,
    SENML_BU,
    SENML_BV,
    SENML_BS,
    SENML_N,
    SENML_U,
    SENML_V,
    SENML_VS,
    SENML_VB,
    SENML_S,
    SENML_T,
    SENML_UT,
    SENML_VD,
    SENML_FIELDS
};

/* One field: a number or a truth in `number` (VALUE_NULL: absent), or a text. */
struct senml_value {
    struct reading number;
    const uint8_t *text; /* NULL: absent */
    size_t len;
    bool bytes; /* a CBOR byte string: becomes base64url, as in JSON */
};

struct senml_fields {
    struct senml_value at[SENML_FIELDS];
};

struct senml_builder {
    struct senml_pack pack;
    size_t capacity;
    int64_t now_ms;
    char base_name[SENML_NAME_MAX + 1];
    size_t base_len;
    double base_time;
    struct reading base_value, base_sum;
};

void senml_begin(struct senml_builder *builder, int64_t now_ms);

/* The field of a JSON label or a CBOR one; SENML_FIELDS: unknown. `must` is set for an unknown one
 * that must not be ignored: it ends with '_' (section 4.4). */
enum senml_field senml_field_of(const uint8_t *label, size_t len, bool *ret_must);
enum senml_field senml_field_of_number(int64_t label);

/* Whether a value of that form may stand in the field. */
bool senml_fits(enum senml_field field, const struct senml_value *value);

must_check int senml_add(struct senml_builder *builder, const struct senml_fields *fields);

/* Gives the pack away (result 0) or frees it, and returns result. */
must_check int senml_end(struct senml_builder *builder, int result, struct senml_pack *ret_pack);
