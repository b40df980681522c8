/* message.h - what one message holds, for the types that send messages rather than requests: mqtt,
 * kafka, iot-https.
 *
 * Pure, any thread. What does not change within a device or batch is rendered once. */
#pragma once

#include "uplink/record.h"

/* One scan as in format = telemetry with its identity, one record of format = batch with its
 * origin, or a whole format = batch document. */
enum message_form { MESSAGE_TELEMETRY, MESSAGE_RECORD, MESSAGE_BATCH };
extern const char *const message_form_choices[];

/* Zero it before use; one writer is for one batch. */
struct message_writer {
    struct record_writer records;
    struct buffer origin;
};

/* Appends the message of `count` records from `first` on; count is 1 but with MESSAGE_BATCH. 0 or
 * -ENOMEM; an append over out's bound latches it. */
must_check int message_write(struct buffer *out, struct message_writer *w, int form,
                             const struct batch *batch, size_t first, size_t count);
void message_writer_finish(struct message_writer *w);

/* How many records from `first` on go into one message: with MESSAGE_BATCH those of one device, or
 * all where `per_device` is false. */
size_t message_group(const struct batch *batch, int form, bool per_device, size_t first);
