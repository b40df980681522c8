#include "gateway/cli/export.h"

#include "gateway/api/amend.h"
#include "gateway/api/query.h"
#include "gateway/base/clock.h"
#include "gateway/cli/offline.h"
#include "gateway/cli/writer.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

static int run_export(int argc, char **argv);

const struct command command_export = {
    .name = "export",
    .arguments = "[UPLINK]",
    .summary = "what waits for an uplink, or of a time, as lines in a file",
    .help = "  --out FILE      durable under its name, with FILE.sha256; otherwise stdout\n"
            "  --mark-delivered  what is in the file counts as delivered to that uplink\n"
            "  --from TIME     2026-01-31 10:30, 2026-01-31T10:30:00Z, -2h (all UTC)\n"
            "  --to TIME       until before then\n"
            "  --device D      only of devices that fit this pattern: t0*\n"
            "  --format F      ndjson or csv (ndjson)\n"
            "  With the gateway running or not. Without an uplink: what was stored in that time.\n",
    .run = run_export,
};

struct options {
    const char *out, *from, *to, *device, *format;
    bool mark;
};

/* Adds up what several requests did. */
static void add_answer(struct store_handover *total, const json_t *answer)
{
    total->scans += (uint64_t)answer_int(answer, "scans");
    total->readings += (uint64_t)answer_int(answer, "readings");
    total->before += (uint64_t)answer_int(answer, "before");
    total->open += (uint64_t)answer_int(answer, "open");
}

static json_t *runs_json(const struct store_handed *runs, size_t count)
{
    json_t *list = json_array();
    for (size_t i = 0; i < count; i++) {
        json_array_append_new(
            list, json_pack("[I,I,I,I,I,I]", (json_int_t)runs[i].stream, (json_int_t)runs[i].device,
                            (json_int_t)runs[i].first_seq, (json_int_t)runs[i].last_seq,
                            (json_int_t)runs[i].readings, (json_int_t)runs[i].selected));
    }
    return list;
}

/* By the daemon, some runs a request: each is all or nothing, and may be asked for again. */
static int mark_by_daemon(const struct client *client, const char *uplink,
                          const struct exported *done, struct store_handover *total,
                          json_t **ret_answer)
{
    for (size_t at = 0; at < done->run_count || at == 0;) {
        size_t left = done->run_count - at;
        size_t count = left < AMEND_RUNS_MAX ? left : AMEND_RUNS_MAX;
        json_t *body = json_pack("{s:s, s:s, s:o}", "store", done->store, "uplink", uplink, "runs",
                                 runs_json(done->runs + at, count));
        int r = client_ask(client, "/v1/delivered", body, ret_answer);
        json_decref(body);
        if (r < 0) {
            return r;
        }
        add_answer(total, *ret_answer);
        json_decref(*ret_answer);
        *ret_answer = NULL;
        at += count > 0 ? count : 1;
    }
    return 0;
}

static int mark_by_ourselves(const struct cli *cli, const char *uplink, const struct exported *done,
                             struct store_handover *total)
{
    struct store *store = writer_open(&command_export, cli);
    if (store == NULL) {
        return COMMAND_NOT_WELL;
    }
    int r = strcmp(store_id(store), done->store) != 0
                ? -ESTALE
                : store_hand_over(store, uplink, done->runs, done->run_count, total);
    r = r < 0 ? r : store_commit(store);
    store_close(store);
    if (r < 0) {
        fprintf(stderr, "windrow export: the file is whole, but nothing is marked: %s\n",
                strerror(-r));
    }
    return r < 0 ? COMMAND_NOT_WELL : COMMAND_GOOD;
}

/* The file is durable by now. */
static int mark(const struct cli *cli, const char *uplink, const struct exported *done,
                struct store_handover *total)
{
    struct client client;
    json_t *answer = NULL;
    client_find(cli, &client);
    int r = mark_by_daemon(&client, uplink, done, total, &answer);
    if (client_is_down(r)) {
        return mark_by_ourselves(cli, uplink, done, total);
    }
    if (r < 0) {
        fprintf(stderr, "windrow export: the file is whole, but not all of it is marked:\n");
        return client_complain(&command_export, cli, &client, r, answer);
    }
    return COMMAND_GOOD;
}

static void say(const struct cli *cli, const struct options *options, const struct exported *done,
                const char *sum, const struct store_handover *marked)
{
    if (cli->json) {
        json_t *object = json_pack("{s:s, s:I, s:I, s:s, s:s}", "file", options->out, "scans",
                                   (json_int_t)done->scans, "readings", (json_int_t)done->readings,
                                   "sha256", sum, "store", done->store);
        if (done->held_scans > 0) {
            json_object_set_new(object, "held",
                                json_pack("{s:I, s:I}", "scans", (json_int_t)done->held_scans,
                                          "readings", (json_int_t)done->held_readings));
        }
        if (options->mark) {
            json_object_set_new(
                object, "marked",
                json_pack("{s:I, s:I, s:I, s:I}", "scans", (json_int_t)marked->scans, "readings",
                          (json_int_t)marked->readings, "before", (json_int_t)marked->before,
                          "open", (json_int_t)marked->open));
        }
        answer_print(object);
        return;
    }
    printf("%s: %" PRIu64 " readings of %" PRIu64 " scans; its sum is in %s.sha256\n", options->out,
           done->readings, done->scans, options->out);
    if (done->held_scans > 0) {
        printf("%" PRIu64 " readings of %" PRIu64
               " scans are not in it and stay waiting: the clock "
               "is not synchronised, their time is not known yet\n",
               done->held_readings, done->held_scans);
    }
    if (options->mark) {
        printf("%" PRIu64 " readings now count as delivered%s\n", marked->readings,
               marked->before > 0 ? "; others were delivered meanwhile" : "");
    }
    if (marked->open > 0) {
        printf("%" PRIu64 " scans stay waiting, there are too many gaps between them: export them "
               "again later\n",
               marked->open);
    }
}

