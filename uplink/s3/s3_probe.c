#include "uplink/aws/aws_probe.h"
#include "uplink/s3/s3.h"

/* Nothing of a bucket may be asked for by one who may only put objects: what is not tried by
 * --write shows with the first batch. */
static bool target(const void *settings, struct probe_target *ret_target)
{
    const struct s3_settings *s = settings;
    char url[AWS_URL_MAX];
    return s3_url(s, url) == 0 && probe_target_of_url(&s->aws.transport, url, ret_target);
}

const struct uplink_probe s3_probe = {.before = aws_probe_credentials, .target = target};
