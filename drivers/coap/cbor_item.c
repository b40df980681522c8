#include "drivers/coap/cbor_item.h"

#include "drivers/coap/number.h"

#include <cbor.h>
#include <errno.h>
#include <math.h>
#include <string.h>

enum { TAG_DECIMAL_FRACTION = 4 };

/* What the callbacks fill. */
struct catch
{
    struct cbor_item item;
    bool caught;
};

static struct cbor_item *catch_item(void *user, enum cbor_kind kind)
{
    struct catch *catch = user;
    catch->caught = true;
    catch->item = (struct cbor_item){.kind = kind};
    return &catch->item;
}

static void on_integer(void *user, uint64_t value)
{
    struct cbor_item *item = catch_item(user, CBOR_NUMBER);
    item->number = value <= INT64_MAX ? number_from_integer((int64_t)value)
                                      : number_from_double((double)value);
}

/* The value is -1 - n. */
static void on_negative(void *user, uint64_t n)
{
    struct cbor_item *item = catch_item(user, CBOR_NUMBER);
    item->number = n <= INT64_MAX ? number_from_integer(-1 - (int64_t)n)
                                  : number_from_double(-1.0 - (double)n);
}

static void on_uint8(void *user, uint8_t value)
{
    on_integer(user, value);
}
static void on_uint16(void *user, uint16_t value)
{
    on_integer(user, value);
}
static void on_uint32(void *user, uint32_t value)
{
    on_integer(user, value);
}
static void on_negative8(void *user, uint8_t value)
{
    on_negative(user, value);
}
static void on_negative16(void *user, uint16_t value)
{
    on_negative(user, value);
}
static void on_negative32(void *user, uint32_t value)
{
    on_negative(user, value);
}

static void on_bytes(void *user, cbor_data data, size_t len)
{
    struct cbor_item *item = catch_item(user, CBOR_BYTES);
    item->data = data;
    item->len = len;
}

static void on_text(void *user, cbor_data data, size_t len)
{
    struct cbor_item *item = catch_item(user, CBOR_TEXT);
    item->data = data;
    item->len = len;
}

static void on_array(void *user, size_t count)
{
    catch_item(user, CBOR_ARRAY)->count = count;
}

static void on_map(void *user, size_t count)
{
    catch_item(user, CBOR_MAP)->count = count;
}

static void on_open_array(void *user)
{
    catch_item(user, CBOR_ARRAY)->indefinite = true;
}

static void on_open_map(void *user)
{
    catch_item(user, CBOR_MAP)->indefinite = true;
}

static void on_tag(void *user, uint64_t tag)
{
    catch_item(user, CBOR_TAG)->count = tag;
}

static void on_float(void *user, float value)
{
    struct cbor_item *item = catch_item(user, CBOR_NUMBER);
    item->number = isfinite(value) ? (struct reading){.kind = VALUE_FLOAT, .real = (double)value}
                                   : number_from_double((double)value);
}

static void on_double(void *user, double value)
{
    catch_item(user, CBOR_NUMBER)->number = number_from_double(value);
}

static void on_bool(void *user, bool value)
{
    catch_item(user, CBOR_NUMBER)->number = (struct reading){.kind = VALUE_BOOL, .integer = value};
}

static void on_null(void *user)
{
    catch_item(user, CBOR_NULL);
}

static void on_break(void *user)
{
    catch_item(user, CBOR_BREAK);
}

/* Texts in pieces are left out: SenML forbids them (RFC 8428 section 6). */
static void on_pieces(void *user)
{
    (void)user;
}

static const struct cbor_callbacks callbacks = {
    .uint8 = on_uint8,
    .uint16 = on_uint16,
    .uint32 = on_uint32,
    .uint64 = on_integer,
    .negint8 = on_negative8,
    .negint16 = on_negative16,
    .negint32 = on_negative32,
    .negint64 = on_negative,
    .byte_string = on_bytes,
    .byte_string_start = on_pieces,
    .string = on_text,
    .string_start = on_pieces,
    .array_start = on_array,
    .indef_array_start = on_open_array,
    .map_start = on_map,
    .indef_map_start = on_open_map,
    .tag = on_tag,
    .float2 = on_float,
    .float4 = on_float,
    .float8 = on_double,
    .boolean = on_bool,
    .null = on_null,
    .undefined = on_null,
    .indef_break = on_break,
};

int cbor_take(struct cursor *cursor, struct cbor_item *ret_item)
{
    struct catch catch = {0};
    size_t left = (size_t)(cursor->end - cursor->at);
    if (left == 0) {
        return -EINVAL;
    }
    struct cbor_decoder_result result = cbor_stream_decode(cursor->at, left, &callbacks, &catch);
    if (result.status != CBOR_DECODER_FINISHED || !catch.caught || result.read > left) {
        return -EINVAL;
    }
    cursor->at += result.read;
    *ret_item = catch.item;
    return 0;
}

int cbor_skip(struct cursor *cursor, const struct cbor_item *item, unsigned depth)
{
    bool nests = item->kind == CBOR_ARRAY || item->kind == CBOR_MAP || item->kind == CBOR_TAG;
    if (item->kind == CBOR_BREAK || (nests && depth == 0)) {
        return -EINVAL;
    }
    if (!nests) {
        return 0;
    }
    uint64_t steps = item->kind == CBOR_MAP ? 2 : 1;
    uint64_t count = item->kind == CBOR_TAG ? 1 : item->count;
    for (uint64_t i = 0; item->indefinite || i < count; i++) {
        for (uint64_t step = 0; step < steps; step++) {
            struct cbor_item inner;
            int r = cbor_take(cursor, &inner);
            if (r == 0 && inner.kind == CBOR_BREAK && item->indefinite && step == 0) {
                return 0;
            }
            r = r != 0 ? r : cbor_skip(cursor, &inner, depth - 1);
            if (r != 0) {
                return r;
            }
        }
    }
    return 0;
}

/* [exponent, mantissa] */
static int take_fraction(struct cursor *cursor, struct reading *ret_reading)
{
    struct cbor_item array, exponent, mantissa;
    if (cbor_take(cursor, &array) != 0 || array.kind != CBOR_ARRAY || array.count != 2 ||
        cbor_take(cursor, &exponent) != 0 || cbor_take(cursor, &mantissa) != 0) {
        return -EINVAL;
    }
    if (exponent.kind != CBOR_NUMBER || exponent.number.kind != VALUE_DECIMAL ||
        mantissa.kind != CBOR_NUMBER || mantissa.number.kind != VALUE_DECIMAL ||
        exponent.number.exponent != 0 || mantissa.number.exponent != 0) {
        return -EINVAL;
    }
    int64_t e = exponent.number.integer;
    if (e >= DECIMAL_EXPONENT_MIN && e <= DECIMAL_EXPONENT_MAX) {
        mantissa.number.exponent = (int8_t)e;
        *ret_reading = mantissa.number;
    } else {
        double power = e < -1000 ? -1000 : e > 1000 ? 1000 : (double)e;
        *ret_reading = number_from_double((double)mantissa.number.integer * pow(10.0, power));
    }
    return 0;
}

int cbor_number(struct cursor *cursor, const struct cbor_item *item, struct reading *ret_reading)
{
    if (item->kind == CBOR_TAG && item->count == TAG_DECIMAL_FRACTION) {
        return take_fraction(cursor, ret_reading);
    }
    if (item->kind != CBOR_NUMBER) {
        return -EINVAL;
    }
    *ret_reading = item->number;
    return 0;
}
