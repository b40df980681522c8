#include "drivers/simulator/simulator.h"
#include "gateway/base/cleanup.h"
#include "gateway/cli/cli.h"

#include <errno.h>
#include <string.h>

static const char help[] =
    "  --turbines N           how many (1)\n"
    "  --listen IP:PORT       turbine i answers on port PORT+i-1 as unit 1 (127.0.0.1:5020); port "
    "0\n"
    "                         takes free ones. The first line on stdout is "
    "{\"listening\",\"port\"},\n"
    "                         the last one counts what was served\n"
    "  --coap IP:PORT         a met mast beside them: SenML over CoAP, observable, /senml and "
    "/temp\n"
    "  --psk ID:KEY           the mast speaks DTLS only, with this pre-shared key\n"
    "  --seed N               another seed, other values; the same seed, the same values (1)\n"
    "  --replay FILE.csv      serve its rows: numeric column k as int32 in holding 2k, 0.01 "
    "units,\n"
    "                         0x80000000 where a cell is empty; stays at the last row\n"
    "  --step poll|DURATION   values move on with each round of polls, or each DURATION (1 s)\n"
    "  --record FILE          a JSON line for every read that was answered\n"
    "  --print-profile        print the INI profile of the replayed file, or of --points N\n"
    "                         registers from holding 100 on (N up to 100, 20), and end\n"
    "  --fault NAME:I[-J],... turbine I is\n"
    "             dead        takes requests, never answers       absent  refuses connections\n"
    "             slow        answers after 2 s                   drip    a byte every 50 ms\n"
    "             illegal     exception 2 where holding 5 is read busy    exception 6 every other "
    "time\n"
    "             lying       wrong transaction, unit, byte count, function, protocol in turn\n"
    "             torn        every other answer is half          closing closes after each "
    "answer\n"
    "             flapping    5 s well, 5 s away";

static int run(int argc, char **argv);

const struct command command_simulate = {
    .name = "simulate",
    .arguments = "",
    .summary = "a site of Modbus TCP turbines and a CoAP mast, with faults",
    .help = help,
    .run = run,
};

static bool parse_number(const char *text, uint64_t least, uint64_t most, uint64_t *ret_value)
{
    char *stop;
    errno = 0;
    unsigned long long value = strtoull(text, &stop, 10);
    if (*text < '0' || *text > '9' || *stop != '\0' || errno != 0 || value < least ||
        value > most) {
        return false;
    }
    *ret_value = value;
    return true;
}

/* "poll", "100 ms", "1 s", "10 min" */
static bool parse_step(const char *text, struct simulator_options *options)
{
    static const struct {
        const char *unit;
        int64_t ms;
    } units[] = {{"ms", 1}, {"s", 1000}, {"min", 60000}};
    if (strcmp(text, "poll") == 0) {
        options->step_by_poll = true;
        return true;
    }
    char *unit;
    errno = 0;
    long long count = strtoll(text, &unit, 10);
    if (unit == text || errno != 0 || count < 1 || count > 1000000) {
        return false;
    }
    unit += strspn(unit, " ");
    for (size_t i = 0; i < ARRAY_SIZE(units); i++) {
        if (strcmp(unit, units[i].unit) == 0) {
            options->step_ms = count * units[i].ms;
            return true;
        }
    }
    return false;
}

struct words {
    const char *turbines, *seed, *step, *points;
};

static int parse_words(const struct words *words, struct simulator_options *options,
                       uint64_t *ret_points)
{
    uint64_t turbines = 1;
    if (words->turbines != NULL &&
        !parse_number(words->turbines, 1, SIMULATOR_TURBINES_MAX, &turbines)) {
        return cli_usage_error(&command_simulate, "--turbines is 1 to %d", SIMULATOR_TURBINES_MAX);
    }
    options->turbines = (unsigned)turbines;
    if (options->psk != NULL && options->coap == NULL) {
        return cli_usage_error(&command_simulate, "--psk needs --coap");
    }
    if (words->seed != NULL && !parse_number(words->seed, 0, UINT64_MAX, &options->seed)) {
        return cli_usage_error(&command_simulate, "--seed is a number");
    }
    if (words->step != NULL && !parse_step(words->step, options)) {
        return cli_usage_error(&command_simulate, "--step is poll or a duration, as 1 s");
    }
    if (words->points != NULL && !parse_number(words->points, 1, 100, ret_points)) {
        return cli_usage_error(&command_simulate, "--points is 1 to 100");
    }
    return CLI_GO;
}

static int run(int argc, char **argv)
{
    struct simulator_options options = {.listen = "127.0.0.1:5020", .seed = 1, .step_ms = 1000};
    struct words words = {.turbines = NULL};
    bool print_profile = false;
    uint64_t points = 20;
    const struct cli_option table[] = {
        {.name = "--turbines", .value = &words.turbines},
        {.name = "--listen", .value = &options.listen},
        {.name = "--coap", .value = &options.coap},
        {.name = "--psk", .value = &options.psk},
        {.name = "--seed", .value = &words.seed},
        {.name = "--replay", .value = &options.replay},
        {.name = "--step", .value = &words.step},
        {.name = "--record", .value = &options.record},
        {.name = "--fault", .value = &options.fault},
        {.name = "--points", .value = &words.points},
        {.name = "--print-profile", .flag = &print_profile},
    };
    struct cli cli;
    int r = cli_parse(&command_simulate, argc, argv, table, ARRAY_SIZE(table), 0, 0, &cli);
    if (r == CLI_GO) {
        r = parse_words(&words, &options, &points);
    }
    if (r != CLI_GO) {
        return r;
    }
    if (print_profile) {
        return simulator_print_profile(options.replay, (unsigned)points, stdout);
    }
    return simulator_run(&options, stdout);
}
