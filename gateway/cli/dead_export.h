/* dead_export.h - `windrow dead export`: refused readings as lines, each with its reason. */
#pragma once

#include "gateway/cli/cli.h"
#include "gateway/store/dead.h"

/* format: "ndjson", "csv" or NULL. Tells the user and returns the exit status. */
int dead_export(const struct cli *cli, struct store *store, const char *gateway,
                const struct store_letter_filter *filter, const char *out, const char *format);
