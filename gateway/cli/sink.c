#include "uplink/sink/sink.h"

#include "gateway/base/cleanup.h"
#include "gateway/cli/cli.h"

#include <errno.h>
#include <string.h>

static const char help[] =
    "  --listen IP:PORT       where to serve (127.0.0.1:8443); port 0 takes a free one. The first\n"
    "                         line on stdout is {\"listening\",\"port\"}, the last one the counts\n"
    "  --db FILE              SQLite: tables readings, repeats, conflicts, totals\n"
    "  --discard              keep nothing, only count\n"
    "  --cert FILE --key FILE the server's certificate chain and its key (PEM)\n"
    "  --tokens FILE          lines NAME read|write TOKEN; without it nobody is asked\n"
    "  --client-ca FILE       clients must show a certificate of this CA\n"
    "  --aws-key ID:SECRET    be Amazon Timestream, too: POST / signed by that key\n"
    "Resources: POST and GET /v1/readings, POST and GET /sensor, GET /v1/stats\n"
    "Faults, for tests of the sending side\n"
    "  --fail STATUS:COUNT    the first COUNT posts are answered with STATUS\n"
    "  --lose COUNT           the first COUNT posts are kept, but the answer is lost\n"
    "  --captive              answer everything with 200 and a login page\n"
    "  --delay MS             wait before every answer\n"
    "  --reject DEVICE:SEQ    that record is refused";

static int run(int argc, char **argv);

const struct command command_sink = {
    .name = "sink",
    .arguments = "",
    .summary = "the receiving end over TLS, for demo, tests and benchmarks",
    .help = help,
    .run = run,
};

static bool parse_number(const char *text, const char *end, int64_t least, int64_t most,
                         int64_t *ret_value)
{
    char *stop;
    errno = 0;
    long long value = strtoll(text, &stop, 10);
    if (stop == text || stop != end || errno != 0 || value < least || value > most) {
        return false;
    }
    *ret_value = value;
    return true;
}

static bool parse_count(const char *text, uint64_t *ret_count)
{
    int64_t value;
    if (!parse_number(text, text + strlen(text), 0, INT64_MAX, &value)) {
        return false;
    }
    *ret_count = (uint64_t)value;
    return true;
}

/* "503:10" */
static bool parse_fail(const char *text, struct sink_options *options)
{
    const char *colon = strchr(text, ':');
    int64_t status;
    if (colon == NULL || !parse_number(text, colon, 400, 599, &status)) {
        return false;
    }
    options->fail_status = (int)status;
    return parse_count(colon + 1, &options->fail_count);
}

/* "t01:17"; the device's name goes to `name`. */
static bool parse_reject(const char *text, char name[SINK_NAME_MAX + 1],
                         struct sink_options *options)
{
    const char *colon = strrchr(text, ':');
    if (colon == NULL || colon - text > SINK_NAME_MAX ||
        !parse_number(colon + 1, text + strlen(text), 1, INT64_MAX, &options->reject_seq)) {
        return false;
    }
    memcpy(name, text, (size_t)(colon - text));
    name[colon - text] = '\0';
    options->reject_device = name;
    return true;
}

struct faults {
    const char *fail, *lose, *delay, *reject;
};

static int parse_faults(const struct faults *faults, char reject[SINK_NAME_MAX + 1],
                        struct sink_options *options)
{
    if (faults->fail != NULL && !parse_fail(faults->fail, options)) {
        return cli_usage_error(&command_sink, "--fail is STATUS:COUNT, as 503:10");
    }
    if (faults->lose != NULL && !parse_count(faults->lose, &options->lose_count)) {
        return cli_usage_error(&command_sink, "--lose is a count");
    }
    if (faults->delay != NULL) {
        size_t digits = strspn(faults->delay, "0123456789");
        const char *unit = faults->delay + digits;
        unit += strspn(unit, " ");
        if ((*unit != '\0' && strcmp(unit, "ms") != 0) ||
            !parse_number(faults->delay, faults->delay + digits, 0, 3600000, &options->delay_ms)) {
            return cli_usage_error(&command_sink, "--delay is milliseconds, as 200ms");
        }
    }
    if (faults->reject != NULL && !parse_reject(faults->reject, reject, options)) {
        return cli_usage_error(&command_sink, "--reject is DEVICE:SEQ");
    }
    return CLI_GO;
}

static int run(int argc, char **argv)
{
    struct sink_options options = {.listen = "127.0.0.1:8443"};
    struct faults faults = {.fail = NULL};
    const struct cli_option table[] = {
        {.name = "--listen", .value = &options.listen},
        {.name = "--db", .value = &options.db},
        {.name = "--cert", .value = &options.cert},
        {.name = "--key", .value = &options.key},
        {.name = "--tokens", .value = &options.tokens},
        {.name = "--client-ca", .value = &options.client_ca},
        {.name = "--aws-key", .value = &options.aws_key},
        {.name = "--discard", .flag = &options.discard},
        {.name = "--fail", .value = &faults.fail},
        {.name = "--lose", .value = &faults.lose},
        {.name = "--captive", .flag = &options.captive},
        {.name = "--delay", .value = &faults.delay},
        {.name = "--reject", .value = &faults.reject},
    };
    struct cli cli;
    int r = cli_parse(&command_sink, argc, argv, table, ARRAY_SIZE(table), 0, 0, &cli);
    if (r != CLI_GO) {
        return r;
    }
    char reject[SINK_NAME_MAX + 1];
    r = parse_faults(&faults, reject, &options);
    if (r != CLI_GO) {
        return r;
    }
    if (options.cert == NULL || options.key == NULL) {
        return cli_usage_error(&command_sink, "--cert and --key are needed");
    }
    if ((options.db == NULL) != options.discard) {
        return cli_usage_error(&command_sink, "either --db FILE or --discard");
    }
    return sink_run(&options, stdout);
}
