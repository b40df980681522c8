#include "gateway/api/history.h"

#include "gateway/api/query.h"
#include "gateway/base/clock.h"
#include "gateway/cli/offline.h"
#include "gateway/cli/points.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

enum { SPARK_MAX = 60, ROWS_MAX = 12 };

static int run_history(int argc, char **argv);

const struct command command_history = {
    .name = "history",
    .arguments = "DEVICE.POINT",
    .summary = "values from the local store; works with the daemon stopped",
    .help = "  --last SPAN     how far back from now: 1h (default), 90 min, 7 d\n"
            "  --from TIME     2026-01-31 10:30, 2026-01-31T10:30:00Z, -2h (all UTC)\n"
            "  --to TIME       until before then (now)\n"
            "  --bin SPAN      a line with mean, minimum and maximum for each span\n"
            "  --csv           every reading: time,value,quality (with --bin: every bin)\n",
    .run = run_history,
};

struct options {
    const char *last, *from, *to, *bin;
    bool csv;
};

/* The smallest handy span of which at most SPARK_MAX cover the whole. */
static int64_t handy_bin(int64_t span_ms)
{
    static const int64_t bins_s[] = {1,   2,    5,    10,    15,    30,    60,    120,   300,
                                     600, 1800, 3600, 10800, 21600, 43200, 86400, 604800};
    size_t i = 0;
    while (i + 1 < ARRAY_SIZE(bins_s) && span_ms / 1000 / bins_s[i] > SPARK_MAX) {
        i++;
    }
    return bins_s[i] * 1000;
}

static int make_query(const struct cli *cli, const struct options *options,
                      struct history_query *query)
{
    int64_t now_ms = clock_wall_ms(), last_ms = 3600 * 1000;
    *query = (struct history_query){.to_ms = now_ms};
    if (strlen(cli->words[0]) >= sizeof query->point || strchr(cli->words[0], '.') == NULL) {
        return cli_usage_error(&command_history, "'%s' is not DEVICE.POINT", cli->words[0]);
    }
    snprintf(query->point, sizeof query->point, "%s", cli->words[0]);
    if (options->to != NULL && query_parse_time(options->to, now_ms, &query->to_ms) < 0) {
        return cli_usage_error(&command_history, "--to '%s' is no time", options->to);
    }
    if (options->last != NULL && query_parse_span(options->last, &last_ms) < 0) {
        return cli_usage_error(&command_history, "--last '%s' is no span: 30 min, 1h, 7 d",
                               options->last);
    }
    query->from_ms = query->to_ms - last_ms;
    if (options->from != NULL && query_parse_time(options->from, now_ms, &query->from_ms) < 0) {
        return cli_usage_error(&command_history, "--from '%s' is no time", options->from);
    }
    if (options->bin != NULL && query_parse_span(options->bin, &query->bin_ms) < 0) {
        return cli_usage_error(&command_history, "--bin '%s' is no span: 10 s, 10 min",
                               options->bin);
    }
    if (query->from_ms >= query->to_ms) {
        return cli_usage_error(&command_history, "the time ends before it begins");
    }
    if (query->bin_ms == 0 && !options->csv && !cli->json) {
        query->bin_ms = handy_bin(query->to_ms - query->from_ms);
    }
    return CLI_GO;
}

static int write_from_store(struct store *store, const struct client *client, void *user,
                            struct buffer *out, const char **ret_why)
{
    (void)client;
    return history_write(store, user, NULL, out, ret_why);
}

static json_t *ask(const struct cli *cli, struct history_query *query, int *ret_status)
{
    auto_buffer struct buffer path = {0};
    char number[24];
    buffer_add_text(&path, "/v1/history");
    client_add_param(&path, "point", query->point);
    snprintf(number, sizeof number, "%" PRId64, query->from_ms);
    client_add_param(&path, "from", number);
    snprintf(number, sizeof number, "%" PRId64, query->to_ms);
    client_add_param(&path, "to", number);
    if (query->bin_ms > 0) {
        snprintf(number, sizeof number, "%" PRId64 "ms", query->bin_ms);
        client_add_param(&path, "bin", number);
    }
    return offline_ask(&command_history, cli, buffer_text(&path), write_from_store, query,
                       ret_status);
}

