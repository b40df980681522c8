#include "drivers/coap/discover.h"
#include "drivers/coap/payload.h"
#include "gateway/cli/cli.h"

#include <ctype.h>
#include <errno.h>
#include <string.h>

enum { TIMEOUT_MS = 3000, NAME_MAX_LEN = 60 };

static int run_scan(int argc, char **argv);

const struct command command_scan = {
    .name = "scan",
    .arguments = "coap://HOST[:PORT]",
    .summary = "finds CoAP resources; prints a ready [device] section",
    .help = "  coap://HOST     asks one device what it has (/.well-known/core)\n"
            "  coap://224.0.1.187\n"
            "                  asks all in the network; [ff02::fd%eth0] with IPv6\n"
            "  --psk ID:KEY    the pre-shared key for coaps://\n"
            "  --timeout N     milliseconds to wait for answers (3000)\n",
    .run = run_scan,
};

static bool is_senml(const json_t *resource)
{
    size_t i;
    json_t *format;
    json_array_foreach(json_object_get(resource, "formats"), i, format)
    {
        json_int_t number = json_integer_value(format);
        if (number == PAYLOAD_SENML_JSON || number == PAYLOAD_SENML_CBOR) {
            return true;
        }
    }
    return false;
}

/* "/sensors/temp-1" and "mast wind" to names of points. */
static void print_name(const char *text)
{
    const char *at = *text == '/' ? text + 1 : text;
    size_t len = 0;
    for (; *at != '\0' && len < NAME_MAX_LEN; at++, len++) {
        putchar(isalnum((unsigned char)*at) || *at == '-' ? *at : '_');
    }
    if (len == 0) {
        printf("value");
    }
}

static void print_device(const char *address, const char *path, bool observable, unsigned number)
{
    printf("[device coap-%u]\ndriver = coap\naddress = %s%s\nmode = %s\n", number, address, path,
           observable ? "observe" : "get");
    if (strncmp(address, "coaps:", 6) == 0) {
        printf("psk_identity = ID\npsk_file = /etc/windrow/coap-%u.psk\n", number);
    }
}

static bool is_plain_name(const char *name)
{
    return name[0] != '\0' && name[strcspn(name, " \t,\r\n")] == '\0';
}

/* One device a SenML resource with its names, and one for all others by their paths. */
static void print_host(const json_t *host, unsigned *number)
{
    const char *address = json_string_value(json_object_get(host, "address"));
    const json_t *resources = json_object_get(host, "resources");
    size_t i, n;
    json_t *resource, *name;
    bool others = false;
    json_array_foreach(resources, i, resource)
    {
        const char *path = json_string_value(json_object_get(resource, "path"));
        if (!is_senml(resource)) {
            others = true;
            continue;
        }
        print_device(address, path, json_is_true(json_object_get(resource, "observable")),
                     ++*number);
        json_array_foreach(json_object_get(resource, "names"), n, name)
        {
            if (is_plain_name(json_string_value(name))) {
                printf("point.");
                print_name(json_string_value(name));
                printf(" = senml %s\n", json_string_value(name));
            }
        }
        putchar('\n');
    }
    if (others) {
        print_device(address, "", false, ++*number);
    }
    json_array_foreach(resources, i, resource)
    {
        if (!is_senml(resource)) {
            const char *path = json_string_value(json_object_get(resource, "path"));
            const char *type = json_string_value(json_object_get(resource, "type"));
            printf("point.");
            print_name(path);
            printf(" = path %s%s%s\n", path, type[0] != '\0' ? "   # " : "", type);
        }
    }
}

static void print_all(const json_t *hosts)
{
    unsigned number = 0;
    size_t i;
    json_t *host;
    json_array_foreach(hosts, i, host)
    {
        printf("%s# %s: %zu resources\n", i > 0 ? "\n" : "",
               json_string_value(json_object_get(host, "address")),
               json_array_size(json_object_get(host, "resources")));
        print_host(host, &number);
    }
}

/* Without its path: what follows are the paths that were found. */
static int cut_path(const char *word, char *address, size_t size)
{
    const char *host = strstr(word, "://");
    size_t len = host == NULL ? strlen(word) : (size_t)(host - word) + 3;
    len += strcspn(word + len, "/?");
    if (len >= size) {
        return -EINVAL;
    }
    memcpy(address, word, len);
    address[len] = '\0';
    return 0;
}

static int parse_words(const struct cli *cli, const char *timeout, char *psk, char *address,
                       size_t size, struct discover_options *options)
{
    if (strncmp(cli->words[0], "coap", 4) != 0 || cut_path(cli->words[0], address, size) != 0) {
        return cli_usage_error(&command_scan, "'%.80s' is not coap://HOST or coaps://HOST",
                               cli->words[0]);
    }
    options->address = address;
    options->timeout_ms = TIMEOUT_MS;
    if (timeout != NULL) {
        char *end;
        errno = 0;
        options->timeout_ms = strtol(timeout, &end, 10);
        if (errno != 0 || *end != '\0' || options->timeout_ms < 1 || options->timeout_ms > 600000) {
            return cli_usage_error(&command_scan, "--timeout takes milliseconds, 1 to 600000");
        }
    }
    if (psk != NULL) {
        char *colon = strchr(psk, ':');
        if (colon == NULL || colon == psk || colon[1] == '\0') {
            return cli_usage_error(&command_scan, "--psk is ID:KEY");
        }
        *colon = '\0';
        options->psk_identity = psk;
        options->psk_key = colon + 1;
    }
    return CLI_GO;
}

static int run_scan(int argc, char **argv)
{
    const char *psk = NULL, *timeout = NULL;
    const struct cli_option table[] = {{.name = "--psk", .value = &psk},
                                       {.name = "--timeout", .value = &timeout}};
    struct discover_options options = {0};
    char address[320], error[DISCOVER_ERROR_SIZE];
    struct cli cli;
    json_t *hosts = NULL;
    int r = cli_parse(&command_scan, argc, argv, table, ARRAY_SIZE(table), 1, 1, &cli);
    auto_free char *copy = psk == NULL ? NULL : strdup(psk);
    if (r == CLI_GO) {
        r = parse_words(&cli, timeout, copy, address, sizeof(address), &options);
    }
    if (r != CLI_GO) {
        return r;
    }
    r = discover_run(&options, &hosts, error);
    if (r != 0) {
        fprintf(stderr, "windrow scan: %s\n", error);
        return r == -EINVAL ? COMMAND_USAGE : COMMAND_NOT_WELL;
    }
    if (cli.json) {
        json_dumpf(hosts, stdout, JSON_INDENT(1));
        putchar('\n');
    } else {
        print_all(hosts);
    }
    json_decref(hosts);
    return COMMAND_GOOD;
}
