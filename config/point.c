#include "config/point.h"

#include "config/nearest.h"

#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <stdarg.h>
#include <string.h>

enum { POINT_NAME_MAX = 63, POINT_UNIT_MAX = 31, POINT_EVERY_MAX = 100000 };

struct reader {
    struct strings *strings;
    struct config_point *point;
    struct value_fault *fault;
};

static int fail(struct reader *reader, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

static int fail(struct reader *reader, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vsnprintf(reader->fault->why, sizeof reader->fault->why, format, args);
    va_end(args);
    return -EINVAL;
}

static int take_decimal(struct reader *reader, const char *text, struct decimal *ret_decimal)
{
    int error = decimal_parse(text, ret_decimal);
    if (error == -ERANGE) {
        return fail(reader, "'%.60s' has more digits than 64 bits hold", text);
    }
    return error != 0 ? fail(reader, "'%.60s' is not a number", text) : 0;
}

static int take_scale(struct reader *reader, const char *text)
{
    int error = take_decimal(reader, text, &reader->point->scale);
    if (error == 0 && reader->point->scale.mantissa == 0) {
        return fail(reader, "scale must not be 0");
    }
    return error;
}

static int take_offset(struct reader *reader, const char *text)
{
    return take_decimal(reader, text, &reader->point->offset);
}

static int take_unit(struct reader *reader, const char *text)
{
    if (strlen(text) > POINT_UNIT_MAX) {
        return fail(reader, "the unit is longer than %d characters", POINT_UNIT_MAX);
    }
    reader->point->unit = strings_keep(reader->strings, text, strlen(text));
    return 0;
}

/* The raw pattern, so no sign: a device's -32768 is written as it stands in the register. */
static int take_invalid(struct reader *reader, const char *text)
{
    bool hex = text[0] == '0' && (text[1] == 'x' || text[1] == 'X');
    char *end = NULL;
    errno = 0;
    unsigned long long value = strtoull(text, &end, hex ? 16 : 10);
    if (!isdigit((unsigned char)text[0]) || *end != '\0' || errno != 0 ||
        (hex && end == text + 1)) {
        return fail(reader, "invalid: '%.60s' is not a raw pattern such as 0x8000 or 65535", text);
    }
    reader->point->invalid = value;
    reader->point->has_invalid = true;
    return 0;
}

static int take_min(struct reader *reader, const char *text)
{
    return value_real(text, &reader->point->min, reader->fault);
}

static int take_max(struct reader *reader, const char *text)
{
    return value_real(text, &reader->point->max, reader->fault);
}

static int take_deadband(struct reader *reader, const char *text)
{
    int error = value_real(text, &reader->point->deadband, reader->fault);
    if (error == 0 && reader->point->deadband <= 0) {
        return fail(reader, "deadband must be above 0");
    }
    return error;
}

static int take_order(struct reader *reader, const char *text)
{
    static const char *const orders[] = {"ABCD", "CDAB", "BADC", "DCBA"};
    struct nearest nearest = {.given = text};
    for (size_t i = 0; i < ARRAY_SIZE(orders); i++) {
        if (strcmp(orders[i], text) == 0) {
            reader->point->order = orders[i];
            return 0;
        }
        nearest_try(&nearest, orders[i]);
    }
    reader->fault->nearest = nearest.best;
    return fail(reader, "order: '%.60s' is none of: ABCD CDAB BADC DCBA", text);
}

static int take_every(struct reader *reader, const char *text)
{
    int64_t every = 0;
    int error = value_integer(text, &every, reader->fault);
    if (error == 0 && (every < 1 || every > POINT_EVERY_MAX)) {
        return fail(reader, "every must be 1 to %d", POINT_EVERY_MAX);
    }
    reader->point->every = error == 0 ? (uint32_t)every : 1;
    return error;
}

static int take_writable(struct reader *reader, const char *text)
{
    size_t len = strcspn(text, " \t");
    const char *second = text + len + strspn(text + len, " \t");
    char first[64];
    snprintf(first, sizeof first, "%.*s", (int)(len < sizeof first ? len : sizeof first - 1), text);
    if (*second == '\0') {
        return fail(reader, "writable needs a minimum and a maximum: writable 0 90");
    }
    int error = value_real(first, &reader->point->write_min, reader->fault);
    if (error == 0) {
        error = value_real(second, &reader->point->write_max, reader->fault);
    }
    if (error == 0 && reader->point->write_min > reader->point->write_max) {
        return fail(reader, "writable: the minimum is above the maximum");
    }
    reader->point->writable = error == 0;
    return error;
}

static int take_circular(struct reader *reader, const char *text)
{
    (void)text;
    reader->point->circular = true;
    return 0;
}

static int take_on_change(struct reader *reader, const char *text)
{
    (void)text;
    reader->point->on_change = true;
    return 0;
}

static const struct attribute {
    const char *name;
    bool takes_value;
    int (*take)(struct reader *reader, const char *text);
} attributes[] = {
    {"scale", true, take_scale},
    {"offset", true, take_offset},
    {"unit", true, take_unit},
    {"invalid", true, take_invalid},
    {"min", true, take_min},
    {"max", true, take_max},
    {"circular", false, take_circular},
    {"on-change", false, take_on_change},
    {"deadband", true, take_deadband},
    {"order", true, take_order},
    {"every", true, take_every},
    {"writable", true, take_writable},
};

static int take_attribute(struct reader *reader, const char *text, unsigned *seen)
{
    size_t len = strcspn(text, " \t");
    const char *rest = text + len + strspn(text + len, " \t");
    char word[POINT_NAME_MAX + 1];
    snprintf(word, sizeof word, "%.*s", (int)(len < sizeof word ? len : sizeof word - 1), text);
    struct nearest nearest = {.given = word};
    for (size_t i = 0; i < ARRAY_SIZE(attributes); i++) {
        const struct attribute *attribute = &attributes[i];
        nearest_try(&nearest, attribute->name);
        if (strcmp(attribute->name, word) != 0) {
            continue;
        }
        if ((*seen & (1u << i)) != 0) {
            return fail(reader, "'%s' is given twice", word);
        }
        *seen |= 1u << i;
        if (attribute->takes_value && rest[0] == '\0') {
            return fail(reader, "'%s' needs a value", word);
        }
        if (!attribute->takes_value && rest[0] != '\0') {
            return fail(reader, "'%s' takes no value", word);
        }
        return attribute->take(reader, rest);
    }
    reader->fault->nearest = nearest.best;
    return fail(reader, "no such attribute: '%s'", word);
}

static int check_name(struct reader *reader, const char *name)
{
    size_t n = 0;
    while (isalnum((unsigned char)name[n]) || name[n] == '_' || name[n] == '-') {
        n++;
    }
    if (n == 0 || n > POINT_NAME_MAX || name[n] != '\0') {
        return fail(reader, "a point's name holds letters, digits, '-' and '_', at most %d",
                    POINT_NAME_MAX);
    }
    return 0;
}

static int check_whole(struct reader *reader)
{
    const struct config_point *point = reader->point;
    if (point->min > point->max) {
        return fail(reader, "min %.10g is above max %.10g", point->min, point->max);
    }
    if (point->on_change && point->deadband > 0) {
        return fail(reader, "on-change and deadband exclude each other");
    }
    return 0;
}

enum { PART_SIZE = 1024 };

/* The text up to the next comma, trimmed and cut; at moves behind the comma, to NULL at the end. */
static void next_part(const char **at, char text[PART_SIZE])
{
    const char *start = *at + strspn(*at, " \t");
    size_t len = strcspn(start, ",");
    *at = start[len] == ',' ? start + len + 1 : NULL;
    while (len > 0 && isspace((unsigned char)start[len - 1])) {
        len--;
    }
    snprintf(text, PART_SIZE, "%.*s", (int)(len < PART_SIZE ? len : PART_SIZE - 1), start);
}

int point_parse(const char *name, const char *value, struct strings *strings,
                struct config_point *ret_point, struct value_fault *fault)
{
    *ret_point = (struct config_point){
        .name = strings_keep(strings, name, strlen(name)),
        .unit = "",
        .scale = {.mantissa = 1},
        .min = -INFINITY,
        .max = INFINITY,
        .every = 1,
    };
    fault->nearest = NULL;
    struct reader reader = {.strings = strings, .point = ret_point, .fault = fault};
    int error = check_name(&reader, name);
    const char *at = value;
    char text[PART_SIZE];
    next_part(&at, text);
    ret_point->source = strings_keep(strings, text, strlen(text));
    if (error == 0 && ret_point->source[0] == '\0') {
        return fail(&reader, "says not where it stands (before the first comma)");
    }
    unsigned seen = 0;
    while (error == 0 && at != NULL) {
        next_part(&at, text);
        error = text[0] == '\0' ? fail(&reader, "nothing stands between two commas, or behind one")
                                : take_attribute(&reader, text, &seen);
    }
    return error != 0 ? error : check_whole(&reader);
}
