/* shadow_doc.h - the documents of an AWS IoT shadow: what is reported, what the service says.
 *
 * Pure, any thread. The service bounds a document at 8 KB and its nesting at 6 levels; an update
 * changes the members that it names and takes away those it names as null. */
#pragma once

#include "uplink/host.h"
#include "uplink/mqtt/statuses.h"

#include <jansson.h>

enum {
    SHADOW_DOCUMENT_MAX = 8 * 1024, /* desired and reported, without metadata */
    SHADOW_UPDATE_MAX = 8 * 1024,
    SHADOW_RESERVE = 256,
    SHADOW_DESIRED_ROOM = 2 * 1024, /* left to those who desire something */
    SHADOW_SLOTS_MAX = 32,          /* desired values that are followed at a time */
};

enum shadow_slot_state { SLOT_FREE, SLOT_WAITING, SLOT_UNDER_WAY, SLOT_ENDED };

/* A desired value and what became of it. */
struct shadow_slot {
    enum shadow_slot_state state;
    char device[WRITE_NAME_MAX + 1], point[WRITE_NAME_MAX + 1], value[WRITE_VALUE_MAX + 1];
    int64_t ordered_s; /* the service's timestamp */
    uint64_t tag, seen;
    int64_t retry_ms;                    /* monotonic */
    char outcome[12], code[24], why[96]; /* when ended; code "": none */
    char read_back[UPLINK_VIEW_VALUE];   /* JSON, "": not known */
    int64_t done_ms;                     /* UTC */
};

/* What a report is made of; shadow_doc.c, pure. */
struct shadow_facts {
    const char *gateway;
    const struct uplink_view *view;
    const struct mqtt_statuses *statuses; /* of the view's devices */
    const struct shadow_slot *slots;      /* SHADOW_SLOTS_MAX */
    size_t left_out;                      /* desired values beyond the slots */
};
/* The reported section in at most `budget` bytes: the gateway, counts and uplinks first, then the
 * writable points and what came of desired values, then lost devices, then the others; what does
 * not fit is counted in devices_left_out. NULL: no memory. */
json_t *shadow_report(const struct shadow_facts *facts, size_t budget);
/* What turns `known` into `want` as an update does: changed members, null for those that go. */
json_t *shadow_patch(const json_t *known, const json_t *want);
/* The members of `known` that are in `want` as well. */
json_t *shadow_common(const json_t *known, const json_t *want);
/* Whether they differ by more than counters and times. */
bool shadow_differs(const json_t *known, const json_t *want);
size_t shadow_size(const json_t *json);

/* A message of the service; shadow_read.c, pure. */
struct shadow_message {
    json_t *root;                     /* owns what follows */
    int64_t version;                  /* -1: none */
    int code;                         /* of a refusal */
    const char *text, *token;         /* "" when absent */
    const json_t *reported, *desired; /* NULL when absent */
    const json_t *points, *stamps;    /* what differs, by device and point, and its metadata */
};
enum shadow_kind {
    SHADOW_GET_ACCEPTED,
    SHADOW_GET_REJECTED,
    SHADOW_UPDATE_ACCEPTED,
    SHADOW_UPDATE_REJECTED,
    SHADOW_UPDATE_DELTA,
    SHADOW_KINDS
};
/* -EBADMSG: it is not what the service sends. */
must_check int shadow_read(enum shadow_kind kind, const void *payload, size_t len,
                           struct shadow_message *ret_message);
void shadow_message_finish(struct shadow_message *message);
/* A desired value as text (a decimal number); "": it is no number. */
void shadow_value(const json_t *value, char text[WRITE_VALUE_MAX + 1]);
