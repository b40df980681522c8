#include "uplink/mqtt/notes.h"

#include <errno.h>

void mqtt_notes_init(struct mqtt_notes *notes)
{
    *notes = (struct mqtt_notes){.last = &notes->first};
}

static void take_out(struct mqtt_notes *notes, struct mqtt_note **at)
{
    struct mqtt_note *note = *at;
    *at = note->next;
    if (notes->last == &note->next) {
        notes->last = at;
    }
    notes->count--;
    notes->inflight -= note->sent;
}

void mqtt_notes_finish(struct mqtt_notes *notes)
{
    while (notes->first != NULL) {
        struct mqtt_note *note = notes->first;
        take_out(notes, &notes->first);
        free(note);
    }
}

int mqtt_notes_post(struct mqtt_notes *notes, const char *topic, const void *payload, size_t len,
                    unsigned kind)
{
    size_t topic_size = strlen(topic) + 1;
    if (len > MQTT_NOTE_BYTES_MAX) {
        return -EMSGSIZE;
    }
    if (notes->count >= MQTT_NOTES_MAX) {
        return -ENOBUFS;
    }
    struct mqtt_note *note = malloc(sizeof *note + topic_size + len);
    if (note == NULL) {
        return -ENOMEM;
    }
    *note = (struct mqtt_note){
        .frame = {.topic = note->bytes,
                  .payload = (const uint8_t *)note->bytes + topic_size,
                  .len = len,
                  .retain = (kind & MQTT_NOTE_RETAIN) != 0},
        .keep = (kind & MQTT_NOTE_KEEP) != 0,
    };
    memcpy(note->bytes, topic, topic_size);
    if (len > 0) {
        memcpy(note->bytes + topic_size, payload, len);
    }
    *notes->last = note;
    notes->last = &note->next;
    notes->count++;
    return 0;
}

size_t mqtt_notes_room(const struct mqtt_notes *notes)
{
    return MQTT_NOTES_MAX - notes->count;
}

struct mqtt_note *mqtt_notes_next(const struct mqtt_notes *notes)
{
    struct mqtt_note *note = notes->inflight < MQTT_NOTES_INFLIGHT ? notes->first : NULL;
    while (note != NULL && note->sent) {
        note = note->next;
    }
    return note;
}

void mqtt_notes_sent(struct mqtt_notes *notes, struct mqtt_note *note, int message)
{
    note->sent = true;
    note->message = message;
    notes->inflight++;
}

struct mqtt_note *mqtt_notes_acknowledged(struct mqtt_notes *notes, int message)
{
    for (struct mqtt_note **at = &notes->first; *at != NULL; at = &(*at)->next) {
        struct mqtt_note *note = *at;
        if (note->sent && note->message == message) {
            take_out(notes, at);
            return note;
        }
    }
    return NULL;
}

void mqtt_notes_drop(struct mqtt_notes *notes, struct mqtt_note *note)
{
    struct mqtt_note **at = &notes->first;
    while (*at != note) {
        at = &(*at)->next;
    }
    take_out(notes, at);
    free(note);
}

void mqtt_notes_down(struct mqtt_notes *notes)
{
    for (struct mqtt_note **at = &notes->first; *at != NULL;) {
        struct mqtt_note *note = *at;
        if (note->keep) {
            notes->inflight -= note->sent;
            note->sent = false;
            at = &note->next;
        } else {
            take_out(notes, at);
            free(note);
        }
    }
}
