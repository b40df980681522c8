/* text.h - how the command talks: spans, counts, colours and aligned columns.
 *
 * For one thread. Texts are UTF-8; widths are counted in characters. Colours go to a terminal
 * only, and not where NO_COLOR is set. */
#pragma once

#include "gateway/base/decimal.h"

enum tone { TONE_PLAIN, TONE_GOOD, TONE_WARN, TONE_BAD, TONE_DIM, TONE_BOLD, TONES };

/* The escape sequence that begins (TONE_PLAIN: ends) a tone; "" where colours are off. */
const char *tone_code(enum tone tone);

/* Columns of the terminal; 0 when stdout is none: then nothing is cut. */
size_t text_columns(void);
/* Whether the locale shows UTF-8; otherwise sparklines and dots are plain ASCII. */
bool text_is_utf8(void);

/* "3 s", "12 min", "4 h", "19 d", "2 y". */
void text_span(struct buffer *b, int64_t seconds);
/* "3 s ago", "never" for then_ms 0, "just now" under a second, "in 5 s" for a clock that runs
 * ahead. */
void text_age(struct buffer *b, int64_t now_ms, int64_t then_ms);
/* "1 204 332" */
void text_count(struct buffer *b, uint64_t count);
/* "1.2 GiB" */
void text_bytes(struct buffer *b, uint64_t bytes);

/* "1 204 332 readings recovered from store.damaged-..., 3 blocks unreadable". */
void text_salvage(struct buffer *b, const char *from, const char *state, uint64_t readings,
                  uint64_t bad, uint64_t lost);

/* "no answer" for "bad:timeout"; the name itself when it is not known. */
const char *text_quality(const char *name);

/* Rows of cells, printed with aligned columns two blanks apart. On a terminal the last column is
 * cut to fit. */
enum { TABLE_COLUMNS_MAX = 10 };
struct table {
    size_t columns;
    bool right[TABLE_COLUMNS_MAX];
    size_t indent;
    struct buffer cells; /* tone byte, text, NUL; again and again */
    size_t count;        /* of cells */
};

/* Titles separated by '|'; one that starts with '>' is aligned to the right; "" titles are not
 * shown when all are empty. */
void table_begin(struct table *table, const char *titles);
void table_cell(struct table *table, enum tone tone, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
/* The text of `b`, which is emptied for the next use. */
void table_cell_take(struct table *table, enum tone tone, struct buffer *b);
void table_print(struct table *table, FILE *out);
void table_finish(struct table *table);
#define auto_table __attribute__((cleanup(table_finish)))

/* Eight heights of a block for each value between least and most; NaN is a blank. */
void text_sparkline(struct buffer *b, const double *values, size_t count);

/* Prints a text broken at blanks, each line indented; as wide as the terminal, or 80 columns. */
void text_wrap(FILE *out, size_t indent, enum tone tone, const char *text);
/* The same behind something of `indent` columns that stands on the first line already. */
void text_wrap_behind(FILE *out, size_t indent, enum tone tone, const char *text);

/* Copies foreign text, control characters shown as '?', so that no device can paint the screen. */
void text_clean(struct buffer *b, const char *text);
