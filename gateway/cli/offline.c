#include "gateway/cli/offline.h"

#include <string.h>

struct store *offline_open(const struct command *command, const struct cli *cli,
                           const struct client *client)
{
    struct store *store = NULL;
    int r = store_open_readonly(client->data_dir, &store);
    if (r == 0) {
        return store;
    }
    char message[400];
    if (r == -ENOENT) {
        snprintf(message, sizeof message,
                 "there is no store in %s: has the gateway ever run with this configuration?",
                 client->data_dir);
    } else if (r == -EACCES || r == -EPERM) {
        snprintf(message, sizeof message, "you may not read the store in %s: try sudo",
                 client->data_dir);
    } else {
        snprintf(message, sizeof message, "the store in %s does not open: %s", client->data_dir,
                 strerror(-r));
    }
    if (cli->json) {
        answer_print(json_pack("{s:{s:s, s:s}}", "error", "code", "no_store", "message", message));
    } else {
        fprintf(stderr, "windrow %s: %s\n", command->name, message);
    }
    return NULL;
}

json_t *offline_ask(const struct command *command, const struct cli *cli, const char *path,
                    int (*write)(struct store *store, const struct client *client, void *user,
                                 struct buffer *out, const char **ret_why),
                    void *user, int *ret_status)
{
    struct client client;
    json_t *json = NULL;
    client_find(cli, &client);
    *ret_status = COMMAND_NOT_WELL;
    int r = client_ask(&client, path, NULL, &json);
    if (r == 0) {
        return json;
    }
    if (!client_is_down(r)) {
        *ret_status = client_complain(command, cli, &client, r, json);
        return NULL;
    }
    struct store *store = offline_open(command, cli, &client);
    if (store == NULL) {
        return NULL;
    }
    auto_buffer struct buffer text = {.max = CLIENT_ANSWER_MAX};
    const char *why = "the store does not read";
    r = write(store, &client, user, &text, &why);
    if (r == 0) {
        json = json_loadb((const char *)text.data, text.len, 0, NULL);
        fprintf(stderr, "The gateway does not run; this is from its store in %s.\n",
                client.data_dir);
    } else if (cli->json) {
        answer_print(json_pack("{s:{s:s, s:s}}", "error", "code", "store", "message", why));
    } else {
        fprintf(stderr, "windrow %s: %s\n", command->name, why);
    }
    store_close(store);
    return json;
}
