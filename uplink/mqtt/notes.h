/* notes.h - messages beside the batches: states, replies, the shadow.
 *
 * A bounded queue of the sender's thread. A note stays until the broker has acknowledged it; what
 * is not marked `keep` is dropped when the connection ends, because it is said anew then. */
#pragma once

#include "uplink/mqtt/mqtt.h"

enum { MQTT_NOTES_MAX = 128, MQTT_NOTE_BYTES_MAX = 16 * 1024 };

struct mqtt_note {
    struct mqtt_note *next;
    struct mqtt_frame frame; /* into bytes */
    int message;             /* once it is sent */
    bool sent, keep;
    char bytes[];
};

struct mqtt_notes {
    struct mqtt_note *first, **last;
    size_t count, inflight;
};

void mqtt_notes_init(struct mqtt_notes *notes);
void mqtt_notes_finish(struct mqtt_notes *notes);

enum mqtt_note_kind { MQTT_NOTE_RETAIN = 1, MQTT_NOTE_KEEP = 2 };
/* Copies. kind: bits of the above. -ENOBUFS: MQTT_NOTES_MAX are there, -EMSGSIZE, -ENOMEM. */
must_check int mqtt_notes_post(struct mqtt_notes *notes, const char *topic, const void *payload,
                               size_t len, unsigned kind);
/* How many more fit. */
size_t mqtt_notes_room(const struct mqtt_notes *notes);
/* The next one to publish; NULL: none, or MQTT_NOTES_INFLIGHT are on their way. */
struct mqtt_note *mqtt_notes_next(const struct mqtt_notes *notes);
void mqtt_notes_sent(struct mqtt_notes *notes, struct mqtt_note *note, int message);
/* Takes the note out, to be freed by the caller; NULL: it was none of ours. */
must_check struct mqtt_note *mqtt_notes_acknowledged(struct mqtt_notes *notes, int message);
void mqtt_notes_drop(struct mqtt_notes *notes, struct mqtt_note *note);
/* The connection is gone. */
void mqtt_notes_down(struct mqtt_notes *notes);
