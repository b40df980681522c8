#include "drivers/coap/number.h"
#include "drivers/coap/senml_build.h"

#include <errno.h>
#include <math.h>
#include <string.h>

/* Section 4.5.3: below it a time is relative to now. */
#define RELATIVE_BELOW_S 268435456.0
/* The year 5138: what is beyond is no time. */
#define LATEST_S 1e11

static const struct {
    const char *label;
    int8_t number; /* section 6, table 4 */
} labels[SENML_FIELDS] = {
    [SENML_BVER] = {"bver", -1}, [SENML_BN] = {"bn", -2}, [SENML_BT] = {"bt", -3},
    [SENML_BU] = {"bu", -4},     [SENML_BV] = {"bv", -5}, [SENML_BS] = {"bs", -6},
    [SENML_N] = {"n", 0},        [SENML_U] = {"u", 1},    [SENML_V] = {"v", 2},
    [SENML_VS] = {"vs", 3},      [SENML_VB] = {"vb", 4},  [SENML_S] = {"s", 5},
    [SENML_T] = {"t", 6},        [SENML_UT] = {"ut", 7},  [SENML_VD] = {"vd", 8},
};

enum senml_field senml_field_of(const uint8_t *label, size_t len, bool *ret_must)
{
    *ret_must = len > 0 && label[len - 1] == '_';
    for (int i = 0; i < SENML_FIELDS; i++) {
        if (strlen(labels[i].label) == len && memcmp(labels[i].label, label, len) == 0) {
            return (enum senml_field)i;
        }
    }
    return SENML_FIELDS;
}

enum senml_field senml_field_of_number(int64_t label)
{
    for (int i = 0; i < SENML_FIELDS; i++) {
        if (labels[i].number == label) {
            return (enum senml_field)i;
        }
    }
    return SENML_FIELDS;
}

bool senml_fits(enum senml_field field, const struct senml_value *value)
{
    switch (field) {
    case SENML_BN:
    case SENML_BU:
    case SENML_N:
    case SENML_U:
    case SENML_VS:
        return value->text != NULL && !value->bytes;
    case SENML_VD:
        return value->text != NULL;
    case SENML_VB:
        return value->text == NULL && value->number.kind == VALUE_BOOL;
    case SENML_BVER:
        return value->text == NULL && value->number.kind == VALUE_DECIMAL &&
               value->number.exponent == 0;
    case SENML_V:
    case SENML_S: /* not a number: a value that the sensor itself calls bad */
        return value->text == NULL && value->number.kind != VALUE_BOOL;
    default:
        return value->text == NULL && value->number.kind != VALUE_BOOL &&
               value->number.kind != VALUE_NULL;
    }
}

void senml_begin(struct senml_builder *builder, int64_t now_ms)
{
    *builder = (struct senml_builder){.now_ms = now_ms};
    builder->pack.text.max = SENML_TEXT_MAX;
}

static int take_base(struct senml_builder *builder, const struct senml_fields *fields)
{
    const struct senml_value *bver = &fields->at[SENML_BVER], *bn = &fields->at[SENML_BN];
    if (bver->number.kind != VALUE_NULL && bver->number.integer > SENML_VERSION) {
        return -ENOTSUP;
    }
    if (bn->text != NULL) {
        if (bn->len > SENML_NAME_MAX) {
            return -EMSGSIZE;
        }
        memcpy(builder->base_name, bn->text, bn->len);
        builder->base_len = bn->len;
    }
    if (fields->at[SENML_BT].number.kind != VALUE_NULL) {
        builder->base_time = reading_double(&fields->at[SENML_BT].number);
    }
    if (fields->at[SENML_BV].number.kind != VALUE_NULL) {
        builder->base_value = fields->at[SENML_BV].number;
    }
    if (fields->at[SENML_BS].number.kind != VALUE_NULL) {
        builder->base_sum = fields->at[SENML_BS].number;
    }
    return 0;
}

static int resolve_time(const struct senml_builder *builder, const struct senml_fields *fields,
                        struct senml_record *record)
{
    const struct reading *t = &fields->at[SENML_T].number;
    double sum = builder->base_time + (t->kind == VALUE_NULL ? 0.0 : reading_double(t));
    if (!(fabs(sum) < LATEST_S)) {
        return -EINVAL;
    }
    int64_t ms = llround(sum * 1000.0);
    record->timed = ms != 0;
    record->time_ms = sum < RELATIVE_BELOW_S ? builder->now_ms + ms : ms;
    return 0;
}

static int resolve_name(struct senml_builder *builder, const struct senml_fields *fields,
                        struct senml_record *record)
{
    const struct senml_value *n = &fields->at[SENML_N];
    size_t own = n->text == NULL ? 0 : n->len;
    if (builder->base_len + own > SENML_NAME_MAX) {
        return -EMSGSIZE;
    }
    if (builder->base_len + own == 0) {
        return -EINVAL; /* section 4.5.1: the whole name must not be empty */
    }
    struct buffer *text = &builder->pack.text;
    record->name = (uint32_t)text->len;
    record->base_len = (uint32_t)builder->base_len;
    record->name_len = (uint32_t)(builder->base_len + own);
    buffer_add(text, builder->base_name, builder->base_len);
    buffer_add(text, n->text, own);
    return 0;
}

