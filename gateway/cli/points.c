#include "gateway/cli/points.h"

#include "gateway/cli/client.h"

#include <string.h>

/* A number as it came, true and false, a text, or a dash. */
void points_write_value(struct buffer *b, const json_t *value)
{
    if (json_is_string(value)) {
        text_clean(b, json_string_value(value));
    } else if (json_is_boolean(value)) {
        buffer_add_text(b, json_is_true(value) ? "yes" : "no");
    } else if (json_is_integer(value)) {
        buffer_printf(b, "%" JSON_INTEGER_FORMAT, json_integer_value(value));
    } else if (json_is_real(value)) {
        decimal_write_double(b, json_real_value(value));
    } else {
        buffer_add_text(b, "-");
    }
}

/* Older than this, a value is no longer news. */
enum { STALE_MS = 60 * 1000 };

void points_add_row(struct table *table, const json_t *point, int64_t now_ms)
{
    auto_buffer struct buffer b = {0};
    const char *quality = answer_text(point, "quality");
    int64_t time_ms = answer_time(point, "time");
    bool good = strcmp(quality, "good") == 0;
    enum tone tone = quality[0] == '\0'                  ? TONE_DIM
                     : good                              ? TONE_GOOD
                     : strcmp(quality, "uncertain") == 0 ? TONE_WARN
                                                         : TONE_BAD;
    table_cell(table, TONE_PLAIN, "%s.%s", answer_text(point, "device"),
               answer_text(point, "point"));
    points_write_value(&b, json_object_get(point, "value"));
    table_cell_take(table, good ? TONE_BOLD : tone, &b);
    table_cell(table, TONE_PLAIN, "%s", answer_text(point, "unit"));
    text_age(&b, now_ms, time_ms);
    table_cell_take(table, time_ms != 0 && now_ms - time_ms > STALE_MS ? TONE_WARN : TONE_PLAIN,
                    &b);
    table_cell(table, tone, "%s", quality[0] == '\0' ? "no value yet" : text_quality(quality));
}

void points_print(const json_t *answer)
{
    const json_t *point;
    size_t i;
    auto_table struct table table;
    table_begin(&table, "POINT|>VALUE|UNIT|>AGE|QUALITY");
    json_array_foreach(json_object_get(answer, "points"), i, point)
    {
        points_add_row(&table, point, answer_time(answer, "time"));
    }
    table_print(&table, stdout);
}

static void show(const json_t *answer)
{
    if (json_array_size(json_object_get(answer, "points")) == 0) {
        puts("No point has that name. `windrow points` lists all, `windrow devices` the devices.");
        return;
    }
    points_print(answer);
}

/* Not well: nothing fits, or a value is bad. */
static int verdict(const json_t *answer)
{
    const json_t *points = json_object_get(answer, "points"), *point;
    size_t i;
    json_array_foreach(points, i, point)
    {
        if (strncmp(answer_text(point, "quality"), "bad:", 4) == 0) {
            return COMMAND_NOT_WELL;
        }
    }
    return json_array_size(points) > 0 ? COMMAND_GOOD : COMMAND_NOT_WELL;
}

static int run_points(int argc, char **argv);

const struct command command_points = {
    .name = "points",
    .arguments = "[DEVICE | DEVICE.POINT]",
    .summary = "latest values with unit, age and quality",
    .help = "  '*' and '?' stand for any text and any character: windrow points 't*.power'\n",
    .run = run_points,
};

static int run_points(int argc, char **argv)
{
    struct cli cli;
    int r = cli_parse(&command_points, argc, argv, NULL, 0, 0, 1, &cli);
    if (r != CLI_GO) {
        return r;
    }
    auto_buffer struct buffer path = {0};
    buffer_add_text(&path, "/v1/points");
    if (cli.count > 0) {
        client_add_param(&path, "select", cli.words[0]);
    }
    return client_show(&command_points, &cli, buffer_text(&path), show, verdict);
}
