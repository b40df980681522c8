#include "gateway/base/log.h"

#include "gateway/base/clock.h"

#include <errno.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <string.h>
#include <time.h>

static const struct {
    const char *word;
    char priority;
} levels[] = {
    [LOG_LEVEL_ERROR] = {"error", '3'},
    [LOG_LEVEL_WARNING] = {"warning", '4'},
    [LOG_LEVEL_INFO] = {"info", '6'},
    [LOG_LEVEL_DEBUG] = {"debug", '7'},
};

static _Atomic int shown_level = LOG_LEVEL_INFO;

void log_set_level(enum log_level level)
{
    atomic_store_explicit(&shown_level, (int)level, memory_order_relaxed);
}

int log_level_parse(const char *word, enum log_level *ret_level)
{
    for (size_t i = 0; i < ARRAY_SIZE(levels); i++) {
        if (strcmp(word, levels[i].word) == 0) {
            *ret_level = (enum log_level)i;
            return 0;
        }
    }
    return -EINVAL;
}

static size_t line_prefix(char *line, size_t size, enum log_level level)
{
    if (getenv("JOURNAL_STREAM") != NULL) {
        return (size_t)snprintf(line, size, "<%c>", levels[level].priority);
    }
    int64_t now_ms = clock_wall_ms();
    time_t seconds = (time_t)(now_ms / 1000);
    struct tm utc;
    gmtime_r(&seconds, &utc);
    size_t n = strftime(line, size, "%Y-%m-%dT%H:%M:%S", &utc);
    n += (size_t)snprintf(line + n, size - n, ".%03dZ %s: ", (int)(now_ms % 1000),
                          levels[level].word);
    return n;
}

void log_line(enum log_level level, const char *format, ...)
{
    if ((int)level > atomic_load_explicit(&shown_level, memory_order_relaxed)) {
        return;
    }
    int saved_errno = errno;
    char line[LOG_LINE_MAX + 1];
    size_t start = line_prefix(line, sizeof line - 1, level);
    va_list args;
    va_start(args, format);
    int n = vsnprintf(line + start, sizeof line - 1 - start, format, args);
    va_end(args);
    size_t end = n < 0 ? start : start + (size_t)n;
    if (end > sizeof line - 2) {
        end = sizeof line - 2;
    }
    for (size_t i = start; i < end; i++) {
        if ((unsigned char)line[i] < 0x20 || line[i] == 0x7f) {
            line[i] = '?';
        }
    }
    line[end++] = '\n';
    /* A log that cannot be written has nowhere to complain to. */
    ssize_t ignored = write(STDERR_FILENO, line, end);
    (void)ignored;
    errno = saved_errno;
}
