#include "gateway/cli/client.h"

#include <string.h>

static int run_reload(int argc, char **argv);

const struct command command_reload = {
    .name = "reload",
    .arguments = "",
    .summary = "makes the gateway read its configuration anew",
    .help = "  Only what differs is restarted; the store is never touched. With errors in it the\n"
            "  gateway stays on its present configuration (exit 2).\n",
    .run = run_reload,
};

static int complain(const struct cli *cli, const struct client *client, int error, json_t *json)
{
    const json_t *reason = json_object_get(json, "error");
    bool configuration = strcmp(answer_text(reason, "code"), "bad_configuration") == 0;
    if (error != -EREMOTEIO || !configuration || cli->json) {
        return client_complain(&command_reload, cli, client, error, json);
    }
    fprintf(stderr, "%s\nNothing was changed: the gateway runs on with what it had.\n",
            answer_text(reason, "message"));
    json_decref(json);
    return COMMAND_USAGE;
}

static int run_reload(int argc, char **argv)
{
    struct cli cli;
    int r = cli_parse(&command_reload, argc, argv, NULL, 0, 0, 0, &cli);
    if (r != CLI_GO) {
        return r;
    }
    struct client client;
    json_t *json = NULL, *nothing = json_object();
    client_find(&cli, &client);
    r = client_ask(&client, "/v1/reload", nothing, &json);
    json_decref(nothing);
    if (r < 0) {
        return complain(&cli, &client, r, json);
    }
    if (cli.json) {
        answer_print(json);
        return COMMAND_GOOD;
    }
    fputs(answer_text(json, "warnings"), stdout);
    puts("The configuration is good and is being put into force; `windrow status` shows it.");
    json_decref(json);
    return COMMAND_GOOD;
}
