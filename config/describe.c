#include "config/describe.h"

#include "config/tables.h"
#include "config/value.h"

#include <string.h>

void describe_type(const struct config_key *key, struct buffer *out)
{
    if (key->type == CONFIG_CHOICE) {
        for (size_t i = 0; key->choices[i] != NULL; i++) {
            buffer_printf(out, "%s%s", i == 0 ? "" : " | ", key->choices[i]);
        }
    } else {
        buffer_add_text(out, value_type_name(key->type));
    }
    char bounds[VALUE_BOUNDS_SIZE];
    value_show_bounds(key, bounds);
    buffer_printf(out, "%s%s", bounds[0] == '\0' ? "" : ", ", bounds);
    if (key->word != NULL) {
        buffer_printf(out, ", or %s", key->word);
    }
}

/* The first table of its section opens it in every listing. */
static bool opens_section(size_t i)
{
    const struct config_table *table = tables_at(i);
    const struct config_table *before = i == 0 ? NULL : tables_at(i - 1);
    return before == NULL || strcmp(before->section, table->section) != 0;
}

static const char *variant_key(const struct config_table *table)
{
    return strcmp(table->section, "uplink") == 0 ? "type" : "driver";
}

static const char *shown_value(const struct config_key *key)
{
    return key->example != NULL ? key->example : key->fallback != NULL ? key->fallback : "";
}

static void example_key(const struct config_key *key, struct buffer *out)
{
    size_t start = out->len;
    if (key_is_family(key)) {
        buffer_printf(out, "#%s", shown_value(key));
    } else {
        buffer_printf(out, "#%s = %s", key->name, shown_value(key));
    }
    size_t width = out->len - start;
    buffer_printf(out, "%*s# %s\n", width < 38 ? (int)(38 - width) : 2, "", key->help);
}

static void example_header(const struct section_kind *kind, struct buffer *out)
{
    buffer_printf(out, "\n# %s\n", kind->help);
    if (kind->named) {
        buffer_printf(out, "#[%s NAME]\n", kind->name);
    } else {
        buffer_printf(out, "[%s]\n", kind->name);
    }
}

void describe_example(struct buffer *out)
{
    buffer_add_text(out, "# Every key of windrow.ini, with its default or an example. Written by\n"
                         "# `windrow keys --example`; windrow.ini(5) says how values look.\n");
    for (size_t i = 0; tables_at(i) != NULL; i++) {
        const struct config_table *table = tables_at(i);
        if (opens_section(i)) {
            example_header(section_kind_find(table->section), out);
        }
        if (table->variant != NULL) {
            buffer_printf(out, "# with %s = %s:\n", variant_key(table), table->variant);
        }
        for (size_t j = 0; j < table->key_count; j++) {
            example_key(&table->keys[j], out);
        }
    }
}

/* Text for man(7): backslashes, and lines that would begin with a control character. */
static void manual_text(const char *text, struct buffer *out)
{
    if (text[0] == '.' || text[0] == '\'') {
        buffer_add_text(out, "\\&");
    }
    for (; *text != '\0'; text++) {
        if (*text == '\\') {
            buffer_add_text(out, "\\e");
        } else if (*text == '-') {
            buffer_add_text(out, "\\-");
        } else {
            buffer_add_byte(out, (uint8_t)*text);
        }
    }
}

static void manual_key(const struct config_key *key, struct buffer *out)
{
    buffer_add_text(out, ".TP\n.B ");
    manual_text(key->name, out);
    buffer_add_text(out, key_is_family(key) ? "NAME\n(" : "\n(");
    auto_buffer struct buffer type = {0};
    describe_type(key, &type);
    const char *text = buffer_text(&type);
    manual_text(text == NULL ? "" : text, out);
    if (key->required) {
        buffer_add_text(out, "; required");
    } else if (key->fallback != NULL) {
        buffer_add_text(out, "; default ");
        manual_text(key->fallback, out);
    }
    buffer_add_text(out, ")\n");
    manual_text(key->help, out);
    buffer_add_text(out, ".\n");
}

static const char manual_head[] =
    ".TH WINDROW.INI 5 \"\" \"windrow\" \"Windrow\"\n"
    ".SH NAME\n"
    "windrow.ini \\- configuration of the Windrow edge gateway\n"
    ".SH SYNOPSIS\n"
    "/etc/windrow/windrow.ini, /etc/windrow/conf.d/*.ini\n"
    ".SH DESCRIPTION\n"
    "An INI file. Files in conf.d beside it are read after it, by name. Comments begin with\n"
    ".B #\n"
    "or\n"
    ".BR ; ,\n"
    "also behind a value when white space stands before. Unknown sections and keys, wrong values,\n"
    "and the same section or key twice in one file are errors;\n"
    ".B windrow check\n"
    "shows all of them.\n"
    ".PP\n"
    "Durations: 500 ms, 1 s, 10 min, 2 h, 7 d. Sizes: 64 KiB, 4 GiB. Rates: 20 MiB/min, 64 KiB/s.\n"
    "Lists are separated by blanks. Relative paths start at the file's own folder. Secrets stand\n"
    "in files of mode 0600 or stricter, or in a systemd credential: credential:NAME.\n"
    ".PP\n"
    "A range in a section's name, [device t{01..24}] or {a,b,c}, makes a section of each member;\n"
    "ranges of equal length in its values are walked in step. A later section that names one\n"
    "member of an earlier range, and any section of a later file, overrides key by key. A device\n"
    "takes what it does not say itself from its profile: [profile NAME], or a shipped one.\n"
    ".PP\n"
    "A point: point.NAME = SOURCE, ATTRIBUTE, ... with the attributes scale N, offset N, unit\n"
    "TEXT, invalid PATTERN, min N, max N, circular, on\\-change, deadband N, order ABCD, every N,\n"
    "writable MIN MAX. What SOURCE is depends on the driver.\n";

void describe_manual(struct buffer *out)
{
    buffer_add_text(out, manual_head);
    for (size_t i = 0; tables_at(i) != NULL; i++) {
        const struct config_table *table = tables_at(i);
        const struct section_kind *kind = section_kind_find(table->section);
        if (opens_section(i)) {
            buffer_printf(out, ".SH [%s%s]\n", kind->name, kind->named ? " NAME" : "");
            manual_text(kind->help, out);
            buffer_add_text(out, ".\n");
        }
        if (table->variant != NULL) {
            buffer_printf(out, ".SS with %s = %s\n", variant_key(table), table->variant);
        }
        for (size_t j = 0; j < table->key_count; j++) {
            manual_key(&table->keys[j], out);
        }
    }
    buffer_add_text(out, ".SH SEE ALSO\n.BR windrow (1)\n");
}
