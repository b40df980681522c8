#include "config/value.h"

#include "config/files.h"
#include "config/nearest.h"

#include <ctype.h>
#include <errno.h>
#include <limits.h>
#include <math.h>
#include <stdarg.h>
#include <string.h>

struct unit {
    const char *name;
    double factor;
};

static const struct unit durations[] = {{"ms", 1},     {"s", 1e3},     {"min", 60e3},
                                        {"h", 3600e3}, {"d", 86400e3}, {NULL, 0}};
static const struct unit sizes[] = {
    {"B", 1},    {"KiB", 0x1p10}, {"MiB", 0x1p20}, {"GiB", 0x1p30}, {"TiB", 0x1p40},
    {"kB", 1e3}, {"MB", 1e6},     {"GB", 1e9},     {"TB", 1e12},    {NULL, 0}};
static const struct unit rate_times[] = {{"s", 60}, {"min", 1}, {"h", 1 / 60.0}, {NULL, 0}};

static int fail(struct value_fault *fault, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

static int fail(struct value_fault *fault, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vsnprintf(fault->why, sizeof fault->why, format, args);
    va_end(args);
    return -EINVAL;
}

/* Plain decimal numbers only: no hex floats, no "inf", no "nan". */
static size_t take_plain(const char *text, double *ret_number)
{
    size_t n = strspn(text, "+-");
    if (n > 1 || (!isdigit((unsigned char)text[n]) &&
                  (text[n] != '.' || !isdigit((unsigned char)text[n + 1])))) {
        return 0;
    }
    if (text[n] == '0' && (text[n + 1] == 'x' || text[n + 1] == 'X')) {
        *ret_number = 0;
        return n + 1;
    }
    char *end;
    *ret_number = strtod(text, &end);
    return isfinite(*ret_number) ? (size_t)(end - text) : 0;
}

static const struct unit *find_unit(const struct unit *units, const char *word, size_t len)
{
    for (; units->name != NULL; units++) {
        if (strncmp(units->name, word, len) == 0 && units->name[len] == '\0') {
            return units;
        }
    }
    return NULL;
}

/* NUMBER UNIT, up to the end of the text or `stop`; ret_rest points behind the unit. */
static int take_measure(const char *text, const struct unit *units, const char *names, char stop,
                        double *ret_number, const char **ret_rest, struct value_fault *fault)
{
    double number = 0;
    size_t n = take_plain(text, &number);
    if (n == 0) {
        return fail(fault, "'%s' is not a number with a unit (%s)", text, names);
    }
    const char *word = text + n + strspn(text + n, " \t");
    size_t len = stop == '\0' ? strlen(word) : strcspn(word, (const char[]){stop, '\0'});
    *ret_rest = word + len;
    while (len > 0 && isspace((unsigned char)word[len - 1])) {
        len--;
    }
    if (len == 0 && number != 0) {
        return fail(fault, "'%s' needs a unit (%s)", text, names);
    }
    const struct unit *unit = len == 0 ? &units[0] : find_unit(units, word, len);
    if (unit == NULL) {
        struct nearest nearest = {.given = word};
        for (const struct unit *u = units; stop == '\0' && u->name != NULL; u++) {
            nearest_try(&nearest, u->name);
        }
        fault->nearest = nearest.best;
        return fail(fault, "'%.*s' is not a unit (%s)", (int)len, word, names);
    }
    *ret_number = number * unit->factor;
    return 0;
}

static int to_whole(const char *text, double number, int64_t *ret_value, struct value_fault *fault)
{
    if (fabs(number) > 9e15) {
        return fail(fault, "'%s' is too large", text);
    }
    *ret_value = (int64_t)llround(number);
    return 0;
}

static int take_whole(const char *text, const struct unit *units, const char *names,
                      int64_t *ret_value, struct value_fault *fault)
{
    double number = 0;
    const char *rest = "";
    int error = take_measure(text, units, names, '\0', &number, &rest, fault);
    if (error == 0 && number < 0) {
        return fail(fault, "'%s' is below zero", text);
    }
    return error != 0 ? error : to_whole(text, number, ret_value, fault);
}

int value_duration(const char *text, int64_t *ret_ms, struct value_fault *fault)
{
    return take_whole(text, durations, "ms, s, min, h, d", ret_ms, fault);
}

int value_size(const char *text, int64_t *ret_bytes, struct value_fault *fault)
{
    return take_whole(text, sizes, "B, KiB, MiB, GiB, TiB", ret_bytes, fault);
}

int value_rate(const char *text, int64_t *ret_bytes_min, struct value_fault *fault)
{
    double number = 0;
    const char *rest = "";
    int error = take_measure(text, sizes, "such as 20 MiB/min or 64 KiB/s", '/', &number, &rest,
                             fault);
    if (error != 0) {
        return error;
    }
    if (rest[0] != '/') {
        return fail(fault, "'%s' is a size, not a rate: say 20 MiB/min or 64 KiB/s", text);
    }
    const char *word = rest + 1 + strspn(rest + 1, " \t");
    const struct unit *per = find_unit(rate_times, word, strlen(word));
    if (per == NULL) {
        return fail(fault, "'%s' is not a time to rate by (s, min, h)", word);
    }
    if (number < 0) {
        return fail(fault, "'%s' is below zero", text);
    }
    return to_whole(text, number * per->factor, ret_bytes_min, fault);
}

int value_integer(const char *text, int64_t *ret_value, struct value_fault *fault)
{
    const char *digits = text + (text[0] == '-' || text[0] == '+');
    bool hex = digits[0] == '0' && (digits[1] == 'x' || digits[1] == 'X');
    char *end = NULL;
    errno = 0;
    long long value = strtoll(text, &end, hex ? 16 : 10);
    if (!isdigit((unsigned char)digits[0]) || *end != '\0' || (hex && end == digits + 1)) {
        return fail(fault, "'%s' is not a whole number", text);
    }
    if (errno == ERANGE) {
        return fail(fault, "'%s' is too large", text);
    }
    *ret_value = value;
    return 0;
}

int value_real(const char *text, double *ret_value, struct value_fault *fault)
{
    size_t n = take_plain(text, ret_value);
    if (n == 0 || text[n] != '\0') {
        return fail(fault, "'%s' is not a number", text);
    }
    return 0;
}

static bool is_host_char(char c)
{
    return isalnum((unsigned char)c) || c == '-' || c == '.' || c == '_';
}

/* HOST or [V6] at the start of text; 0 when there is none. */
static size_t take_host(const char *text)
{
    if (text[0] == '[') {
        size_t n = 1 + strspn(text + 1, "0123456789abcdefABCDEF:.%");
        return text[n] == ']' && n > 2 ? n + 1 : 0;
    }
    size_t n = 0;
    while (is_host_char(text[n])) {
        n++;
    }
    return n > 253 || text[0] == '-' || text[0] == '.' ? 0 : n;
}

/* Four numbers with dots that are no IPv4 address: 10.1.0.300 would go to DNS and fail there. */
static bool is_broken_v4(const char *host, size_t len)
{
    unsigned number = 0, parts = 1;
    bool beyond = false;
    for (size_t i = 0; i < len; i++) {
        if (host[i] == '.') {
            parts++;
            number = 0;
        } else if (isdigit((unsigned char)host[i])) {
            number = number > 1000 ? number : number * 10 + (unsigned)(host[i] - '0');
            beyond = beyond || number > 255;
        } else {
            return false;
        }
    }
    return beyond || parts != 4;
}

static int check_port(const char *text, size_t len, struct value_fault *fault)
{
    unsigned long port = 0;
    for (size_t i = 0; i < len && port <= 65535; i++) {
        port = isdigit((unsigned char)text[i]) ? port * 10 + (unsigned long)(text[i] - '0') : 65536;
    }
    if (len == 0 || port == 0 || port > 65535) {
        return fail(fault, "'%.*s' is not a port (1 to 65535)", (int)(len > 40 ? 40 : len), text);
    }
    return 0;
}

static int check_host(const char *text, size_t len, struct value_fault *fault)
{
    if (len == 0) {
        return fail(fault, "'%s' does not begin with a host name or address", text);
    }
    if (text[0] != '[' && is_broken_v4(text, len)) {
        return fail(fault, "'%.*s' is not an IPv4 address", (int)len, text);
    }
    return 0;
}

int value_endpoint(const char *text, struct value_fault *fault)
{
    if (text[0] != '[' && strchr(text, ':') != strrchr(text, ':')) {
        return fail(fault, "'%s': write an IPv6 address in brackets, [::1]:502", text);
    }
    size_t len = take_host(text);
    int error = check_host(text, len, fault);
    if (error != 0) {
        return error;
    }
    if (text[len] == '\0') {
        return fail(fault, "'%s' has no port: HOST:PORT", text);
    }
    if (text[len] != ':') {
        return fail(fault, "'%s' is not HOST:PORT", text);
    }
    return check_port(text + len + 1, strlen(text + len + 1), fault);
}

int value_url(const char *text, struct value_fault *fault)
{
    size_t scheme = 0;
    while (isalnum((unsigned char)text[scheme]) ||
           (scheme > 0 && strchr("+-.", text[scheme]) && text[scheme] != '\0')) {
        scheme++;
    }
    if (scheme == 0 || strncmp(text + scheme, "://", 3) != 0) {
        return fail(fault, "'%s' is not a URL: it needs a scheme such as https://", text);
    }
    if (strpbrk(text, " \t\"<>\\") != NULL) {
        return fail(fault, "'%s' is not a URL: blanks, quotes and \\ must be escaped", text);
    }
    const char *host = text + scheme + 3;
    size_t authority = strcspn(host, "/?#");
    const char *at = memchr(host, '@', authority);
    if (at != NULL) {
        return fail(fault, "a user or password in a URL would be shown: use the key for it");
    }
    size_t len = take_host(host);
    int error = check_host(host, len, fault);
    if (error == 0 && len < authority && host[len] != ':') {
        return fail(fault, "'%.*s' is not a host name", (int)authority, host);
    }
    if (error == 0 && len < authority) {
        error = check_port(host + len + 1, authority - len - 1, fault);
    }
    return error;
}

static int parse_bool(const char *text, bool *ret_value, struct value_fault *fault)
{
    static const char *const words[] = {"no", "yes", "false", "true", "off", "on", "0", "1"};
    struct nearest nearest = {.given = text};
    for (size_t i = 0; i < ARRAY_SIZE(words); i++) {
        if (strcasecmp(words[i], text) == 0) {
            *ret_value = i % 2 == 1;
            return 0;
        }
        nearest_try(&nearest, words[i]);
    }
    fault->nearest = nearest.best;
    return fail(fault, "'%s' is neither yes nor no", text);
}

static int parse_choice(const struct config_key *key, const char *text, int *ret_value,
                        struct value_fault *fault)
{
    struct nearest nearest = {.given = text};
    char names[160] = "";
    size_t used = 0;
    for (size_t i = 0; key->choices[i] != NULL; i++) {
        if (strcmp(key->choices[i], text) == 0) {
            *ret_value = (int)i;
            return 0;
        }
        nearest_try(&nearest, key->choices[i]);
        if (used < sizeof names) {
            used += (size_t)snprintf(names + used, sizeof names - used, " %s", key->choices[i]);
        }
    }
    if (key->word != NULL) {
        nearest_try(&nearest, key->word);
    }
    fault->nearest = nearest.best;
    return fail(fault, "'%.80s' is none of:%s", text, names);
}

static void parse_list(const char *text, const struct value_home *home, struct config_list *ret)
{
    size_t count = 0;
    for (const char *at = text + strspn(text, " \t"); *at != '\0'; at += strspn(at, " \t")) {
        at += strcspn(at, " \t");
        count++;
    }
    const char **items = arena_take(home->strings->arena, count * sizeof *items);
    const char *at = text;
    for (size_t i = 0; i < count; i++) {
        at += strspn(at, " \t");
        size_t len = strcspn(at, " \t");
        items[i] = strings_keep(home->strings, at, len);
        at += len;
    }
    *ret = (struct config_list){.items = items, .count = count};
}

static int parse_file(const struct config_key *key, const char *text, const struct value_home *home,
                      void *out, struct value_fault *fault)
{
    bool exclusive = key->type != CONFIG_FILE;
    const struct files_entry *entry = files_look(home->files, home->folder, text, exclusive);
    if (entry->why != NULL) {
        return fail(fault, "%s", entry->why);
    }
    if (key->type == CONFIG_SECRET_FILE) {
        *(struct config_secret *)out = (struct config_secret){entry->path, entry->text};
    } else {
        *(const char **)out = entry->path;
    }
    return 0;
}

static void value_show_bound(enum config_type type, double bound, char *text, size_t size)
{
    bool measured = type == CONFIG_DURATION || type == CONFIG_SIZE || type == CONFIG_RATE;
    const struct unit *units = type == CONFIG_DURATION ? durations : sizes;
    const struct unit *best = &units[0];
    for (const struct unit *u = units; measured && u->name != NULL && u->name[0] != 'k'; u++) {
        if (bound >= u->factor && fmod(bound, u->factor) == 0) {
            best = u;
        }
    }
    if (measured && bound != 0) {
        snprintf(text, size, "%.10g %s%s", bound / best->factor, best->name,
                 type == CONFIG_RATE ? "/min" : "");
    } else {
        snprintf(text, size, "%.10g", bound);
    }
}

void value_show_bounds(const struct config_key *key, char text[VALUE_BOUNDS_SIZE])
{
    char low[48], high[48];
    value_show_bound(key->type, key->min, low, sizeof low);
    value_show_bound(key->type, key->max, high, sizeof high);
    if (key->min == 0 && key->max == 0) {
        text[0] = '\0';
    } else if (key->max == 0 && key->min > 0) {
        snprintf(text, VALUE_BOUNDS_SIZE, "at least %s", low);
    } else {
        snprintf(text, VALUE_BOUNDS_SIZE, "%s to %s", low, high);
    }
}

static int check_bounds(const struct config_key *key, const char *text, double value,
                        struct value_fault *fault)
{
    bool no_upper = key->max == 0 && key->min >= 0;
    if ((no_upper && key->min == 0) || (value >= key->min && (no_upper || value <= key->max))) {
        return 0;
    }
    char bounds[VALUE_BOUNDS_SIZE];
    value_show_bounds(key, bounds);
    return fail(fault, "'%s' is outside its bounds: %s", text, bounds);
}

static int parse_number(const struct config_key *key, const char *text, void *out,
                        struct value_fault *fault)
{
    int64_t whole = 0;
    int error = 0;
    switch (key->type) {
    case CONFIG_DURATION:
        error = value_duration(text, &whole, fault);
        break;
    case CONFIG_SIZE:
        error = value_size(text, &whole, fault);
        break;
    case CONFIG_RATE:
        error = value_rate(text, &whole, fault);
        break;
    default:
        error = value_integer(text, &whole, fault);
    }
    if (error == 0) {
        error = check_bounds(key, text, (double)whole, fault);
    }
    if (error == 0) {
        *(int64_t *)out = whole;
    }
    return error;
}

static int parse_real(const struct config_key *key, const char *text, double *out,
                      struct value_fault *fault)
{
    double value = 0;
    int error = value_real(text, &value, fault);
    if (error == 0) {
        error = check_bounds(key, text, value, fault);
    }
    if (error == 0) {
        *out = value;
    }
    return error;
}

static void set_word(const struct config_key *key, void *out)
{
    switch (key->type) {
    case CONFIG_INT:
    case CONFIG_DURATION:
    case CONFIG_SIZE:
    case CONFIG_RATE:
        *(int64_t *)out = -1;
        break;
    case CONFIG_REAL:
        *(double *)out = -1;
        break;
    case CONFIG_CHOICE:
        *(int *)out = -1;
        break;
    default:
        memset(out, 0, value_width(key->type));
    }
}

int value_parse(const struct config_key *key, const char *text, const struct value_home *home,
                void *out, struct value_fault *fault)
{
    fault->nearest = NULL;
    if (key->word != NULL && strcmp(text, key->word) == 0) {
        set_word(key, out);
        return 0;
    }
    int error = 0;
    switch (key->type) {
    case CONFIG_BOOL:
        return parse_bool(text, out, fault);
    case CONFIG_CHOICE:
        return parse_choice(key, text, out, fault);
    case CONFIG_REAL:
        return parse_real(key, text, out, fault);
    case CONFIG_INT:
    case CONFIG_DURATION:
    case CONFIG_SIZE:
    case CONFIG_RATE:
        return parse_number(key, text, out, fault);
    case CONFIG_LIST:
        parse_list(text, home, out);
        return 0;
    case CONFIG_FILE:
    case CONFIG_PRIVATE_FILE:
    case CONFIG_SECRET_FILE:
        return parse_file(key, text, home, out, fault);
    case CONFIG_PATH:
        *(const char **)out = files_path(home->strings->arena, home->folder, text);
        return 0;
    case CONFIG_ENDPOINT:
        error = value_endpoint(text, fault);
        break;
    case CONFIG_URL:
        error = value_url(text, fault);
        break;
    case CONFIG_TEXT:
        break;
    }
    if (error == 0) {
        *(const char **)out = strings_keep(home->strings, text, strlen(text));
    }
    return error;
}

void value_absent(const struct config_key *key, void *out)
{
    memset(out, 0, value_width(key->type));
}

static const struct {
    const char *name;
    size_t width;
} types[] = {
    [CONFIG_BOOL] = {"yes or no", sizeof(bool)},
    [CONFIG_INT] = {"whole number", sizeof(int64_t)},
    [CONFIG_REAL] = {"number", sizeof(double)},
    [CONFIG_TEXT] = {"text", sizeof(char *)},
    [CONFIG_CHOICE] = {"one of", sizeof(int)},
    [CONFIG_DURATION] = {"duration", sizeof(int64_t)},
    [CONFIG_SIZE] = {"size", sizeof(int64_t)},
    [CONFIG_RATE] = {"rate", sizeof(int64_t)},
    [CONFIG_LIST] = {"list", sizeof(struct config_list)},
    [CONFIG_ENDPOINT] = {"HOST:PORT", sizeof(char *)},
    [CONFIG_URL] = {"URL", sizeof(char *)},
    [CONFIG_FILE] = {"file", sizeof(char *)},
    [CONFIG_PRIVATE_FILE] = {"file (mode 0600)", sizeof(char *)},
    [CONFIG_PATH] = {"path", sizeof(char *)},
    [CONFIG_SECRET_FILE] = {"secret file (mode 0600)", sizeof(struct config_secret)},
};

size_t value_width(enum config_type type)
{
    return types[type].width;
}

const char *value_type_name(enum config_type type)
{
    return types[type].name;
}
