/* aws_parts.h - the pure parts of the transport for AWS: addresses, replies, what is signed. */
#pragma once

#include "uplink/aws/aws.h"

enum { AWS_URL_MAX = 320 };

/* "https://HOST.REGION.amazonaws.com", for regions of China ".cn" more. -EINVAL: no region. */
must_check int aws_service_url(const char *host, const char *region, char ret_url[AWS_URL_MAX]);

/* Reads {"Endpoints":[{"Address":"...","CachePeriodInMinutes":1440}]} to a URL and minutes. An
 * address is a host name with or without port; a scheme is taken when it is there (stand-ins).
 * -EBADMSG. */
must_check int aws_parse_endpoints(const char *text, size_t len, char ret_url[AWS_URL_MAX],
                                   int64_t *ret_minutes);

struct aws_signing {
    const struct aws_credentials *credentials;
    const char *region, *service, *url;
    int64_t time_ms; /* UTC, skew corrected */
    bool path_as_is; /* struct sigv4_request */
};

/* Appends the lines of the signature to request->headers. What is signed is what libcurl will
 * send: Host as in the URL (without a default port), Content-Type, the request's own headers. */
must_check int aws_sign_request(const struct aws_signing *signing, struct uplink_request *request);
