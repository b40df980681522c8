/* sink_timestream.h - WriteRecords of Amazon Timestream, read back into the sink's records.
 *
 * Pure, any thread. Takes what the uplink type `timestream` sends and holds it to the service's
 * model: 1 to 100 multi-measure records, CommonAttributes merged in, times and values as texts. The
 * dimensions gateway, store, stream, device and the measure seq are the identity; every other
 * measure is a point, but NAME_quality with a quality in it, which is the quality of NAME. */
#pragma once

#include "uplink/sink/sink_records.h"

enum {
    SINK_TIMESTREAM_RECORDS_MAX = 100,
    SINK_TIMESTREAM_MEASURES_MAX = 256,
    SINK_TIMESTREAM_VALUE_MAX = 2048,
    SINK_TIMESTREAM_DIMENSIONS_MAX = 128,
};

/* Hands over one record after the other, in their order; they live for that call only. -EINVAL: the
 * service would answer ValidationException, and ret_why says why (then the taker forgets what it
 * took); other errors are the taker's. */
must_check int sink_timestream_parse(const char *body, size_t len, const struct sink_taker *taker,
                                     size_t *ret_count, char ret_why[SINK_WHY_SIZE]);
