/* verdict.h - what the replies of all services over HTTP have in common.
 *
 * Pure, any thread. A type's judge() begins with verdict_by_status(), which makes the whole verdict
 * for "no reply", "not now", "too large" and "wrong settings"; what success and bad data look like
 * is the type's own business. The words end up in status and log: they name what to look at. */
#pragma once

#include "uplink/uplink.h"

/* What a status means before the body is looked at. */
enum verdict_class {
    VERDICT_SUCCESS,  /* 2xx: nothing is decided yet */
    VERDICT_BAD_DATA, /* a record or more is wrong: nothing is decided yet */
    VERDICT_MADE,     /* retry, hold or split: the verdict is complete */
};

/* Fills the verdict as far as the status (0: no reply at all) decides it; 409 with Retry-After
 * counts as "not now". */
enum verdict_class verdict_by_status(const struct uplink_reply *reply,
                                     struct uplink_verdict *ret_verdict);

/* Sets the outcome, and `why` to `what` with the first words of the reply's body. */
void verdict_say(struct uplink_verdict *verdict, enum uplink_outcome outcome,
                 const struct uplink_reply *reply, const char *what);

/* Bad data of which nobody says which record it is: halves find it, one alone is rejected. */
void verdict_bad_data(const struct batch *batch, const struct uplink_reply *reply,
                      struct uplink_verdict *verdict);

/* Adds a record to the rejected ones, unless it is among them (the first reason stands); `why` of
 * len bytes is cut to what fits. Room for batch->count is made with the first. -ENOMEM. */
must_check int verdict_reject(struct uplink_verdict *verdict, const struct batch *batch,
                              size_t record, const char *why, size_t len);
/* The same for a record that the service wants once more. */
must_check int verdict_put_off(struct uplink_verdict *verdict, const struct batch *batch,
                               size_t record, const char *why, size_t len);
/* Sets DELIVERED, with words when records were rejected; RETRY when every one is put off. */
void verdict_delivered(struct uplink_verdict *verdict, const struct batch *batch);
/* Nothing is rejected (nor put off) after all. */
void verdict_forget(struct uplink_verdict *verdict);
