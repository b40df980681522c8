#include "gateway/api/query.h"
#include "gateway/cli/client.h"
#include "gateway/cli/text.h"

#include <string.h>
#include <sys/random.h>

static int run_write(int argc, char **argv);

const struct command command_write = {
    .name = "write",
    .arguments = "DEVICE POINT VALUE",
    .summary = "writes a writable point: checked, read back, logged",
    .help = "  Only points with `writable MIN MAX`, and only with [gateway] allow_writes = yes.\n"
            "  --timeout SPAN  a write that has not begun by then is refused (5 s)\n"
            "  --id ID         the command's id: the same one is never executed twice, a repeat\n"
            "                  is answered with what became of it (default: a new one)\n",
    .run = run_write,
};

/* The value as the daemon takes it: its digits as they stand here. */
static json_t *make_question(const struct cli *cli, const char *id, int64_t timeout_ms)
{
    const char *value = cli->words[2];
    bool on = strcmp(value, "on") == 0 || strcmp(value, "true") == 0;
    bool off = strcmp(value, "off") == 0 || strcmp(value, "false") == 0;
    return json_pack("{s:s, s:s, s:s, s:s, s:I}", "device", cli->words[0], "point", cli->words[1],
                     "value",
                     on    ? "1"
                     : off ? "0"
                           : value,
                     "id", id, "timeout_ms", (json_int_t)timeout_ms);
}

static void show_value(const json_t *answer, const char *key, const char *label)
{
    const json_t *value = json_object_get(answer, key);
    if (value != NULL) {
        char *text = json_dumps(value, JSON_ENCODE_ANY | JSON_REAL_PRECISION(12));
        printf("  %-10s %s\n", label, text != NULL ? text : "?");
        free(text);
    }
}

static void show(const json_t *answer)
{
    const char *outcome = answer_text(answer, "outcome");
    bool done = strcmp(outcome, "done") == 0;
    printf("%s%s.%s%s %s\n", tone_code(TONE_BOLD), answer_text(answer, "device"),
           answer_text(answer, "point"), tone_code(TONE_PLAIN), done ? "is written" : outcome);
    show_value(answer, "old", "before");
    show_value(answer, "written", "written");
    show_value(answer, "read_back", "read back");
}

/* The daemon's no, with what is known beside it. */
static int complain(const struct cli *cli, const struct client *client, int error, json_t *answer)
{
    if (error == -EREMOTEIO && !cli->json && json_object_get(answer, "device") != NULL) {
        show(answer);
        fflush(stdout);
    }
    return client_complain(&command_write, cli, client, error, answer);
}

static int run_write(int argc, char **argv)
{
    struct cli cli;
    const char *timeout = NULL, *id = NULL;
    int64_t timeout_ms = 5000;
    const struct cli_option own[] = {{.name = "--timeout", .value = &timeout},
                                     {.name = "--id", .value = &id}};
    int r = cli_parse(&command_write, argc, argv, own, ARRAY_SIZE(own), 3, 3, &cli);
    if (r != CLI_GO) {
        return r;
    }
    if (timeout != NULL &&
        (query_parse_span(timeout, &timeout_ms) < 0 || timeout_ms < 100 || timeout_ms > 30000)) {
        return cli_usage_error(&command_write, "--timeout '%s' is no span of 100 ms to 30 s",
                               timeout);
    }
    uint64_t random = 0;
    char made[24];
    if (id == NULL) {
        if (getrandom(&random, sizeof random, 0) != sizeof random) {
            return cli_usage_error(&command_write, "no random number for an id: give --id");
        }
        snprintf(made, sizeof made, "cli-%016llx", (unsigned long long)random);
        id = made;
    }
    struct client client;
    client_find(&cli, &client);
    json_t *question = make_question(&cli, id, timeout_ms), *answer = NULL;
    r = client_ask(&client, "/v1/write", question, &answer);
    json_decref(question);
    if (r < 0) {
        int status = complain(&cli, &client, r, answer);
        if (!client_is_down(r) && r != -EREMOTEIO) {
            fprintf(stderr, "What became of it: windrow write %s %s %s --id %s\n", cli.words[0],
                    cli.words[1], cli.words[2], id);
        }
        return status;
    }
    if (cli.json) {
        answer_print(json_incref(answer));
    } else {
        show(answer);
    }
    json_decref(answer);
    return COMMAND_GOOD;
}
