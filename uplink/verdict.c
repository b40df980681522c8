#include "uplink/verdict.h"

#include <errno.h>
#include <string.h>

/* Statuses that say "your configuration is wrong": nothing is thrown away for them. */
static const struct {
    int status;
    const char *why;
} holds[] = {
    {401, "the endpoint does not accept the credentials (401): token_file, cert_file"},
    {402, "the endpoint wants to be paid, or its quota is used up (402)"},
    {403, "the endpoint forbids this to us (403): rights of the token or certificate"},
    {404, "there is nothing at that address (404): check url"},
    {405, "the address does not take POST (405): check url"},
    {406, "the endpoint cannot answer in JSON (406): check url"},
    {407, "the proxy wants credentials (407)"},
    {410, "the address was given up (410): check url"},
    {411, "something on the way does not pass the body on (411)"},
    {414, "the address is too long (414): check url"},
    {415, "the endpoint does not take this format or compression (415): format, compress"},
    {417, "something on the way cannot handle the request (417)"},
    {426, "the endpoint wants another protocol (426)"},
    {428, "the endpoint wants conditional requests (428)"},
    {431, "the endpoint finds the headers too large (431): is the token right?"},
    {451, "the address is blocked for legal reasons (451)"},
    {501, "the endpoint does not know this kind of request (501): check url"},
    {511, "the network wants a login first (511): a captive portal"},
};

static const char *hold_words(int status)
{
    for (size_t i = 0; i < ARRAY_SIZE(holds); i++) {
        if (holds[i].status == status) {
            return holds[i].why;
        }
    }
    return NULL;
}

/* nginx answers a missing or foreign client certificate, and plain HTTP on its TLS port, with a
 * page under 400, the status of bad data; a word of its title tells them apart. */
static const char *not_our_data(const struct uplink_reply *reply)
{
    if (reply->status != 400 || reply->len == 0) {
        return NULL;
    }
    if (memmem(reply->body, reply->len, "SSL certificate", 15) != NULL) {
        return "the endpoint wants a client certificate it knows (400): cert_file, key_file";
    }
    if (memmem(reply->body, reply->len, "to HTTPS port", 13) != NULL) {
        return "the endpoint wants https:// (400): check url";
    }
    return NULL;
}

static bool is_retry(const struct uplink_reply *reply)
{
    int status = reply->status;
    /* 409 with Retry-After: the same request is being worked on (Idempotency-Key draft, 2.6). */
    return status == 408 || status == 421 || status == 423 || status == 424 || status == 425 ||
           status == 429 || (status == 409 && reply->retry_after_ms >= 0) || status < 200 ||
           status >= 500;
}

/* The first words of a body that is text, for a technician to recognise who answered. */
static void excerpt(const struct uplink_reply *reply, char *text, size_t size)
{
    size_t n = 0;
    bool blank = true;
    for (size_t i = 0; i < reply->len && n + 1 < size; i++) {
        unsigned char c = (unsigned char)reply->body[i];
        if (c <= ' ' || c == 0x7f) {
            if (!blank) {
                text[n++] = ' ';
            }
            blank = true;
        } else {
            text[n++] = c < 0x80 ? (char)c : '?';
            blank = false;
        }
    }
    text[n] = '\0';
}

void verdict_say(struct uplink_verdict *verdict, enum uplink_outcome outcome,
                 const struct uplink_reply *reply, const char *what)
{
    char body[80];
    excerpt(reply, body, sizeof body);
    snprintf(verdict->why, sizeof verdict->why, body[0] != '\0' ? "%s; it said: %s" : "%s%s", what,
             body);
    verdict->outcome = outcome;
}

static void say_retry(struct uplink_verdict *verdict, const struct uplink_reply *reply)
{
    char what[80];
    const char *kind = reply->status == 429                          ? "asks us to slow down"
                       : reply->status == 408                        ? "waited too long for us"
                       : reply->status >= 500 && reply->status < 600 ? "is in trouble"
                                                                     : "cannot take it now";
    snprintf(what, sizeof what, "the endpoint %s (%d)", kind, reply->status);
    verdict_say(verdict, UPLINK_RETRY, reply, what);
}

