#include "gateway/cli/text.h"

#include <inttypes.h>
#include <langinfo.h>
#include <locale.h>
#include <math.h>
#include <string.h>
#include <sys/ioctl.h>

const char *tone_code(enum tone tone)
{
    static const char *const codes[TONES] = {
        [TONE_PLAIN] = "\033[0m", [TONE_GOOD] = "\033[32m", [TONE_WARN] = "\033[33m",
        [TONE_BAD] = "\033[31m",  [TONE_DIM] = "\033[2m",   [TONE_BOLD] = "\033[1m",
    };
    const char *no = getenv("NO_COLOR");
    return isatty(STDOUT_FILENO) && (no == NULL || no[0] == '\0') ? codes[tone] : "";
}

size_t text_columns(void)
{
    struct winsize size = {0};
    if (!isatty(STDOUT_FILENO) || ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) < 0) {
        return 0;
    }
    return size.ws_col > 0 ? size.ws_col : 80;
}

bool text_is_utf8(void)
{
    setlocale(LC_CTYPE, "");
    return strcmp(nl_langinfo(CODESET), "UTF-8") == 0;
}

void text_span(struct buffer *b, int64_t seconds)
{
    static const struct {
        int64_t below, unit;
        const char *name;
    } units[] = {{120, 1, "s"},
                 {2 * 3600, 60, "min"},
                 {2 * 86400, 3600, "h"},
                 {2 * 365 * 86400, 86400, "d"},
                 {INT64_MAX, 365 * 86400, "y"}};
    size_t i = 0;
    while (seconds >= units[i].below && i + 1 < ARRAY_SIZE(units)) {
        i++;
    }
    buffer_printf(b, "%" PRId64 " %s", seconds / units[i].unit, units[i].name);
}

void text_age(struct buffer *b, int64_t now_ms, int64_t then_ms)
{
    if (then_ms == 0) {
        buffer_add_text(b, "never");
        return;
    }
    int64_t age_ms = now_ms - then_ms;
    if (age_ms < 1000 && age_ms > -2000) {
        buffer_add_text(b, "just now");
    } else if (age_ms < 0) {
        buffer_add_text(b, "in ");
        text_span(b, -age_ms / 1000);
    } else {
        text_span(b, age_ms / 1000);
        buffer_add_text(b, " ago");
    }
}

void text_count(struct buffer *b, uint64_t count)
{
    char digits[24];
    int len = snprintf(digits, sizeof digits, "%" PRIu64, count);
    for (int i = 0; i < len; i++) {
        if (i > 0 && (len - i) % 3 == 0) {
            buffer_add_byte(b, ' ');
        }
        buffer_add_byte(b, (uint8_t)digits[i]);
    }
}

void text_bytes(struct buffer *b, uint64_t bytes)
{
    static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB"};
    double value = (double)bytes;
    size_t i = 0;
    for (; value >= 1024 && i + 1 < ARRAY_SIZE(units); i++) {
        value /= 1024;
    }
    buffer_printf(b, i > 0 && value < 100 ? "%.1f %s" : "%.0f %s", value, units[i]);
}

const char *text_quality(const char *name)
{
    static const struct {
        const char *name, *words;
    } words[] = {
        {"good", "good"},
        {"uncertain", "uncertain: its time or sensor is in doubt"},
        {"bad:timeout", "no answer in time"},
        {"bad:refused", "the device refused the request"},
        {"bad:invalid", "the device says: not available"},
        {"bad:range", "outside min..max"},
        {"bad:type", "the answer does not decode as this type"},
        {"bad:connection", "no connection"},
    };
    for (size_t i = 0; i < ARRAY_SIZE(words); i++) {
        if (strcmp(words[i].name, name) == 0) {
            return words[i].words;
        }
    }
    return name;
}

void text_clean(struct buffer *b, const char *text)
{
    for (; *text != '\0'; text++) {
        uint8_t c = (uint8_t)*text;
        buffer_add_byte(b, c < 0x20 || c == 0x7f ? '?' : c);
    }
}

void text_sparkline(struct buffer *b, const double *values, size_t count)
{
    static const char *const blocks[] = {"▁", "▂", "▃", "▄", "▅", "▆", "▇", "█"};
    static const char *const plain[] = {"_", ".", "-", "~", "=", "+", "*", "#"};
    const char *const *steps = text_is_utf8() ? blocks : plain;
    double least = INFINITY, most = -INFINITY;
    for (size_t i = 0; i < count; i++) {
        if (isfinite(values[i])) {
            least = fmin(least, values[i]);
            most = fmax(most, values[i]);
        }
    }
    for (size_t i = 0; i < count; i++) {
        double share = most > least ? (values[i] - least) / (most - least) : 0.5;
        buffer_add_text(b, isfinite(values[i]) ? steps[(size_t)(share * 7.999)] : " ");
    }
}

void text_wrap_behind(FILE *out, size_t indent, enum tone tone, const char *text)
{
    size_t columns = text_columns(), first = 0;
    size_t width = (columns > indent + 20 ? columns : 80) - indent;
    while (*text != '\0') {
        size_t len = strlen(text), cut = len;
        if (len > width) {
            for (cut = width; cut > 0 && text[cut] != ' '; cut--) {
            }
            cut = cut > 0 ? cut : strcspn(text, " ");
        }
        fprintf(out, "%*s%s%.*s%s\n", (int)first, "", tone != TONE_PLAIN ? tone_code(tone) : "",
                (int)cut, text, tone != TONE_PLAIN ? tone_code(TONE_PLAIN) : "");
        text += cut;
        text += strspn(text, " ");
        first = indent;
    }
}

void text_wrap(FILE *out, size_t indent, enum tone tone, const char *text)
{
    fprintf(out, "%*s", text[0] != '\0' ? (int)indent : 0, "");
    text_wrap_behind(out, indent, tone, text);
}

void text_salvage(struct buffer *b, const char *from, const char *state, uint64_t readings,
                  uint64_t bad, uint64_t lost)
{
    text_count(b, readings);
    buffer_printf(b, " readings recovered from %s%s", from,
                  strcmp(state, "running") == 0 ? " so far" : "");
    if (bad > 0) {
        buffer_add_text(b, ", ");
        text_count(b, bad);
        buffer_add_text(b, " blocks unreadable");
    }
    if (lost > 0) {
        buffer_add_text(b, ", ");
        text_count(b, lost);
        buffer_add_text(b, " readings lost");
    }
    if (strcmp(state, "given up") == 0) {
        buffer_add_text(b, ", then given up");
    }
}
