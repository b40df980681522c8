#include "config/describe.h"
#include "config/nearest.h"
#include "config/tables.h"
#include "config/value.h"
#include "gateway/cli/cli.h"

#include <jansson.h>
#include <string.h>

/* A word of the user selects sections ("device"), or one driver or uplink type ("modbus-tcp"). */
static bool is_wanted(const struct config_table *table, const char *word)
{
    return word == NULL || strcmp(table->section, word) == 0 ||
           (table->variant != NULL && strcmp(table->variant, word) == 0);
}

static void set_text(json_t *object, const char *name, const char *text)
{
    if (text != NULL) {
        json_object_set_new(object, name, json_string(text));
    }
}

static json_t *key_json(const struct config_table *table, const struct config_key *key)
{
    json_t *object = json_object();
    set_text(object, "section", table->section);
    set_text(object, "variant", table->variant);
    set_text(object, "key", key->name);
    set_text(object, "type", key->type == CONFIG_CHOICE ? "choice" : value_type_name(key->type));
    set_text(object, "default", key->fallback);
    set_text(object, "word", key->word);
    set_text(object, "help", key->help);
    if (key->required) {
        json_object_set_new(object, "required", json_true());
    }
    if (key->min != 0 || key->max != 0) {
        json_object_set_new(object, "min", json_real(key->min));
        json_object_set_new(object, "max", json_real(key->max));
    }
    json_t *choices = key->choices == NULL ? NULL : json_array();
    for (size_t i = 0; choices != NULL && key->choices[i] != NULL; i++) {
        json_array_append_new(choices, json_string(key->choices[i]));
    }
    if (choices != NULL) {
        json_object_set_new(object, "choices", choices);
    }
    return object;
}

static int print_json(const char *word)
{
    json_t *list = json_array();
    for (size_t i = 0; tables_at(i) != NULL; i++) {
        const struct config_table *table = tables_at(i);
        for (size_t j = 0; is_wanted(table, word) && j < table->key_count; j++) {
            json_array_append_new(list, key_json(table, &table->keys[j]));
        }
    }
    json_dumpf(list, stdout, JSON_INDENT(2));
    putchar('\n');
    json_decref(list);
    return COMMAND_GOOD;
}

static void print_key(const struct config_key *key)
{
    auto_buffer struct buffer type = {0};
    describe_type(key, &type);
    const char *text = buffer_text(&type);
    printf("  %s%s  (%s", key->name, key_is_family(key) ? "NAME" : "", text == NULL ? "" : text);
    if (key->required) {
        printf("; required");
    } else if (key->fallback != NULL) {
        printf("; default %s", key->fallback);
    }
    printf(")\n      %s\n", key->help);
}

static int print_text(const char *word)
{
    for (size_t i = 0; tables_at(i) != NULL; i++) {
        const struct config_table *table = tables_at(i);
        if (!is_wanted(table, word)) {
            continue;
        }
        const struct section_kind *kind = section_kind_find(table->section);
        printf("[%s%s]", kind->name, kind->named ? " NAME" : "");
        if (table->variant != NULL) {
            printf(" with %s", table->variant);
        }
        putchar('\n');
        for (size_t j = 0; j < table->key_count; j++) {
            print_key(&table->keys[j]);
        }
    }
    return COMMAND_GOOD;
}

static int print_description(void (*describe)(struct buffer *out))
{
    auto_buffer struct buffer text = {0};
    describe(&text);
    if (buffer_failed(&text)) {
        return COMMAND_NOT_WELL;
    }
    fwrite(text.data, 1, text.len, stdout);
    return COMMAND_GOOD;
}

static bool is_known(const char *word, struct nearest *nearest)
{
    for (size_t i = 0; tables_at(i) != NULL; i++) {
        const struct config_table *table = tables_at(i);
        if (is_wanted(table, word)) {
            return true;
        }
        nearest_try(nearest, table->section);
        if (table->variant != NULL) {
            nearest_try(nearest, table->variant);
        }
    }
    return false;
}

extern const struct command command_keys;

static int run(int argc, char **argv)
{
    bool example = false, manual = false;
    const struct cli_option options[] = {
        {.name = "--example", .flag = &example},
        {.name = "--man", .flag = &manual},
    };
    struct cli cli;
    int r = cli_parse(&command_keys, argc, argv, options, ARRAY_SIZE(options), 0, 1, &cli);
    if (r != CLI_GO) {
        return r;
    }
    if (example || manual) {
        return print_description(example ? describe_example : describe_manual);
    }
    const char *word = cli.count > 0 ? cli.words[0] : NULL;
    struct nearest nearest = {.given = word};
    if (word != NULL && !is_known(word, &nearest)) {
        return cli_usage_error(&command_keys, "no section, driver or uplink type '%s'%s%s%s", word,
                               nearest.best == NULL ? "" : " (did you mean ",
                               nearest.best == NULL ? "" : nearest.best,
                               nearest.best == NULL ? "" : "?)");
    }
    return cli.json ? print_json(word) : print_text(word);
}

const struct command command_keys = {
    .name = "keys",
    .arguments = "[SECTION]",
    .summary = "all keys of the configuration: type, default, bounds, meaning",
    .help = "  --example       print config/windrow.ini.example\n"
            "  --man           print the manual page windrow.ini(5)\n",
    .run = run,
};
