#include "gateway/cli/client.h"

#include "config/config.h"
#include "gateway/base/clock.h"

#include <ctype.h>
#include <curl/curl.h>
#include <math.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/statvfs.h>
#include <sys/un.h>

/* The value of "KEY = VALUE" when the line is one, without comment and blanks; or NULL. */
static const char *value_of(char *line, const char *key)
{
    size_t len = strlen(key);
    char *at = line + strspn(line, " \t");
    if (strncmp(at, key, len) != 0) {
        return NULL;
    }
    at += len;
    at += strspn(at, " \t");
    if (*at != '=') {
        return NULL;
    }
    at += 1 + strspn(at + 1, " \t");
    char *end = at;
    for (char *c = at; *c != '\0' && *c != '\n'; c++) {
        if ((*c == '#' || *c == ';') && c > at && isspace((unsigned char)c[-1])) {
            break;
        }
        end = isspace((unsigned char)*c) ? end : c + 1;
    }
    *end = '\0';
    return *at != '\0' ? at : NULL;
}

/* Where config_load() finds errors, the three texts that we need are read by hand. */
static void scan_file(const char *path, struct client *client, char *run_dir, size_t size)
{
    auto_fclose FILE *file = fopen(path, "re");
    char line[1024];
    bool ours = false;
    while (file != NULL && fgets(line, sizeof line, file) != NULL) {
        const char *value;
        if (line[strspn(line, " \t")] == '[') {
            ours = strncmp(line + strspn(line, " \t"), "[gateway]", 9) == 0;
        } else if (!ours) {
            continue;
        } else if ((value = value_of(line, "run_dir")) != NULL) {
            snprintf(run_dir, size, "%s", value);
        } else if ((value = value_of(line, "data_dir")) != NULL) {
            snprintf(client->data_dir, sizeof client->data_dir, "%s", value);
        } else if ((value = value_of(line, "name")) != NULL) {
            snprintf(client->gateway, sizeof client->gateway, "%s", value);
        }
    }
}

static bool load(const char *path, struct client *client, char *run_dir, size_t size)
{
    struct config_errors *errors = config_errors_create();
    const struct config *config = NULL;
    int r = errors == NULL ? -ENOMEM : config_load(path, errors, &config);
    config_errors_destroy(errors);
    if (r < 0) {
        return false;
    }
    snprintf(run_dir, size, "%s", config->gateway->run_dir);
    snprintf(client->data_dir, sizeof client->data_dir, "%s", config->gateway->data_dir);
    snprintf(client->gateway, sizeof client->gateway, "%s", config->gateway->name);
    config_unref(config);
    return true;
}

void client_find(const struct cli *cli, struct client *ret_client)
{
    struct client client = {.data_dir = "/var/lib/windrow"};
    char run_dir[sizeof client.socket_path - sizeof "/windrow.sock"] = "/run/windrow";
    if (!load(cli->config_path, &client, run_dir, sizeof run_dir)) {
        scan_file(cli->config_path, &client, run_dir, sizeof run_dir);
    }
    if (cli->socket_path != NULL) {
        snprintf(client.socket_path, sizeof client.socket_path, "%s", cli->socket_path);
    } else {
        snprintf(client.socket_path, sizeof client.socket_path, "%s/windrow.sock", run_dir);
    }
    *ret_client = client;
}

/* A connection of our own first: curl does not say why it could not connect. */
static int try_socket(const struct client *client)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    auto_close int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    snprintf(address.sun_path, sizeof address.sun_path, "%s", client->socket_path);
    if (fd < 0 || connect(fd, (struct sockaddr *)&address, sizeof address) < 0) {
        return -errno;
    }
    return 0;
}

static size_t take(char *data, size_t size, size_t count, void *user)
{
    buffer_add(user, data, size * count);
    return buffer_failed(user) ? 0 : size * count;
}

static int transfer(const struct client *client, const char *path, const char *body,
                    struct buffer *answer, long *ret_status)
{
    CURL *curl = curl_easy_init();
    char url[2048];
    if (curl == NULL || snprintf(url, sizeof url, "http://localhost%s", path) >= (int)sizeof url) {
        curl_easy_cleanup(curl);
        return curl == NULL ? -ENOMEM : -E2BIG;
    }
    struct curl_slist *headers = curl_slist_append(NULL, "Expect:");
    curl_easy_setopt(curl, CURLOPT_URL, url);
    curl_easy_setopt(curl, CURLOPT_UNIX_SOCKET_PATH, client->socket_path);
    curl_easy_setopt(curl, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(curl, CURLOPT_PROXY, "");
    curl_easy_setopt(curl, CURLOPT_TIMEOUT, (long)CLIENT_LIMIT_S);
    curl_easy_setopt(curl, CURLOPT_HTTPHEADER, headers);
    curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, take);
    curl_easy_setopt(curl, CURLOPT_WRITEDATA, answer);
    if (body != NULL) {
        curl_easy_setopt(curl, CURLOPT_POSTFIELDS, body);
    }
    CURLcode code = curl_easy_perform(curl);
    curl_easy_getinfo(curl, CURLINFO_RESPONSE_CODE, ret_status);
    curl_slist_free_all(headers);
    curl_easy_cleanup(curl);
    return code == CURLE_OK ? 0 : code == CURLE_OPERATION_TIMEDOUT ? -ETIMEDOUT : -EPROTO;
}

