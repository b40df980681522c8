/* sender.h - one thread an uplink: batches out, verdicts in, ranges moved only on delivered.
 *
 * sender_create() does not start anything; sender_start() makes the thread, which owns its reader
 * and its transport. Status is read from any thread. A sender that stops leaves everything it has
 * in flight undelivered; it will be sent again (at least once, known by identity). */
#pragma once

#include "uplink/beside.h"
#include "uplink/uplink.h"

struct sender;

must_check int sender_create(struct store *store, unsigned uplink_index,
                             const struct config_uplink *config, const struct config *owner,
                             struct sender **ret_sender);
/* Before sender_start(): what the transport may ask of the gateway; must outlive the sender. */
struct uplink_host;
void sender_set_host(struct sender *sender, const struct uplink_host *host);
must_check int sender_start(struct sender *sender);
/* Waits for requests in flight at most grace_ms, then cuts them off. */
void sender_stop(struct sender *sender, int64_t grace_ms);
void sender_destroy(struct sender *sender);

enum sender_state { SENDER_IDLE, SENDER_SENDING, SENDER_BACKING_OFF, SENDER_HELD, SENDER_STOPPED };
const char *sender_state_name(enum sender_state state);

struct sender_status {
    enum sender_state state;
    uint64_t waiting, delivered, rejected; /* readings; delivered and rejected since start */
    int64_t lag_s;                         /* age of the oldest waiting reading, 0: none waits */
    int64_t backlog_eta_s;                 /* -1: not known or not shrinking */
    uint64_t delivered_per_s, bytes_per_s; /* over the last seconds while something waits */
    uint64_t requests, failures, bytes_sent;
    int64_t last_delivered_ms; /* UTC */
    int64_t retry_in_ms;       /* until the next attempt, 0: now */
    char last_error[200];      /* in words, "" when none since the last success */
    char warning[200];         /* what works still, but not for long; "" when all is well */
    struct uplink_beside beside;
};
void sender_status(struct sender *sender, struct sender_status *ret_status);
