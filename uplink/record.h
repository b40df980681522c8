/* record.h - one scan as the JSON object that `format = batch` is made of, for all types that send
 * it.
 *
 * Pure, any thread. What does not change within a device is rendered once. */
#pragma once

#include "uplink/out.h"

/* What comes before and behind the time of each record of one device. Zero it before use. */
struct record_writer {
    struct out_names names;
    struct buffer before, behind;
};

/* Appends `open` (of open_len bytes: "{", or one with further members), then "seq", "device",
 * "time", "tags", "window_s", "values", "quality" and the closing brace. 0 or -ENOMEM; an append
 * over out's bound latches it. */
must_check int record_write(struct buffer *out, struct record_writer *w, const char *open,
                            size_t open_len, const struct batch_record *record);
void record_writer_finish(struct record_writer *w);

/* Appends {"gateway":…,"store":…,"stream":…, with the comma: what identifies a batch. */
void record_write_origin(struct buffer *out, const struct batch *batch);