int client_ask(const struct client *client, const char *path, json_t *body, json_t **ret_json)
{
    auto_buffer struct buffer answer = {.max = CLIENT_ANSWER_MAX};
    auto_free char *text = body != NULL ? json_dumps(body, JSON_COMPACT) : NULL;
    long status = 0;
    int r = try_socket(client);
    r = r < 0 ? r : transfer(client, path, text, &answer, &status);
    if (r < 0) {
        return r;
    }
    json_t *json = json_loadb((const char *)answer.data, answer.len, 0, NULL);
    if (!json_is_object(json)) {
        json_decref(json);
        return -EPROTO;
    }
    if (status != 200) {
        json_object_set_new(json, "status", json_integer(status));
    }
    *ret_json = json;
    return status == 200 ? 0 : -EREMOTEIO;
}

static int complain_json(const char *code, const char *message)
{
    answer_print(json_pack("{s:{s:s, s:s}}", "error", "code", code, "message", message));
    return COMMAND_NOT_WELL;
}

/* What may well be why: the disk with the store takes nothing. */
static void add_disk(const struct client *client, char *message, size_t size)
{
    static const uint64_t little_bytes = 1 << 20;
    struct statvfs disk;
    if (client->data_dir[0] == '\0' || statvfs(client->data_dir, &disk) < 0) {
        return;
    }
    const char *what = (disk.f_flag & ST_RDONLY) != 0                           ? "read-only"
                       : (uint64_t)disk.f_bavail * disk.f_frsize < little_bytes ? "full"
                                                                                : NULL;
    size_t len = strlen(message);
    if (what != NULL) {
        snprintf(message + len, size - len, "; the disk with %s is %s", client->data_dir, what);
    }
}

static int complain_down(const struct command *command, const struct cli *cli,
                         const struct client *client)
{
    char message[600];
    snprintf(message, sizeof message, "the gateway does not run: nothing answers on %s",
             client->socket_path);
    add_disk(client, message, sizeof message);
    if (cli->json) {
        return complain_json("not_running", message);
    }
    fprintf(stderr,
            "windrow %s: %s\n"
            "  start it:            systemctl start windrow\n"
            "  why it stopped:      journalctl -u windrow -n 50\n"
            "  works without it:    windrow check, history, ledger, store stat\n",
            command->name, message);
    if (!cli->config_given && cli->socket_path == NULL) {
        fprintf(stderr, "  another gateway:     windrow %s -c FILE\n", command->name);
    }
    return COMMAND_NOT_WELL;
}

/* What the daemon said, and 2 where the configuration is what is wrong. */
static int complain_remote(const struct command *command, const struct cli *cli, json_t *json)
{
    const json_t *error = json_object_get(json, "error");
    bool configuration = strcmp(answer_text(error, "code"), "bad_configuration") == 0;
    if (cli->json) {
        answer_print(json_incref(json));
    } else {
        fprintf(stderr, "windrow %s: %s\n", command->name, answer_text(error, "message"));
    }
    json_decref(json);
    return configuration ? COMMAND_USAGE : COMMAND_NOT_WELL;
}

int client_complain(const struct command *command, const struct cli *cli,
                    const struct client *client, int error, json_t *json)
{
    if (client_is_down(error)) {
        return complain_down(command, cli, client);
    }
    if (error == -EREMOTEIO) {
        return complain_remote(command, cli, json);
    }
    char message[400];
    if (error == -EACCES) {
        snprintf(message, sizeof message,
                 "you may not use %s: try sudo, or join the socket's group (ls -l shows it)",
                 client->socket_path);
    } else if (error == -ETIMEDOUT) {
        snprintf(message, sizeof message,
                 "the gateway took the question but did not answer within %d s: see "
                 "journalctl -u windrow",
                 CLIENT_LIMIT_S);
    } else if (error == -EPROTO) {
        snprintf(message, sizeof message, "what answers on %s is no windrowd of this version",
                 client->socket_path);
    } else {
        snprintf(message, sizeof message, "%s: %s", client->socket_path, strerror(-error));
    }
    if (cli->json) {
        return complain_json("no_answer", message);
    }
    fprintf(stderr, "windrow %s: %s\n", command->name, message);
    return COMMAND_NOT_WELL;
}

int client_show(const struct command *command, const struct cli *cli, const char *path,
                void (*show)(const json_t *answer), int (*verdict)(const json_t *answer))
{
    struct client client;
    json_t *json = NULL;
    client_find(cli, &client);
    int r = client_ask(&client, path, NULL, &json);
    if (r < 0) {
        return client_complain(command, cli, &client, r, json);
    }
    int status = verdict != NULL ? verdict(json) : COMMAND_GOOD;
    if (cli->json) {
        answer_print(json_incref(json));
    } else {
        show(json);
    }
    json_decref(json);
    return status;
}

void client_add_param(struct buffer *path, const char *name, const char *value)
{
    bool first = path->len == 0 || memchr(path->data, '?', path->len) == NULL;
    buffer_printf(path, "%s%s=", first ? "?" : "&", name);
    for (; *value != '\0'; value++) {
        if (isalnum((unsigned char)*value) || strchr("-._~", *value) != NULL) {
            buffer_add_byte(path, (uint8_t)*value);
        } else {
            buffer_printf(path, "%%%02X", (unsigned char)*value);
        }
    }
}

const char *answer_text(const json_t *object, const char *key)
{
    const char *text = json_string_value(json_object_get(object, key));
    return text != NULL ? text : "";
}

int64_t answer_int(const json_t *object, const char *key)
{
    return json_integer_value(json_object_get(object, key));
}

double answer_real(const json_t *object, const char *key)
{
    const json_t *value = json_object_get(object, key);
    return json_is_number(value) ? json_number_value(value) : NAN;
}

int64_t answer_time(const json_t *object, const char *key)
{
    int64_t ms;
    return clock_parse_utc(answer_text(object, key), &ms) == 0 ? ms : 0;
}

void answer_print(json_t *json)
{
    json_dumpf(json, stdout, JSON_INDENT(1) | JSON_REAL_PRECISION(15));
    putchar('\n');
    json_decref(json);
}
