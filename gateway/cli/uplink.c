#include "config/config.h"
#include "gateway/cli/client.h"
#include "gateway/cli/text.h"
#include "uplink/probe/probe.h"

#include <curl/curl.h>
#include <signal.h>
#include <string.h>

static int run_uplink(int argc, char **argv);

const struct command command_uplink = {
    .name = "uplink",
    .arguments = "test [NAME]",
    .summary = "tries an uplink: name, TCP, TLS, certificates, credentials, write",
    .help = "  --write         also sends one marked record, of a device windrow-test\n"
            "  Its own connections, by the configuration file: with the gateway running or not.\n"
            "  Without a name: all uplinks. Exit 1 when a step is not well.\n",
    .run = run_uplink,
};

/* What a step is told to: text as it comes, or the list for JSON. */
struct listing {
    json_t *steps; /* NULL: text */
};

static const char *const verdict_names[PROBE_VERDICTS] = {
    [PROBE_GOOD] = "good", [PROBE_WARN] = "warning", [PROBE_BAD] = "bad", [PROBE_SKIP] = "skipped"};

static void add_step(json_t *steps, const struct probe_step *step)
{
    json_t *object = json_pack("{s:s, s:s, s:s}", "step", step->name, "verdict",
                               verdict_names[step->verdict], "found", step->found);
    if (object == NULL) { /* foreign bytes that are no UTF-8 */
        object = json_pack("{s:s, s:s}", "step", step->name, "verdict",
                           verdict_names[step->verdict]);
    }
    if (step->took_us >= 0) {
        json_object_set_new(object, "ms", json_real((double)step->took_us / 1000.0));
    }
    if (step->mend[0] != '\0') {
        json_object_set_new(object, "mend", json_string(step->mend));
    }
    json_array_append_new(steps, object);
}

static void print_step(const struct probe_step *step)
{
    static const struct {
        enum tone tone;
        const char *word;
    } signs[PROBE_VERDICTS] = {[PROBE_GOOD] = {TONE_GOOD, "ok"},
                               [PROBE_WARN] = {TONE_WARN, "look"},
                               [PROBE_BAD] = {TONE_BAD, "BAD"},
                               [PROBE_SKIP] = {TONE_DIM, "-"}};
    enum { INDENT = 24 };
    auto_buffer struct buffer found = {0};
    text_clean(&found, step->found);
    if (step->took_us >= 0) {
        buffer_printf(&found, " (%.*f ms)", step->took_us < 10000 ? 1 : 0,
                      (double)step->took_us / 1000.0);
    }
    const char *text = buffer_text(&found);
    printf("  %s%-4s%s  %-15s ", tone_code(signs[step->verdict].tone), signs[step->verdict].word,
           tone_code(TONE_PLAIN), step->name);
    text_wrap_behind(stdout, INDENT, TONE_PLAIN, text != NULL ? text : "");
    if (step->mend[0] != '\0') {
        auto_buffer struct buffer mend = {0};
        buffer_printf(&mend, "-> %s", step->mend);
        text = buffer_text(&mend);
        text_wrap(stdout, INDENT, TONE_BOLD, text != NULL ? text : "");
    }
    fflush(stdout);
}

static void on_step(void *user, const struct probe_step *step)
{
    const struct listing *listing = user;
    if (listing->steps != NULL) {
        add_step(listing->steps, step);
    } else {
        print_step(step);
    }
}

/* Runs the steps of one uplink; the JSON object where one is wanted. */
static bool test_one(const struct config *config, const struct config_uplink *uplink, bool write,
                     bool json, json_t **ret_object)
{
    struct listing listing = {.steps = json ? json_array() : NULL};
    struct probe probe = {.type = uplink_find(uplink->type),
                          .gateway = config->gateway->name,
                          .settings = (void *)uplink->settings, /* copied before it is changed */
                          .write = write,
                          .clock_trusted = config->gateway->clock == CONFIG_CLOCK_TRUSTED,
                          .tell = on_step,
                          .user = &listing};
    if (!json) {
        printf("%s%s%s, %s\n", tone_code(TONE_BOLD), uplink->name, tone_code(TONE_PLAIN),
               uplink->type);
    }
    int r = probe.type == NULL ? -ENOENT : probe_run(&probe);
    bool well = r == 0 && probe_is_well(&probe);
    if (json) {
        *ret_object = json_pack("{s:s, s:s, s:b, s:o}", "uplink", uplink->name, "type",
                                uplink->type, "well", well, "steps", listing.steps);
    } else if (r < 0) {
        printf("  it cannot be tested: %s\n", strerror(-r));
    } else if (!well) {
        printf("%snot well%s: %u of %u steps\n", tone_code(TONE_BAD), tone_code(TONE_PLAIN),
               probe.counts[PROBE_BAD],
               probe.counts[PROBE_BAD] + probe.counts[PROBE_WARN] + probe.counts[PROBE_GOOD]);
    } else {
        printf("%swell%s%s\n", tone_code(TONE_GOOD), tone_code(TONE_PLAIN),
               probe.counts[PROBE_WARN] > 0 ? ", with something to look at" : "");
    }
    return well;
}

