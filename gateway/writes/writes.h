/* writes.h - commands that change something in the field, each executed at most once.
 *
 * A command is checked (allowed, writable, within its range, not too soon), then its intent is made
 * durable: an event "write-intent" and a record, in one commit. Only after that the driver writes.
 * The outcome is made durable the same way ("write-done", "write-failed", "write-unknown"), then
 * it is answered. What a start finds as an intent without outcome is reported as unknown and never
 * executed again; a repeat of an id that a client chose is answered with what is recorded. Where a
 * damaged store took records with it, a command that may have been here before is answered
 * "unknown" and not executed. Calls come from any thread; `done` from the pipeline's or the
 * caller's. */
#pragma once

#include "config/config.h"
#include "gateway/base/buffer.h"
#include "gateway/pipeline/device.h"

#include <jansson.h>

struct store;
struct writes;

enum {
    WRITES_OPEN_MAX = 16,
    WRITES_TEXT_MAX = 127, /* of what stands in a command; an id and a value are shorter */
    WRITES_TIMEOUT_MIN_MS = 100,
    WRITES_TIMEOUT_MAX_MS = 30000
};

/* The running gateway; its functions are safe from any thread. */
struct writes_host {
    void *user;
    const struct config *(*config)(void *user);                  /* gives a reference */
    struct device *(*find_device)(void *user, const char *name); /* likewise, or NULL */
    int (*ask_device)(void *user, const char *device, const size_t *points, size_t count,
                      const char *value, int64_t deadline_ms,
                      void (*done)(void *arg, int error, const char *why, json_t *result),
                      void *arg); /* as in struct api_host */
};

/* What stands in a request; texts are copied. */
struct write_command {
    const char *id; /* chosen by the client, NULL: none */
    const char *device, *point;
    const char *value;  /* a decimal number in scaled units */
    const char *who;    /* asks, for the record */
    int64_t timeout_ms; /* until then the write must have begun */
    int64_t expires_ms; /* and until then, UTC; 0: no such bound */
    /* The last word of `who` on this point, whatever it said before: an id that came before is
     * never executed again, a lower order than the last one's neither. Needs an id. */
    bool standing;
    bool afar; /* it came through an uplink */
    int64_t order;
};

/* Reads what the store remembers and reports what was left open; the pipeline need not run yet. */
must_check int writes_create(struct store *store, struct pipeline *pipeline,
                             const struct writes_host *host, struct writes **ret_writes);
/* After the pipeline's end: all commands have been answered. Takes NULL. */
void writes_destroy(struct writes *writes);

/* A record that comes back out of a store that was set aside (salvage.h); one that is here already
 * is left alone. Pipeline thread. -EBADMSG, -ENOSPC: it is lost, or nobody can say that it is
 * right; another error: not now. */
must_check int writes_take_over(void *writes, const void *bytes, size_t len);

/* `done` is called once with an HTTP status and a JSON body; it may take the body's memory. */
void writes_execute(struct writes *writes, const struct write_command *command,
                    void (*done)(void *arg, int status, struct buffer *body), void *arg);
