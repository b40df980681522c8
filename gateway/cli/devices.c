#include "gateway/cli/client.h"
#include "gateway/cli/text.h"

#include <inttypes.h>
#include <math.h>
#include <stdarg.h>
#include <string.h>

static enum tone tone_of(const char *state)
{
    return strcmp(state, "good") == 0       ? TONE_GOOD
           : strcmp(state, "starting") == 0 ? TONE_DIM
           : strcmp(state, "dead") == 0     ? TONE_BAD
                                            : TONE_WARN;
}

/* "timeout 12, connect 3" */
static void write_errors(struct buffer *b, const json_t *device)
{
    const char *kind;
    json_t *count;
    json_object_foreach(json_object_get(device, "errors"), kind, count)
    {
        buffer_printf(b, "%s%s %" JSON_INTEGER_FORMAT, b->len > 0 ? ", " : "", kind,
                      json_integer_value(count));
    }
}

static void add_row(struct table *table, const json_t *device, int64_t now_ms)
{
    auto_buffer struct buffer b = {0};
    const char *state = answer_text(device, "state");
    double rtt_ms = answer_real(device, "rtt_ms");
    table_cell(table, TONE_PLAIN, "%s", answer_text(device, "name"));
    table_cell(table, tone_of(state), "%s", state);
    text_age(&b, now_ms, answer_time(device, "last_good"));
    table_cell_take(table, TONE_PLAIN, &b);
    if (isnan(rtt_ms)) {
        table_cell(table, TONE_PLAIN, "-");
    } else {
        table_cell(table, TONE_PLAIN, rtt_ms < 10 ? "%.1f ms" : "%.0f ms", rtt_ms);
    }
    text_count(&b, (uint64_t)answer_int(device, "polls"));
    table_cell_take(table, TONE_PLAIN, &b);
    uint64_t failures = (uint64_t)answer_int(device, "failures");
    text_count(&b, failures);
    table_cell_take(table, failures > 0 ? TONE_WARN : TONE_PLAIN, &b);
    write_errors(&b, device);
    table_cell_take(table, TONE_PLAIN, &b);
}

static void show_list(const json_t *answer)
{
    const json_t *devices = json_object_get(answer, "devices"), *device;
    size_t i;
    if (json_array_size(devices) == 0) {
        puts("There are no devices: add a [device NAME] section and `windrow reload`.");
        return;
    }
    auto_table struct table table;
    table_begin(&table, "DEVICE|STATE|>LAST GOOD|>ROUND TRIP|>POLLS|>FAILED|ERRORS");
    json_array_foreach(devices, i, device)
    {
        add_row(&table, device, answer_time(answer, "time"));
    }
    table_print(&table, stdout);
}

static void line(const char *title, const char *format, ...) __attribute__((format(printf, 2, 3)));

static void line(const char *title, const char *format, ...)
{
    printf("%s%-12s%s", tone_code(TONE_DIM), title, tone_code(TONE_PLAIN));
    va_list args;
    va_start(args, format);
    vprintf(format, args);
    va_end(args);
    putchar('\n');
}

static void show_errors(const json_t *device)
{
    auto_buffer struct buffer b = {0};
    write_errors(&b, device);
    line("errors", "%s", b.len > 0 ? buffer_text(&b) : "none");
    buffer_clear(&b);
    text_clean(&b, answer_text(device, "last_error"));
    if (b.len > 0) {
        line("last error", "%s", buffer_text(&b));
    }
}

static void show_one(const json_t *answer)
{
    const json_t *device = json_array_get(json_object_get(answer, "devices"), 0);
    const char *state = answer_text(device, "state");
    auto_buffer struct buffer b = {0};
    line("device", "%s%s%s", tone_code(TONE_BOLD), answer_text(device, "name"),
         tone_code(TONE_PLAIN));
    line("state", "%s%s%s", tone_code(tone_of(state)), state, tone_code(TONE_PLAIN));
    line("driver", "%s%s%s", answer_text(device, "driver"),
         answer_text(device, "profile")[0] != '\0' ? ", profile " : "",
         answer_text(device, "profile"));
    line("points", "%" PRId64 ", every %g s", answer_int(device, "points"),
         (double)answer_int(device, "poll_ms") / 1e3);
    text_age(&b, answer_time(answer, "time"), answer_time(device, "last_good"));
    line("last good", "%s", buffer_text(&b));
    if (!isnan(answer_real(device, "rtt_ms"))) {
        line("round trip", "%.1f ms", answer_real(device, "rtt_ms"));
    }
    line("lateness", "%.1f ms at most", answer_real(device, "late_ms_max"));
    buffer_clear(&b);
    text_count(&b, (uint64_t)answer_int(device, "polls"));
    buffer_add_text(&b, ", ");
    text_count(&b, (uint64_t)answer_int(device, "failures"));
    line("polls", "%s failed", buffer_text(&b));
    show_errors(device);
}

static int verdict(const json_t *answer)
{
    size_t i;
    const json_t *device;
    json_array_foreach(json_object_get(answer, "devices"), i, device)
    {
        enum tone tone = tone_of(answer_text(device, "state"));
        if (tone == TONE_BAD || tone == TONE_WARN) {
            return COMMAND_NOT_WELL;
        }
    }
    return COMMAND_GOOD;
}

static int run_devices(int argc, char **argv);

const struct command command_devices = {
    .name = "devices",
    .arguments = "[DEVICE]",
    .summary = "state, last good reading, round trip and errors of each device",
    .help = "",
    .run = run_devices,
};

static int run_devices(int argc, char **argv)
{
    struct cli cli;
    int r = cli_parse(&command_devices, argc, argv, NULL, 0, 0, 1, &cli);
    if (r != CLI_GO) {
        return r;
    }
    auto_buffer struct buffer path = {0};
    buffer_add_text(&path, "/v1/devices");
    if (cli.count > 0) {
        client_add_param(&path, "device", cli.words[0]);
    }
    return client_show(&command_devices, &cli, buffer_text(&path),
                       cli.count > 0 ? show_one : show_list, verdict);
}
