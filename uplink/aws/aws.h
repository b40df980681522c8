/* aws.h - what all types for AWS share: their keys, the transport that signs, and what the error
 * types mean.
 *
 * The transport wraps transport_http. It gets credentials and the discovered endpoint before it
 * lets requests go, signs each attempt anew (the body stays the same to the byte), learns the clock
 * skew from the replies' Date, and sends the chunks of a request one after the other. As every
 * transport it belongs to one sender's thread. */
#pragma once

#include "uplink/aws/credentials.h"
#include "uplink/transport/transport.h"
#include "uplink/uplink.h"

#include <jansson.h>

/* First member of the settings of every type that uses it. */
struct aws_settings {
    struct transport_settings transport; /* url: `endpoint`, NULL: the service's own in `region` */
    const char *region, *credentials, *thing;
};

struct aws_service {
    const char *signing_name; /* required */
    const char *host;         /* required: "kinesis" of kinesis.REGION.amazonaws.com */
    /* Optional: the header line of a request that tells the endpoint for all others. */
    const char *discovery_target;
    const char *content_type; /* required with discovery_target */
    /* A body is lines, each a request of its own, and the reply a JSON array of theirs. It ends at
     * the first that fails, {"failed":STATUS,"body":"what it said"}; a failure of the very first
     * one is handed on as it is. */
    bool chunked;
    bool path_as_is; /* struct sigv4_request */
};

enum {
    AWS_DISCOVERY_MIN_S = 60,                 /* an endpoint is kept at least that long */
    AWS_REPLIES_MAX = TRANSPORT_BODY_MAX * 4, /* bytes of the replies to chunks together */
    AWS_CREDENTIALS_REREAD_MS = 60000,        /* a file is read again after that */
    AWS_REFRESH_BEFORE_MS = 300000,           /* credentials that expire: this long before */
};

/* For the transports of the types: `create` with their service, then these. */
must_check int aws_transport_create(const struct aws_service *service,
                                    const struct aws_settings *settings, const char *gateway,
                                    size_t parallel, void **ret_state);
void aws_transport_destroy(void *state);
int aws_transport_send(void *state, const struct uplink_request *request,
                       void (*done)(void *user, const struct uplink_reply *reply), void *user);
int aws_transport_run(void *state, int wake_fd, int64_t timeout_ms);
uint64_t aws_transport_bytes_sent(const void *state);
void aws_transport_warning(const void *state, char *words, size_t size);

#define AWS_TRANSPORT(name_, create_)                                                              \
    {                                                                                              \
        .name = name_, .create = create_, .destroy = aws_transport_destroy,                        \
        .send = aws_transport_send, .run = aws_transport_run,                                      \
        .bytes_sent = aws_transport_bytes_sent, .warning = aws_transport_warning                   \
    }

/* For config_table.check. */
void aws_settings_check(const struct aws_settings *settings, struct config_errors *errors);

/* As verdict_by_status(), with the `__type` of a JSON body first; ret_body holds the parsed body
 * (NULL: none), the caller's. */
enum verdict_class aws_verdict(const struct aws_settings *settings,
                               const struct uplink_reply *reply, struct uplink_verdict *ret_verdict,
                               json_t **ret_body);
/* judge() of a service that answers for each record: `entries` reads the body of a 2xx, false: it
 * does not account for the batch. */
void aws_judge(const struct aws_settings *settings, const struct batch *batch,
               const struct uplink_reply *reply,
               bool (*entries)(const struct batch *batch, const json_t *body,
                               struct uplink_verdict *verdict),
               struct uplink_verdict *ret_verdict);
/* Begins an encode(): an empty body of at most `max` bytes, the header line of the action. */
void aws_begin_request(struct uplink_request *request, size_t max, const char *target,
                       const char *content_type);
/* Whether the body's __type is that one, its namespace and tail left out. */
bool aws_error_is(const json_t *body, const char *type);
/* Its message, which some services write with a capital; "" when it has none. */
const char *aws_error_message(const json_t *body);

/* What an error of that type (len bytes) means, whatever the body's form; false: it is none that
 * all services have. */
bool aws_type_outcome(const struct aws_settings *settings, const char *type, size_t len,
                      const char *message, enum uplink_outcome *ret_outcome);

#define AWS_CONFIG_KEYS(type_, member)                                                             \
    {.name = "region",                                                                             \
     .type = CONFIG_TEXT,                                                                          \
     .offset = offsetof(type_, member.region),                                                     \
     .required = true,                                                                             \
     .example = "eu-west-1",                                                                       \
     .help = "AWS region"},                                                                        \
        {.name = "endpoint",                                                                       \
         .type = CONFIG_URL,                                                                       \
         .offset = offsetof(type_, member.transport.url),                                          \
         .example = "https://vpce-1.example.com",                                                  \
         .help = "another endpoint than the region's public one"},                                 \
        {.name = "credentials",                                                                    \
         .type = CONFIG_TEXT,                                                                      \
         .offset = offsetof(type_, member.credentials),                                            \
         .required = true,                                                                         \
         .example = "file:/etc/windrow/aws.ini",                                                   \
         .help = "file:PATH (an AWS credentials file), env:, or iot:URL of a role alias"},         \
    {                                                                                              \
        .name = "thing", .type = CONFIG_TEXT, .offset = offsetof(type_, member.thing),             \
        .example = "borssele-1", .help = "thing name told to the IoT credential provider"          \
    }