static int test_all(const struct config *config, bool write, bool json)
{
    bool well = true;
    json_t *list = json ? json_array() : NULL;
    for (size_t i = 0; i < config->uplink_count; i++) {
        json_t *object = NULL;
        well &= test_one(config, &config->uplinks[i], write, json, &object);
        if (json) {
            json_array_append_new(list, object);
        } else if (i + 1 < config->uplink_count) {
            putchar('\n');
        }
    }
    if (json) {
        answer_print(json_pack("{s:b, s:o}", "well", well, "uplinks", list));
    } else if (config->uplink_count == 0) {
        puts("The configuration has no uplink.");
    }
    return well ? COMMAND_GOOD : COMMAND_NOT_WELL;
}

static void list_names(const struct config *config, struct buffer *out)
{
    for (size_t i = 0; i < config->uplink_count; i++) {
        buffer_printf(out, "%s%s", i > 0 ? ", " : "", config->uplinks[i].name);
    }
}

static int test_named(const struct config *config, const char *name, bool write, bool json)
{
    const struct config_uplink *uplink = config_find_uplink(config, name);
    if (uplink == NULL) {
        auto_buffer struct buffer names = {0};
        list_names(config, &names);
        const char *text = buffer_text(&names);
        fprintf(stderr, "windrow uplink: there is no [uplink %s]; there %s\n", name,
                text == NULL || text[0] == '\0' ? "is none at all" : "are:");
        if (text != NULL && text[0] != '\0') {
            fprintf(stderr, "  %s\n", text);
        }
        return COMMAND_USAGE;
    }
    json_t *object = NULL;
    bool well = test_one(config, uplink, write, json, &object);
    if (json) {
        answer_print(object);
    }
    return well ? COMMAND_GOOD : COMMAND_NOT_WELL;
}

/* The errors of that uplink first: they are what was asked about; then how many others there are.
 */
static int complain_config(const struct cli *cli, const struct config_errors *errors,
                           const char *name)
{
    char section[256];
    size_t others = 0;
    const struct config_error *e;
    json_t *list = json_array();
    snprintf(section, sizeof section, "uplink %s", name != NULL ? name : "");
    for (size_t i = 0; (e = config_errors_at(errors, i)) != NULL; i++) {
        bool about = name != NULL ? strcmp(e->section, section) == 0
                                  : strncmp(e->section, "uplink ", 7) == 0;
        others += !e->warning && !about;
        if (e->warning || !about) {
            continue;
        }
        auto_buffer struct buffer line = {0};
        config_error_write(e, &line);
        const char *text = buffer_text(&line);
        json_array_append_new(list, json_string(text != NULL ? text : ""));
        if (!cli->json) {
            printf("  %sBAD%s   configuration   %s\n", tone_code(TONE_BAD), tone_code(TONE_PLAIN),
                   text != NULL ? text : "");
        }
    }
    if (cli->json) {
        answer_print(json_pack("{s:b, s:o, s:I}", "well", 0, "errors", list, "other_errors",
                               (json_int_t)others));
        return COMMAND_USAGE;
    }
    json_decref(list);
    if (others > 0) {
        fprintf(stderr, "windrow uplink: %s has %zu error%s elsewhere: windrow check shows %s\n",
                cli->config_path, others, others == 1 ? "" : "s", others == 1 ? "it" : "them");
    }
    return COMMAND_USAGE;
}

static int test(const struct cli *cli, const char *name, bool write)
{
    struct config_errors *errors = config_errors_create();
    const struct config *config = NULL;
    if (errors == NULL) {
        return COMMAND_NOT_WELL;
    }
    int status;
    if (config_load(cli->config_path, errors, &config) < 0) {
        status = complain_config(cli, errors, name);
    } else {
        /* A peer that hangs up must be an error, not the end of this command. */
        signal(SIGPIPE, SIG_IGN);
        curl_global_init(CURL_GLOBAL_DEFAULT);
        status = name != NULL ? test_named(config, name, write, cli->json)
                              : test_all(config, write, cli->json);
        curl_global_cleanup();
    }
    config_unref(config);
    config_errors_destroy(errors);
    return status;
}

static int run_uplink(int argc, char **argv)
{
    bool write = false;
    const struct cli_option options[] = {{.name = "--write", .flag = &write}};
    struct cli cli;
    int r = cli_parse(&command_uplink, argc, argv, options, ARRAY_SIZE(options), 1, 2, &cli);
    if (r != CLI_GO) {
        return r;
    }
    if (strcmp(cli.words[0], "test") != 0) {
        return cli_usage_error(&command_uplink, "'%s' is not known here; test is", cli.words[0]);
    }
    return test(&cli, cli.count > 1 ? cli.words[1] : NULL, write);
}
