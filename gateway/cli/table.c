#include "gateway/cli/text.h"

#include <stdarg.h>
#include <string.h>

/* Characters of a UTF-8 text: bytes that do not continue one. */
static size_t width_of(const char *text)
{
    size_t width = 0;
    for (; *text != '\0'; text++) {
        width += ((uint8_t)*text & 0xc0) != 0x80;
    }
    return width;
}

static void add_cell(struct table *table, enum tone tone, const char *text)
{
    buffer_add_byte(&table->cells, (uint8_t)tone);
    buffer_add(&table->cells, text, strlen(text) + 1);
    table->count++;
}

void table_begin(struct table *table, const char *titles)
{
    *table = (struct table){0};
    while (true) {
        table->right[table->columns] = *titles == '>';
        titles += *titles == '>' ? 1 : 0;
        size_t len = strcspn(titles, "|");
        char title[40];
        snprintf(title, sizeof title, "%.*s", (int)len, titles);
        add_cell(table, TONE_DIM, title);
        table->columns++;
        if (titles[len] == '\0' || table->columns == TABLE_COLUMNS_MAX) {
            break;
        }
        titles += len + 1;
    }
}

void table_cell(struct table *table, enum tone tone, const char *format, ...)
{
    char text[512];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    for (char *at = text; *at != '\0'; at++) {
        if ((uint8_t)*at < 0x20 || *at == 0x7f) {
            *at = '?';
        }
    }
    add_cell(table, tone, text);
}

void table_cell_take(struct table *table, enum tone tone, struct buffer *b)
{
    const char *text = buffer_text(b);
    table_cell(table, tone, "%s", text != NULL ? text : "");
    buffer_clear(b);
}

static void measure(const struct table *table, size_t widths[TABLE_COLUMNS_MAX], bool *ret_titled)
{
    const char *at = (const char *)table->cells.data;
    memset(widths, 0, TABLE_COLUMNS_MAX * sizeof *widths);
    *ret_titled = false;
    for (size_t i = 0; i < table->count; i++) {
        size_t width = width_of(at + 1);
        size_t *most = &widths[i % table->columns];
        *most = width > *most ? width : *most;
        *ret_titled = *ret_titled || (i < table->columns && width > 0);
        at += strlen(at + 1) + 2;
    }
}

/* Prints at most `room` characters, the last one "…" when there are more. */
static void print_cut(const char *text, size_t room, FILE *out)
{
    if (width_of(text) <= room) {
        fputs(text, out);
        return;
    }
    for (size_t shown = 0; *text != '\0'; text++) {
        bool begins = ((uint8_t)*text & 0xc0) != 0x80;
        if (begins && ++shown >= room) {
            break;
        }
        fputc(*text, out);
    }
    fputs(text_is_utf8() ? "…" : "~", out);
}

/* Blanks are owed until something follows them: no line ends in blanks. */
static void print_cell(const struct table *table, size_t column, const char *cell, size_t width,
                       size_t room, size_t *owed, FILE *out)
{
    enum tone tone = (enum tone)cell[0];
    const char *text = cell + 1;
    size_t own = width_of(text), padding = own < width ? width - own : 0;
    bool last = column + 1 == table->columns, right = table->right[column];
    if (own > 0) {
        fprintf(out, "%*s", (int)(*owed + (right ? padding : 0)), "");
        *owed = right ? 0 : padding;
        fputs(tone != TONE_PLAIN ? tone_code(tone) : "", out);
        if (last && room > 0) {
            print_cut(text, room, out);
        } else {
            fputs(text, out);
        }
        fputs(tone != TONE_PLAIN ? tone_code(TONE_PLAIN) : "", out);
    } else {
        *owed += width;
    }
    *owed += 2;
    if (last) {
        fputc('\n', out);
    }
}

/* What is left of the terminal for the last column; 0: it is not cut. */
static size_t last_room(const struct table *table, const size_t widths[TABLE_COLUMNS_MAX])
{
    size_t columns = text_columns(), used = table->indent;
    for (size_t i = 0; i + 1 < table->columns; i++) {
        used += widths[i] + 2;
    }
    if (columns == 0) {
        return 0;
    }
    return columns > used + 8 ? columns - used : 8;
}

void table_print(struct table *table, FILE *out)
{
    size_t widths[TABLE_COLUMNS_MAX];
    bool titled;
    if (buffer_failed(&table->cells)) {
        fputs("out of memory\n", stderr);
        return;
    }
    measure(table, widths, &titled);
    size_t room = last_room(table, widths), owed = 0;
    const char *at = (const char *)table->cells.data;
    for (size_t i = 0; i < table->count; i++) {
        size_t column = i % table->columns;
        if (titled || i >= table->columns) {
            owed = column == 0 ? table->indent : owed;
            print_cell(table, column, at, widths[column], room, &owed, out);
        }
        at += strlen(at + 1) + 2;
    }
}

void table_finish(struct table *table)
{
    buffer_finish(&table->cells);
}
