/* points.h - how values are shown: by `points`, `watch`, `read` and `history` alike. */
#pragma once

#include "gateway/cli/text.h"

#include <jansson.h>

/* A JSON value as a technician reads it; "-" for none. */
void points_write_value(struct buffer *b, const json_t *value);

/* A row POINT, VALUE, UNIT, AGE, QUALITY out of a member of GET /v1/points. */
void points_add_row(struct table *table, const json_t *point, int64_t now_ms);

/* The whole answer as a table on stdout. */
void points_print(const json_t *answer);