static void add_base64url(struct buffer *text, const uint8_t *bytes, size_t len)
{
    static const char alphabet[] =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    for (size_t i = 0; i < len; i += 3) {
        size_t left = len - i < 3 ? len - i : 3;
        uint32_t group = (uint32_t)bytes[i] << 16;
        group |= left > 1 ? (uint32_t)bytes[i + 1] << 8 : 0;
        group |= left > 2 ? bytes[i + 2] : 0;
        for (size_t c = 0; c <= left; c++) {
            buffer_add_byte(text, (uint8_t)alphabet[group >> (18 - 6 * c) & 0x3f]);
        }
    }
}

static void take_text(struct senml_builder *builder, const struct senml_value *value,
                      struct senml_record *record)
{
    struct buffer *text = &builder->pack.text;
    uint32_t offset = (uint32_t)text->len;
    if (value->bytes) {
        add_base64url(text, value->text, value->len);
    } else {
        buffer_add(text, value->text, value->len);
    }
    record->value = (struct reading){.kind = VALUE_TEXT,
                                     .text = {offset, (uint32_t)text->len - offset}};
}

/* Section 4.2: a value, or only a sum. False: the record has neither. */
static bool resolve_value(struct senml_builder *builder, const struct senml_fields *fields,
                          struct senml_record *record)
{
    const struct senml_value *at = fields->at;
    if (at[SENML_VB].number.kind != VALUE_NULL) {
        record->value = at[SENML_VB].number;
    } else if (at[SENML_VS].text != NULL) {
        take_text(builder, &at[SENML_VS], record);
    } else if (at[SENML_VD].text != NULL) {
        take_text(builder, &at[SENML_VD], record);
    } else if (at[SENML_V].number.kind != VALUE_NULL || at[SENML_V].number.quality != 0 ||
               builder->base_value.kind != VALUE_NULL) {
        record->value = at[SENML_V].number.quality != 0
                            ? at[SENML_V].number
                            : number_add(&at[SENML_V].number, &builder->base_value);
    } else if (at[SENML_S].number.kind != VALUE_NULL || builder->base_sum.kind != VALUE_NULL) {
        record->value = number_add(&at[SENML_S].number, &builder->base_sum);
    } else {
        return false;
    }
    return true;
}

/* Whether nothing but base fields stands in the record: it is no measurement then, even where a
 * base value is set. */
static bool is_base_only(const struct senml_fields *fields)
{
    static const enum senml_field own[] = {SENML_N,  SENML_V, SENML_VS, SENML_VB,
                                           SENML_VD, SENML_S, SENML_T};
    for (size_t i = 0; i < ARRAY_SIZE(own); i++) {
        const struct senml_value *value = &fields->at[own[i]];
        if (value->text != NULL || value->number.kind != VALUE_NULL || value->number.quality != 0) {
            return false;
        }
    }
    return true;
}

static int reserve_record(struct senml_builder *builder)
{
    struct senml_pack *pack = &builder->pack;
    if (pack->count < builder->capacity) {
        return 0;
    }
    if (pack->count >= SENML_RECORDS_MAX) {
        return -EMSGSIZE;
    }
    size_t capacity = builder->capacity == 0 ? 16 : builder->capacity * 2;
    struct senml_record *records = realloc(pack->records, capacity * sizeof(*records));
    if (records == NULL) {
        return -ENOMEM;
    }
    pack->records = records;
    builder->capacity = capacity;
    return 0;
}

int senml_add(struct senml_builder *builder, const struct senml_fields *fields)
{
    int r = take_base(builder, fields);
    if (r != 0 || is_base_only(fields)) {
        return r;
    }
    r = reserve_record(builder);
    if (r != 0) {
        return r;
    }
    struct senml_record *record = &builder->pack.records[builder->pack.count];
    *record = (struct senml_record){0};
    if (!resolve_value(builder, fields, record)) {
        return 0;
    }
    r = resolve_time(builder, fields, record);
    if (r == 0) {
        r = resolve_name(builder, fields, record);
    }
    if (r == 0 && buffer_failed(&builder->pack.text)) {
        r = -EMSGSIZE;
    }
    if (r == 0) {
        builder->pack.count++;
    }
    return r;
}

void senml_finish(struct senml_pack *pack)
{
    free(pack->records);
    pack->records = NULL;
    pack->count = 0;
    buffer_finish(&pack->text);
}

int senml_end(struct senml_builder *builder, int result, struct senml_pack *ret_pack)
{
    if (result != 0) {
        senml_finish(&builder->pack);
        return result;
    }
    *ret_pack = builder->pack;
    return 0;
}
