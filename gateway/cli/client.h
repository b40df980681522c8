/* client.h - asks the running daemon over its Unix socket, and says what is wrong when it cannot.
 *
 * One thread. The socket is found by --socket or by run_dir of the configuration; a configuration
 * with errors in it does not matter, the daemon may well run on its old one. Blocks on the daemon
 * for at most CLIENT_LIMIT_S. */
#pragma once

#include "gateway/base/buffer.h"
#include "gateway/cli/cli.h"

#include <errno.h>
#include <jansson.h>

enum { CLIENT_LIMIT_S = 40, CLIENT_ANSWER_MAX = 256 << 20 };

struct client {
    char socket_path[108];
    char data_dir[256]; /* the store lies in there */
    char gateway[128];  /* its name, "" when the configuration does not say */
};

void client_find(const struct cli *cli, struct client *ret_client);

/* GET, or POST of `body` (JSON) when it is not NULL. 0: ret_json is the answer, the caller's.
 * -ENOENT, -ECONNREFUSED: no daemon; -EACCES: not allowed to; -EREMOTEIO: the daemon said no,
 * ret_json is its error object with the member `status` beside; -EPROTO, -ETIMEDOUT. */
must_check int client_ask(const struct client *client, const char *path, json_t *body,
                          json_t **ret_json);

/* True when there is no daemon to ask. */
static inline bool client_is_down(int error)
{
    return error == -ENOENT || error == -ECONNREFUSED;
}

/* Tells the user about a failed client_ask(), as text on stderr or with --json on stdout; takes
 * `json`. Returns the exit status. */
int client_complain(const struct command *command, const struct cli *cli,
                    const struct client *client, int error, json_t *json);

/* The whole of a command that shows one answer: asks, prints it as JSON or by `show`, and returns
 * the exit status, by `verdict` where one is given. */
int client_show(const struct command *command, const struct cli *cli, const char *path,
                void (*show)(const json_t *answer), int (*verdict)(const json_t *answer));

/* Adds `name=value`, percent-encoded, to a path; the first one with '?'. */
void client_add_param(struct buffer *path, const char *name, const char *value);

/* Members of an answer; "" and 0 where they are absent. */
const char *answer_text(const json_t *object, const char *key);
int64_t answer_int(const json_t *object, const char *key);
double answer_real(const json_t *object, const char *key);  /* NaN when absent */
int64_t answer_time(const json_t *object, const char *key); /* RFC 3339 to ms, 0 when absent */
/* Prints as JSON with a line feed; takes `json`. */
void answer_print(json_t *json);