static bool say_hold(struct uplink_verdict *verdict, const struct uplink_reply *reply)
{
    if (reply->status >= 300 && reply->status < 400) {
        verdict->outcome = UPLINK_HOLD;
        snprintf(verdict->why, sizeof verdict->why,
                 "the endpoint sends us elsewhere (%d), which is not followed: check url",
                 reply->status);
        return true;
    }
    const char *words = hold_words(reply->status);
    words = words != NULL ? words : not_our_data(reply);
    if (words != NULL) {
        verdict_say(verdict, UPLINK_HOLD, reply, words);
    }
    return words != NULL;
}

enum verdict_class verdict_by_status(const struct uplink_reply *reply,
                                     struct uplink_verdict *ret_verdict)
{
    *ret_verdict = (struct uplink_verdict){.outcome = UPLINK_RETRY,
                                           .retry_after_ms = reply->retry_after_ms};
    if (reply->status == 0) {
        snprintf(ret_verdict->why, sizeof ret_verdict->why, "%s", reply->error);
        return VERDICT_MADE;
    }
    if (reply->status >= 200 && reply->status < 300) {
        return VERDICT_SUCCESS;
    }
    if (say_hold(ret_verdict, reply)) {
        return VERDICT_MADE;
    }
    if (reply->status == 413) {
        verdict_say(ret_verdict, UPLINK_SPLIT, reply,
                    "the endpoint finds the request too large (413)");
        return VERDICT_MADE;
    }
    if (is_retry(reply)) {
        say_retry(ret_verdict, reply);
        return VERDICT_MADE;
    }
    return VERDICT_BAD_DATA;
}

void verdict_bad_data(const struct batch *batch, const struct uplink_reply *reply,
                      struct uplink_verdict *verdict)
{
    char what[60];
    snprintf(what, sizeof what, "the endpoint refuses the data (%d)", reply->status);
    verdict_say(verdict, batch->count > 1 ? UPLINK_SPLIT : UPLINK_REJECTED, reply, what);
}

static int note(struct uplink_verdict *verdict, const struct batch *batch,
                struct uplink_rejected entry)
{
    if (verdict->rejected == NULL) {
        verdict->rejected = calloc(batch->count, sizeof *verdict->rejected);
        if (verdict->rejected == NULL) {
            return -ENOMEM;
        }
    }
    for (size_t i = 0; i < verdict->rejected_count; i++) {
        struct uplink_rejected *known = &verdict->rejected[i];
        if (known->record == entry.record) {
            if (known->again && !entry.again) {
                *known = entry; /* refused for good in one part: the rest of it does not help */
            }
            return 0;
        }
    }
    verdict->rejected[verdict->rejected_count++] = entry;
    return 0;
}

static struct uplink_rejected entry_of(size_t record, bool again, const char *why, size_t len)
{
    struct uplink_rejected entry = {.record = record, .again = again};
    size_t max = sizeof entry.why;
    snprintf(entry.why, max, "%.*s", (int)(len < max ? len : max), why);
    return entry;
}

int verdict_reject(struct uplink_verdict *verdict, const struct batch *batch, size_t record,
                   const char *why, size_t len)
{
    return note(verdict, batch, entry_of(record, false, why, len));
}

int verdict_put_off(struct uplink_verdict *verdict, const struct batch *batch, size_t record,
                    const char *why, size_t len)
{
    return note(verdict, batch, entry_of(record, true, why, len));
}

void verdict_delivered(struct uplink_verdict *verdict, const struct batch *batch)
{
    size_t again = 0;
    const char *refused = NULL, *put_off = NULL;
    for (size_t i = 0; i < verdict->rejected_count; i++) {
        const struct uplink_rejected *one = &verdict->rejected[i];
        again += one->again;
        refused = one->again || refused != NULL ? refused : one->why;
        put_off = one->again && put_off == NULL ? one->why : put_off;
    }
    verdict->outcome = UPLINK_DELIVERED;
    if (refused != NULL) {
        snprintf(verdict->why, sizeof verdict->why, "refused %zu of %zu records: %s",
                 verdict->rejected_count - again, batch->count, refused);
    } else if (again > 0) {
        snprintf(verdict->why, sizeof verdict->why, "wants %zu of %zu records once more: %s", again,
                 batch->count, put_off);
    }
    if (again == batch->count) {
        verdict->outcome = UPLINK_RETRY;
        verdict_forget(verdict);
    }
}

void verdict_forget(struct uplink_verdict *verdict)
{
    free(verdict->rejected);
    verdict->rejected = NULL;
    verdict->rejected_count = 0;
}
