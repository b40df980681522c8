/* labels.h - what tells a record apart in a receiving table: device, gateway, store, stream, the
 * window of an aggregate, and the tags of the device.
 *
 * Pure, any thread. Sorted by key; values are never empty. Where tables have columns, a point must
 * not be called like a label: labels_taken(). */
#pragma once

#include "uplink/uplink.h"

#include <jansson.h>

enum { LABELS_MAX = 64 }; /* further tags of a device are left out */

struct labels {
    struct label {
        const char *key, *value;
    } list[LABELS_MAX];
    size_t count;
    char window[16];
    json_t *given; /* owns the tags' texts */
};

/* The time of a row where rows are known by their time: nanoseconds, whose last six digits are the
 * seq's, from behind. Two scans of one millisecond are two rows, and a repeat is the same one. */
int64_t labels_time_ns(const struct scan *scan);

/* Texts belong to batch, record and labels; finish it. */
void labels_init(struct labels *labels, const struct batch *batch,
                 const struct batch_record *record);
void labels_finish(struct labels *labels);

/* A column for a point or for what is told beside it ("_quality"; "" for its value): name and
 * suffix, and as many "_" as it takes to be neither a label nor another point of the device. Too
 * long a name is cut. */
enum { LABELS_NAME_MAX = 320 };
void labels_column(const struct labels *labels, const struct store_names *names, const char *name,
                   const char *suffix, char ret_column[LABELS_NAME_MAX]);

/* Whether that name is one of them, or "seq" or "time", which every table has. */
bool labels_taken(const struct labels *labels, const char *name);
