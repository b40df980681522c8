#include "gateway/api/query.h"
#include "gateway/cli/client.h"
#include "gateway/cli/points.h"

#include <math.h>
#include <string.h>

static void write_registers(struct buffer *b, const json_t *point)
{
    size_t i;
    const json_t *word;
    json_array_foreach(json_object_get(point, "registers"), i, word)
    {
        const char *text = json_string_value(word);
        buffer_printf(b, "%s%s", i > 0 ? " " : "", text != NULL ? text : "?");
    }
}

/* Ten digits: what is beyond came from the multiplication, not from the device. */
static void write_value(struct buffer *b, const json_t *point)
{
    double value = answer_real(point, "value");
    if (isfinite(value)) {
        buffer_printf(b, "%.10g", value);
    } else {
        points_write_value(b, json_object_get(point, "raw_value"));
    }
}

static bool is_good(const json_t *point)
{
    const char *quality = answer_text(point, "quality");
    return json_object_get(point, "error") == NULL &&
           (quality[0] == '\0' || strcmp(quality, "good") == 0);
}

static void add_row(struct table *table, const json_t *point)
{
    auto_buffer struct buffer b = {0};
    const char *error = answer_text(point, "error"), *quality = answer_text(point, "quality");
    bool good = is_good(point);
    table_cell(table, TONE_PLAIN, "%s", answer_text(point, "name"));
    if (error[0] != '\0') {
        buffer_add_byte(&b, '-');
    } else {
        write_value(&b, point);
    }
    table_cell_take(table, good ? TONE_BOLD : TONE_BAD, &b);
    table_cell(table, TONE_PLAIN, "%s", answer_text(point, "unit"));
    write_registers(&b, point);
    table_cell_take(table, TONE_PLAIN, &b);
    buffer_add_text(&b, answer_text(point, "source"));
    if (answer_text(point, "order")[0] != '\0') {
        buffer_printf(&b, ", %s", answer_text(point, "order"));
    }
    table_cell_take(table, TONE_DIM, &b);
    table_cell(table, TONE_BAD, "%s",
               error[0] != '\0' ? error : (good ? "" : text_quality(quality)));
}

/* One register has no word order: two columns tell all. */
static void add_decodings(struct table *table, const char *type, const json_t *orders,
                          const char *const *names, size_t count)
{
    table_cell(table, TONE_PLAIN, "%s", type);
    for (size_t i = 0; i < count; i++) {
        auto_buffer struct buffer b = {0};
        const json_t *value = json_object_get(orders, names[i]);
        if (json_is_real(value)) {
            buffer_printf(&b, "%.7g", json_real_value(value));
        } else {
            points_write_value(&b, value);
        }
        table_cell_take(table, TONE_PLAIN, &b);
    }
}

/* Every type of that width in every byte order. */
static void print_decodings(json_t *point)
{
    static const char *const names[] = {"ABCD", "BADC", "CDAB", "DCBA"};
    const char *type;
    json_t *orders, *decodings = json_object_get(point, "decodings");
    if (json_object_size(decodings) == 0) {
        return;
    }
    bool single = json_array_size(json_object_get(point, "registers")) == 1;
    auto_buffer struct buffer words = {0};
    write_registers(&words, point);
    printf("\n%s%s%s  %s\n", tone_code(TONE_BOLD), answer_text(point, "name"),
           tone_code(TONE_PLAIN), buffer_text(&words));
    auto_table struct table table;
    table_begin(&table, single ? "AS|>ABCD|>BADC" : "AS|>ABCD|>BADC|>CDAB|>DCBA");
    table.indent = 2;
    json_object_foreach(decodings, type, orders)
    {
        add_decodings(&table, type, orders, names, single ? 2 : 4);
    }
    table_print(&table, stdout);
}

static int show(json_t *answer, bool decodings)
{
    json_t *points = json_object_get(answer, "points"), *point;
    int status = COMMAND_GOOD;
    size_t i;
    auto_table struct table table;
    table_begin(&table, "POINT|>VALUE|UNIT|REGISTERS|SOURCE|");
    json_array_foreach(points, i, point)
    {
        add_row(&table, point);
        status = is_good(point) ? status : COMMAND_NOT_WELL;
    }
    table_print(&table, stdout);
    json_array_foreach(points, i, point)
    {
        if (decodings) {
            print_decodings(point);
        }
    }
    return status;
}

static int run_read(int argc, char **argv);

const struct command command_read = {
    .name = "read",
    .arguments = "DEVICE [POINT...]",
    .summary = "reads a device now: raw registers beside every decoding",
    .help = "  The question goes between two polls over the connection that the gateway has.\n"
            "  --all           every decoding of all points (of named points always)\n"
            "  --timeout SPAN  how long to wait for the device (5 s)\n",
    .run = run_read,
};

static json_t *make_question(const struct cli *cli, int64_t timeout_ms)
{
    json_t *question = json_pack("{s:s, s:I}", "device", cli->words[0], "timeout_ms",
                                 (json_int_t)timeout_ms);
    if (question != NULL && cli->count > 1) {
        json_t *points = json_array();
        for (int i = 1; i < cli->count; i++) {
            json_array_append_new(points, json_string(cli->words[i]));
        }
        json_object_set_new(question, "points", points);
    }
    return question;
}

static int run_read(int argc, char **argv)
{
    struct cli cli;
    bool all = false;
    const char *timeout = NULL;
    int64_t timeout_ms = 5000;
    const struct cli_option own[] = {{.name = "--all", .flag = &all},
                                     {.name = "--timeout", .value = &timeout}};
    int r = cli_parse(&command_read, argc, argv, own, ARRAY_SIZE(own), 1, -1, &cli);
    if (r != CLI_GO) {
        return r;
    }
    if (timeout != NULL &&
        (query_parse_span(timeout, &timeout_ms) < 0 || timeout_ms < 100 || timeout_ms > 30000)) {
        return cli_usage_error(&command_read, "--timeout '%s' is no span of 100 ms to 30 s",
                               timeout);
    }
    struct client client;
    client_find(&cli, &client);
    json_t *question = make_question(&cli, timeout_ms), *answer = NULL;
    r = client_ask(&client, "/v1/read", question, &answer);
    json_decref(question);
    if (r < 0) {
        int status = client_complain(&command_read, &cli, &client, r, answer);
        if (r == -EREMOTEIO && !cli.json) {
            fprintf(stderr, "`windrow devices %s` says how it has been.\n", cli.words[0]);
        }
        return status;
    }
    int status = COMMAND_GOOD;
    if (cli.json) {
        answer_print(json_incref(answer));
    } else {
        status = show(answer, all || cli.count > 1);
    }
    json_decref(answer);
    return status;
}