/* Some bins as one. */
struct group {
    int64_t time_ms;
    double sum, min, max;
    int64_t count, bad;
};

static void group_add(struct group *group, const json_t *bin)
{
    int64_t count = answer_int(bin, "count");
    group->bad += answer_int(bin, "bad");
    if (count > 0) {
        group->sum += answer_real(bin, "mean") * (double)count;
        group->min = fmin(group->min, answer_real(bin, "min"));
        group->max = fmax(group->max, answer_real(bin, "max"));
        group->count += count;
    }
}

static void add_number(struct table *table, bool known, double value)
{
    if (known) {
        table_cell(table, TONE_PLAIN, "%.6g", value);
    } else {
        table_cell(table, TONE_DIM, "-");
    }
}

static void add_group(struct table *table, const struct group *group)
{
    char time[CLOCK_TEXT_SIZE];
    bool known = group->count > 0;
    clock_format_utc(group->time_ms, time);
    time[10] = ' ';
    table_cell(table, TONE_PLAIN, "%.19s", time);
    add_number(table, known, group->sum / (double)group->count);
    add_number(table, known, group->min);
    add_number(table, known, group->max);
    table_cell(table, TONE_PLAIN, "%" PRId64, group->count);
    table_cell(table, group->bad > 0 ? TONE_BAD : TONE_DIM, "%" PRId64, group->bad);
}

/* A row for each bin, or for each so many bins that ROWS_MAX are enough. */
static void print_rows(const json_t *bins, int64_t bin_ms, const struct history_query *query,
                       bool all)
{
    int64_t count = (query->to_ms - query->from_ms) / bin_ms + 1;
    int64_t row_ms = bin_ms * (all ? 1 : (count + ROWS_MAX - 1) / ROWS_MAX);
    struct group group = {0};
    size_t i;
    const json_t *bin;
    auto_table struct table table;
    table_begin(&table, "TIME (UTC)|>MEAN|>MINIMUM|>MAXIMUM|>READINGS|>BAD");
    json_array_foreach(bins, i, bin)
    {
        int64_t time_ms = answer_time(bin, "time");
        if (i == 0 || time_ms >= group.time_ms + row_ms || time_ms < group.time_ms) {
            if (i > 0) {
                add_group(&table, &group);
            }
            group = (struct group){.time_ms = time_ms, .min = INFINITY, .max = -INFINITY};
        }
        group_add(&group, bin);
    }
    if (json_array_size(bins) > 0) {
        add_group(&table, &group);
    }
    table_print(&table, stdout);
}

static void print_sparkline(const json_t *bins, int64_t bin_ms, const struct history_query *query)
{
    double values[SPARK_MAX + 2];
    size_t count = (size_t)((query->to_ms - query->from_ms) / bin_ms + 1), i;
    count = count < ARRAY_SIZE(values) ? count : ARRAY_SIZE(values);
    for (i = 0; i < count; i++) {
        values[i] = NAN;
    }
    int64_t first_ms = query->from_ms - query->from_ms % bin_ms;
    const json_t *bin;
    json_array_foreach(bins, i, bin)
    {
        int64_t at = (answer_time(bin, "time") - first_ms) / bin_ms;
        if (at >= 0 && (size_t)at < count) {
            values[at] = answer_real(bin, "mean");
        }
    }
    auto_buffer struct buffer line = {0}, span = {0};
    text_sparkline(&line, values, count);
    text_span(&span, bin_ms / 1000);
    printf("%s%s%s  (%s each)\n", tone_code(TONE_BOLD), buffer_text(&line), tone_code(TONE_PLAIN),
           buffer_text(&span));
}

