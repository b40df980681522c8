/* lines.h - the pass over an INI file before libini_config sees it.
 *
 * Pure, any thread. libini_config gives up its whole object on the first error and merges names
 * that differ in letter case only; so this pass finds every syntax error, with its line, and writes
 * a clean copy of as many lines in which inline comments and wrong lines are blank and the n-th
 * section header reads [n]. */
#pragma once

#include "config/arena.h"
#include "config/complain.h"
#include "gateway/base/buffer.h"

enum {
    LINES_FILE_MAX = 1 << 20, /* bytes of a file */
    LINES_LINE_MAX = 4096,    /* bytes of a line */
    LINES_KEYS_MAX = 5000,    /* keys of a section: 4096 points and the rest */
};

struct line_section {
    const char *title; /* "device t{01..24}", blanks reduced to one; NULL: a header with an error */
    unsigned line;
    size_t key_count;
};

struct lines {
    struct buffer clean;
    struct vector sections; /* struct line_section, in the arena */
};

/* Texts go to arena; errors are reported under the name `file`. Errors or not, ret_lines holds what
 * is right. lines_finish() it. */
void lines_read(const char *file, const char *bytes, size_t len, struct arena *arena,
                struct config_errors *errors, struct lines *ret_lines);
void lines_finish(struct lines *lines);

/* Whether the bytes are UTF-8 without control characters other than tab. */
bool lines_text_is_clean(const char *text, size_t len);