static int write_file(const struct cli *cli, const struct export_wish *wish,
                      const struct options *options, struct exported *done, char sum[65])
{
    struct client client;
    client_find(cli, &client);
    struct store *store = offline_open(&command_export, cli, &client);
    struct outfile *out = store != NULL ? outfile_open("export", options->out) : NULL;
    if (out == NULL) {
        store_close(store);
        return -EIO;
    }
    int r = export_write(store, wish, out, done);
    store_close(store);
    if (r < 0) {
        fprintf(stderr, "windrow export: %s\n",
                r == -ENOENT ? "the store knows no such uplink: has the gateway run with it?"
                             : strerror(-r));
        outfile_abandon(out);
        return r;
    }
    return outfile_finish(out, true, sum);
}

static int export(const struct cli *cli, const struct export_wish *wish,
                  const struct options *options)
{
    struct exported done = {.scans = 0};
    struct store_handover marked = {0};
    char sum[65];
    int status = write_file(cli, wish, options, &done, sum) < 0 ? COMMAND_NOT_WELL : COMMAND_GOOD;
    if (status == COMMAND_GOOD && options->mark && wish->uplink != NULL) {
        status = mark(cli, wish->uplink->name, &done, &marked);
    }
    if (status == COMMAND_GOOD && options->out != NULL) {
        say(cli, options, &done, sum, &marked);
    }
    free(done.runs);
    return marked.open > 0 ? COMMAND_NOT_WELL : status;
}

static int check_options(const struct cli *cli, const struct options *options)
{
    bool known = options->format == NULL || strcmp(options->format, "csv") == 0 ||
                 strcmp(options->format, "ndjson") == 0;
    if (!known) {
        return cli_usage_error(&command_export, "--format is ndjson or csv");
    }
    if (options->mark && (cli->count == 0 || options->out == NULL)) {
        return cli_usage_error(&command_export, "--mark-delivered needs %s",
                               cli->count == 0 ? "the name of an uplink" : "--out FILE");
    }
    if (cli->count == 0 && options->from == NULL && options->to == NULL) {
        return cli_usage_error(&command_export,
                               "an UPLINK, or a time by --from or --to, is needed");
    }
    return CLI_GO;
}

static int take_times(const struct options *options, struct export_wish *wish)
{
    int64_t now_ms = clock_wall_ms();
    wish->from_ms = INT64_MIN;
    wish->to_ms = INT64_MAX;
    if (options->from != NULL && query_parse_time(options->from, now_ms, &wish->from_ms) < 0) {
        return cli_usage_error(&command_export, "--from '%s' is no time", options->from);
    }
    if (options->to != NULL && query_parse_time(options->to, now_ms, &wish->to_ms) < 0) {
        return cli_usage_error(&command_export, "--to '%s' is no time", options->to);
    }
    return wish->from_ms < wish->to_ms
               ? CLI_GO
               : cli_usage_error(&command_export, "the time ends before it begins");
}

static int with_config(const struct cli *cli, const struct options *options,
                       struct export_wish *wish)
{
    struct config_errors *errors = config_errors_create();
    const struct config *config = NULL;
    int status = COMMAND_USAGE;
    if (errors == NULL || config_load(cli->config_path, errors, &config) < 0) {
        fprintf(stderr, "windrow export: %s has errors: windrow check shows them\n",
                cli->config_path);
    } else {
        wish->gateway = config->gateway->name;
        wish->uplink = cli->count > 0 ? config_find_uplink(config, cli->words[0]) : NULL;
        status = cli->count > 0 && wish->uplink == NULL
                     ? cli_usage_error(&command_export, "there is no [uplink %s] in %s",
                                       cli->words[0], cli->config_path)
                     : export(cli, wish, options);
    }
    config_unref(config);
    config_errors_destroy(errors);
    return status;
}

static int run_export(int argc, char **argv)
{
    struct options options = {.out = NULL};
    const struct cli_option own[] = {
        {.name = "--out", .value = &options.out},
        {.name = "--from", .value = &options.from},
        {.name = "--to", .value = &options.to},
        {.name = "--device", .value = &options.device},
        {.name = "--format", .value = &options.format},
        {.name = "--mark-delivered", .flag = &options.mark},
    };
    struct cli cli;
    struct export_wish wish = {.device = NULL};
    int r = cli_parse(&command_export, argc, argv, own, ARRAY_SIZE(own), 0, 1, &cli);
    r = r == CLI_GO ? check_options(&cli, &options) : r;
    r = r == CLI_GO ? take_times(&options, &wish) : r;
    if (r != CLI_GO) {
        return r;
    }
    wish.device = options.device;
    wish.csv = options.format != NULL && strcmp(options.format, "csv") == 0;
    return with_config(&cli, &options, &wish);
}
