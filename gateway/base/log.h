/* log.h - one line a decision, to stderr.
 *
 * Any thread; a line is one write(2), so lines of several threads never mix. When stderr is the
 * journal (JOURNAL_STREAM is set) each line carries the priority prefix of sd-daemon(3), "<6>";
 * on a terminal or a file it carries a UTC time and the level's name instead. The module that owns
 * a decision logs it once and names the device and point, or the uplink; a function that returns
 * an error does not log it. */
#pragma once

#include "gateway/base/cleanup.h"

enum log_level { LOG_LEVEL_ERROR, LOG_LEVEL_WARNING, LOG_LEVEL_INFO, LOG_LEVEL_DEBUG };

/* Lines above this level are dropped; the start value is LOG_LEVEL_INFO. */
void log_set_level(enum log_level level);

/* "error", "warning", "info" or "debug" to its level; -EINVAL for another word. */
must_check int log_level_parse(const char *word, enum log_level *ret_level);

/* Writes one line of at most LOG_LINE_MAX bytes (a longer one is cut); control characters that
 * came from outside are shown as '?'. */
enum { LOG_LINE_MAX = 1024 };
void log_line(enum log_level level, const char *format, ...) __attribute__((format(printf, 2, 3)));

#define log_error(...)   log_line(LOG_LEVEL_ERROR, __VA_ARGS__)
#define log_warning(...) log_line(LOG_LEVEL_WARNING, __VA_ARGS__)
#define log_info(...)    log_line(LOG_LEVEL_INFO, __VA_ARGS__)
#define log_debug(...)   log_line(LOG_LEVEL_DEBUG, __VA_ARGS__)
