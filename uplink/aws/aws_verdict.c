#include "uplink/aws/aws.h"
#include "uplink/verdict.h"

#include <string.h>

/* What an error type means; the status that carries it differs between services and pages of their
 * documentation. */
static const struct {
    const char *type;
    enum uplink_outcome outcome;
} types[] = {
    {"ThrottlingException", UPLINK_RETRY},
    {"Throttling", UPLINK_RETRY},
    {"ThrottledException", UPLINK_RETRY},
    {"RequestThrottled", UPLINK_RETRY},
    {"RequestThrottledException", UPLINK_RETRY},
    {"TooManyRequestsException", UPLINK_RETRY},
    {"ProvisionedThroughputExceededException", UPLINK_RETRY},
    {"RequestLimitExceeded", UPLINK_RETRY},
    {"LimitExceededException", UPLINK_RETRY},
    {"KMSThrottlingException", UPLINK_RETRY},
    {"KmsThrottled", UPLINK_RETRY},
    {"InternalServerException", UPLINK_RETRY},
    {"InternalServerError", UPLINK_RETRY},
    {"InternalFailure", UPLINK_RETRY},
    {"ServiceUnavailable", UPLINK_RETRY},
    {"ServiceUnavailableException", UPLINK_RETRY},
    {"ConflictException", UPLINK_RETRY},
    {"TransactionConflictException", UPLINK_RETRY},
    {"ReplicatedWriteConflictException", UPLINK_RETRY},
    {"InvalidEndpointException", UPLINK_RETRY},
    {"RequestTimeTooSkewed", UPLINK_RETRY},
    {"RequestExpired", UPLINK_RETRY},
    {"AccessDeniedException", UPLINK_HOLD},
    {"AccessDenied", UPLINK_HOLD},
    {"UnrecognizedClientException", UPLINK_HOLD},
    {"InvalidClientTokenId", UPLINK_HOLD},
    {"InvalidSignatureException", UPLINK_HOLD},
    {"SignatureDoesNotMatch", UPLINK_HOLD},
    {"IncompleteSignatureException", UPLINK_HOLD},
    {"IncompleteSignature", UPLINK_HOLD},
    {"MissingAuthenticationTokenException", UPLINK_HOLD},
    {"MissingAuthenticationToken", UPLINK_HOLD},
    {"NotAuthorized", UPLINK_HOLD},
    {"OptInRequired", UPLINK_HOLD},
    {"SubscriptionRequiredException", UPLINK_HOLD},
    {"ServiceQuotaExceededException", UPLINK_HOLD},
    {"ResourceNotFoundException", UPLINK_HOLD},
    {"QueueDoesNotExist", UPLINK_HOLD},
    {"AWS.SimpleQueueService.NonExistentQueue", UPLINK_HOLD},
    {"UnknownOperationException", UPLINK_HOLD},
    {"KMSAccessDeniedException", UPLINK_HOLD},
    {"KMSDisabledException", UPLINK_HOLD},
    {"KMSInvalidStateException", UPLINK_HOLD},
    {"KMSNotFoundException", UPLINK_HOLD},
    {"KMSOptInRequired", UPLINK_HOLD},
    {"CredentialsMissing", UPLINK_HOLD}, /* aws_transport.c's own */
    {"BatchRequestTooLong", UPLINK_SPLIT},
    {"AWS.SimpleQueueService.BatchRequestTooLong", UPLINK_SPLIT},
    {"RequestEntityTooLargeException", UPLINK_SPLIT},
};

/* "com.amazonaws.timestream.v20181101#ThrottlingException:http://..." -> its middle. */
static size_t error_type(const json_t *body, const char **ret_type)
{
    const char *type = json_string_value(json_object_get(body, "__type"));
    if (type == NULL) {
        return 0;
    }
    const char *hash = strrchr(type, '#');
    *ret_type = hash != NULL ? hash + 1 : type;
    return strcspn(*ret_type, ":");
}

static bool is_type(const char *type, size_t len, const char *name)
{
    return len == strlen(name) && memcmp(type, name, len) == 0;
}

bool aws_error_is(const json_t *body, const char *type)
{
    const char *given = NULL;
    size_t len = error_type(body, &given);
    return len > 0 && is_type(given, len, type);
}

const char *aws_error_message(const json_t *body)
{
    const char *message = json_string_value(json_object_get(body, "message"));
    message = message != NULL ? message : json_string_value(json_object_get(body, "Message"));
    return message != NULL ? message : "";
}

/* Keys that have run out are renewed where a provider renews them; a file must be mended. */
static enum uplink_outcome expired(const struct aws_settings *settings)
{
    return strncmp(settings->credentials, "iot:", 4) == 0 ? UPLINK_RETRY : UPLINK_HOLD;
}

bool aws_type_outcome(const struct aws_settings *settings, const char *type, size_t len,
                      const char *message, enum uplink_outcome *ret_outcome)
{
    if (is_type(type, len, "ExpiredTokenException") || is_type(type, len, "ExpiredToken")) {
        *ret_outcome = expired(settings);
        return true;
    }
    /* A signature from a clock that is wrong; the next one is made with the clock of the reply. */
    if (is_type(type, len, "InvalidSignatureException") &&
        (strstr(message, "Signature expired") != NULL ||
         strstr(message, "not yet current") != NULL)) {
        *ret_outcome = UPLINK_RETRY;
        return true;
    }
    for (size_t i = 0; i < ARRAY_SIZE(types); i++) {
        if (is_type(type, len, types[i].type)) {
            *ret_outcome = types[i].outcome;
            return true;
        }
    }
    return false;
}

enum verdict_class aws_verdict(const struct aws_settings *settings,
                               const struct uplink_reply *reply, struct uplink_verdict *ret_verdict,
                               json_t **ret_body)
{
    *ret_body = NULL;
    enum verdict_class class_of = verdict_by_status(reply, ret_verdict);
    if (reply->status == 0) {
        return class_of;
    }
    *ret_body = json_loadb(reply->body, reply->len, 0, NULL);
    const char *type = NULL;
    size_t len = error_type(*ret_body, &type);
    enum uplink_outcome outcome;
    if (len == 0 || class_of == VERDICT_SUCCESS ||
        !aws_type_outcome(settings, type, len, aws_error_message(*ret_body), &outcome)) {
        return class_of;
    }
    char what[sizeof ret_verdict->why];
    snprintf(what, sizeof what, "%.*s (%d): %s", (int)(len < 60 ? len : 60), type, reply->status,
             aws_error_message(*ret_body));
    snprintf(ret_verdict->why, sizeof ret_verdict->why, "%s", what);
    ret_verdict->outcome = outcome;
    return VERDICT_MADE;
}

void aws_judge(const struct aws_settings *settings, const struct batch *batch,
               const struct uplink_reply *reply,
               bool (*entries)(const struct batch *batch, const json_t *body,
                               struct uplink_verdict *verdict),
               struct uplink_verdict *ret_verdict)
{
    json_t *body = NULL;
    enum verdict_class class_of = aws_verdict(settings, reply, ret_verdict, &body);
    if (class_of == VERDICT_BAD_DATA) {
        verdict_bad_data(batch, reply, ret_verdict);
    } else if (class_of == VERDICT_SUCCESS && !entries(batch, body, ret_verdict)) {
        verdict_say(ret_verdict, UPLINK_RETRY, reply,
                    "the reply does not account for the records: a captive portal?");
    }
    json_decref(body);
}
