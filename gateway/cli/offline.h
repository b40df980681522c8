/* offline.h - the store, looked at while the daemon does not run (or beside it).
 *
 * Reads only; one environment a process. */
#pragma once

#include "gateway/cli/client.h"
#include "gateway/store/store.h"

/* Opens the store of the configuration's data_dir. On failure tells the user and returns NULL. */
struct store *offline_open(const struct command *command, const struct cli *cli,
                           const struct client *client);

/* Asks the daemon for `path`; where it is down, lets `write` make the same answer out of the store.
 * NULL: the user was told, *ret_status is the exit status. */
json_t *offline_ask(const struct command *command, const struct cli *cli, const char *path,
                    int (*write)(struct store *store, const struct client *client, void *user,
                                 struct buffer *out, const char **ret_why),
                    void *user, int *ret_status);
