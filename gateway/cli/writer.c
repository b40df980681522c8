#include "gateway/cli/writer.h"

#include "config/config.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>

static void complain(const struct command *command, const char *dir, int error)
{
    char message[400];
    if (error == -EBUSY) {
        snprintf(
            message, sizeof message,
            "another process has the store in %s, but nothing answers on the gateway's socket: "
            "is it starting?",
            dir);
    } else if (error == -ENOENT) {
        snprintf(message, sizeof message, "there is no store in %s", dir);
    } else if (error == -EACCES || error == -EPERM) {
        snprintf(message, sizeof message, "you may not write the store in %s: try sudo", dir);
    } else {
        snprintf(message, sizeof message, "the store in %s does not open: %s", dir,
                 strerror(-error));
    }
    fprintf(stderr, "windrow %s: %s\n", command->name, message);
}

/* A store is not made here: without one there is nothing to change. */
static int open_existing(const struct config *config, struct store **ret_store)
{
    char path[4096];
    struct stat st;
    snprintf(path, sizeof path, "%s/store", config->gateway->data_dir);
    if (stat(path, &st) < 0) {
        return -errno;
    }
    int r = store_open(config->gateway->data_dir, config->store, ret_store);
    /* Root must not leave files that the service cannot open. */
    static const char *const files[] = {"data.mdb", "lock.mdb"};
    for (size_t i = 0; r == 0 && i < ARRAY_SIZE(files); i++) {
        char file[4200];
        snprintf(file, sizeof file, "%s/%s", path, files[i]);
        if (geteuid() == 0 && chown(file, st.st_uid, st.st_gid) < 0 && errno != ENOENT) {
            store_close(*ret_store);
            r = -errno;
        }
    }
    return r;
}

struct store *writer_open(const struct command *command, const struct cli *cli)
{
    struct config_errors *errors = config_errors_create();
    const struct config *config = NULL;
    struct store *store = NULL;
    if (errors == NULL) {
        return NULL;
    }
    if (config_load(cli->config_path, errors, &config) < 0) {
        fprintf(stderr, "windrow %s: %s has errors: windrow check shows them\n", command->name,
                cli->config_path);
    } else {
        int r = open_existing(config, &store);
        if (r < 0) {
            complain(command, config->gateway->data_dir, r);
            store = NULL;
        }
    }
    config_unref(config);
    config_errors_destroy(errors);
    return store;
}
