/* sink_aws.h - the sink as Amazon Timestream: DescribeEndpoints and WriteRecords, each only with
 * the right signature (`--aws-key ID:SECRET`), its errors in the service's form.
 *
 * One thread. The signature is checked with the signer of uplink/aws, which the tests hold against
 * botocore: of the headers that the client says it has signed, over this body, at most five minutes
 * old. */
#pragma once

#include "uplink/sink/sink_handler.h"

enum { SINK_AWS_SKEW_MS = 5 * 60 * 1000, SINK_AWS_ERROR_SIZE = 200 };

struct sink_aws_key {
    char id[128], secret[128];
};
/* "ID:SECRET"; -EINVAL. */
must_check int sink_aws_key_parse(const char *text, struct sink_aws_key *ret_key);

struct sink_aws_refusal {
    int status;
    const char *type; /* "InvalidSignatureException" */
    char message[SINK_AWS_ERROR_SIZE];
};
/* Pure. -EACCES: not signed by that key; ret_refusal is what the service says then. -ENOMEM. */
must_check int sink_aws_check(const struct sink_aws_key *key, const struct sink_request *request,
                              int64_t now_ms, struct sink_aws_refusal *ret_refusal);

/* POST /: answers in the service's form. ret_rejected: records refused for good. */
void sink_aws_post(const struct sink_aws_key *key, struct sink_db *db,
                   const struct sink_options *options, const struct sink_request *request,
                   struct sink_reply *reply, uint64_t *ret_rejected);
