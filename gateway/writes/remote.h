/* remote.h - the hand-over of commands that come from afar (MQTT), and of their answers.
 *
 * The uplink's thread orders, the writes check and execute; an answer comes from any thread into a
 * queue with a descriptor. Before the writes see a command it has passed the uplink's own allow
 * list and its horizon: none may be good for longer than an id is remembered, so that a repeat of
 * one that was forgotten has expired. At most REMOTE_OPEN_MAX are under way; nothing here blocks.
 * Owned by one thread but for the answers' way in. */
#pragma once

#include "config/schema.h"
#include "gateway/writes/write_memory.h"
#include "gateway/writes/writes.h"

enum { REMOTE_OPEN_MAX = 8, REMOTE_HORIZON_MAX_MS = WRITES_KEPT_MS };

/* The running gateway; safe from any thread. */
struct remote_host {
    void *user;
    void (*write)(void *user, const struct write_command *command,
                  void (*done)(void *arg, int status, struct buffer *body), void *arg);
    int64_t (*now_ms)(void *user); /* UTC by the gateway's clock */
};

/* What an uplink may change: nothing when `allowed` is false. */
struct remote_rights {
    bool allowed;
    const struct config_list *points; /* globs over DEVICE.POINT; must outlive the desk */
    int64_t horizon_ms;
};

struct remote;
must_check int remote_create(const struct remote_host *host, const struct remote_rights *rights,
                             struct remote **ret_remote);
/* Answers that are still to come are thrown away. Takes NULL. */
void remote_close(struct remote *remote);

/* Each order ends with one answer of its tag; those that need no device (most refusals) are there
 * at once. command->id and command->expires_ms are needed. -EBUSY: at the bound, -ENOMEM: there is
 * no answer then. */
must_check int remote_order(struct remote *remote, const struct write_command *command,
                            uint64_t tag);

struct remote_answer {
    uint64_t tag;
    int status; /* as HTTP's */
    char body[WRITE_BODY_MAX + 1];
};
/* Readable while there are answers. */
int remote_fd(const struct remote *remote);
/* The oldest answer; false: there is none. */
bool remote_next(struct remote *remote, struct remote_answer *ret_answer);

/* Whether the allow list has that point. */
bool remote_may(const struct remote_rights *rights, const char *device, const char *point);
