/* write_answer.h - what a write's intent and outcome look like: as an event and as an answer.
 *
 * Pure, any thread. */
#pragma once

#include "gateway/writes/write_record.h"

enum write_kind { WRITE_DONE, WRITE_FAILED, WRITE_UNKNOWN };

struct write_outcome {
    enum write_kind kind;
    int error;                             /* -errno where nothing went out, otherwise 0 */
    bool sent;                             /* something went out to the device */
    const char *why;                       /* NULL for done */
    const char *old, *written, *read_back; /* JSON values as text, NULL: not known */
};

/* "write-done", "write-failed", "write-unknown": the event's kind. */
const char *write_answer_kind(enum write_kind kind);

/* Status and body of the record, by the outcome. */
void write_answer_fill(struct write_record *record, const struct write_outcome *outcome);
/* The same for a command that was refused before anything was stored. */
void write_answer_refuse(struct write_record *record, int status, const char *code,
                         const char *message);

/* The events' texts, JSON objects. */
void write_answer_intent(const struct write_record *record, struct buffer *ret_text);
void write_answer_event(const struct write_record *record, const struct write_outcome *outcome,
                        struct buffer *ret_text);
