/* writer.h - the store opened as its writer, by a command, while no daemon runs. */
#pragma once

#include "gateway/cli/cli.h"
#include "gateway/store/store.h"

/* Takes the store's lock, so that no daemon can start meanwhile. NULL: the user was told. */
struct store *writer_open(const struct command *command, const struct cli *cli);