static int show(const json_t *answer, const struct history_query *query, bool all)
{
    const json_t *bins = json_object_get(answer, "bins"), *bin;
    struct group whole = {.min = INFINITY, .max = -INFINITY};
    size_t i;
    json_array_foreach(bins, i, bin)
    {
        group_add(&whole, bin);
    }
    const char *unit = answer_text(answer, "unit");
    if (whole.count + whole.bad == 0) {
        printf("%s: no readings in that time.\n", query->point);
        return COMMAND_NOT_WELL;
    }
    if (whole.count == 0) {
        printf("%s: %" PRId64 " readings, none of them a number.\n", query->point, whole.bad);
        return COMMAND_NOT_WELL;
    }
    printf("%s  mean %.6g, minimum %.6g, maximum %.6g %s; %" PRId64 " readings, %" PRId64 " bad\n",
           query->point, whole.sum / (double)whole.count, whole.min, whole.max, unit, whole.count,
           whole.bad);
    if ((query->to_ms - query->from_ms) / query->bin_ms <= SPARK_MAX + 1) {
        print_sparkline(bins, query->bin_ms, query);
    }
    print_rows(bins, query->bin_ms, query, all);
    return COMMAND_GOOD;
}

static void print_csv_cell(const json_t *object, const char *key)
{
    auto_buffer struct buffer b = {0};
    const json_t *value = json_object_get(object, key);
    if (json_is_string(value)) {
        /* RFC 4180: quoted, quotes doubled. */
        putchar('"');
        for (const char *at = json_string_value(value); *at != '\0'; at++) {
            printf(*at == '"' ? "\"\"" : "%c", *at);
        }
        putchar('"');
    } else if (!json_is_null(value)) {
        points_write_value(&b, value);
        fputs(buffer_text(&b), stdout);
    }
}

static void print_csv(const json_t *answer, bool first)
{
    static const char *const of_bins[] = {"mean", "min", "max", "count", "bad"};
    const json_t *bins = json_object_get(answer, "bins"), *row;
    size_t i;
    if (first) {
        puts(bins != NULL ? "time,mean,min,max,count,bad" : "time,value,quality");
    }
    json_array_foreach(bins, i, row)
    {
        fputs(answer_text(row, "time"), stdout);
        for (size_t k = 0; k < ARRAY_SIZE(of_bins); k++) {
            putchar(',');
            print_csv_cell(row, of_bins[k]);
        }
        putchar('\n');
    }
    json_array_foreach(json_object_get(answer, "readings"), i, row)
    {
        const char *quality = answer_text(row, "quality");
        printf("%s,", answer_text(row, "time"));
        print_csv_cell(row, "value");
        printf(",%s\n", quality[0] != '\0' ? quality : "good");
    }
}

/* An answer is bounded: a long time is asked for in several. */
static int run_csv(const struct cli *cli, struct history_query *query)
{
    for (bool first = true, more = true; more; first = false) {
        int status;
        json_t *answer = ask(cli, query, &status);
        if (answer == NULL) {
            return status;
        }
        print_csv(answer, first);
        const json_t *rows = json_object_get(answer, query->bin_ms > 0 ? "bins" : "readings");
        const json_t *last = json_array_get(rows, json_array_size(rows) - 1);
        int64_t next_ms = answer_time(last, "time") + (query->bin_ms > 0 ? query->bin_ms : 1);
        more = json_is_true(json_object_get(answer, "truncated")) && next_ms > query->from_ms;
        query->from_ms = next_ms;
        json_decref(answer);
    }
    return COMMAND_GOOD;
}

static int run_history(int argc, char **argv)
{
    struct cli cli;
    struct options options = {0};
    const struct cli_option own[] = {
        {.name = "--last", .value = &options.last}, {.name = "--from", .value = &options.from},
        {.name = "--to", .value = &options.to},     {.name = "--bin", .value = &options.bin},
        {.name = "--csv", .flag = &options.csv},
    };
    int r = cli_parse(&command_history, argc, argv, own, ARRAY_SIZE(own), 1, 1, &cli);
    struct history_query query;
    r = r == CLI_GO ? make_query(&cli, &options, &query) : r;
    if (r != CLI_GO) {
        return r;
    }
    if (options.csv) {
        return run_csv(&cli, &query);
    }
    int status;
    json_t *answer = ask(&cli, &query, &status);
    if (answer == NULL) {
        return status;
    }
    status = COMMAND_GOOD;
    if (cli.json) {
        answer_print(json_incref(answer));
    } else {
        status = show(answer, &query, options.bin != NULL);
    }
    json_decref(answer);
    return status;
}
